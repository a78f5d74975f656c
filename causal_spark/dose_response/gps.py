"""Inverse weighting by the generalised propensity score of a linear model with normal errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.dose_response.moments import independent
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting, normalised
from causal_spark.errors import PositivityError


@dataclass(frozen=True, slots=True)
class GpsOptions:
    """trim: quantile of the weights beyond which they are cut to it; 1 cuts none."""

    trim: float = 1.0

    def __post_init__(self) -> None:
        if not 0.5 < self.trim <= 1:
            raise ValueError(f"trim is {self.trim}; it lies above .5 and is at most 1")


def gps(problem: CurveProblem, options: GpsOptions, seed: int) -> Weighting:
    """Stabilised weights f(a) / f(a | x), both normal, the second around a linear regression of a on x.

    Robins, Hernan, Brumback (2000); Hirano, Imbens (2004). Right where that model is. The bootstrap fits it again.
    Raises `PositivityError` where covariates determine the treatment.
    """
    del seed
    segment = problem.segment
    covariates = segment.standardised_covariates()
    covariates = covariates[:, independent(covariates, segment.sample_weights)]
    design = np.concatenate([np.ones((segment.n_rows, 1)), covariates], axis=1)
    treatment = segment.standardised_treatment()

    def weights(multipliers: Floats) -> Floats:
        rows = normalised(segment.sample_weights * multipliers)
        return np.stack([_weights(one, design, treatment, options.trim) for one in rows])

    return Weighting(weights(np.ones((1, segment.n_rows)))[0], weights, balanced=covariates)


def _weights(rows: Floats, design: Floats, treatment: Floats, trim: float) -> Floats:
    weighted = design * rows[:, None]
    residual = treatment - design @ np.linalg.lstsq(weighted.T @ design, weighted.T @ treatment)[0]
    centred = treatment - rows @ treatment
    marginal, conditional = rows @ centred**2, rows @ residual**2
    if conditional <= 1e-12 * marginal:
        raise PositivityError(
            "The covariates determine the treatment.", "Leave out the covariates that are made from it."
        )
    log_ratio = (residual**2 / conditional - centred**2 / marginal) / 2
    ratio = np.exp(log_ratio - log_ratio.max())
    if trim < 1:
        ratio = np.minimum(ratio, np.quantile(ratio, trim))
    return normalised(rows * ratio)
