"""MEMENTO and the networks before it: potential outcomes from a representation in which arms are matched.

Mondal, Majumder, Chaoji (CIKM 2022); TARNet and CFR: Shalit, Johansson, Sontag (2017). All three are ensembles of the
same networks. They differ in what is chosen from: by the loss on rows held out, of the arm that each received. Those
that come close to the best are in the ensemble as well, with weights that fall with their losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from scipy.special import expit

from causal_spark.errors import ShapeError
from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.networks import (
    N_FOLDS,
    Head,
    Job,
    Matching,
    Networks,
    NetworkShape,
    NetworkSpec,
    Scaling,
    held_out,
    scaling_of,
    train_networks,
)
from causal_spark.multi_treatment.types import ArmSample, Floats

_COUNTS = ("n_splits", "hidden", "representation", "head_units")
#: Weights in the ensemble fall by a factor of e when the loss is larger by this share; those below the least, as a
#: share of the best one's, and all but the best few are left out.
_CLOSE = 0.03
_LEAST_WEIGHT = 0.2
_MOST_SPECS = 4
#: Occasions of seeds.
_START, _SPLIT = 0, 1


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """weight_decays, alphas: to choose from; an alpha of zero, no matching, always is among them. n_splits: splits into
    training rows and rows held out by which is chosen. n_members: networks of each kind in the ensemble, 5 at least, as
    every row is held out by one of five. hidden, representation, head_units: units of the layers.
    """

    weight_decays: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    alphas: tuple[float, ...] = (0.03, 0.1, 0.3)
    n_splits: int = 2
    n_members: int = 5
    hidden: int = 48
    representation: int = 32
    head_units: int = 16

    def __post_init__(self) -> None:
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(f"weight_decays is {self.weight_decays}; it names at least one, none below zero")
        if any(alpha <= 0 for alpha in self.alphas):
            raise ValueError(f"alphas is {self.alphas}; each is positive, and zero is tried anyway")
        for name, least in (("n_members", N_FOLDS), *((name, 1) for name in _COUNTS)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least {least}")
        if self.n_splits > self.n_members:
            raise ValueError(f"n_splits is {self.n_splits}; it is at most n_members, {self.n_members}")

    @property
    def shape(self) -> NetworkShape:
        """Of every network."""
        return NetworkShape(self.hidden, self.representation, self.head_units)


@dataclass(frozen=True, slots=True)
class MementoOptions(NetworkOptions):
    """heads, matchings: to choose from as well, see `NetworkSpec`."""

    heads: tuple[Head, ...] = ("shared", "offset")
    matchings: tuple[Matching, ...] = ("population", "pairwise")

    def __post_init__(self) -> None:
        # Dataclasses with slots are other classes than those that `super()` without arguments knows.
        NetworkOptions.__post_init__(self)
        for name, kind in (("heads", Head), ("matchings", Matching)):
            unknown = set(getattr(self, name)) - set(get_args(kind))
            if unknown:
                raise ValueError(f"{name} has {min(unknown)!r}; known are {', '.join(get_args(kind))}")
        if not self.heads:
            raise ValueError("heads names at least one")


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """A fitted ensemble.

    specs: the best first, each with so many networks one after the other. weights: (n_networks,), summing to one.
    shifts: (n_arms,) added to all outcomes of an arm. losses: of everything that was tried. seed: of the splits.
    """

    networks: Networks
    scaling: Scaling
    is_binary: bool
    specs: tuple[NetworkSpec, ...]
    weights: Floats
    shifts: Floats
    losses: dict[NetworkSpec, float]
    seed: int

    @property
    def n_members(self) -> int:
        """Networks of each spec."""
        return len(self.weights) // len(self.specs)

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        inputs = self.scaling.inputs(covariates)
        each = (weight * self._outcomes(inputs, place) for place, weight in enumerate(self.weights))
        return np.asarray(sum(each) + self.shifts)

    def cross_fitted(self, sample: ArmSample) -> Floats:
        """(n_rows, n_arms) outcomes of the sample it was fitted to, each row's from networks that held it out.

        The only row of an arm was held out by none; its outcomes are the ensemble's.
        """
        inputs = self.scaling.inputs(sample.covariates)
        total, count = np.zeros((sample.n_rows, sample.n_arms)), np.zeros((sample.n_rows, 1))
        for place, weight in enumerate(self.weights):
            out = held_out(sample.arm, *split_of(self.seed, place % self.n_members))
            total[out] += weight * self._outcomes(inputs[out], place)
            count[out] += weight
        never = count[:, 0] == 0
        total[never], count[never] = self.outcomes(sample.covariates[never]) - self.shifts, 1
        return total / count + self.shifts

    def calibrated(self, sample: ArmSample, chances: Floats, clip: float) -> Ensemble:
        """The same with the mean outcome of each arm moved to the doubly robust one of the sample it was fitted to.

        chances: (n_rows, n_arms) cross-fitted propensities; those below ``clip`` are moved there.
        """
        predicted = self.cross_fitted(sample) - self.shifts
        scores = doubly_robust_scores(sample, predicted, chances, clip)
        return replace(self, shifts=scores.mean(axis=0) - predicted.mean(axis=0))

    def _outcomes(self, inputs: Floats, place: int) -> Floats:
        output = self.networks.predict(inputs, place)
        return np.asarray(expit(output) if self.is_binary else self.scaling.centre + self.scaling.scale * output)


def tarnet(samples: Sequence[ArmSample], options: NetworkOptions, seeds: Sequence[int]) -> list[Ensemble]:
    """A head per arm on a shared representation, nothing matched; weight decay is chosen."""
    return _fit(samples, options, seeds, ("shared",), ())


def cfr(samples: Sequence[ArmSample], options: NetworkOptions, seeds: Sequence[int]) -> list[Ensemble]:
    """The same with every arm matched to the control arm; alpha is chosen as well."""
    return _fit(samples, options, seeds, ("shared",), ("control",))


def memento(samples: Sequence[ArmSample], options: MementoOptions, seeds: Sequence[int]) -> list[Ensemble]:
    """All arms matched, to each other or to the population; the kind of heads is chosen as well."""
    return _fit(samples, options, seeds, options.heads, options.matchings)


def _fit(
    samples: Sequence[ArmSample],
    options: NetworkOptions,
    seeds: Sequence[int],
    heads: Sequence[Head],
    matchings: Sequence[Matching],
) -> list[Ensemble]:
    """Ensembles of all samples, trained side by side: first without matching, then with it, then what was chosen.

    samples: with the same numbers of covariates and arms, all binary or none. seeds: one each; splits and starts are
    the same for everything tried on a sample. Raises `ShapeError` where samples cannot be trained together.
    """
    shapes = {(one.covariates.shape[1], one.n_arms, one.is_binary) for one in samples}
    if len(shapes) != 1:
        raise ShapeError("Samples differ in covariates, arms or kind of outcome.", "Train them apart.")
    every = range(len(samples))
    scalings = [scaling_of(one) for one in samples]
    plain = [NetworkSpec(head, weight_decay=decay) for head in heads for decay in options.weight_decays]
    tried: list[dict[NetworkSpec, list[tuple[Networks, int]]]] = [{} for _ in samples]

    def run(specs: Sequence[Sequence[NetworkSpec]], members: range) -> None:
        wanted = [(k, spec, member) for k in every for spec in specs[k] for member in members]
        if not wanted:
            return
        jobs = [
            Job(k, spec, derived_seed(seeds[k], _START, member), *split_of(seeds[k], member))
            for k, spec, member in wanted
        ]
        networks = train_networks(samples, scalings, jobs, options.shape)
        for place, (k, spec, _) in enumerate(wanted):
            tried[k].setdefault(spec, []).append((networks, place))

    run([plain for _ in samples], range(options.n_splits))
    best = [_best(one) for one in tried]
    run(
        [[replace(one, matching=kind, alpha=alpha) for kind in matchings for alpha in options.alphas] for one in best],
        range(options.n_splits),
    )
    losses = [{spec: _mean_loss(found) for spec, found in one.items()} for one in tried]
    weights = [_weights(one) for one in losses]
    run([list(one) for one in weights], range(options.n_splits, options.n_members))
    return [
        Ensemble(
            _together([network for spec in weights[k] for network in tried[k][spec]]),
            scalings[k],
            samples[k].is_binary,
            tuple(weights[k]),
            np.repeat(list(weights[k].values()), options.n_members) / options.n_members,
            np.zeros(samples[k].n_arms),
            losses[k],
            seeds[k],
        )
        for k in every
    ]


def split_of(seed: int, member: int) -> tuple[int, int]:
    """Seed of the folds and the fold that a member holds out: of five members each has one fold of the same draw."""
    return derived_seed(seed, _SPLIT, member // N_FOLDS), member % N_FOLDS


def derived_seed(*parts: int) -> int:
    """63 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _mean_loss(found: Sequence[tuple[Networks, int]]) -> float:
    return float(np.mean([networks.held_out[place] for networks, place in found]))


