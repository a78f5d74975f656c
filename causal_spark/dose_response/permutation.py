"""Permutation weighting: a classifier tells the rows from rows whose treatments were shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from causal_spark.dose_response.moments import ranks, second_order
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting, kept, normalised

Classifier = Literal["logistic", "boosted"]
_MAX_STEPS = 1000


@dataclass(frozen=True, slots=True)
class PermutationOptions:
    """classifier: logistic (treatment, covariates up to second order, and their products) or boosted (trees on the
    same). n_permutations: the weights of so many shuffles are averaged.
    """

    classifier: Classifier = "logistic"
    n_permutations: int = 10

    def __post_init__(self) -> None:
        if self.classifier not in get_args(Classifier):
            raise ValueError(f"classifier is {self.classifier!r}; it is one of {', '.join(get_args(Classifier))}")
        if self.n_permutations < 1:
            raise ValueError(f"n_permutations is {self.n_permutations}; at least one is needed")


def permutation(problem: CurveProblem, options: PermutationOptions, seed: int) -> Weighting:
    """Odds that a row is a shuffled one: in shuffled rows treatment and covariates are independent.

    Arbour, Dimmery, Sondhi (2021). The bootstrap keeps the classifiers.
    """
    segment = problem.segment
    weights = segment.sample_weights
    covariates = second_order(segment.standardised_covariates(), weights)
    treatment = ranks(segment.treatment, weights)
    rng = np.random.default_rng(seed)
    odds = np.zeros(segment.n_rows)
    # Trees take weights that are all the same much more slowly than none.
    of_rows = None if np.ptp(weights) == 0 else np.tile(weights * segment.n_rows, 2)
    is_shuffled = np.repeat([0, 1], segment.n_rows)
    for _ in range(options.n_permutations):
        # Drawn with replacement: were the margins of both classes the same to the last row, no tree would ever find a
        # first split that gains anything.
        drawn = rng.choice(segment.n_rows, segment.n_rows, p=weights)
        rows = np.concatenate([_functions(treatment, covariates), _functions(treatment[drawn], covariates)])
        classifier = _classifier(options.classifier, int(rng.integers(2**31)))
        classifier.fit(rows, is_shuffled, sample_weight=of_rows)
        chance = np.clip(classifier.predict_proba(rows[: segment.n_rows])[:, 1], 1e-6, 1 - 1e-6)
        odds += chance / (1 - chance)
    found = normalised(weights * odds)
    return Weighting(found, kept(found))


def _functions(treatment: Floats, covariates: Floats) -> Floats:
    return np.concatenate([treatment[:, None], covariates, treatment[:, None] * covariates], axis=1)


def _classifier(name: str, seed: int) -> LogisticRegression | HistGradientBoostingClassifier:
    if name == "logistic":
        return LogisticRegression(C=1.0, max_iter=_MAX_STEPS)
    return HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, early_stopping=False, random_state=seed)
