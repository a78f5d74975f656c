"""Rows of the individual effects job's result tables, made of predictions, scores and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.special import ndtri

from causal_spark.engine.work import Row
from causal_spark.multi_treatment.arm_effects import ArmEffects
from causal_spark.multi_treatment.overlap import Overlap
from causal_spark.multi_treatment.policy import Policy, PolicyValue
from causal_spark.multi_treatment.predictor import Predictions
from causal_spark.multi_treatment.types import ArmSample, Floats


@dataclass(frozen=True, slots=True)
class Level:
    """A confidence level and the standard errors that an interval of it reaches to either side."""

    confidence: float

    @property
    def reach(self) -> float:
        """Of a normal interval."""
        return float(ndtri((1 + self.confidence) / 2))


def effect_table(row_ids: pa.Array, arms: Sequence[str], found: Predictions, level: Level) -> pa.Table:
    """``row_id``, and columns of ``individual_effects`` but the estimator's name: a row per row and arm."""
    n_rows, n_arms = found.effects.shape
    errors = found.std_errors.copy()
    errors[:, 0] = np.nan
    columns = {
        "outcome_estimate": found.outcomes,
        "effect": found.effects,
        "std_error": errors,
        "conf_low": found.effects - level.reach * errors,
        "conf_high": found.effects + level.reach * errors,
        "propensity": found.chances,
    }
    return pa.table(
        {
            "row_id": row_ids.take(pa.array(np.repeat(np.arange(n_rows), n_arms))),
            "treatment": pa.array(list(arms), pa.string()).take(pa.array(np.tile(np.arange(n_arms), n_rows))),
            **{name: pa.array(values.ravel(), from_pandas=True) for name, values in columns.items()},
            "conf_level": pa.array(np.full(n_rows * n_arms, level.confidence)),
            "in_support": pa.array(found.in_support.ravel()),
        }
    )


def policy_table(row_ids: pa.Array, arms: Sequence[str], policy: Policy) -> pa.Table:
    """``row_id``, and columns of ``policies`` but the estimator's name."""
    labels = pa.array(list(arms), pa.string())
    return pa.table(
        {
            "row_id": row_ids,
            "recommended_treatment": labels.take(pa.array(policy.recommended)),
            "expected_gain": pa.array(policy.expected_gain),
            "runner_up": labels.take(pa.array(policy.runner_up)),
            "abstained": pa.array(policy.abstained),
        }
    )


def with_estimator(table: pa.Table, estimator: str) -> pa.Table:
    """The same with a column of the estimator's name."""
    return table.append_column("estimator", pa.array([estimator] * len(table), pa.string()))


def _around(name: str, estimate: float, std_error: float, level: Level, prefix: str = "") -> dict[str, float | None]:
    if not np.isfinite(std_error):
        return {name: estimate}
    reach = level.reach * std_error
    return {
        name: estimate,
        f"{prefix}std_error": std_error,
        f"{prefix}conf_low": estimate - reach,
        f"{prefix}conf_high": estimate + reach,
    }


def arm_effect_rows(
    estimator: str, arms: Sequence[str], sample: ArmSample, found: ArmEffects, level: Level
) -> list[Row]:
    """Rows of ``arm_effects``: every arm against every other."""
    counts = sample.counts
    means = np.bincount(sample.arm, sample.outcome, sample.n_arms) / counts
    return [
        {"estimator": estimator, "treatment": treatment, "reference": reference}
        | _around("estimate", float(found.estimate[k, j]), float(found.std_error[k, j]), level)
        | {
            "conf_level": level.confidence,
            "p_value": float(found.p_value[k, j]) if np.isfinite(found.p_value[k, j]) else None,
            "n_rows": int(counts[k]),
            "difference_in_means": float(means[k] - means[j]),
        }
        for k, treatment in enumerate(arms)
        for j, reference in enumerate(arms)
        if k != j
    ]


def policy_value_rows(
    estimator: str, arms: Sequence[str], values: Mapping[str, PolicyValue], n_rows: int, level: Level
) -> list[Row]:
    """Rows of ``policy_values``."""
    return [
        {"estimator": estimator, "policy": _policy_name(name, arms), "conf_level": level.confidence, "n_rows": n_rows}
        | _around("value", one.value, one.std_error, level)
        | _around("gain", one.gain, one.gain_std_error, level, "gain_")
        for name, one in values.items()
    ]


def _policy_name(name: str, arms: Sequence[str]) -> str:
    return f"all:{arms[int(name.removeprefix('all:'))]}" if name.startswith("all:") else name


def overlap_rows(
    arms: Sequence[str], names: Sequence[str], sample: ArmSample, found: Overlap, supported: Floats
) -> list[Row]:
    """Rows of ``overlap``. supported: (n_arms,) shares of rows in support of each arm."""
    return [
        {
            "treatment": arm,
            "covariate": name,
            "smd_before": float(found.smd_before[k, place]),
            "smd_after": float(found.smd_after[k, place]),
            "propensity_min": float(found.lowest[k]),
            "propensity_max": float(found.highest[k]),
            "effective_sample_size": float(found.effective_sample_size[k]),
            "n_rows": int(sample.counts[k]),
            "share_in_support": float(supported[k]),
        }
        for k, arm in enumerate(arms)
        for place, name in enumerate(names)
    ]
