"""Distance covariance optimal weights: treatment and covariates as independent as weights can make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from causal_spark.dose_response.simplex_program import minimise_on_simplex
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting, kept
from causal_spark.errors import GroupTooLargeError


@dataclass(frozen=True, slots=True)
class DcowOptions:
    """max_rows: rows at most, as the method holds and solves systems of rows by rows."""

    max_rows: int = 4000

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ValueError(f"max_rows is {self.max_rows}; it is a number of rows")


def dcow(problem: CurveProblem, options: DcowOptions, seed: int) -> Weighting:
    """Weights that minimise the weighted distance covariance plus the energy distances of the margins.

    Huling, Greifer, Chen (2023), eq. 6, margins weighted by dimension. The bootstrap keeps the weights.
    Raises `GroupTooLargeError` above ``max_rows``.
    """
    del seed
    segment = problem.segment
    if segment.n_rows > options.max_rows:
        raise GroupTooLargeError(
            f"dcow works on {segment.n_rows} x {segment.n_rows} numbers; max_rows is {options.max_rows}.",
            "Raise its option max_rows, or leave it to smaller segments with `where`.",
        )
    rows = segment.sample_weights
    between_covariates = _distances(segment.standardised_covariates())
    between_treatments = _distances(segment.standardised_treatment()[:, None])
    dependence = _centred(between_covariates, rows) * _centred(between_treatments, rows)
    of_treatment = 1.0 / (1.0 + np.sqrt(segment.n_covariates))
    margins = of_treatment * between_treatments + (1.0 - of_treatment) * between_covariates
    weights = minimise_on_simplex(dependence - margins, 2 * margins @ rows)
    return Weighting(weights, kept(weights))


def _distances(columns: Floats) -> Floats:
    return np.asarray(cdist(columns, columns))


def _centred(distances: Floats, rows: Floats) -> Floats:
    means = distances @ rows
    return np.asarray(distances + rows @ means - means[:, None] - means[None, :])
