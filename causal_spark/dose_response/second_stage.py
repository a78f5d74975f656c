"""Second stages: regressions of the outcome on the treatment alone, which every weighting enters in the same way.

Each is linear in the outcome: the curve on the grid is S(w) y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from causal_spark.dose_response.types import CurveProblem, Floats, SecondStage, Segment, effective_sample_size
from causal_spark.errors import TreatmentSupportError

StageName = Literal["line", "spline", "local_linear"]
#: Quantiles of the treatment between which curves are told where no doses are named, and bent whatever the doses.
_MIDDLE = np.array([0.05, 0.95])
_LEAST_KNOTS = 3
#: Knots closer than this share of their range are one.
_APART = 1e-3
#: Functions whose part that others do not explain is smaller than this are taken to be dependent.
_DEPENDENT = 1e-9


@dataclass(frozen=True, slots=True)
class StageOptions:
    """n_knots: of the spline, at equally spaced quantiles of the middle nine tenths of the treatments; fewer where
    these coincide. bandwidth: of the local line, in units of the treatment; None takes 1.06 standard deviations times
    the sample size to the power -1/5.
    """

    n_knots: int = 5
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.n_knots < _LEAST_KNOTS:
            raise ValueError(f"n_knots is {self.n_knots}; a spline has at least {_LEAST_KNOTS}")
        if self.bandwidth is not None and not 0 < self.bandwidth < np.inf:
            raise ValueError(f"bandwidth is {self.bandwidth}; it is a positive number, or null")


@dataclass(frozen=True, slots=True, eq=False)
class BasisRegression:
    """Least squares on functions of the treatment.

    basis: (n_rows, n_basis), orthonormal under the sample weights, so that no scale of the treatment spoils the normal
    equations. at_grid, slopes_at_grid: (n_grid, n_basis) the functions and their derivatives on the grid.
    """

    basis: Floats
    at_grid: Floats
    slopes_at_grid: Floats

    @property
    def n_parameters(self) -> int:
        """Functions."""
        return int(self.basis.shape[1])

    @property
    def functions(self) -> Floats:
        """See `SecondStage`."""
        return self.basis

    def of_rows(self, rows: NDArray[np.intp]) -> BasisRegression:
        """See `SecondStage`."""
        return BasisRegression(self.basis[rows], self.at_grid, self.slopes_at_grid)

    def curves(self, weights: Floats, outcome: Floats) -> tuple[Floats, Floats]:
        """See `SecondStage`."""
        q = self.n_parameters
        pairs = (self.basis[:, :, None] * self.basis[:, None, :]).reshape(len(outcome), -1)
        gram = (weights @ pairs).reshape(len(weights), q, q)
        moments = weights @ (self.basis * outcome[:, None])
        coefficients = np.linalg.solve(gram, moments[:, :, None])[:, :, 0]
        return coefficients @ self.at_grid.T, coefficients @ self.slopes_at_grid.T

    def smoother(self, weights: Floats) -> Floats:
        """See `SecondStage`."""
        weighted = self.basis.T * weights
        return np.asarray(self.at_grid @ np.linalg.solve(weighted @ self.basis, weighted))


@dataclass(frozen=True, slots=True, eq=False)
class LocalLinear:
    """A line fitted around each point of the grid with a Gaussian kernel.

    kernel, distance: (n_grid, n_rows) kernel weights and the treatment's distance from the point, in bandwidths.
    """

    kernel: Floats
    distance: Floats
    bandwidth: float

    @property
    def n_parameters(self) -> int:
        """An intercept and a slope around each point."""
        return 2

    @property
    def functions(self) -> Floats:
        """See `SecondStage`; of the line all local ones are pieces of."""
        distance = self.distance[0]
        return np.stack([np.ones_like(distance), distance], axis=1)

    def of_rows(self, rows: NDArray[np.intp]) -> LocalLinear:
        """See `SecondStage`."""
        return LocalLinear(self.kernel[:, rows], self.distance[:, rows], self.bandwidth)

    def curves(self, weights: Floats, outcome: Floats) -> tuple[Floats, Floats]:
        """See `SecondStage`."""
        estimates, slopes = [], []
        for kernel, distance in zip(self.kernel, self.distance, strict=True):
            columns = kernel[:, None] * np.stack(
                [np.ones_like(distance), distance, distance**2, outcome, distance * outcome], axis=1
            )
            s0, s1, s2, t0, t1 = (weights @ columns).T
            determinant = s0 * s2 - s1**2
            estimates.append((s2 * t0 - s1 * t1) / determinant)
            slopes.append((s0 * t1 - s1 * t0) / determinant / self.bandwidth)
        return np.stack(estimates, axis=1), np.stack(slopes, axis=1)

    def smoother(self, weights: Floats) -> Floats:
        """See `SecondStage`."""
        local = self.kernel * weights
        s0, s1, s2 = (np.sum(local * self.distance**power, axis=1, keepdims=True) for power in range(3))
        return np.asarray(local * (s2 - s1 * self.distance) / (s0 * s2 - s1**2))


def weighted_quantiles(values: Floats, weights: Floats, shares: Floats) -> Floats:
    """(n_shares,) quantiles of values (n_rows,) under weights that sum to one; midpoints of steps are interpolated."""
    order = np.argsort(values, kind="stable")
    at = np.cumsum(weights[order]) - weights[order] / 2
    return np.interp(shares, at, values[order])


def middle_of(treatment: Floats, sample_weights: Floats) -> tuple[float, float]:
    """The 5% and the 95% quantile of the treatments."""
    low, high = weighted_quantiles(treatment, sample_weights, _MIDDLE)
    return float(low), float(high)


def _line(treatment: Floats) -> tuple[Floats, Floats]:
    return np.stack([np.ones_like(treatment), treatment], axis=1), np.tile([0.0, 1.0], (len(treatment), 1))


def _natural_spline(treatment: Floats, knots: Floats) -> tuple[Floats, Floats]:
    """Truncated-power basis of natural cubic splines (Hastie, Tibshirani, Friedman 2009, eqs 5.4-5.5) and slopes."""
    last, before = knots[-1], knots[-2]

    def truncated(knot: float, power: int) -> Floats:
        difference = np.maximum(treatment - knot, 0) ** power - np.maximum(treatment - last, 0) ** power
        return np.asarray(difference / (last - knot))

    columns, slopes = [np.ones_like(treatment), treatment], [np.zeros_like(treatment), np.ones_like(treatment)]
    for knot in knots[:-2]:
        columns.append(truncated(knot, 3) - truncated(before, 3))
        slopes.append(3 * (truncated(knot, 2) - truncated(before, 2)))
    return np.stack(columns, axis=1), np.stack(slopes, axis=1)


def _centre_and_scale(treatment: Floats, sample_weights: Floats) -> tuple[float, float]:
    centre = float(sample_weights @ treatment)
    return centre, float(np.sqrt(sample_weights @ (treatment - centre) ** 2))


def _regression(
    functions: Callable[[Floats], tuple[Floats, Floats]], treatment: Floats, sample_weights: Floats, grid: Floats
) -> BasisRegression:
    centre, scale = _centre_and_scale(treatment, sample_weights)
    basis, _ = functions((treatment - centre) / scale)
    at_grid, slopes = functions((grid - centre) / scale)
    triangular = np.linalg.qr(np.sqrt(sample_weights)[:, None] * basis, mode="r")
    if np.min(np.abs(np.diag(triangular))) <= _DEPENDENT * np.max(np.abs(triangular)):
        raise TreatmentSupportError(
            f"The treatment has too few distinct values for {basis.shape[1]} functions of it.",
            "Use second_stage: line, or fewer knots.",
        )
    unmix = np.linalg.inv(triangular)
    return BasisRegression(basis @ unmix, at_grid @ unmix, slopes @ unmix / scale)


def make_line(treatment: Floats, sample_weights: Floats, grid: Floats, options: StageOptions) -> BasisRegression:
    """A straight line."""
    del options
    return _regression(_line, treatment, sample_weights, grid)


def make_spline(treatment: Floats, sample_weights: Floats, grid: Floats, options: StageOptions) -> BasisRegression:
    """A natural cubic spline, linear beyond its outermost knots, the 5% and the 95% quantile of the treatments.

    So the curve at one dose does not depend on the others that are asked for. Where too few treatments lie between the
    two, the knots are among all of them. Of few distinct treatments, each is a knot, and the curve goes through their
    means. Raises `TreatmentSupportError` where there are fewer than three.
    """
    ends = middle_of(treatment, sample_weights)
    inside = (treatment >= ends[0]) & (treatment <= ends[1])
    values = np.unique(treatment[inside])
    if len(values) < _LEAST_KNOTS:
        inside, values = np.ones_like(inside), np.unique(treatment)
        ends = values[0], values[-1]
    if len(values) < _LEAST_KNOTS:
        raise TreatmentSupportError(
            f"The treatment has too few distinct values for a spline: {len(values)}.", "Use second_stage: line."
        )
    if len(values) <= options.n_knots:
        found = _distinct(values)
    else:
        shares = sample_weights * inside
        found = weighted_quantiles(treatment, shares / shares.sum(), np.linspace(0, 1, options.n_knots))
        found[[0, -1]] = ends
        found = _distinct(found)
    if len(found) < _LEAST_KNOTS:
        # Most rows have one treatment: what is left of the others carries one bend and no more.
        found = np.array([ends[0], np.median(values[1:-1]), ends[1]])
    centre, scale = _centre_and_scale(treatment, sample_weights)
    return _regression(partial(_natural_spline, knots=(found - centre) / scale), treatment, sample_weights, grid)


def make_local_linear(treatment: Floats, sample_weights: Floats, grid: Floats, options: StageOptions) -> LocalLinear:
    """Local lines with one bandwidth."""
    bandwidth = options.bandwidth
    if bandwidth is None:
        _, scale = _centre_and_scale(treatment, sample_weights)
        bandwidth = 1.06 * scale * effective_sample_size(sample_weights) ** -0.2
    distance = (treatment[None, :] - grid[:, None]) / bandwidth
    return LocalLinear(np.exp(-(distance**2) / 2), distance, bandwidth)


def _distinct(sorted_values: Floats) -> Floats:
    apart = np.diff(sorted_values) > _APART * (sorted_values[-1] - sorted_values[0])
    return np.asarray(sorted_values[np.concatenate([[True], apart])])


def curve_problem(segment: Segment, grid: Floats, stage: StageName, options: StageOptions) -> CurveProblem:
    """A segment with its second stage. Raises `TreatmentSupportError`."""
    made = SECOND_STAGES[stage](segment.treatment, segment.sample_weights, grid, options)
    return CurveProblem(segment, grid, made, stage == "line")


SECOND_STAGES: Mapping[str, Callable[[Floats, Floats, Floats, StageOptions], SecondStage]] = MappingProxyType(
    {"line": make_line, "spline": make_spline, "local_linear": make_local_linear}
)
"""Second stages by name: (treatment, sample weights, grid, options) -> stage."""
