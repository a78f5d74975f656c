"""Entropy balancing for continuous treatments: treatment and covariates uncorrelated, margins as they were."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from causal_spark.dose_response.entropy_balancing import decorrelate, decorrelated_moments
from causal_spark.dose_response.moments import cross_moments
from causal_spark.dose_response.types import CurveProblem, Floats, Segment, Weighting, normalised
from causal_spark.errors import PositivityError


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
    of_treatment, of_covariates, _ = cross_moments(segment, degree)
    n_moments = of_treatment.shape[1] + 2 * of_covariates.shape[1]
    if n_moments >= segment.n_rows:
        raise PositivityError(
            f"{n_moments} moments cannot be balanced with {segment.n_rows} rows.",
            "Use fewer covariates, ebct1, or larger segments.",
        )
    solve = partial(_solve, segment.sample_weights, of_treatment, of_covariates)
    weights = solve(np.ones((1, segment.n_rows)))[0]
    if np.isnan(weights).any():
        raise PositivityError(
            "No positive weights make treatment and covariates uncorrelated: rows with some covariates have only "
            "high or only low treatments.",
            "Use fewer covariates or moments, or look at the range of the treatment where all covariates occur.",
        )
    return Weighting(weights, solve, balanced=decorrelated_moments(of_treatment, of_covariates))


def _solve(sample_weights: Floats, of_treatment: Floats, of_covariates: Floats, multipliers: Floats) -> Floats:
    rows = normalised(sample_weights * multipliers)
    with np.errstate(divide="ignore"):
        return decorrelate(np.log(rows), rows, of_treatment, of_covariates).or_nan
