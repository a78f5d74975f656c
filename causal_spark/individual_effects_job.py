"""The individual effects job, see `causal_spark.job`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal_spark.config import ColumnsConfig, JobConfig
from causal_spark.engine.arms import ArmWork
from causal_spark.engine.work import GroupSize, Work
from causal_spark.individual_effects import (
    DEFAULT_ESTIMATORS,
    MIN_ARM_ROWS,
    MIN_PROPENSITY,
    Assignment,
    Cost,
    IndividualEffects,
    labelled,
    split_costs,
)
from causal_spark.job import SHOWN, Job, shown
from causal_spark.methods import Method, estimator_tasks
from causal_spark.multi_treatment.registry import ESTIMATORS


class ArmColumnsConfig(ColumnsConfig):
    """Which column plays which role."""

    row_id: str
    treatment: str
    outcome: str
    covariates: Annotated[tuple[str, ...], Field(min_length=1)]


class IndividualEffectsConfig(JobConfig):
    """Everything `jobs/individual_effects.py` can be told; the shipped file documents each key."""

    columns: ArmColumnsConfig
    control: str | int | bool
    estimators: tuple[Method, ...] = DEFAULT_ESTIMATORS
    costs: dict[str | int | bool, Cost] = Field(default_factory=dict)
    min_arm_rows: Annotated[int, Field(ge=2)] = MIN_ARM_ROWS
    min_propensity: Annotated[float, Field(gt=0, lt=0.5)] = MIN_PROPENSITY
    abstain: bool = True

    def check(self) -> None:
        """See `JobConfig`."""
        estimator_tasks(self.estimators, ESTIMATORS, dict.fromkeys(self.columns.groups))
        split_costs(labelled(self.costs))


def _work(config: IndividualEffectsConfig, data: DataFrame) -> ArmWork:
    job = IndividualEffects(
        estimators=config.estimators,
        control=config.control,
        min_arm_rows=config.min_arm_rows,
        min_propensity=config.min_propensity,
        abstain=config.abstain,
        confidence_level=config.confidence_level,
        seed=config.seed,
        worker_memory=config.worker_memory,
    )
    roles = config.columns.model_dump(exclude={"rename"})
    return job.plan_work(data, Assignment(**roles, costs=labelled(config.costs)))


def _measures() -> Mapping[str, Column]:
    return {"arms": F.countDistinct("_treatment")}


def _sizes(work: Work, size: GroupSize) -> Mapping[str, Any]:
    return {"arms": size.measures["arms"], "trained_with": work.companions(size) - 1}


def _notes(config: IndividualEffectsConfig) -> Sequence[str]:
    free = "nothing costs anything" if not config.costs else f"costs of {', '.join(labelled(config.costs))}"
    return [f"Control arm: {config.control}; {free}"]


def _report(table: Callable[[str], DataFrame]) -> str:
    effects = table("arm_effects")
    keys = effects.columns[2 : effects.columns.index("estimator")]
    order = ["group_id", "estimator", "treatment"]
    models = table("models").select("group_id", "estimator", F.get_json_object("schema_json", "$.control").alias("c"))
    against = effects.join(models, ["group_id", "estimator"]).where("reference = c").orderBy(*order)
    rows = against.limit(SHOWN + 1).toPandas()
    if rows.empty:
        return "No effect could be estimated."
    told = [
        "Mean effects against the control arm (± half the interval), beside the difference of mean outcomes:",
        shown(
            rows[[*keys, "estimator", "treatment", "n_rows"]].assign(
                effect=_around(rows["estimate"], rows["conf_high"]), difference_in_means=rows["difference_in_means"]
            )
        ),
    ]
    values = table("policy_values").orderBy("group_id", "estimator", F.col("value").desc())
    worth = values.limit(SHOWN + 1).toPandas()
    told += [
        "\nWhat policies are worth, per row and net of costs, and what they gain over giving nobody anything:",
        shown(
            worth[[*keys, "estimator", "policy"]].assign(
                value=_around(worth["value"], worth["conf_high"]), gain=_around(worth["gain"], worth["gain_conf_high"])
            )
        ),
    ]
    by = [*keys, "estimator", "recommended_treatment"]
    chosen = table("policies").groupBy(*by).agg(F.count("*").alias("rows"), F.avg("expected_gain").alias("mean_gain"))
    told += ["\nArms recommended:", shown(chosen.orderBy(*by).limit(SHOWN + 1).toPandas())]
    columns = [*keys, "treatment", "n_rows", "propensity_min", "propensity_max", "effective_sample_size"]
    largest = (
        F.max(F.abs("smd_before")).alias("largest_smd_before"),
        F.max(F.abs("smd_after")).alias("largest_smd_after"),
    )
    overlap = table("overlap").groupBy(*columns, "share_in_support").agg(*largest).orderBy(*keys, "treatment")
    told += ["\nOverlap:", shown(overlap.limit(SHOWN + 1).toPandas())]
    return "\n".join(told)


def _around(middle: pd.Series, high: pd.Series) -> list[str]:
    return [f"{one:.4g} ± {upper - one:.2g}" for one, upper in zip(middle, high, strict=True)]


INDIVIDUAL_EFFECTS = Job(
    name="individual_effects",
    description="Effects of each of several treatments on every row, and the arm to choose, into Delta.",
    config=IndividualEffectsConfig,
    work=_work,
    measures=_measures,
    sizes=_sizes,
    notes=_notes,
    report=_report,
    shown="individual_effects",
)
"""The job."""
