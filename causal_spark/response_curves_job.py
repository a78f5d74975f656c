"""The response curves job, see `causal_spark.job`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field
from pyspark.sql import Column, DataFrame

from causal_spark.config import ColumnsConfig, JobConfig
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.engine.columns import CurveRoles
from causal_spark.engine.curves import CurveWork
from causal_spark.engine.work import GroupSize, Work
from causal_spark.job import SHOWN, Job, shown
from causal_spark.methods import Method, estimator_tasks, method_name
from causal_spark.response_curves import DEFAULT_WEIGHTINGS, N_DOSES, ResponseCurves, checked_grid, checked_stage

#: Doses of a curve that are printed.
_SHOWN_DOSES = 5


class CurveColumnsConfig(ColumnsConfig):
    """Which column plays which role."""

    treatment: str
    outcome: str
    covariates: Annotated[tuple[str, ...], Field(min_length=1)]
    sample_weight: str | None = None


class ResponseCurvesConfig(JobConfig):
    """Everything `jobs/response_curves.py` can be told; the shipped file documents each key."""

    columns: CurveColumnsConfig
    estimators: tuple[Method, ...] = DEFAULT_WEIGHTINGS
    second_stage: Method = "spline"
    grid: int | tuple[float, ...] = N_DOSES
    replicates: Annotated[int, Field(ge=2)] = 200
    min_effective_rows: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0

    def check(self) -> None:
        """See `JobConfig`."""
        estimator_tasks(self.estimators, WEIGHTINGS, dict.fromkeys(self.columns.groups))
        checked_stage(self.second_stage)
        checked_grid(self.grid)


def _work(config: ResponseCurvesConfig, data: DataFrame) -> CurveWork:
    job = ResponseCurves(
        estimators=config.estimators,
        second_stage=config.second_stage,
        replicates=config.replicates,
        min_effective_rows=config.min_effective_rows,
        confidence_level=config.confidence_level,
        seed=config.seed,
        worker_memory=config.worker_memory,
    )
    roles = CurveRoles(**config.columns.model_dump(exclude={"rename"}))
    return job.plan_work(data, roles, config.grid)


def _measures() -> Mapping[str, Column]:
    return {}


def _sizes(work: Work, size: GroupSize) -> Mapping[str, Any]:
    return {"trained_with": work.companions(size) - 1}


def _notes(config: ResponseCurvesConfig) -> Sequence[str]:
    return [f"Second stage: {method_name(config.second_stage)}; standard errors of {config.replicates} replicates"]


def _report(table: Callable[[str], DataFrame]) -> str:
    curves = table("response_curves")
    keys = curves.columns[2 : curves.columns.index("estimator")]
    names = ["group_id", "estimator"]
    # More curves than are shown need not come to the driver.
    some = curves.select("group_id", *keys, "estimator").distinct().orderBy(*keys, "estimator").limit(SHOWN + 1)
    rows = curves.join(some.select(*names), names).toPandas()
    sizes = table("balance").select(*names, "effective_sample_size").distinct().join(some.select(*names), names)
    effective = sizes.toPandas().set_index(names)["effective_sample_size"]
    lines = [
        {
            **{key: curve[key].iloc[0] for key in keys},
            "estimator": estimator,
            "effective_rows": effective.get((group_id, estimator), np.nan),
            **_told(curve),
        }
        for (group_id, estimator), curve in rows.groupby(names, sort=False)
    ]
    if not lines:
        return "No curve could be estimated."
    printed = pd.DataFrame(lines).sort_values([*keys, "estimator"])
    return "Mean outcome by dose (± half the interval):\n" + shown(printed)


def _told(curve: pd.DataFrame) -> Mapping[str, str]:
    """Some doses of a curve, the first and the last among them, each with its estimate and half its interval."""
    ordered = curve.sort_values("dose")[["dose", "estimate", "conf_high"]].to_numpy(dtype=float)
    places = np.unique(np.linspace(0, len(ordered) - 1, _SHOWN_DOSES).round().astype(int))
    return {
        f"dose_{number}": f"{dose:.4g}: {estimate:.4g} ± {high - estimate:.2g}"
        for number, (dose, estimate, high) in enumerate(ordered[places], start=1)
    }


RESPONSE_CURVES = Job(
    name="response_curves",
    description="Mean outcomes at every level of a continuous treatment, into Delta.",
    config=ResponseCurvesConfig,
    work=_work,
    measures=_measures,
    sizes=_sizes,
    notes=_notes,
    report=_report,
    shown="response_curves",
)
"""The job."""
