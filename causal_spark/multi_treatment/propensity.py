"""Chances of each arm given the covariates, for rows that the model has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causal_spark.multi_treatment.forests import Forest, forest_of
from causal_spark.multi_treatment.types import ArmSample, Floats, Rows, folds_of

#: Penalties of the logistic regression, and trees of the boosted one, to choose from.
_PENALTIES = (0.003, 0.03, 0.3)
_TREES = (25, 50, 100, 200)
_LEAVES, _RATE = 4, 0.06
_SMALLEST_CHANCE = 1e-6
_MAX_STEPS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Linear log odds. coefficients: (n_covariates, n_outputs), intercept: (n_outputs,); one output for two classes."""

    coefficients: Floats
    intercept: Floats

    def predict(self, covariates: Floats) -> Floats:
        """(n_rows,) chances of the second of two classes, (n_rows, n_classes) of more."""
        logits = covariates @ self.coefficients + self.intercept
        return np.asarray(expit(logits[:, 0]) if logits.shape[1] == 1 else softmax(logits, axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class PropensityModel:
    """A fitted classifier. arms: (n_classes,) those that its classes are. chosen: its name."""

    classifier: Logits | Forest
    arms: Rows
    n_arms: int
    chosen: str

    def chances(self, covariates: Floats) -> Floats:
        """(n_rows, n_arms), each row summing to one."""
        found = np.full((len(covariates), self.n_arms), _SMALLEST_CHANCE)
        of_classes = self.classifier.predict(covariates)
        if of_classes.ndim == 1:
            of_classes = np.stack([1 - of_classes, of_classes], axis=1)
        found[:, self.arms] = np.maximum(of_classes, _SMALLEST_CHANCE)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


def fit_propensities(sample: ArmSample, n_folds: int, seed: int) -> tuple[Floats, PropensityModel]:
    """(n_rows, n_arms) chances of each row, from models fitted without its fold; and a model of all rows for others.

    The classifier is the one of several logistic and boosted ones with the highest likelihood on rows held out.
    """
    folds = folds_of(sample.arm, n_folds, np.random.default_rng(seed))
    names = [f"logistic_{penalty:g}" for penalty in _PENALTIES] + [f"boosted_{n_trees}" for n_trees in _TREES]
    found = {name: np.full((sample.n_rows, sample.n_arms), _SMALLEST_CHANCE) for name in names}
    for fold in range(n_folds):
        held = folds == fold
        train = sample.of_rows(np.flatnonzero(~held))
        for penalty in _PENALTIES:
            model = _logistic(penalty).fit(train.covariates, train.arm)
            found[f"logistic_{penalty:g}"][np.ix_(held, model.classes_)] = model.predict_proba(sample.covariates[held])
        boosted = _boosted(max(_TREES), train.n_rows, seed).fit(train.covariates, train.arm)
        for place, chances in enumerate(boosted.staged_predict_proba(sample.covariates[held])):
            if place + 1 in _TREES:
                found[f"boosted_{place + 1}"][np.ix_(held, boosted.classes_)] = chances
    every = np.arange(sample.n_rows)
    losses = {
        name: -np.mean(np.log(np.maximum(chances[every, sample.arm], _SMALLEST_CHANCE)))
        for name, chances in found.items()
    }
    chosen = min(losses, key=lambda name: losses[name])
    kind, _, value = chosen.partition("_")
    classifier = _logistic(float(value)) if kind == "logistic" else _boosted(int(value), sample.n_rows, seed)
    classifier.fit(sample.covariates, sample.arm)
    arrays = _logits_of(classifier) if kind == "logistic" else forest_of(classifier)
    model = PropensityModel(arrays, np.asarray(classifier.classes_, dtype=np.intp), sample.n_arms, chosen)
    chances = np.maximum(found[chosen], _SMALLEST_CHANCE)
    return chances / chances.sum(axis=1, keepdims=True), model


def _logistic(penalty: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=_MAX_STEPS))


def _logits_of(pipeline: Any) -> Logits:
    scaler, regression = pipeline[0], pipeline[-1]
    coefficients = (regression.coef_ / scaler.scale_).T
    return Logits(coefficients, regression.intercept_ - scaler.mean_ @ coefficients)


def _boosted(n_trees: int, n_rows: int, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=n_trees,
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=max(2, min(20, n_rows // 10)),
        learning_rate=_RATE,
        early_stopping=False,
        random_state=seed % 2**32,
    )
