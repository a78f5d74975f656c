"""`RootCauses`: which node of a causal graph made an outlier extreme or a distribution change, from pandas or Spark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from causal_spark.engine.build_nodes import CHANGED, EVENT, NORMAL
from causal_spark.engine.columns import NodeRoles, node_columns
from causal_spark.engine.keys import canonical_json
from causal_spark.engine.node_frames import EVENT_ID, PERIOD, ROLE, stacked
from causal_spark.engine.root_causes import RootCauseWork
from causal_spark.errors import ConfigError, InputError, did_you_mean
from causal_spark.results import Frame, Result, fit_frame, memory_bytes, require_frame
from causal_spark.root_cause.analysis import RootCauseOptions, functional_of
from causal_spark.root_cause.graph import CausalGraph, causal_graph
from causal_spark.root_cause.outliers import Tail
from causal_spark.root_cause.types import MechanismKind

DEFAULTS = RootCauseOptions()


@dataclass(frozen=True)
class RootCauseResult(Result):
    """Root causes of a run, see `Result`."""

    pictures: ClassVar[Mapping[str, str]] = {
        "root_cause_graph": "root_causes",
        "distribution_changes": "distribution_changes",
    }

    def _told(self, kind: str) -> dict[str, Any]:
        told = json.loads(self._config_json)
        edges = [(cause, effect) for cause, effect in told["graph"]]
        return {"edges": edges} if kind == "root_cause_graph" else {"target": told["target"]}

    @property
    def root_causes(self) -> Frame:
        """One row per group, event and node: outlier score, contribution to it, interval, place, residual z."""
        return self._run.frame("root_causes")

    @property
    def distribution_changes(self) -> Frame:
        """What each node's mechanism contributed to the change of the target, by period and functional."""
        return self._run.frame("distribution_changes")

    @property
    def intrinsic_contributions(self) -> Frame:
        """What each node's noise contributes to the variance of the target in normal times."""
        return self._run.frame("intrinsic_contributions")

    @property
    def graph_diagnostics(self) -> Frame:
        """How each mechanism fits, and whether the rows refute the graph there."""
        return self._run.frame("graph_diagnostics")


