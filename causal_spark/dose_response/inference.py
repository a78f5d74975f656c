"""Curves of a weighting and how uncertain they are: a multiplier bootstrap that balances anew in every replicate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.dose_response.types import CurveProblem, Floats, Weighting
from causal_spark.errors import SolverError, TooFewEffectiveRowsError

#: Share of replicates that may fail to balance.
_MOST_LOST = 0.1
#: Residuals are divided by what the leverage of their row leaves of one, but by no less than this.
_LEAST_RESIDUAL = 0.2
#: Directions of variance below this share of the largest are none.
_DEPENDENT = 1e-12
#: Multipliers of rows held at once.
CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A response curve on its grid. estimate, slope, std_error, slope_std_error: (n_grid,) each.

    n_replicates: behind the standard errors, which are NaN without any; failure says why there are none.
    """

    estimate: Floats
    slope: Floats
    std_error: Floats
    slope_std_error: Floats
    n_replicates: int
    failure: SolverError | None = None


def estimate_curve(
    problem: CurveProblem,
    weighting: Weighting,
    outcome: Floats,
    least_effective: float,
    n_replicates: int,
    seed: int,
) -> Curve:
    """The curve of an outcome (n_rows,) under given weights, with standard errors.

    Each replicate multiplies the rows by exponential variables of mean one, lets the weighting do again what it does
    again (`Weighting.resolve`), and fits the second stage to the outcome with enlarged residuals (`enlarged`). Where
    more than a tenth of the replicates cannot be balanced there are no standard errors. Raises
    `TooFewEffectiveRowsError` below ``least_effective`` rows, `SolverError` where the regression cannot be solved.
    """
    effective = weighting.effective_sample_size
    if effective < least_effective:
        raise TooFewEffectiveRowsError(
            f"The weights leave {effective:.1f} effective rows of {problem.segment.n_rows}, fewer than "
            f"{least_effective:g}.",
            "Covariates and treatment overlap too little: use fewer covariates, a narrower range of the treatment, "
            "or larger segments.",
        )
    estimate, slope = (found[0] for found in _curves(problem, weighting.weights[None, :], outcome))
    try:
        resampled = enlarged(problem, weighting, outcome)
        estimates, slopes = _replicates(problem, weighting, resampled, n_replicates, seed)
    except SolverError as error:
        unknown = np.full(len(estimate), np.nan)
        return Curve(estimate, slope, unknown, unknown, 0, error)
    return Curve(estimate, slope, estimates.std(axis=0, ddof=1), slopes.std(axis=0, ddof=1), len(estimates))


def enlarged(problem: CurveProblem, weighting: Weighting, outcome: Floats) -> Floats:
    """(n_rows,) the outcome with its residuals as large as the errors that they stand for.

    Least squares under the weights on the second stage's functions and on those that are balanced leaves residuals too
    small, and smallest where weights are large. Each is divided by one minus the leverage of its row (MacKinnon, White
    1985, HC3), by .2 at least; what is fitted stays as it is.
    """
    balanced = weighting.balanced
    columns = problem.stage.functions
    if balanced is not None:
        columns = np.concatenate([columns, balanced], axis=1)
    weighted = columns * weighting.weights[:, None]
    variances, directions = np.linalg.eigh(weighted.T @ columns)
    kept = variances > _DEPENDENT * variances[-1]
    scores = columns @ (directions[:, kept] / np.sqrt(variances[kept]))
    residual = outcome - scores @ (scores.T @ (weighting.weights * outcome))
    leverage = weighting.weights * np.sum(scores**2, axis=1)
    return np.asarray(outcome - residual + residual / np.maximum(1 - leverage, _LEAST_RESIDUAL))


def _curves(problem: CurveProblem, weights: Floats, outcome: Floats) -> tuple[Floats, Floats]:
    try:
        return problem.stage.curves(weights, outcome)
    except np.linalg.LinAlgError as error:
        raise SolverError(
            "The rows that have weight do not bear the second stage.",
            "Use second_stage: line, fewer knots, fewer covariates, or larger segments.",
        ) from error


def _replicates(
    problem: CurveProblem, weighting: Weighting, outcome: Floats, n_replicates: int, seed: int
) -> tuple[Floats, Floats]:
    """(n_usable, n_grid) curves and slopes of the replicates that can be balanced, a few replicates at a time.

    Raises `SolverError` where too few of them can.
    """
    rng, n_rows = np.random.default_rng(seed), problem.segment.n_rows
    size = max(1, CHUNK_NUMBERS // n_rows)
    estimates, slopes = [], []
    for start in range(0, n_replicates, size):
        # The generator goes on row by row, so that the multipliers are the same in chunks of any size.
        weights = weighting.resolve(rng.exponential(size=(min(size, n_replicates - start), n_rows)))
        curves = _curves(problem, weights[np.isfinite(weights).all(axis=1)], outcome)
        estimates.append(curves[0])
        slopes.append(curves[1])
    n_lost = n_replicates - sum(map(len, estimates))
    if n_lost > _MOST_LOST * n_replicates:
        raise SolverError(
            f"{n_lost} of {n_replicates} bootstrap replicates could not be balanced.",
            "Use fewer covariates or larger segments.",
        )
    return np.concatenate(estimates), np.concatenate(slopes)
