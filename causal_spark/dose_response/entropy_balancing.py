"""Entropy balancing: the weights nearest to given ones, in relative entropy, whose moments are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_spark.dose_response.types import Floats

#: Largest difference between a moment and its target that counts as met, for moments of unit scale.
TOLERANCE = 1e-8
_MAX_STEPS = 200
_FIRST_DAMPING = 1e-6
_DAMPING_DOWN, _DAMPING_UP = 0.1, 10.0
_DAMPING_FLOOR = 1e-12
_ROUNDING = 1e-13
#: Numbers held at once beyond the weights.
_CHUNK_NUMBERS = 16_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """weights: (n_replicates, n_rows), each summing to one. converged: (n_replicates,), whether the moments are met."""

    weights: Floats
    converged: NDArray[np.bool_]

    @property
    def or_nan(self) -> Floats:
        """The weights, NaN where the moments are not met."""
        return np.where(self.converged[:, None], self.weights, np.nan)


def balance(log_base: Floats, moments: Floats, targets: Floats, ridge: float = 0.0) -> Balanced:
    """Weights proportional to ``exp(log_base + moments @ multipliers)`` with ``weights @ moments = targets``.

    log_base: (n_replicates, n_rows). moments: (n_rows, n_moments) of about unit scale. targets: (n_replicates,
    n_moments). ridge: a moment may miss its target by the ridge times its multiplier.
    Damped Newton steps on the dual (Hainmueller 2012, eq. 8; Zhao, Percival 2017 for the ridge), all replicates side
    by side. Where no weights meet the targets a replicate does not converge; with a ridge there always are some.
    """
    n_replicates, n_rows = log_base.shape
    weights, converged = np.empty_like(log_base), np.zeros(n_replicates, dtype=bool)
    size = max(1, _CHUNK_NUMBERS // (3 * n_rows + moments.shape[1] ** 2))
    for start in range(0, n_replicates, size):
        part = slice(start, start + size)
        weights[part], converged[part] = _newton(log_base[part], moments, targets[part], ridge)
    return Balanced(weights, converged)


def decorrelate(
    log_base: Floats,
    rows: Floats,
    of_treatment: Floats,
    of_covariates: Floats,
    left: Floats | float = 0.0,
    ridge: float = 0.0,
) -> Balanced:
    """Weights with the means that functions of treatment and covariates have under ``rows``, and the first function of
    the treatment uncorrelated with each of the covariates'.

    log_base, rows: (n_replicates, n_rows). of_treatment, of_covariates: (n_rows, n_functions) each. left: (n_moments,)
    imbalance that is to stay, of the treatment's functions, the covariates', and their products. ridge: see `balance`.
    """
    moments = decorrelated_moments(of_treatment, of_covariates)
    n_of_treatment, n_margins = of_treatment.shape[1], of_treatment.shape[1] + of_covariates.shape[1]
    means = rows @ moments[:, :n_margins]
    products = means[:, :1] * means[:, n_of_treatment:]
    targets = np.concatenate([means, products], axis=1) + left
    return balance(log_base, moments, targets, ridge)


def decorrelated_moments(of_treatment: Floats, of_covariates: Floats) -> Floats:
    """(n_rows, n_moments) what `decorrelate` balances: the treatment's functions, the covariates', their products."""
    return np.concatenate([of_treatment, of_covariates, of_treatment[:, :1] * of_covariates], axis=1)


def _newton(log_base: Floats, moments: Floats, targets: Floats, ridge: float) -> tuple[Floats, NDArray[np.bool_]]:
    n_replicates, n_moments = targets.shape
    multipliers = np.zeros((n_replicates, n_moments))
    value, weights = _dual(log_base, moments, targets, ridge, multipliers)
    gradient = weights @ moments - targets + ridge * multipliers
    damping = np.full(n_replicates, _FIRST_DAMPING)
    for _ in range(_MAX_STEPS):
        active = np.flatnonzero(np.abs(gradient).max(axis=1) > TOLERANCE)
        if not len(active):
            break
        hessian = _covariances(weights[active], moments)
        diagonal = np.arange(n_moments)
        hessian[:, diagonal, diagonal] += ridge + damping[active, None]
        step = np.linalg.solve(hessian, gradient[active][:, :, None])[:, :, 0]
        tried = multipliers[active] - step
        found, tilted = _dual(log_base[active], moments, targets[active], ridge, tried)
        better = found <= value[active] + _ROUNDING * np.abs(value[active])
        damping[active] = np.maximum(damping[active] * np.where(better, _DAMPING_DOWN, _DAMPING_UP), _DAMPING_FLOOR)
        took = active[better]
        multipliers[took], value[took], weights[took] = tried[better], found[better], tilted[better]
        gradient[took] = weights[took] @ moments - targets[took] + ridge * multipliers[took]
    return weights, np.abs(gradient).max(axis=1) <= TOLERANCE


def _dual(
    log_base: Floats, moments: Floats, targets: Floats, ridge: float, multipliers: Floats
) -> tuple[Floats, Floats]:
    """(n_replicates,) values of the dual, to be minimised, and (n_replicates, n_rows) weights."""
    log_weights = log_base + multipliers @ moments.T
    highest = log_weights.max(axis=1, keepdims=True)
    weights = np.exp(log_weights - highest)
    total = weights.sum(axis=1, keepdims=True)
    value = (highest + np.log(total))[:, 0] - np.sum(multipliers * targets, axis=1)
    return value + ridge * np.sum(multipliers**2, axis=1) / 2, weights / total


def _covariances(weights: Floats, moments: Floats) -> Floats:
    """(n_replicates, n_moments, n_moments) covariances of the moments under each row of weights."""
    means = weights @ moments
    found = np.stack([(moments * one[:, None]).T @ moments for one in weights])
    return np.asarray(found - means[:, :, None] * means[:, None, :])