@dataclass(frozen=True)
class RootCauses:
    """Which mechanisms of a causal graph made a target's outliers extreme, or its distribution change.

    graph: edges (cause, effect) between columns. target: the node to explain, a number. mechanism: ``additive``
    (splines where they pay, else lines) or ``linear``; mechanisms: the same for single nodes. discrete: nodes whose
    numbers are labels; text and booleans always are. tail: which values of the target are extreme: two_sided, upper or
    lower. min_score: events with a smaller outlier score (minus the log probability of a target as extreme) are left
    out. functionals: of the target, whose change is explained: mean, variance, quantile:<level>, kl. draws: of noise.
    permutations: random orders and their reverses where there are more than 12 nodes. replicates: refits behind
    standard errors; 0 for none. confidence_level: of every interval. seed: of everything random. worker_memory: GiB
    one task may use; None measures it where groups are large.

    >>> found = RootCauses(graph=[("load", "latency"), ("cache_misses", "latency")], target="latency").fit(
    ...     last_month, incidents, event_id="incident", groups=["region"]
    ... )
    >>> found.root_causes
    """

    graph: Sequence[tuple[str, str]]
    target: str
    mechanism: MechanismKind = DEFAULTS.mechanism
    mechanisms: Mapping[str, MechanismKind] = field(default_factory=dict)
    discrete: Sequence[str] = ()
    tail: Tail = DEFAULTS.tail
    min_score: float = DEFAULTS.min_score
    functionals: Sequence[str] = DEFAULTS.functionals
    draws: int = DEFAULTS.n_draws
    permutations: int = DEFAULTS.n_pairs
    replicates: int = DEFAULTS.n_refits
    confidence_level: float = 0.95
    seed: int = 0
    worker_memory: float | None = None

    def fit(
        self,
        normal: Frame,
        events: Frame | None = None,
        *,
        changed: Frame | None = None,
        event_id: str | None = None,
        period: str | None = None,
        groups: Sequence[str] = (),
        work_location: str | None = None,
    ) -> RootCauseResult:
        """Learn the mechanisms of every group from its normal rows, and explain events and changes with them.

        normal, events, changed: frames of one kind with the columns of the graph. events: rows to explain one by one,
        told apart by ``event_id``; without them, and with ``min_score``, normal rows are events themselves where they
        are extreme enough. changed: rows whose distribution is compared with that of the normal ones, all together or
        by ``period``. Groups that cannot be analysed end in ``.failures``. work_location: for Spark frames, a folder
        all workers can write to (default: a temporary folder of this machine; required on Spark Connect and on
        clusters).
        Raises `InputError` for columns that cannot serve, `EmptyInputError`, `ConfigError` for settings that are not
        valid.
        """
        require_frame(normal)
        frames: dict[str, Frame] = {NORMAL: normal}
        if events is not None:
            frames[EVENT] = events
        elif self.min_score > 0 and event_id is not None:
            frames[EVENT] = normal
        if changed is not None:
            frames[CHANGED] = changed
        if EVENT in frames and event_id is None:
            raise ConfigError("There are events, but nothing tells them apart.", "Set event_id to a column of theirs.")
        marks = {EVENT: event_id, CHANGED: period}
        data = stacked(frames, [*groups, *self.settings()[0].nodes], marks)
        work = self.plan_work(data, groups)
        return fit_frame(data, work, self._identity(work), work_location, RootCauseResult)

    def plan_work(self, data: Frame, groups: Sequence[str]) -> RootCauseWork:
        """The engine's description of this fit, its columns and settings checked.

        data: rows of all kinds, see `causal_spark.engine.node_frames`. Raises as `fit` does.
        """
        memory_limit = memory_bytes(self.confidence_level, self.seed, self.worker_memory)
        graph, options = self.settings()
        columns = node_columns(data, NodeRoles(graph.nodes, ROLE, EVENT_ID, PERIOD, groups, self.discrete))
        if any(column.source == self.target and column.type == "STRING" for column in columns.all):
            raise InputError(
                f"Column {self.target!r} (target) is discrete.", "A target is a number: cast it to a double."
            )
        return RootCauseWork(
            columns=columns,
            graph=graph,
            target=self.target,
            options=options,
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            memory_limit=memory_limit,
        )

    def settings(self) -> tuple[CausalGraph, RootCauseOptions]:
        """The graph, and how it is used. Raises `ConfigError` for what is not valid."""
        graph = checked_graph(self.graph, self.target)
        for name in (*self.discrete, *self.mechanisms):
            if name not in graph.nodes:
                raise ConfigError(f"{name!r} is no node of the graph.", did_you_mean(name, graph.nodes))
        for kind in (self.mechanism, *self.mechanisms.values()):
            _one_of(kind, "mechanism", get_args(MechanismKind))
        _one_of(self.tail, "tail", get_args(Tail))
        if not 0 <= self.min_score < math.inf:
            raise ConfigError(f"min_score is {self.min_score}.", "It is not below 0: minus a log probability.")
        for name, least in (("draws", 100), ("permutations", 1), ("replicates", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}.", f"It is {least} or more.")
        for name in self.functionals:
            try:
                functional_of(name)
            except ValueError as error:
                raise ConfigError(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
        return graph, RootCauseOptions(
            self.mechanism,
            dict(self.mechanisms),
            self.tail,
            float(self.min_score),
            tuple(dict.fromkeys(self.functionals)),
            int(self.draws),
            int(self.permutations),
            int(self.replicates),
        )

    def _identity(self, work: RootCauseWork) -> str:
        return canonical_json(
            {
                "columns": {column.name: column.source for column in work.columns.all},
                "graph": [list(edge) for edge in self.graph],
                "target": self.target,
                "mechanism": self.mechanism,
                "mechanisms": dict(self.mechanisms),
                "tail": self.tail,
                "min_score": self.min_score,
                "functionals": list(self.functionals),
                "draws": self.draws,
                "permutations": self.permutations,
                "replicates": self.replicates,
                "confidence_level": self.confidence_level,
                "seed": int(self.seed),
                "worker_memory": self.worker_memory,
            }
        )


def checked_graph(edges: Iterable[Sequence[str]], target: str) -> CausalGraph:
    """The graph of edges with the target in it. Raises `ConfigError` for what is no edge, and as `causal_graph`."""
    pairs: list[tuple[str, str]] = []
    for edge in edges:
        if isinstance(edge, str) or len(edge) != 2 or not all(isinstance(end, str) and end for end in edge):
            raise ConfigError(f"{edge!r} is no edge of a graph.", "An edge is a pair of names: [cause, effect].")
        pairs.append((edge[0], edge[1]))
    graph = causal_graph(pairs)
    if target not in graph.nodes:
        raise ConfigError(f"The target {target!r} is no node of the graph.", did_you_mean(target, graph.nodes))
    return graph


def _one_of(value: Any, name: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}.", did_you_mean(str(value), known))
