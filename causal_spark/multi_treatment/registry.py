"""Every estimator of individual effects by its name: the one list that configuration, planning and running read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from causal_spark.multi_treatment import costs
from causal_spark.multi_treatment.batches import row_class
from causal_spark.multi_treatment.costs import SampleSize
from causal_spark.multi_treatment.ensembles import NetworkOptions, cfr, tarnet
from causal_spark.multi_treatment.memento import MementoOptions, memento
from causal_spark.multi_treatment.meta_learners import (
    Learner,
    LearnerOptions,
    cross_fit,
    dr_learner,
    s_learner,
    t_learner,
    x_learner,
)
from causal_spark.multi_treatment.types import ArmSample, FittedModel, Floats

Fit = Callable[[Sequence[ArmSample], Sequence[Floats], Any, Sequence[int]], Sequence[FittedModel]]


@dataclass(frozen=True, slots=True)
class EffectDefinition:
    """An estimator: its fit, its options' class, a line for people, and what it takes.

    fit: (samples, cross-fitted propensities of each, options, seeds) -> fitted models, for samples of one `shape_of`.
    It may raise `GroupError`, a `DeclinedError` where the method has no meaning. seconds: (size, options, companions)
    -> of a fit, on one ordinary core. numbers: (size, options) -> float64 numbers held by it. companions: samples of a
    size that are worth fitting together.
    """

    name: str
    fit: Fit
    options: type[Any]
    description: str
    seconds: Callable[[SampleSize, Any, int], float]
    numbers: Callable[[SampleSize, Any], float]
    companions: Callable[[SampleSize], int]


def shape_of(sample: ArmSample, options: Any) -> Hashable:
    """Samples of one shape can be fitted together, and then are what they would be alone."""
    shape = sample.covariates.shape[1], sample.n_arms, sample.is_binary
    if not isinstance(options, NetworkOptions):
        return shape
    return *shape, options.shape_for(sample.n_rows), row_class(sample.n_rows)


def _each(learner: Learner) -> Fit:
    def fit(
        samples: Sequence[ArmSample], chances: Sequence[Floats], options: LearnerOptions, seeds: Sequence[int]
    ) -> Sequence[FittedModel]:
        given = zip(samples, chances, seeds, strict=True)
        return [cross_fit(learner, sample, of_rows, options, seed) for sample, of_rows, seed in given]

    return fit


def _without_chances(
    family: Callable[[Sequence[ArmSample], NetworkOptions, Sequence[int]], Sequence[FittedModel]],
) -> Fit:
    def fit(
        samples: Sequence[ArmSample], chances: Sequence[Floats], options: NetworkOptions, seeds: Sequence[int]
    ) -> Sequence[FittedModel]:
        del chances
        return family(samples, options, seeds)

    return fit


def _boosted(name: str, learner: Learner, description: str, seconds: Callable[[SampleSize], float]) -> EffectDefinition:
    return EffectDefinition(
        name,
        _each(learner),
        LearnerOptions,
        description,
        lambda size, options, n_companions: seconds(size),
        lambda size, options: costs.numbers(size),
        lambda size: 1,
    )


def _per_arm(n_regressions: float) -> Callable[[SampleSize], float]:
    """Seconds of so many regressions on the rows of each arm."""
    return lambda size: costs.boosted_seconds(size.n_rows / size.n_arms, n_regressions * size.n_arms)


_x_seconds = _per_arm(4.0)


def _network(
    name: str,
    fit: Fit,
    options: type[NetworkOptions],
    description: str,
    share: float,
    more: Callable[[SampleSize, Any], float] = lambda size, options: 0.0 * size.n_rows,
) -> EffectDefinition:
    """share: of the networks that there may be, those that there are on the mean. more: seconds of all but networks."""

    def seconds(size: SampleSize, options: NetworkOptions, n_companions: int) -> float:
        shape, n_networks = options.shape_for(size.n_rows), options.n_networks
        return share * costs.network_seconds(size, shape, n_networks, n_companions) + more(size, options)

    def numbers(size: SampleSize, options: NetworkOptions) -> float:
        return costs.numbers(size) + costs.network_numbers(size, options.n_networks)

    return EffectDefinition(name, fit, options, description, seconds, numbers, costs.companions)


def _trees(size: SampleSize, options: MementoOptions) -> float:
    return _x_seconds(size) if size.n_rows >= options.trees_from else 0.0


ESTIMATORS: Mapping[str, EffectDefinition] = MappingProxyType(
    {
        one.name: one
        for one in (
            _boosted(
                "s_learner",
                s_learner,
                "One boosted regression on covariates and arm.",
                lambda size: costs.boosted_seconds(size.n_rows, 1),
            ),
            _boosted("t_learner", t_learner, "A boosted regression per arm.", _per_arm(1.0)),
            _boosted("x_learner", x_learner, "Effects imputed in either arm, regressed and weighted.", _x_seconds),
            _boosted("dr_learner", dr_learner, "Doubly robust effects, regressed.", _per_arm(3.4)),
            _network("tarnet", _without_chances(tarnet), NetworkOptions, "Networks with a head per arm.", 0.4),
            _network("cfr", _without_chances(cfr), NetworkOptions, "The same, arms matched to the control arm.", 0.7),
            _network(
                "memento",
                memento,
                MementoOptions,
                "Arms matched, trees beside networks, means calibrated.",
                1.0,
                _trees,
            ),
        )
    }
)
"""Estimators by name."""
