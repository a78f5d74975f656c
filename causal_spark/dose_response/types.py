"""What the weighting methods take and give: plain frozen containers of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know of a curve that was estimated all the same."""

    name: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One segment's covariates and treatment. There is no outcome in it, so nothing made from it can look at one.

    covariates: (n_rows, n_covariates), finite, none of them constant. treatment: (n_rows,), finite, not constant.
    sample_weights: (n_rows,), positive, summing to one: what each row stands for. names: of the covariates.
    """

    covariates: Floats
    treatment: Floats
    sample_weights: Floats
    names: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        """Rows."""
        return int(self.treatment.shape[0])

    @property
    def n_covariates(self) -> int:
        """Columns of the covariates."""
        return int(self.covariates.shape[1])

    def of_rows(self, rows: NDArray[np.intp]) -> Segment:
        """Some of the rows, in the order given."""
        weights = normalised(self.sample_weights[rows])
        return Segment(self.covariates[rows], self.treatment[rows], weights, self.names)

    def standardised_covariates(self) -> Floats:
        """(n_rows, n_covariates) with mean zero and variance one under the sample weights."""
        return standardised(self.covariates, self.sample_weights)

    def standardised_treatment(self) -> Floats:
        """(n_rows,) with mean zero and variance one under the sample weights."""
        return standardised(self.treatment[:, None], self.sample_weights)[:, 0]


class SecondStage(Protocol):
    """A regression of the outcome on the treatment, by weighted least squares."""

    @property
    def n_parameters(self) -> int:
        """Parameters fitted at once."""
        ...

    @property
    def functions(self) -> Floats:
        """(n_rows, n_functions) functions of the treatment that the outcome is regressed on."""
        ...

    def of_rows(self, rows: NDArray[np.intp]) -> SecondStage:
        """The same regression on some of the rows."""
        ...

    def curves(self, weights: Floats, outcome: Floats) -> tuple[Floats, Floats]:
        """(n_replicates, n_grid) curves and slopes under weights (n_replicates, n_rows) of an outcome (n_rows,)."""
        ...

    def smoother(self, weights: Floats) -> Floats:
        """(n_grid, n_rows): what takes an outcome to its curve under weights (n_rows,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class CurveProblem:
    """What a weighting is for: a segment, the doses at which its curve is wanted, and the regression it enters.

    grid: (n_grid,), ascending. is_line: whether the second stage takes the curve for a straight line. noise: of the
    outcome around its response, in the units of made-up responses, where somebody looked (`outcome_noise`).
    """

    segment: Segment
    grid: Floats
    stage: SecondStage
    is_line: bool
    noise: float | None = None

    def of_rows(self, rows: NDArray[np.intp]) -> CurveProblem:
        """The same problem on some of the rows."""
        return CurveProblem(self.segment.of_rows(rows), self.grid, self.stage.of_rows(rows), self.is_line, self.noise)


#: (n_replicates, n_rows) multipliers of rows -> (n_replicates, n_rows) weights with what depends on the sample done
#: again; NaN where that cannot be done.
Resolve = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Weighting:
    """Balancing weights of a segment.

    weights: (n_rows,), not negative, summing to one. resolve: the weights under multipliers of the rows, for the
    bootstrap; what a method learns once and keeps stays as it is. notices: what to know of them. balanced: (n_rows,
    n_moments) functions that resolving balances, or regresses the treatment on; None where it does neither.
    """

    weights: Floats
    resolve: Resolve
    notices: tuple[Notice, ...] = ()
    balanced: Floats | None = None

    @property
    def effective_sample_size(self) -> float:
        """Kish's: one over the sum of squared weights."""
        return effective_sample_size(self.weights)


def kept(weights: Floats) -> Resolve:
    """Weights that the bootstrap multiplies and leaves otherwise as they are."""
    return partial(_kept, weights)


def _kept(weights: Floats, multipliers: Floats) -> Floats:
    return normalised(weights * multipliers)


def normalised(weights: Floats) -> Floats:
    """Weights divided by their sum along the last axis."""
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def effective_sample_size(weights: Floats) -> float:
    """Kish's effective sample size of weights that sum to one."""
    return float(1.0 / np.sum(weights**2))


def standardised(columns: Floats, weights: Floats) -> Floats:
    """(n_rows, n_columns) columns with mean zero and variance one under weights (n_rows,) that sum to one.

    A column that does not vary becomes zero: some rows of a segment may all have what others have not.
    """
    centred = columns - weights @ columns
    spread = np.sqrt(weights @ centred**2)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))
