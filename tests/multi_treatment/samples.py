"""Samples the tests share."""

from __future__ import annotations

import numpy as np

from causal_spark.multi_treatment.types import ArmSample, Floats


def confounded(n_rows: int = 300, n_arms: int = 3, seed: int = 0, is_binary: bool = False) -> tuple[ArmSample, Floats]:
    """Arms that are likelier the higher the first covariate, which raises the outcome; and all true means.

    The effect of arm k is k, and twice the second covariate on top of it.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 4))
    logits = 0.8 * x[:, :1] * np.arange(n_arms)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    arm = (rng.random((n_rows, 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    means = 2 * x[:, :1] + np.arange(n_arms) + 2 * x[:, 1:2] * (np.arange(n_arms) > 0)
    own = means[np.arange(n_rows), arm]
    if is_binary:
        means = 1 / (1 + np.exp(-means))
        outcome = (rng.random(n_rows) < means[np.arange(n_rows), arm]).astype(float)
    else:
        outcome = own + 0.5 * rng.normal(size=n_rows)
    return ArmSample(x, arm.astype(np.intp), outcome, n_arms, is_binary), means


def effect_error(found: Floats, means: Floats) -> float:
    """Root mean squared error of effects against the control arm."""
    return float(np.sqrt(np.mean(((found - found[:, :1]) - (means - means[:, :1]))[:, 1:] ** 2)))


def true_chances(sample: ArmSample) -> Floats:
    """Propensities of what `confounded` draws."""
    chances = np.exp(0.8 * sample.covariates[:, :1] * np.arange(sample.n_arms))
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))
