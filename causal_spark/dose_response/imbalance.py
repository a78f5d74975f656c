"""How far a weighting has taken treatment and covariates apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.dose_response.types import Floats, Notice, Segment, Weighting, standardised

#: Correlations above this leave a curve confounded: one that large moves a line by a tenth of what a covariate does.
LARGEST_CORRELATION = 0.1
#: Standard deviations of a correlation that is zero.
_CHANCE = 2.0
_DEPENDENT = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Imbalance:
    """Correlations of the treatment with one moment of each covariate.

    before, after: (n_covariates,), under sample weights and under balancing weights; NaN where the moment does not
    vary.
    """

    moment: str
    before: Floats
    after: Floats


def imbalances(segment: Segment, weighting: Weighting) -> tuple[Imbalance, Imbalance]:
    """Of the covariates, and of their squared distances from the mean (those of a binary one say nothing more)."""
    covariates = segment.standardised_covariates()
    squares = standardised(covariates**2, segment.sample_weights)
    told_already = np.abs(segment.sample_weights @ (squares * covariates)) > 1 - _DEPENDENT
    found = []
    for moment, columns in (("mean", covariates), ("square", np.where(told_already, 0.0, squares))):
        before, after = (
            _correlations(columns, segment.treatment, weights)
            for weights in (segment.sample_weights, weighting.weights)
        )
        found.append(Imbalance(moment, before, after))
    return found[0], found[1]


def notice_of(segment: Segment, weighting: Weighting, mean: Imbalance) -> Notice | None:
    """What to know where weights leave a covariate correlated with the treatment."""
    if not np.isfinite(mean.after).any():
        return None
    worst = int(np.nanargmax(np.abs(mean.after)))
    left = float(mean.after[worst])
    # Where treatments are drawn by lot, chance does as much in a group as small as this.
    by_chance = _CHANCE / np.sqrt(weighting.effective_sample_size)
    if abs(left) <= max(LARGEST_CORRELATION, by_chance):
        return None
    return Notice(
        "ImbalanceLeft",
        f"Covariate {segment.names[worst]!r} keeps a correlation of {left:.2f} with the treatment.",
        "The curve may be confounded: compare with ebct1 or ebct2, use fewer covariates or larger groups.",
    )


def _correlations(columns: Floats, treatment: Floats, weights: Floats) -> Floats:
    centred = columns - weights @ columns
    dose = treatment - weights @ treatment
    scale = np.sqrt((weights @ centred**2) * (weights @ dose**2))
    vary = scale > _DEPENDENT * np.sqrt(weights @ dose**2)
    found = np.divide(weights @ (centred * dose[:, None]), scale, where=vary, out=np.full(len(scale), np.nan))
    return np.asarray(np.clip(found, -1.0, 1.0))
