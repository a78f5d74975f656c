"""Boosted trees whose size is chosen by cross-validation: the regressions inside the meta-learners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from causal_spark.multi_treatment.forests import Forest, forest_of
from causal_spark.multi_treatment.types import Floats, folds_of

#: Fewer rows than this are told by their mean.
_FEWEST_ROWS = 10
_SMALLEST_CHANCE = 1e-6


@dataclass(frozen=True, slots=True)
class BoostingOptions:
    """leaves: numbers of leaves per tree to choose from. max_iter: trees at most. learning_rate: of each tree.
    n_folds: of the cross-validation that chooses leaves and trees.
    """

    leaves: tuple[int, ...] = (4, 8, 16)
    max_iter: int = 150
    learning_rate: float = 0.1
    n_folds: int = 3

    def __post_init__(self) -> None:
        if not self.leaves or min(self.leaves) < 2:
            raise ValueError(f"leaves is {self.leaves}; it names numbers of leaves, each at least 2")
        if self.max_iter < 1 or self.n_folds < 2:
            raise ValueError("max_iter is at least 1, n_folds at least 2")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate is {self.learning_rate}; it lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class TreeSize:
    """leaves: per tree. n_trees: none where the mean does as well."""

    leaves: int = 0
    n_trees: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """A fitted regression of numbers, or of what is 0 or 1. forest: None where the mean does as well."""

    mean: float
    forest: Forest | None

    def predict(self, covariates: Floats) -> Floats:
        """(n_rows,) means."""
        if self.forest is None:
            return np.full(len(covariates), self.mean)
        return self.forest.predict(covariates)


class Regressions:
    """Fits regressions that have names. sizes: of those tuned before, by name; others are tuned and added to them.

    Models of parts of the rows need not be tuned again for each part.
    """

    def __init__(self, options: BoostingOptions, seed: int, sizes: Mapping[str, TreeSize] | None = None) -> None:
        self._options, self.seed = options, seed
        self.sizes = dict(sizes or {})

    def fit(self, name: str, covariates: Floats, target: Floats, is_binary: bool) -> Regression:
        """Boosted trees for the mean of a target (n_rows,). Losses: squared errors, or minus log likelihoods."""
        size = self.sizes.get(name)
        if size is None:
            size = self.sizes[name] = choose_size(covariates, target, is_binary, self._options, self.seed)
        return fit_regression(covariates, target, is_binary, self._options, self.seed, size)


def fit_regression(
    covariates: Floats, target: Floats, is_binary: bool, options: BoostingOptions, seed: int, size: TreeSize
) -> Regression:
    """Boosted trees of one size for the mean of a target (n_rows,). The mean of no rows is zero."""
    mean = float(target.mean()) if len(target) else 0.0
    if not size.n_trees or len(target) < _FEWEST_ROWS or np.ptp(target) == 0:
        return Regression(mean, None)
    trees = _trees(is_binary, size.leaves, size.n_trees, options, len(target), seed)
    return Regression(mean, forest_of(trees.fit(covariates, target)))


def choose_size(covariates: Floats, target: Floats, is_binary: bool, options: BoostingOptions, seed: int) -> TreeSize:
    """Leaves and trees with the lowest loss of rows held out."""
    none = TreeSize()
    if len(target) < _FEWEST_ROWS or np.ptp(target) == 0:
        return none
    of_levels = target.astype(np.intp) if is_binary else np.zeros(len(target), dtype=np.intp)
    folds = folds_of(of_levels, options.n_folds, np.random.default_rng(seed))
    best, found = _loss(np.full(len(target), target.mean()), target, is_binary), none
    for leaves in options.leaves:
        losses = np.zeros(options.max_iter)
        for fold in range(options.n_folds):
            held = folds == fold
            if is_binary and np.ptp(target[~held]) == 0:
                return none
            trees = _trees(is_binary, leaves, options.max_iter, options, int((~held).sum()), seed)
            trees.fit(covariates[~held], target[~held])
            losses += held.mean() * _staged_losses(trees, covariates[held], target[held], is_binary)
        place = int(losses.argmin())
        if losses[place] < best:
            best, found = float(losses[place]), TreeSize(leaves, place + 1)
    return found


def _trees(is_binary: bool, leaves: int, n_trees: int, options: BoostingOptions, n_rows: int, seed: int) -> Any:
    kind = HistGradientBoostingClassifier if is_binary else HistGradientBoostingRegressor
    return kind(
        max_iter=n_trees,
        max_leaf_nodes=leaves,
        min_samples_leaf=max(2, min(20, n_rows // 10)),
        learning_rate=options.learning_rate,
        early_stopping=False,
        random_state=seed % 2**32,
    )


def _staged_losses(trees: Any, covariates: Floats, target: Floats, is_binary: bool) -> Floats:
    if is_binary:
        stages = (chances[:, 1] for chances in trees.staged_predict_proba(covariates))
    else:
        stages = trees.staged_predict(covariates)
    return np.array([_loss(predicted, target, is_binary) for predicted in stages])


def _loss(predicted: Floats, target: Floats, is_binary: bool) -> float:
    if not is_binary:
        return float(np.mean((predicted - target) ** 2))
    chance = np.clip(predicted, _SMALLEST_CHANCE, 1 - _SMALLEST_CHANCE)
    return float(-np.mean(target * np.log(chance) + (1 - target) * np.log(1 - chance)))
