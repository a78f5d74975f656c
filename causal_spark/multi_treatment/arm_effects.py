"""Mean effects of arms against each other, from doubly robust scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from causal_spark.multi_treatment.types import ArmSample, Floats


@dataclass(frozen=True, slots=True, eq=False)
class ArmEffects:
    """estimate, std_error: (n_arms, n_arms), in row k and column j the effect of arm k against arm j. p_value: of no
    effect, two-sided, normal. means, mean_errors: (n_arms,) of outcomes had all rows received each arm.
    """

    estimate: Floats
    std_error: Floats
    p_value: Floats
    means: Floats
    mean_errors: Floats


def doubly_robust_scores(sample: ArmSample, predicted: Floats, chances: Floats, clip: float) -> Floats:
    """(n_rows, n_arms) scores whose means are the mean outcomes of each arm.

    predicted, chances: (n_rows, n_arms) mean outcomes and propensities of each row from models fitted without it.
    The prediction, and in the arm received the residual over its chance (Robins, Rotnitzky, Zhao 1994); chances below
    ``clip`` are moved there.
    """
    every = np.arange(sample.n_rows)
    scores = predicted.copy()
    residual = sample.outcome - predicted[every, sample.arm]
    scores[every, sample.arm] += residual / np.maximum(chances[every, sample.arm], clip)
    return scores


def arm_effects(scores: Floats) -> ArmEffects:
    """Means of scores (n_rows, n_arms) and of their differences, with influence-function standard errors.

    Chernozhukov et al. (2018), eq. 5.3, for each pair of arms.
    """
    n_rows = len(scores)
    means = scores.mean(axis=0)
    centred = scores - means
    covariance = centred.T @ centred / max(n_rows - 1, 1)
    own = np.diag(covariance)
    estimate = means[:, None] - means[None, :]
    variance = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)
    std_error = np.sqrt(variance / n_rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * ndtr(-np.abs(estimate) / std_error)
    np.fill_diagonal(p_value, 1.0)
    return ArmEffects(estimate, std_error, p_value, means, np.sqrt(own / n_rows))
