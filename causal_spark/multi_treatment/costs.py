"""What estimators of individual effects take in time and memory, from sizes alone.

Rules whose factors were measured on one ordinary core with 200 to 2,000 rows, 10 to 60 covariates and 2 to 8 arms: good
for dealing work to tasks, within a factor of two or so.
"""

from __future__ import annotations

from dataclasses import dataclass

from causal_spark.multi_treatment.networks import NetworkShape

#: Rows of samples that are trained together: more of them gain little and hold up the task.
_STACK_ROWS = 16_384
_MOST_COMPANIONS = 64
#: Rows of a batch of a network, and float32 arrays of its features that training holds.
_BATCH_ROWS, _FEATURE_ARRAYS, _FEATURES = 256, 8, 100
#: Float64 arrays of rows by arms, and of rows by covariates, that are held at once.
_ARM_ARRAYS, _COVARIATE_ARRAYS = 24, 8


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Rows, columns of covariates, and arms."""

    n_rows: int
    n_covariates: int
    n_arms: int


def propensity_seconds(size: SampleSize) -> float:
    """Of cross-fitted propensities and the model of all rows."""
    return float(0.1 * size.n_arms**1.6 * (1 + size.n_rows / 5000))


def boosted_seconds(n_rows: float, n_regressions: float) -> float:
    """Of so many boosted regressions on so many rows each: tuned once, and fitted again without each fold."""
    return n_regressions * (0.35 + 6e-4 * n_rows)


def network_seconds(size: SampleSize, shape: NetworkShape, n_networks: int, n_companions: int) -> float:
    """Of so many networks: what every step takes whatever its size is shared by companions.

    Batches, and every few steps a look at all rows.
    """
    parameters = shape.hidden * (size.n_covariates + shape.representation)
    parameters += shape.representation * shape.head * size.n_arms
    rows = 1e-7 * min(size.n_rows, _BATCH_ROWS) + 8e-9 * size.n_rows
    return 1.2 / n_companions + n_networks * rows * parameters


def numbers(size: SampleSize) -> float:
    """Float64 numbers held by everything but networks."""
    return float(size.n_rows * (_ARM_ARRAYS * size.n_arms + _COVARIATE_ARRAYS * size.n_covariates))


def network_numbers(size: SampleSize, n_networks: int) -> float:
    """The same for networks of one sample; a look at the loss takes all rows."""
    per_row = size.n_covariates + _FEATURES + 20 * size.n_arms
    return 0.5 * _FEATURE_ARRAYS * n_networks * size.n_rows * per_row


def companions(size: SampleSize) -> int:
    """Samples of this size worth training together."""
    return int(min(max(_STACK_ROWS / max(size.n_rows, 1), 1), _MOST_COMPANIONS))
