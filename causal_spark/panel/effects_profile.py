"""Both effects and the coefficients of covariates that explain given values best, for a batch of weights."""

from __future__ import annotations

import numpy as np

from causal_spark.panel.two_way import TwoWayOperator
from causal_spark.panel.types import Floats, Ints

# A covariate is spanned by the effects when they leave less than this share of its sum of squares.
_COLLINEAR = 1e-18
# Directions of covariates in which they differ by less than this share of their squares are not told apart.
_SHARED = 1e-12


def explained(coefficients: Floats, covariates: Floats) -> Floats:
    """X'b (n, n_rows, n_columns), from b (n, k) and X (1 or n, k, n_rows, n_columns)."""
    return np.asarray(
        np.einsum(
            "nk,nkit->nit",
            coefficients,
            np.broadcast_to(covariates, (coefficients.shape[0], *covariates.shape[1:])),
            optimize=True,
        )
    )


class EffectsProfile:
    """Both effects and the coefficients of covariates that explain given values best, for a batch of weights."""

    def __init__(self, weights: Floats, covariates: Floats) -> None:
        self.weights, self.covariates = weights, covariates
        self.operator = TwoWayOperator(weights)
        n, k = weights.shape[0], covariates.shape[1]
        self.design = np.zeros((n, k, *weights.shape[1:]))
        for j in range(k):
            values = np.where(weights > 0, covariates[:, j], 0.0)
            alpha, beta = self.operator.effects(weights * values)
            self.design[:, j] = values - alpha[:, :, None] - beta[:, None, :]
        self.design *= weights[:, None]
        gram = np.einsum("nait,nbit->nab", self.design, np.where(weights[:, None] > 0, covariates, 0.0), optimize=True)
        spread = np.einsum("nait,nait->na", weights[:, None] * covariates, covariates) if k else np.zeros((n, 0))
        own = np.maximum(gram[:, np.arange(k), np.arange(k)], 0.0)
        varies = own > _COLLINEAR * spread
        if not varies.all():
            self.covariates = covariates * varies[:, :, None, None]
        scale = np.where(varies, 1.0 / np.sqrt(np.where(varies, own, 1.0)), 0.0)
        gram = gram * scale[:, :, None] * scale[:, None, :]
        if k:
            values, vectors = np.linalg.eigh(gram)
            # What covariates have in common beyond the effects is counted once.
            apart = values > _SHARED
            inverse = (vectors * np.where(apart, 1.0 / np.where(apart, values, 1.0), 0.0)[:, None, :]) @ np.swapaxes(
                vectors, 1, 2
            )
            gram = inverse * scale[:, :, None] * scale[:, None, :]
        self.inverse = gram

    def take(self, kept: Ints) -> EffectsProfile:
        """The profile of some of the problems."""
        other = object.__new__(EffectsProfile)
        other.weights, other.operator = self.weights[kept], self.operator.take(kept)
        other.covariates = self.covariates if self.covariates.shape[0] == 1 else self.covariates[kept]
        other.design, other.inverse = self.design[kept], self.inverse[kept]
        return other

    def __call__(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Alpha (n, n_rows), beta (n, n_columns), coefficients (n, n_covariates)."""
        coefficients = np.zeros(self.inverse.shape[:2])
        if coefficients.shape[1]:
            right = np.einsum("nkit,nit->nk", self.design, values, optimize=True)
            coefficients = (self.inverse @ right[:, :, None])[:, :, 0]
            values = values - explained(coefficients, self.covariates)
        alpha, beta = self.operator.effects(self.weights * values)
        return alpha, beta, coefficients
