"""Functions of covariates and treatment that weightings balance."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from causal_spark.dose_response.types import Floats, Segment, standardised

_DEPENDENT = 1e-8


def second_order(covariates: Floats, weights: Floats) -> Floats:
    """(n_rows, n_terms): standardised covariates, their squares and products, each standardised again.

    Columns that others determine (the square of a binary one) are left out. covariates: (n_rows, n_covariates),
    standardised under weights (n_rows,).
    """
    first, second = np.triu_indices(covariates.shape[1])
    columns = np.concatenate([covariates, covariates[:, first] * covariates[:, second]], axis=1)
    columns = columns - weights @ columns
    spread = np.sqrt(weights @ columns**2)
    columns = columns[:, spread > np.sqrt(_DEPENDENT)] / spread[spread > np.sqrt(_DEPENDENT)]
    return np.asarray(columns[:, independent(columns, weights)])


def independent(
    columns: Floats, weights: Floats, least: float = _DEPENDENT
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Positions, ascending, of standardised columns (n_rows, n_columns) that stand for all of them.

    least: share of a column's variance that the others must leave unexplained for it to be kept.
    """
    scaled = np.sqrt(weights)[:, None] * columns
    # Pivoting looks for the largest remainder, so that original columns, which come first, win ties only; a tiny
    # preference keeps them wherever possible.
    preference = np.linspace(1.0, 0.9, columns.shape[1])
    triangular, order = linalg.qr(scaled * preference, mode="r", pivoting=True)
    size = np.abs(np.diag(triangular))
    return np.sort(order[: int(np.sum(size > np.sqrt(least) * size[0]))])


def ranks_at(treatment: Floats, weights: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """(n_rows,) and (n_grid,) shares of rows with a lower treatment, half of those with the same one included."""
    values, place = np.unique(treatment, return_inverse=True)
    shares = np.bincount(place, weights=weights, minlength=len(values))
    middle = np.cumsum(shares) - shares / 2
    return middle[place], np.interp(grid, values, middle)


def ranks(treatment: Floats, weights: Floats) -> Floats:
    """(n_rows,) standardised ranks of the treatment, see `ranks_at`."""
    return standardised(ranks_at(treatment, weights, treatment[:0])[0][:, None], weights)[:, 0]


def cross_moments(segment: Segment, degree: int) -> tuple[Floats, Floats, Floats]:
    """Moments of the treatment (n_rows, degree), of the covariates, and the treatment they are multiplied with.

    degree 1: treatment and covariates themselves. 2: ranks of the treatment and their squares; covariates, squares and
    products. Ranks keep a skewed treatment from deciding everything.
    """
    weights = segment.sample_weights
    covariates = segment.standardised_covariates()
    if degree == 1:
        covariates = covariates[:, independent(covariates, weights)]
        treatment = segment.standardised_treatment()
        return treatment[:, None], covariates, treatment
    ranked = ranks(segment.treatment, weights)
    both = np.stack([ranked, ranked**2], axis=1)
    both = standardised(both[:, : 1 if np.ptp(ranked**2) < np.sqrt(_DEPENDENT) else 2], weights)
    return both, second_order(covariates, weights), ranked
