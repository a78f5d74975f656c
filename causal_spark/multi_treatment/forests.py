"""Boosted trees as arrays: what a fitted model is stored as, and predicted with wherever it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

# scikit-learn has no public way to a histogram booster's trees; tests compare with its own predictions.
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

from causal_spark.multi_treatment.types import Floats

Nodes = NDArray[np.int32]
_NO_SETS = np.zeros((0, 8), dtype=np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Boosted trees, their nodes one after the other, the root of each first.

    sizes: (n_trees,) nodes. feature, threshold: (n_nodes,) of a split: rows whose feature is at most the threshold go
    to node ``left`` of the tree, others to ``right``. is_leaf, value: (n_nodes,) of leaves. output: (n_trees,) the
    output that a tree adds to. baseline: (n_outputs,). is_classifier: whether outputs are log odds, one per class, or
    of the second of two.
    """

    sizes: Nodes
    feature: Nodes
    threshold: Floats
    left: Nodes
    right: Nodes
    is_leaf: NDArray[np.bool_]
    value: Floats
    output: Nodes
    baseline: Floats
    is_classifier: bool

    def predict(self, covariates: Floats) -> Floats:
        """(n_rows,) means, or the chances of the second of two classes; (n_rows, n_classes) chances of more."""
        raw = self._raw(np.ascontiguousarray(covariates, dtype=np.float64))
        if raw.shape[1] > 1:
            return np.asarray(softmax(raw, axis=1))
        return np.asarray(expit(raw[:, 0]) if self.is_classifier else raw[:, 0])

    def _raw(self, covariates: Floats) -> Floats:
        nodes = np.zeros(len(self.value), dtype=PREDICTOR_RECORD_DTYPE)
        for name, values in (
            ("feature_idx", self.feature),
            ("num_threshold", self.threshold),
            ("left", self.left),
            ("right", self.right),
            ("is_leaf", self.is_leaf),
            ("value", self.value),
        ):
            nodes[name] = values
        ends = np.cumsum(self.sizes)
        total = np.tile(self.baseline, (len(covariates), 1))
        # No feature is a category, and none is left out.
        known = np.zeros((0, 8), dtype=np.uint32), np.zeros(covariates.shape[1], dtype=np.uint32)
        for end, size, output in zip(ends, self.sizes, self.output, strict=True):
            tree = TreePredictor(nodes[end - size : end], _NO_SETS, _NO_SETS)
            total[:, output] += tree.predict(covariates, *known, n_threads=1)
        return total


def forest_of(model: Any, n_iterations: int | None = None) -> Forest:
    """The trees of a fitted `HistGradientBoostingRegressor` or `HistGradientBoostingClassifier`.

    n_iterations: the first so many only. Fitted to covariates that are finite and no categories.
    """
    iterations = model._predictors[:n_iterations]
    trees = [tree.nodes for iteration in iterations for tree in iteration]

    def of(name: str, kind: Any) -> NDArray[Any]:
        return np.concatenate([nodes[name] for nodes in trees]).astype(kind)

    is_leaf = of("is_leaf", bool)
    return Forest(
        np.array([len(nodes) for nodes in trees], dtype=np.int32),
        np.where(is_leaf, 0, of("feature_idx", np.int32)),
        np.where(is_leaf, 0.0, of("num_threshold", np.float64)),
        of("left", np.int32),
        of("right", np.int32),
        is_leaf,
        np.where(is_leaf, of("value", np.float64), 0.0),
        np.array([place for iteration in iterations for place in range(len(iteration))], dtype=np.int32),
        np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
        hasattr(model, "classes_"),
    )