def _weights(losses: dict[NetworkSpec, float]) -> dict[NetworkSpec, float]:
    """Of the best, first, and of others whose loss is close to it."""
    order = sorted(losses, key=lambda spec: losses[spec])[:_MOST_SPECS]
    least = losses[order[0]]
    raw = {spec: float(np.exp(-(losses[spec] / least - 1) / _CLOSE)) for spec in order}
    kept = {spec: weight for spec, weight in raw.items() if weight >= _LEAST_WEIGHT}
    return {spec: weight / sum(kept.values()) for spec, weight in kept.items()}


def _best(tried: dict[NetworkSpec, list[tuple[Networks, int]]]) -> NetworkSpec:
    return min(tried, key=lambda spec: _mean_loss(tried[spec]))


def _together(members: Sequence[tuple[Networks, int]]) -> Networks:
    """Members of several stacks as one."""
    rows = [(networks, slice(place, place + 1)) for networks, place in members]
    n_layers = len(members[0][0].parameters)
    return Networks(
        [torch.cat([networks.parameters[depth][row] for networks, row in rows]) for depth in range(n_layers)],
        torch.cat([networks.centre[row] for networks, row in rows]),
        torch.cat([networks.spread[row] for networks, row in rows]),
        torch.cat([networks.is_offset[row] for networks, row in rows]),
        np.concatenate([networks.held_out[row] for networks, row in rows]),
        np.concatenate([networks.converged[row] for networks, row in rows]),
    )
