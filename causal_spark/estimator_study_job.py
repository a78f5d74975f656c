"""The estimator study job, see `causal_spark.job`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal_spark.config import JobConfig
from causal_spark.engine.columns import PanelRoles
from causal_spark.engine.studies import StudyWork
from causal_spark.errors import ConfigError
from causal_spark.estimator_study import DEFAULTS, EstimatorStudy
from causal_spark.job import SHOWN, Job, shown
from causal_spark.methods import Method, estimator_tasks, method_name, variance_tasks
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel_effects import CLASSIC_ESTIMATORS
from causal_spark.panel_effects_job import PanelColumnsConfig, panel_measures, panel_sizes

#: Places of a design that are printed.
_SHOWN_PLACES = 3


class StudyColumnsConfig(PanelColumnsConfig):
    """Which column plays which role. Covariates take no part."""

    policy: str | None = None


class EstimatorStudyConfig(JobConfig):
    """Everything `jobs/estimator_study.py` can be told; the shipped file documents each key."""

    columns: StudyColumnsConfig
    estimators: tuple[Method, ...] = CLASSIC_ESTIMATORS
    variances: tuple[Method, ...] = EstimatorStudy.variances  # type: ignore[assignment]
    without_variances: tuple[str, ...] = ()
    simulation: dict[str, Any] = Field(default_factory=dict)
    designs: tuple[str, ...] = DEFAULTS.designs
    effects: tuple[str, ...] = DEFAULTS.effects
    effect_size: float = DEFAULTS.effect_size
    effect: float | None = None
    replicates: Annotated[int, Field(ge=2)] = DEFAULTS.replicates
    variance_replicates: Annotated[int, Field(ge=0)] | None = None

    def check(self) -> None:
        """See `JobConfig`."""
        estimator_tasks(self.estimators, ESTIMATORS, dict.fromkeys(self.columns.groups))
        variance_tasks(self.variances)
        _study_of(self).settings()
        if self.columns.covariates:
            raise ConfigError("Panels are simulated without covariates.", "Leave columns.covariates empty.")


def _study_of(config: EstimatorStudyConfig) -> EstimatorStudy:
    return EstimatorStudy(
        estimators=config.estimators,
        variances=config.variances,
        without_variances=config.without_variances,
        simulation=config.simulation,
        designs=config.designs,
        effects=config.effects,
        effect_size=config.effect_size,
        effect=config.effect,
        replicates=config.replicates,
        variance_replicates=config.variance_replicates,
        confidence_level=config.confidence_level,
        seed=config.seed,
        worker_memory=config.worker_memory,
    )


def _work(config: EstimatorStudyConfig, data: DataFrame) -> StudyWork:
    return _study_of(config).plan_work(data, PanelRoles(**config.columns.model_dump(exclude={"rename"})))


def _notes(config: EstimatorStudyConfig) -> Sequence[str]:
    options = _study_of(config).settings()
    variances = ", ".join(map(method_name, config.variances)) or "none"
    draws = f"{options.replicates} draws of each, {options.n_with_variances} of them with variances ({variances})"
    return [f"Designs: {', '.join(options.designs)}; {draws}"]


def _report(table: Callable[[str], DataFrame]) -> str:
    chosen = table("recommendations")
    keys = chosen.columns[2:-3]
    lines = ["What to use, and why (RMSE in units of the outcome):"]
    for row in chosen.orderBy(*keys).limit(SHOWN).collect():
        name = " ".join(str(row[key]) for key in keys)
        lines.append(f"  {name + ': ' if name else ''}{row['reason']}")
    study = table("estimator_study")
    rows = (
        study.where(F.col("place") <= _SHOWN_PLACES)
        .orderBy(*keys, "design", "effect_shape", "place")
        .select(*keys, "design", "effect_shape", "estimator", "rmse", "rmse_mc_error", "normalised_rmse", "place")
        .limit(SHOWN + 1)
        .toPandas()
    )
    lines += ["\nWho errs least:", shown(rows)]
    return "\n".join(lines)


ESTIMATOR_STUDY = Job(
    name="estimator_study",
    description="Which estimator, and which error bar, to trust on your panels, into Delta.",
    config=EstimatorStudyConfig,
    work=_work,
    measures=panel_measures,
    sizes=panel_sizes,
    notes=_notes,
    report=_report,
    shown="recommendations",
)
"""The job."""
