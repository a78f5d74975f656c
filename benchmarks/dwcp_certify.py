"""Is a fit of one target cell the optimum? Lower bounds from duality; no solver is trusted, ours included.

Objective: sum of weights times squared residuals plus lambda_nn times the nuclear norm, effects unpenalised. Excesses
are shares of the objective at L = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.cases import Floats
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import two_way_fit


@dataclass(frozen=True)
class Optimum:
    """predicted: (n_units, n_periods) of the best fit we can find; lower: a bound that no fit can go below.

    scale: objective at L = 0; gap: what the bound leaves open for ``predicted`` itself, as a share of ``scale``.
    """

    predicted: Floats
    lower: float
    scale: float
    gap: float


def optimum(outcome: Floats, weights: Floats, penalty: float) -> Optimum:
    """Closed form when the penalty is infinite, else our solver at tolerance 1e-9 and its dual bound.

    outcome, weights: (n_units, n_periods); the weights are the product of a unit's and a period's at cells that have
    any, 0 elsewhere.
    """
    additive = two_way_fit(outcome, weights)
    scale = float(np.sum(weights * (outcome - additive) ** 2))
    if math.isinf(penalty):
        return Optimum(additive, scale, scale, 0.0)
    omega, theta = _factors(weights)
    product = ProductWeights(omega[None], theta[None], (weights > 0)[None])
    found = low_rank_fit(outcome, product, np.array([penalty]), tolerance=1e-9, max_sweeps=5000)
    predicted = found.predictions()[0]
    primal, lower = bounds(outcome, weights, predicted, penalty)
    return Optimum(predicted, lower, scale, (primal - lower) / scale)


def bounds(outcome: Floats, weights: Floats, predicted: Floats, penalty: float) -> tuple[float, float]:
    """The objective of predictions, effects fitted anew to their low-rank part, and a bound below any fit's objective.

    Of all splits of a prediction into effects and L, L without row and column means has the least nuclear norm. At
    refitted effects the weighted residuals have zero row and column sums, so twice them, scaled to spectral norm at
    most the penalty, are feasible in the dual.
    """
    low_rank = predicted - predicted.mean(axis=0) - predicted.mean(axis=1, keepdims=True) + predicted.mean()
    residual = np.where(weights > 0, outcome - low_rank, 0.0)
    residual = np.where(weights > 0, residual - two_way_fit(residual, weights), 0.0)
    squares = float(np.sum(weights * residual**2))
    dual = 2.0 * weights * residual
    top = float(np.linalg.norm(dual, 2))
    shrink = 1.0 if top <= penalty else penalty / top
    lower = shrink * float(np.sum(dual * np.where(weights > 0, outcome, 0.0))) - shrink**2 * squares
    return squares + penalty * float(np.linalg.norm(low_rank, "nuc")), lower


def excess(outcome: Floats, weights: Floats, predicted: Floats, penalty: float, best: Optimum) -> float:
    """By how much a fit's objective exceeds the lower bound, as a share of the objective at L = 0.

    With an infinite penalty what a prediction has beyond effects counts as infeasible: its largest entry is returned
    when that is more than the excess.
    """
    if math.isinf(penalty):
        beyond = predicted - predicted.mean(axis=0) - predicted.mean(axis=1, keepdims=True) + predicted.mean()
        squares = float(np.sum(weights * (outcome - predicted) ** 2))
        return max((squares - best.lower) / best.scale, float(np.abs(beyond).max()))
    primal, lower = bounds(outcome, weights, predicted, penalty)
    # Of the same problem the better of two valid bounds counts.
    return max(0.0, primal - max(lower, best.lower)) / best.scale


def _factors(weights: Floats) -> tuple[Floats, Floats]:
    """A unit's and a period's factor of product weights with zeros, by the ratios that the other cells give."""
    used = weights > 0
    log = np.where(used, np.log(np.where(used, weights, 1.0)), 0.0)
    fitted = two_way_fit(log, used.astype(float))
    # Identified cells know the sum; any row without a zero fixes the split.
    row = int(np.argmax(used.sum(axis=1)))
    column = int(np.argmax(used.sum(axis=0)))
    period = fitted[row] - fitted[row, column]
    return np.exp(fitted[:, column]), np.exp(period)
