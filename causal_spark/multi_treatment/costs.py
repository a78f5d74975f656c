"""What estimators of individual effects take in time and memory, from sizes alone.

Rules whose factors were measured on one ordinary core with 200 to 5,000 rows, 4 to 60 covariates and 2 to 8 arms: good
for dealing work to tasks, within a factor of two or so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Rows and networks of samples that are trained together: more of them gain little and hold up the task.
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
    return 0.3


def boosted_seconds(size: SampleSize, n_regressions: float) -> float:
    """Of so many boosted regressions, each on the rows of about one arm: tuned, and then five times fitted again."""
    rows = size.n_rows / size.n_arms
    return n_regressions * (0.45 + 6e-6 * rows * math.sqrt(size.n_covariates))


def network_seconds(size: SampleSize, n_networks: int, n_companions: int) -> float:
    """Of so many networks in three trainings: what every step takes whatever its size is shared by companions."""
    per_row = 2e-9 * (48 * size.n_covariates + 48 * 32 + 32 * 16 * size.n_arms)
    return 3.0 / n_companions + 600 * n_networks * min(size.n_rows, _BATCH_ROWS) * per_row / 10


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
