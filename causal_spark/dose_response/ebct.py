"""Entropy balancing for continuous treatments: treatment and covariates uncorrelated, margins as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from causal_spark.dose_response.entropy_balancing import balance
from causal_spark.dose_response.moments import cross_moments
from causal_spark.dose_response.types import CurveProblem, Floats, Segment, Weighting, normalised
from causal_spark.errors import PositivityError

#: (n_replicates, n_rows) multipliers -> weights, and (n_replicates,) whether the moments are balanced.
Solve = Callable[[Floats], tuple[Floats, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class EbctOptions:
    """None."""


def ebct1(problem: CurveProblem, options: EbctOptions, seed: int) -> Weighting:
    """Means of treatment and covariates kept, and the two uncorrelated.

    Tuebbicke (2022); Vegetabile et al. (2021). Right where confounding is linear. The bootstrap balances again.
    Raises `PositivityError` where no weights do it.
    """
    del options, seed
    return _balanced(problem.segment, 1)


def ebct2(problem: CurveProblem, options: EbctOptions, seed: int) -> Weighting:
    """The same with squares and products of the covariates, and with ranks of the treatment and their squares."""
    del options, seed
    return _balanced(problem.segment, 2)


def _balanced(segment: Segment, degree: int) -> Weighting:
    of_treatment, of_covariates, multiplied = cross_moments(segment, degree)
    n_moments = of_treatment.shape[1] + 2 * of_covariates.shape[1]
    if n_moments >= segment.n_rows:
        raise PositivityError(
            f"{n_moments} moments cannot be balanced with {segment.n_rows} rows.",
            "Use fewer covariates, ebct1, or larger segments.",
        )
    moments = np.concatenate([of_treatment, of_covariates, multiplied[:, None] * of_covariates], axis=1)
    solve = partial(_solve, segment.sample_weights, moments, of_treatment.shape[1])
    weights, converged = solve(np.ones((1, segment.n_rows)))
    if not converged[0]:
        raise PositivityError(
            "No positive weights make treatment and covariates uncorrelated: rows with some covariates have only "
            "high or only low treatments.",
            "Use fewer covariates or moments, or look at the range of the treatment where all covariates occur.",
        )
    return Weighting(weights[0], partial(_solved_again, solve))


def _solved_again(solve: Solve, multipliers: Floats) -> Floats:
    weights, converged = solve(multipliers)
    return np.where(converged[:, None], weights, np.nan)


def _solve(
    sample_weights: Floats, moments: Floats, n_treatment: int, multipliers: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    rows = normalised(sample_weights * multipliers)
    n_margins = (moments.shape[1] + n_treatment) // 2
    means = rows @ moments[:, :n_margins]
    # The treatment that multiplies the covariates is the first of its moments.
    products = means[:, :1] * means[:, n_treatment:]
    with np.errstate(divide="ignore"):
        balanced = balance(np.log(rows), moments, np.concatenate([means, products], axis=1))
    return balanced.weights, balanced.converged
