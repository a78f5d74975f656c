"""The panel effects job, see `causal_spark.job`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal_spark.config import ColumnsConfig, JobConfig, OutputConfig
from causal_spark.engine.columns import PanelRoles
from causal_spark.engine.panel_groups import PanelGroups
from causal_spark.engine.panels import Cells, PanelWork
from causal_spark.engine.work import GroupSize, Work
from causal_spark.job import SHOWN, Job, shown
from causal_spark.methods import Method, estimator_tasks, method_name, variance_tasks
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel_effects import CLASSIC_ESTIMATORS, PanelEffects


class PanelColumnsConfig(ColumnsConfig):
    """Which column plays which role."""

    unit: str
    time: str
    outcome: str
    treatment: str
    covariates: tuple[str, ...] = ()


class PanelOutputConfig(OutputConfig):
    """Where results go and how much of them."""

    cells: Cells = "treated"


class PanelEffectsConfig(JobConfig):
    """Everything `jobs/panel_effects.py` can be told; the shipped file documents each key."""

    columns: PanelColumnsConfig
    output: PanelOutputConfig
    estimators: tuple[Method, ...] = CLASSIC_ESTIMATORS
    variances: tuple[Method, ...] = ("placebo",)

    def check(self) -> None:
        """See `JobConfig`."""
        estimator_tasks(self.estimators, ESTIMATORS, dict.fromkeys(self.columns.groups))
        variance_tasks(self.variances)


def _work(config: PanelEffectsConfig, data: DataFrame) -> PanelWork:
    job = PanelEffects(
        estimators=config.estimators,
        variances=config.variances,
        confidence_level=config.confidence_level,
        seed=config.seed,
        cells=config.output.cells,
        worker_memory=config.worker_memory,
    )
    return job.plan_work(data, PanelRoles(**config.columns.model_dump(exclude={"rename"})))


def panel_measures() -> Mapping[str, Column]:
    """What works over panels count, see `PanelGroups.measure`."""
    treated = F.col("_treatment") == 1
    return {
        "units": F.countDistinct("_unit"),
        "treated_units": F.countDistinct(F.when(treated, F.col("_unit"))),
        "treated_cells": F.count_if(treated),
    }


def panel_sizes(work: Work, size: GroupSize) -> Mapping[str, Any]:
    """What a dry run shows of a panel."""
    panel = cast(PanelGroups, work).panel_size(size)
    return {
        "units": panel.n_units,
        "periods": panel.n_periods,
        "treated_units": panel.n_treated_units,
        "treated_cells": panel.n_treated_cells,
    }


def _notes(config: PanelEffectsConfig) -> Sequence[str]:
    return [f"Variances: {', '.join(map(method_name, config.variances)) or 'none'}"]


def _report(table: Callable[[str], DataFrame]) -> str:
    effects = table("panel_effects")
    keys = effects.columns[2 : effects.columns.index("estimator")]
    errors = table("panel_variances").select(
        "group_id", "estimator", "variance_estimator", "std_error", "conf_low", "conf_high", "p_value"
    )
    rows = (
        effects.join(errors, ["group_id", "estimator"], "left")
        .orderBy(*keys, "estimator", "variance_estimator")
        .select(*keys, "estimator", "estimate", "std_error", "conf_low", "conf_high", "p_value", "variance_estimator")
        .limit(SHOWN + 1)
        .toPandas()
    )
    return shown(rows)


PANEL_EFFECTS = Job(
    name="panel_effects",
    description="Effects of policies on panels, into Delta.",
    config=PanelEffectsConfig,
    work=_work,
    measures=panel_measures,
    sizes=panel_sizes,
    notes=_notes,
    report=_report,
    shown="panel_effects",
)
"""The job."""
