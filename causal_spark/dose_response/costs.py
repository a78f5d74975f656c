"""What weightings take in time and memory, from sizes alone.

Rules whose factors were measured on one ordinary core with 200 to 50,000 rows and 5 to 20 covariates: good for dealing
work to tasks, within a factor of two or so.
"""

from __future__ import annotations

from dataclasses import dataclass

from causal_spark.dose_response.dcow import DcowOptions
from causal_spark.dose_response.e2b import trained_rows
from causal_spark.dose_response.expected_bias import MODEL_ROWS
from causal_spark.dose_response.inference import CHUNK_NUMBERS
from causal_spark.dose_response.permutation import PermutationOptions

#: Rows and float64 numbers of problems that are fitted together: more of them gain little and hold up the task.
_STACK_ROWS = 16_384
_STACK_NUMBERS = 50_000_000
_MOST_COMPANIONS = 64
#: Smooth functions and arrays of functions that E2B holds at once.
_WAVES, _FUNCTION_ARRAYS = 64, 8
#: Functions of the treatment in the outcome's model, and arrays of its functions that are held at once.
_MODULATIONS, _MODEL_ARRAYS = 5, 4
#: Arrays of rows by replicates, and of rows by covariates, that are held at once.
_REPLICATE_ARRAYS, _COVARIATE_ARRAYS = 8, 10


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """Rows and columns of covariates."""

    n_rows: int
    n_covariates: int

    @property
    def n_second_order(self) -> int:
        """Covariates, their squares and products."""
        return self.n_covariates * (self.n_covariates + 3) // 2

    @property
    def n_functions(self) -> int:
        """Functions of the covariates that E2B's made-up responses are sums of."""
        return self.n_second_order + _WAVES


def no_moments(size: SegmentSize) -> int:
    """Of weightings that the bootstrap does not balance again."""
    del size
    return 0


def first_moments(size: SegmentSize) -> int:
    """Of covariates and treatment, and of their products."""
    return 2 * size.n_covariates + 1


def second_moments(size: SegmentSize) -> int:
    """The same with squares and products of the covariates."""
    return 2 * size.n_second_order + 2


def bootstrap_seconds(size: SegmentSize, n_moments: int, n_replicates: int) -> float:
    """Of replicates in which so many moments are balanced."""
    return n_replicates * size.n_rows * (5e-8 + 1e-9 * n_moments**2)


def model_seconds(size: SegmentSize) -> float:
    """Of the outcome's model, from which the expected bias is told."""
    return 0.01 + 3e-10 * min(size.n_rows, MODEL_ROWS) * (_MODULATIONS * size.n_functions) ** 2


def model_numbers(size: SegmentSize) -> float:
    """Numbers held by it, one group at a time."""
    n_functions = _MODULATIONS * size.n_functions
    return float(_MODEL_ARRAYS * (min(size.n_rows, MODEL_ROWS) + n_functions) * n_functions)


def array_numbers(size: SegmentSize, n_columns: int, n_replicates: int) -> float:
    """Numbers that a weighting on so many columns holds, its bootstrap included."""
    replicates = min(n_replicates * size.n_rows, max(CHUNK_NUMBERS, size.n_rows))
    return _COVARIATE_ARRAYS * size.n_rows * n_columns + _REPLICATE_ARRAYS * replicates


def balancing_seconds(size: SegmentSize, n_moments: int) -> float:
    """Of balancing so many moments once, from scratch."""
    return 1e-3 + 1e-8 * size.n_rows * n_moments**2


def permutation_seconds(size: SegmentSize, options: PermutationOptions) -> float:
    """Of telling rows from shuffled ones."""
    n_columns = 2 * size.n_second_order + 1
    if options.classifier == "boosted":
        return options.n_permutations * (0.5 + 1e-6 * size.n_rows * n_columns)
    return options.n_permutations * (2e-3 + 1e-7 * size.n_rows * n_columns)


def dcow_seconds(size: SegmentSize, options: DcowOptions) -> float:
    """Of a few factorisations of rows by rows; nothing where there are too many of them."""
    return 1e-3 + 3e-10 * size.n_rows**3 if size.n_rows <= options.max_rows else 0.0


def e2b_seconds(size: SegmentSize, n_companions: int) -> float:
    """Of training: what every step takes whatever its size is shared by companions."""
    return 0.6 / n_companions + 1.4e-5 * trained_rows(size.n_rows) * size.n_functions


def e2b_numbers(size: SegmentSize) -> float:
    """Numbers held in training."""
    return float(_FUNCTION_ARRAYS * trained_rows(size.n_rows) * size.n_functions)


def e2b_companions(size: SegmentSize) -> int:
    """Problems of this size worth training together."""
    if trained_rows(size.n_rows) != size.n_rows:
        return 1
    most = min(_STACK_ROWS / max(size.n_rows, 1), _STACK_NUMBERS / max(e2b_numbers(size), 1.0))
    return int(min(max(most, 1), _MOST_COMPANIONS))
