"""Curves of a weighting and how uncertain they are: a multiplier bootstrap that balances anew in every replicate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.dose_response.types import CurveProblem, Floats, Weighting
from causal_spark.errors import SolverError, TooFewEffectiveRowsError

#: Share of replicates that may fail to balance.
_MOST_LOST = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A response curve on its grid. estimate, slope, std_error, slope_std_error: (n_grid,) each.

    n_replicates: behind the standard errors.
    """

    estimate: Floats
    slope: Floats
    std_error: Floats
    slope_std_error: Floats
    n_replicates: int


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
    again (`Weighting.resolve`), and fits the second stage. Raises `TooFewEffectiveRowsError` below ``least_effective``
    rows, `SolverError` where more than a tenth of the replicates cannot be balanced.
    """
    effective = weighting.effective_sample_size
    if effective < least_effective:
        raise TooFewEffectiveRowsError(
            f"The weights leave {effective:.1f} effective rows of {problem.segment.n_rows}, fewer than "
            f"{least_effective:g}.",
            "Covariates and treatment overlap too little: use fewer covariates, a narrower range of the treatment, "
            "or larger segments.",
        )
    estimate, slope = problem.stage.curves(weighting.weights[None, :], outcome)
    rng = np.random.default_rng(seed)
    weights = weighting.resolve(rng.exponential(size=(n_replicates, problem.segment.n_rows)))
    usable = np.isfinite(weights).all(axis=1)
    if np.mean(~usable) > _MOST_LOST:
        raise SolverError(
            f"{np.sum(~usable)} of {n_replicates} bootstrap replicates could not be balanced.",
            "Use fewer covariates or larger segments.",
        )
    estimates, slopes = problem.stage.curves(weights[usable], outcome)
    return Curve(estimate[0], slope[0], estimates.std(axis=0, ddof=1), slopes.std(axis=0, ddof=1), int(np.sum(usable)))
