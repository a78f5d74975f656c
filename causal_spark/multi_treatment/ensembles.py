"""Ensembles of networks, and the predecessors of MEMENTO, which are nothing else.

TARNet and CFR: Shalit, Johansson, Sontag (2017). These and MEMENTO are ensembles of the same networks. They differ in
what is chosen from: by the loss on rows held out, of the arm that each received. Those that come close to the best are
in the ensemble as well, with weights that fall with their losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from scipy.special import expit

from causal_spark.errors import ShapeError
from causal_spark.multi_treatment.networks import (
    Divergence,
    Head,
    Job,
    Matching,
    Networks,
    NetworkShape,
    NetworkSpec,
    Scaling,
    scaling_of,
    train_networks,
)
from causal_spark.multi_treatment.types import N_FOLDS, ArmSample, Floats, derived_seed, held_out

Device = Literal["cpu", "auto"]
_COUNTS = ("n_splits", "hidden", "representation", "head_units")
#: Weights in the ensemble fall by a factor of e when the loss is larger by this share; those below the least, as a
#: share of the best one's, and all but the best few are left out.
_CLOSE = 0.03
_LEAST_WEIGHT = 0.2
_MOST_SPECS = 4
#: Networks that are trained at once on a CPU: arrays of more do not fit into its cache.
_TOGETHER = 64
#: Occasions of seeds.
_START, _SPLIT = 0, 1


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """weight_decays, alphas: to choose from; an alpha of zero, no matching, always is among them. divergence: by which
    arms are matched. n_splits: splits into training rows and rows held out by which is chosen. n_members: networks of
    each kind in the ensemble, 5 at least, as every row is held out by one of five. hidden, representation, head_units:
    units of the layers; half as many for samples with fewer rows than ``small_below``. device: auto trains on a GPU
    where there is one; its networks are not those of a CPU to the last bit.
    """

    weight_decays: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    alphas: tuple[float, ...] = (0.1,)
    divergence: Divergence = "mmd"
    n_splits: int = 2
    n_members: int = 5
    hidden: int = 48
    representation: int = 32
    head_units: int = 16
    small_below: int = 1000
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name, allowed in (("divergence", Divergence), ("device", Device)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} is {getattr(self, name)!r}; known are {', '.join(get_args(allowed))}")
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
    def n_networks(self) -> int:
        """That are trained at most."""
        return self.n_splits * (len(self.weight_decays) + len(self.alphas)) + _MOST_SPECS * self.n_members

    def shape_for(self, n_rows: int) -> NetworkShape:
        """Of every network of a sample."""
        units = (self.hidden, self.representation, self.head_units)
        return NetworkShape(*(one if n_rows >= self.small_below else -(-one // 2) for one in units))


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """A fitted ensemble.

    specs: the best first, each with so many networks one after the other. weights: (n_networks,), summing to one.
    losses: of everything that was tried. seed: of the splits.
    """

    networks: Networks
    scaling: Scaling
    is_binary: bool
    specs: tuple[NetworkSpec, ...]
    weights: Floats
    losses: dict[NetworkSpec, float]
    seed: int

    @property
    def n_members(self) -> int:
        """Networks of each spec."""
        return len(self.weights) // len(self.specs)

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        return np.asarray(np.tensordot(self.weights, self._outcomes(covariates), 1))

    def with_folds(self, covariates: Floats) -> tuple[Floats, Floats]:
        """See `FittedModel`."""
        of_fold = (np.arange(len(self.weights)) % self.n_members % N_FOLDS)[None, :] == np.arange(N_FOLDS)[:, None]
        shares = of_fold * self.weights
        shares /= shares.sum(axis=1, keepdims=True)
        each = self._outcomes(covariates)
        return np.tensordot(self.weights, each, 1), np.tensordot(shares, each, 1)

    def cross_fitted(self, sample: ArmSample) -> Floats:
        """See `FittedModel`."""
        each = self._outcomes(sample.covariates)
        shares = np.zeros((len(self.weights), sample.n_rows))
        for place, weight in enumerate(self.weights):
            shares[place, held_out(sample.arm, *split_of(self.seed, place % self.n_members))] = weight
        never = ~shares.any(axis=0)
        shares[:, never] = self.weights[:, None]
        return np.asarray(np.einsum("mn,mnk->nk", shares / shares.sum(axis=0), each))

    def _outcomes(self, covariates: Floats) -> Floats:
        """(n_networks, n_rows, n_arms)."""
        output = self.networks.predict(self.scaling.inputs(covariates))
        return np.asarray(expit(output) if self.is_binary else self.scaling.centre + self.scaling.scale * output)


def tarnet(samples: Sequence[ArmSample], options: NetworkOptions, seeds: Sequence[int]) -> list[Ensemble]:
    """A head per arm on a shared representation, nothing matched; weight decay is chosen."""
    return fit_ensembles(samples, options, seeds, ("shared",), ())


def cfr(samples: Sequence[ArmSample], options: NetworkOptions, seeds: Sequence[int]) -> list[Ensemble]:
    """The same with every arm matched to the control arm; alpha is chosen as well."""
    return fit_ensembles(samples, options, seeds, ("shared",), ("control",))


def fit_ensembles(
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
    shapes = {(one.covariates.shape[1], one.n_arms, one.is_binary, options.shape_for(one.n_rows)) for one in samples}
    if len(shapes) != 1:
        raise ShapeError("Samples differ in covariates, arms, kind of outcome or networks.", "Train them apart.")
    shape = options.shape_for(samples[0].n_rows)
    device = torch.device("cuda" if options.device == "auto" and torch.cuda.is_available() else "cpu")
    every = range(len(samples))
    scalings = [scaling_of(one) for one in samples]
    plain = [NetworkSpec(head, weight_decay=decay) for head in heads for decay in options.weight_decays]
    tried: list[dict[NetworkSpec, list[tuple[Networks, int]]]] = [{} for _ in samples]

    def run(specs: Sequence[Sequence[NetworkSpec]], members: range) -> None:
        wanted = [(k, spec, member) for k in every for spec in specs[k] for member in members]
        n_together = max(len(wanted), 1) if device.type == "cuda" else _TOGETHER
        for start in range(0, len(wanted), n_together):
            some = wanted[start : start + n_together]
            jobs = [
                Job(k, spec, derived_seed(seeds[k], _START, member), *split_of(seeds[k], member))
                for k, spec, member in some
            ]
            networks = train_networks(samples, scalings, jobs, shape, device=device)
            for place, (k, spec, _) in enumerate(some):
                tried[k].setdefault(spec, []).append((networks, place))

    run([plain for _ in samples], range(options.n_splits))
    best = [_best(one) for one in tried]
    run(
        [
            [
                replace(one, matching=kind, alpha=alpha, divergence=options.divergence)
                for kind in matchings
                for alpha in options.alphas
            ]
            for one in best
        ],
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
            losses[k],
            seeds[k],
        )
        for k in every
    ]


def split_of(seed: int, member: int) -> tuple[int, int]:
    """Seed of the folds and the fold that a member holds out: of five members each has one fold of the same draw."""
    return derived_seed(seed, _SPLIT, member // N_FOLDS), member % N_FOLDS


def _mean_loss(found: Sequence[tuple[Networks, int]]) -> float:
    return float(np.mean([networks.held_out[place] for networks, place in found]))


def _weights(losses: dict[NetworkSpec, float]) -> dict[NetworkSpec, float]:
    """Of the best, first, and of others whose loss is close to it; of those that differ in the matching only one."""
    order: list[NetworkSpec] = []
    for spec in sorted(losses, key=lambda spec: losses[spec]):
        # Members that are matched otherwise but alike in all else crowd out those that really differ.
        if all((one.head, one.weight_decay) != (spec.head, spec.weight_decay) for one in order):
            order.append(spec)
    order = order[:_MOST_SPECS]
    least = losses[order[0]]
    raw = {spec: float(np.exp(-(losses[spec] / least - 1) / _CLOSE)) for spec in order}
    kept = {spec: weight for spec, weight in raw.items() if weight >= _LEAST_WEIGHT}
    return {spec: weight / sum(kept.values()) for spec, weight in kept.items()}


def _best(tried: dict[NetworkSpec, list[tuple[Networks, int]]]) -> NetworkSpec:
    return min(tried, key=lambda spec: _mean_loss(tried[spec]))


def _together(members: Sequence[tuple[Networks, int]]) -> Networks:
    """Members of several stacks as one."""
    parts = [networks.of([place]) for networks, place in members]
    return Networks(
        [torch.cat(layers) for layers in zip(*(one.parameters for one in parts), strict=True)],
        torch.cat([one.centre for one in parts]),
        torch.cat([one.spread for one in parts]),
        torch.cat([one.is_offset for one in parts]),
        np.concatenate([one.held_out for one in parts]),
        np.concatenate([one.converged for one in parts]),
    )
