"""Boosted trees as arrays: what a fitted model is stored as, and predicted with wherever it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from causal_spark.multi_treatment.types import Floats

Nodes = NDArray[np.int32]
#: Rows that walk down a forest together: their positions in it stay in the cache.
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Boosted trees, their nodes one after the other.

    roots: (n_trees,) nodes where trees start. feature, threshold: (n_nodes,) of a split: rows whose feature is at most
    the threshold go to node ``left``, others to ``right``; a leaf leads to itself. value: (n_nodes,) of leaves.
    output: (n_trees,) the output that a tree adds to. baseline: (n_outputs,). depth: steps from a root to the farthest
    leaf. is_classifier: whether outputs are log odds, one per class, or of the second of two.
    """

    roots: Nodes
    feature: Nodes
    threshold: Floats
    left: Nodes
    right: Nodes
    value: Floats
    output: Nodes
    baseline: Floats
    depth: int
    is_classifier: bool

    def predict(self, covariates: Floats) -> Floats:
        """(n_rows,) means, or the chances of the second of two classes; (n_rows, n_classes) chances of more."""
        raw = np.concatenate(
            [self._raw(covariates[start : start + _BLOCK]) for start in range(0, len(covariates), _BLOCK)]
            or [np.empty((0, len(self.baseline)))]
        )
        if raw.shape[1] > 1:
            return np.asarray(softmax(raw, axis=1))
        return np.asarray(expit(raw[:, 0]) if self.is_classifier else raw[:, 0])

    def _raw(self, covariates: Floats) -> Floats:
        flat, n_columns = covariates.ravel(), covariates.shape[1]
        start = np.arange(len(covariates)) * n_columns
        total = np.tile(self.baseline, (len(covariates), 1))
        for root, output in zip(self.roots, self.output, strict=True):
            node = np.full(len(covariates), root)
            for _ in range(self.depth):
                goes_left = flat[start + self.feature[node]] <= self.threshold[node]
                node = np.where(goes_left, self.left[node], self.right[node])
            total[:, output] += self.value[node]
        return total


def forest_of(model: Any, n_iterations: int | None = None) -> Forest:
    """The trees of a fitted `HistGradientBoostingRegressor` or `HistGradientBoostingClassifier`.

    n_iterations: the first so many only. Fitted to covariates that are finite and no categories.
    """
    # scikit-learn has no public way to a histogram booster's trees; a test compares with its own predictions.
    iterations = model._predictors[:n_iterations]
    trees = [tree.nodes for iteration in iterations for tree in iteration]
    sizes = np.array([len(nodes) for nodes in trees], dtype=np.int32)
    roots = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int32)
    shift = np.repeat(roots, sizes)
    itself = np.arange(int(sizes.sum()), dtype=np.int32)

    def of(name: str) -> NDArray[Any]:
        return np.concatenate([nodes[name] for nodes in trees])

    is_leaf = of("is_leaf").astype(bool)
    left, right = (np.where(is_leaf, itself, of(name).astype(np.int32) + shift) for name in ("left", "right"))
    return Forest(
        roots,
        np.where(is_leaf, 0, of("feature_idx")).astype(np.int32),
        np.where(is_leaf, 0.0, of("num_threshold")),
        left,
        right,
        np.where(is_leaf, of("value"), 0.0),
        np.array([place for iteration in iterations for place in range(len(iteration))], dtype=np.int32),
        np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
        int(of("depth").max()),
        hasattr(model, "classes_"),
    )
