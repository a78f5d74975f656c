"""Whether arms have rows like all others: what effects can be learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_spark.multi_treatment.types import ArmSample, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Of each arm.

    smd_before, smd_after: (n_arms, n_covariates) means of the arm's rows less those of all rows, in standard deviations
    of all rows, as they are and weighted by the inverse of their chances; NaN where a covariate does not vary.
    lowest, highest: (n_arms,) chance of the arm over all rows. effective_sample_size: (n_arms,) of the arm's rows when
    they are weighted.
    """

    smd_before: Floats
    smd_after: Floats
    lowest: Floats
    highest: Floats
    effective_sample_size: Floats


def overlap_of(sample: ArmSample, chances: Floats, clip: float) -> Overlap:
    """Of a sample with propensities (n_rows, n_arms); chances below ``clip`` weigh as if they were that.

    Standardised mean differences: Austin (2009); effective sample size: Kish.
    """
    covariates = sample.covariates
    mean, spread = covariates.mean(axis=0), covariates.std(axis=0)
    shape = sample.n_arms, covariates.shape[1]
    before, after, effective = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(sample.n_arms)
    varies = spread > 0
    for k in range(sample.n_arms):
        rows = sample.arm == k
        weights = 1 / np.maximum(chances[rows, k], clip)
        weights /= weights.sum()
        effective[k] = 1 / np.sum(weights**2)
        for found, of_arm in ((before, covariates[rows].mean(axis=0)), (after, weights @ covariates[rows])):
            found[k, varies] = (of_arm - mean)[varies] / spread[varies]
    return Overlap(before, after, chances.min(axis=0), chances.max(axis=0), effective)


def in_support(chances: Floats, least: float) -> NDArray[np.bool_]:
    """(n_rows, n_arms) whether an arm is likely enough for a row to say what it would do there."""
    return np.asarray(chances >= least)
