"""MEMENTO: networks in whose representation arms are matched, with boosted trees beside them.

Mondal, Majumder, Chaoji (CIKM 2022). The networks are as published, less that alpha may be zero and heads may share
what arms have in common; the rest is ours: the x_learner, which sees steps that networks smooth over, has the share
that predicts rows held out best, and mean outcomes are moved to the doubly robust ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from scipy.optimize import nnls

from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.ensembles import Ensemble, NetworkOptions, fit_ensembles, split_of
from causal_spark.multi_treatment.meta_learners import CrossFit, LearnerOptions, cross_fit, x_learner
from causal_spark.multi_treatment.networks import Head, Matching
from causal_spark.multi_treatment.types import ArmSample, Floats


@dataclass(frozen=True, slots=True)
class MementoOptions(NetworkOptions):
    """heads, matchings: to choose from as well, see `NetworkSpec`. trees_from: rows from which the x_learner has a
    share; fewer hardly gain by it, and would wait for it. learner: its options; propensities below its ``clip`` are
    moved there. calibrate: whether mean outcomes of arms are moved to the doubly robust ones.
    """

    heads: tuple[Head, ...] = ("shared", "offset")
    matchings: tuple[Matching, ...] = ("population", "pairwise")
    trees_from: int = 1000
    learner: LearnerOptions = field(default_factory=LearnerOptions)
    calibrate: bool = True

    def __post_init__(self) -> None:
        # Dataclasses with slots are other classes than those that `super()` without arguments knows.
        NetworkOptions.__post_init__(self)
        for name, kind in (("heads", Head), ("matchings", Matching)):
            unknown = set(getattr(self, name)) - set(get_args(kind))
            if unknown:
                raise ValueError(f"{name} has {min(unknown)!r}; known are {', '.join(get_args(kind))}")
        if not self.heads:
            raise ValueError("heads names at least one")
        if self.trees_from < 0:
            raise ValueError(f"trees_from is {self.trees_from}; it is not negative")


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """Several models as one. weights: of each, summing to one. shifts: (n_arms,) added to all outcomes of an arm."""

    models: tuple[Ensemble | CrossFit, ...]
    weights: Floats
    shifts: Floats

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        return self._mean([one.outcomes(covariates) for one in self.models])

    def with_folds(self, covariates: Floats) -> tuple[Floats, Floats]:
        """See `FittedModel`."""
        whole, folds = zip(*(one.with_folds(covariates) for one in self.models), strict=True)
        return self._mean(whole), self._mean(folds)

    def cross_fitted(self, sample: ArmSample) -> Floats:
        """See `FittedModel`."""
        return self._mean([one.cross_fitted(sample) for one in self.models])

    def _mean(self, outcomes: Sequence[Floats]) -> Floats:
        return np.asarray(np.tensordot(self.weights, np.stack(outcomes), 1) + self.shifts)


def memento(
    samples: Sequence[ArmSample], chances: Sequence[Floats], options: MementoOptions, seeds: Sequence[int]
) -> list[Stacked]:
    """All arms matched, to each other or to the population; see `MementoOptions` for what is chosen and added.

    samples: as for `fit_ensembles`. chances: (n_rows, n_arms) cross-fitted propensities of each. seeds: one each.
    """
    ensembles = fit_ensembles(samples, options, seeds, options.heads, options.matchings)
    return [stacked(*given, options) for given in zip(ensembles, samples, chances, seeds, strict=True)]


def stacked(ensemble: Ensemble, sample: ArmSample, chances: Floats, seed: int, options: MementoOptions) -> Stacked:
    """What `memento` adds to an ensemble fitted to the sample with that seed."""
    models: tuple[Ensemble | CrossFit, ...] = (ensemble,)
    if sample.n_rows >= options.trees_from:
        # The folds of the ensemble's first members, so that rows are held out by both at once.
        models = ensemble, cross_fit(x_learner, sample, chances, options.learner, split_of(seed, 0)[0])
    crossed = [one.cross_fitted(sample) for one in models]
    weights = stacking_weights(sample, crossed)
    predicted = np.tensordot(weights, np.stack(crossed), 1)
    shifts = np.zeros(sample.n_arms)
    if options.calibrate:
        scores = doubly_robust_scores(sample, predicted, chances, options.learner.clip)
        shifts = scores.mean(axis=0) - predicted.mean(axis=0)
    return Stacked(models, weights, shifts)


def stacking_weights(sample: ArmSample, crossed: Sequence[Floats]) -> Floats:
    """(n_models,) shares with which outcomes of rows held out, (n_rows, n_arms) each, predict best.

    Not negative, and scaled to sum to one (Breiman 1996). All in the first model where none predicts.
    """
    first: Floats = np.eye(len(crossed))[0]
    if len(crossed) == 1:
        return first
    own = np.stack([one[np.arange(sample.n_rows), sample.arm] for one in crossed], axis=1)
    mean = sample.outcome.mean()
    weights, _ = nnls(own - mean, sample.outcome - mean)
    total = weights.sum()
    return np.asarray(weights / total) if total > 0 else first
