"""The root causes job, see `causal_spark.job`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.config import ColumnsConfig, JobConfig, Strict
from causal_spark.engine.build_nodes import CHANGED, EVENT, NORMAL
from causal_spark.engine.node_frames import by_condition
from causal_spark.engine.root_causes import RootCauseWork
from causal_spark.engine.source import Format, read_source
from causal_spark.engine.work import GroupSize, Work
from causal_spark.errors import ConfigError, InputError, did_you_mean
from causal_spark.job import SHOWN, Job, shown
from causal_spark.root_cause.outliers import Tail
from causal_spark.root_cause.types import MechanismKind
from causal_spark.root_causes import DEFAULTS, RootCauses, checked_graph

#: Nodes of an event that are printed.
_SHOWN_NODES = 3


class NodeColumnsConfig(ColumnsConfig):
    """Which column plays which role; nodes are the graph's."""

    event_id: str | None = None
    period: str | None = None
    discrete: tuple[str, ...] = ()


class RowsConfig(Strict):
    """Which rows are what: SQL conditions on the input's columns. A row may be several of these."""

    normal: str
    events: str | None = None
    changed: str | None = None


class GraphTableConfig(Strict):
    """A table with a row per edge."""

    location: str
    format: Format = "delta"
    cause: str = "cause"
    effect: str = "effect"


class RootCausesConfig(JobConfig):
    """Everything `jobs/root_causes.py` can be told; the shipped file documents each key."""

    columns: NodeColumnsConfig
    rows: RowsConfig
    graph: tuple[tuple[str, str], ...] | GraphTableConfig
    target: str
    mechanism: MechanismKind = DEFAULTS.mechanism
    mechanisms: dict[str, MechanismKind] = Field(default_factory=dict)
    tail: Tail = DEFAULTS.tail
    min_score: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEFAULTS.min_score
    functionals: tuple[str, ...] = DEFAULTS.functionals
    draws: Annotated[int, Field(ge=100)] = DEFAULTS.n_draws
    permutations: Annotated[int, Field(ge=1)] = DEFAULTS.n_pairs
    replicates: Annotated[int, Field(ge=0)] = DEFAULTS.n_refits

    def check(self) -> None:
        """See `JobConfig`."""
        if not isinstance(self.graph, GraphTableConfig):
            self.edges_checked()
        if self.rows.events is not None and self.columns.event_id is None:
            raise ConfigError("rows.events names events, but nothing tells them apart.", "Set columns.event_id.")

    def edges_checked(self) -> tuple[tuple[str, str], ...]:
        """Edges of a graph that was read. Raises `ConfigError` for one that cannot be."""
        if isinstance(self.graph, GraphTableConfig):
            raise TypeError("The graph is still a table.")
        _job_of(self, self.graph).settings()
        return self.graph


def _job_of(config: RootCausesConfig, edges: Sequence[tuple[str, str]]) -> RootCauses:
    return RootCauses(
        graph=edges,
        target=config.target,
        mechanism=config.mechanism,
        mechanisms=config.mechanisms,
        discrete=config.columns.discrete,
        tail=config.tail,
        min_score=config.min_score,
        functionals=config.functionals,
        draws=config.draws,
        permutations=config.permutations,
        replicates=config.replicates,
        confidence_level=config.confidence_level,
        seed=config.seed,
        worker_memory=config.worker_memory,
    )


def _resolve(spark: SparkSession, config: RootCausesConfig) -> RootCausesConfig:
    """The configuration with the edges of its graph: they are part of what makes two runs the same."""
    if not isinstance(config.graph, GraphTableConfig):
        return config
    table = config.graph
    edges = read_source(spark, table.location, table.format, {}).data
    for role, name in (("cause", table.cause), ("effect", table.effect)):
        if name not in edges.columns:
            raise InputError(f"The graph has no column {name!r} ({role}).", did_you_mean(name, edges.columns))
    pairs = edges.select(F.col(table.cause).cast("string"), F.col(table.effect).cast("string")).collect()
    found = config.model_copy(update={"graph": tuple(sorted((str(row[0]), str(row[1])) for row in pairs))})
    found.edges_checked()
    return found


def _rows(config: RootCausesConfig, data: DataFrame) -> DataFrame:
    """Each row of the input once for everything that it is."""
    nodes = checked_graph(config.edges_checked(), config.target).nodes
    conditions = {NORMAL: config.rows.normal, EVENT: config.rows.events, CHANGED: config.rows.changed}
    marks = {EVENT: config.columns.event_id, CHANGED: config.columns.period}
    asked = {role: condition for role, condition in conditions.items() if condition is not None}
    return by_condition(data, [*config.columns.groups, *nodes], asked, marks)


def _work(config: RootCausesConfig, data: DataFrame) -> RootCauseWork:
    return _job_of(config, config.edges_checked()).plan_work(data, config.columns.groups)


def _measures() -> Mapping[str, Column]:
    return {
        "events": F.count_if(F.col("_role") == EVENT),
        "changed_rows": F.count_if(F.col("_role") == CHANGED),
    }


def _sizes(work: Work, size: GroupSize) -> Mapping[str, Any]:
    del work
    return size.measures


def _notes(config: RootCausesConfig) -> Sequence[str]:
    edges = config.edges_checked()
    return [f"Target {config.target}, {len(edges)} edges, {config.mechanism} mechanisms"]


def _report(table: Callable[[str], DataFrame]) -> str:
    told = []
    causes = table("root_causes")
    keys = causes.columns[2 : causes.columns.index("event_id")]
    some = causes.where(F.col("place") <= _SHOWN_NODES).orderBy(
        F.col("outlier_score").desc(), *keys, "event_id", "place"
    )
    rows = some.limit(SHOWN + 1).toPandas()
    if len(rows):
        columns = ["event_id", "outlier_score", "node", "contribution", "conf_low", "conf_high", "residual_z"]
        told += ["What made the most extreme events extreme (contributions sum to the score):"]
        told += [shown(rows[[*keys, *columns]])]
    changes = table("distribution_changes").where(F.col("place") <= _SHOWN_NODES)
    order = (*keys, "period", "functional", "place")
    moved = changes.orderBy(*order).limit(SHOWN + 1).toPandas()
    if len(moved):
        columns = ["period", "functional", "node", "contribution", "conf_low", "conf_high", "observed_change"]
        told += ["\nWhich mechanisms changed the target:", shown(moved[[*keys, *columns]])]
    intrinsic = table("intrinsic_contributions").where(F.col("place") <= _SHOWN_NODES).orderBy(*keys, "place")
    always = intrinsic.limit(SHOWN + 1).toPandas()
    if len(always):
        columns = ["node", "contribution", "variance_share"]
        told += ["\nWhose noise makes the target vary in normal times:", shown(always[[*keys, *columns]])]
    refuted = table("graph_diagnostics").where("refuted").orderBy(*keys, "node").limit(SHOWN + 1).toPandas()
    if len(refuted):
        columns = ["node", "mechanism", "fit", "parent_dependence", "other_node", "other_dependence"]
        told += ["\nThe rows refute the graph or its mechanisms here:", shown(refuted[[*keys, *columns]])]
    return "\n".join(told) if told else "Nothing could be explained."


ROOT_CAUSES = Job(
    name="root_causes",
    description="Which node of a causal graph made outliers extreme or a distribution change, into Delta.",
    config=RootCausesConfig,
    work=_work,
    measures=_measures,
    sizes=_sizes,
    notes=_notes,
    report=_report,
    shown="root_causes",
    resolve=_resolve,
    rows=_rows,
)
"""The job."""
