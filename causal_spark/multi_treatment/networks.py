"""Networks with a shared representation and a head per arm, many of them trained as one tensor program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from causal_spark.multi_treatment.batches import Batches, padded, row_class
from causal_spark.multi_treatment.discrepancy import matching_terms, sinkhorn_divergence, squared_mmd
from causal_spark.multi_treatment.types import N_FOLDS, ArmSample, Floats, held_out
from causal_spark.neural.stacked import apply_stacked, draw_weights
from causal_spark.neural.training import DrawnLosses, Losses, TrainingOptions, train

Head = Literal["shared", "offset"]
Matching = Literal["none", "control", "pairwise", "population"]
Divergence = Literal["mmd", "sinkhorn"]
_MATCHINGS = ("control", "pairwise", "population")
_DIVERGENCES = {"mmd": squared_mmd, "sinkhorn": sinkhorn_divergence}
_CPU = torch.device("cpu")
#: Standardised covariates beyond this are moved there: networks know nothing of far tails.
_CLIP = 5.0
#: Numbers of arrays of rows by rows that are held at once.
_CACHED = 2**19
#: Looks at the held-out loss without improvement until the rate falls, falls until the end, and steps at most.
_TRAINING = TrainingOptions(
    learning_rate=0.005, decay=0.3, tolerance=1e-3, patience=8, n_falls=3, max_steps=3000, check_every=10
)
_SPREAD_FLOOR = 1e-4
#: Decay of the weights of the covariates, as a multiple of that of all others: of many covariates few matter.
_INPUT_DECAY = 3.0


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """head: shared (all arms alike) or offset (those of others are added to the control arm's). matching: which
    discrepancy of the arms' representations is penalised, alpha times it. weight_decay: times the squared weights.
    divergence: by which discrepancies are measured.
    """

    head: Head = "shared"
    matching: Matching = "none"
    alpha: float = 0.0
    weight_decay: float = 3e-3
    divergence: Divergence = "mmd"


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Units of the two layers of the representation, and of the hidden layer of each head."""

    hidden: int = 48
    representation: int = 32
    head: int = 16


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Means and standard deviations of covariates (n_covariates,) and outcome. Of binary outcomes: zero and one."""

    means: Floats
    spreads: Floats
    centre: float
    scale: float

    def inputs(self, covariates: Floats) -> Floats:
        """(n_rows, n_covariates) standardised covariates without their far tails."""
        return np.clip((covariates - self.means) / self.spreads, -_CLIP, _CLIP)


def scaling_of(sample: ArmSample) -> Scaling:
    """Of a sample."""
    spreads = sample.covariates.std(axis=0)
    spreads = np.where(spreads > 0, spreads, 1.0)
    if sample.is_binary:
        return Scaling(sample.covariates.mean(axis=0), spreads, 0.0, 1.0)
    scale = float(sample.outcome.std())
    return Scaling(sample.covariates.mean(axis=0), spreads, float(sample.outcome.mean()), scale if scale > 0 else 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One network to train: on which of the samples, how, and from which start.

    split_seed, fold: of `N_FOLDS` folds drawn with that seed, the one whose rows are held out.
    """

    sample: int
    spec: NetworkSpec
    seed: int
    split_seed: int
    fold: int


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """Trained networks of one shape. parameters: see `_layers`, the first axis is the network. centre, spread:
    (n_networks, 1, n_features) of the representation before it is standardised. is_offset: (n_networks,).
    held_out: (n_networks,) losses on the rows held out: mean squared errors of standardised outcomes, or minus log
    likelihoods. converged: (n_networks,).
    """

    parameters: list[Tensor]
    centre: Tensor
    spread: Tensor
    is_offset: Tensor
    held_out: Floats
    converged: np.ndarray

    def predict(self, inputs: Floats) -> Floats:
        """(n_networks, n_rows, n_arms) outputs for standardised covariates: standardised outcomes or log odds."""
        rows = torch.as_tensor(inputs, dtype=self.parameters[0].dtype)
        with torch.no_grad():
            features = _represent(self.parameters, rows.expand(len(self.is_offset), -1, -1))
            features = (features - self.centre) / self.spread
            return _heads(self.parameters, features, self.is_offset).double().numpy()

    def of(self, places: Sequence[int]) -> Networks:
        """Some of them."""
        rows = torch.as_tensor(places)
        return Networks(
            [one[rows] for one in self.parameters],
            self.centre[rows],
            self.spread[rows],
            self.is_offset[rows],
            self.held_out[places],
            self.converged[places],
        )


def train_networks(
    samples: Sequence[ArmSample],
    scalings: Sequence[Scaling],
    jobs: Sequence[Job],
    shape: NetworkShape,
    dtype: torch.dtype = torch.float32,
    device: torch.device = _CPU,
) -> Networks:
    """Train all jobs side by side; each is what it would be alone, up to rounding.

    samples: with the same numbers of covariates and arms, all binary or none. device: they are trained on; what is
    returned is on the CPU.
    """
    program = _Program.of(samples, scalings, jobs, dtype, device)
    n_covariates, n_arms = samples[0].covariates.shape[1], samples[0].n_arms
    layers = [one.to(device) for one in _layers(n_covariates, n_arms, shape, [job.seed for job in jobs], dtype)]

    def losses_of(places: Tensor) -> tuple[Losses, DrawnLosses]:
        some = program.of_jobs(places)
        return partial(_held_out_losses, some), partial(_followed, some)

    losses = partial(_held_out_losses, program)
    trained = train(losses, layers, _TRAINING, partial(_followed, program), losses_of)
    centre, spread = _moments(program, trained.parameters)
    return Networks(
        [one.cpu() for one in trained.parameters],
        centre.cpu(),
        spread.cpu(),
        program.is_offset.cpu(),
        trained.losses.double().cpu().numpy(),
        trained.converged.cpu().numpy(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """Tensors of all jobs.

    inputs: (n_samples, n_rows, n_covariates), outcome, arm: (n_samples, n_rows), padded. owner: (n_jobs,) the samples.
    batches: of training rows. held, held_mask: (n_jobs, n_held) rows held out and which of them there are. train_rows,
    train_mask: likewise, of training rows. matching: (n_jobs, 3) what each of the matching terms counts. divergences:
    of each job. matched: positions of the jobs that are matched by a divergence. decay: (n_jobs,).
    """

    inputs: Tensor
    outcome: Tensor
    arm: Tensor
    owner: Tensor
    batches: Batches
    held: Tensor
    held_mask: Tensor
    train_rows: Tensor
    train_mask: Tensor
    matching: Tensor
    divergences: tuple[Divergence, ...]
    matched: dict[Divergence, Tensor]
    decay: Tensor
    is_offset: Tensor
    n_arms: int
    is_binary: bool

    @classmethod
    def of(
        cls,
        samples: Sequence[ArmSample],
        scalings: Sequence[Scaling],
        jobs: Sequence[Job],
        dtype: torch.dtype,
        device: torch.device,
    ) -> _Program:
        n_rows = max(one.n_rows for one in samples)
        inputs = np.zeros((len(samples), n_rows, samples[0].covariates.shape[1]))
        outcome, arm = np.zeros((len(samples), n_rows)), np.zeros((len(samples), n_rows), dtype=np.int64)
        for place, (one, scaling) in enumerate(zip(samples, scalings, strict=True)):
            inputs[place, : one.n_rows] = scaling.inputs(one.covariates)
            outcome[place, : one.n_rows] = (one.outcome - scaling.centre) / scaling.scale
            arm[place, : one.n_rows] = one.arm
        is_out = [held_out(samples[job.sample].arm, job.split_seed, job.fold) for job in jobs]
        held, kept = ([np.flatnonzero(one == side) for one in is_out] for side in (True, False))
        like = max(row_class(one.n_rows) for one in samples)
        n_held, n_kept = row_class(-(-like // N_FOLDS)), row_class(like - like // N_FOLDS)
        held_rows, held_mask = padded(held, n_held, dtype)
        train_rows, train_mask = padded(kept, n_kept, dtype)
        matching = [[job.spec.alpha * (job.spec.matching == name) for name in _MATCHINGS] for job in jobs]
        divergences = tuple(job.spec.divergence for job in jobs)
        return cls(
            torch.tensor(inputs, dtype=dtype, device=device),
            torch.tensor(outcome, dtype=dtype, device=device),
            torch.tensor(arm, device=device),
            torch.tensor([job.sample for job in jobs], device=device),
            Batches(kept, [job.seed for job in jobs], n_kept, dtype, device),
            held_rows.to(device),
            held_mask.to(device),
            train_rows.to(device),
            train_mask.to(device),
            torch.tensor(matching, dtype=dtype, device=device),
            divergences,
            _matched(matching, divergences, device),
            torch.tensor([job.spec.weight_decay for job in jobs], dtype=dtype, device=device),
            torch.tensor([job.spec.head == "offset" for job in jobs], device=device),
            samples[0].n_arms,
            samples[0].is_binary,
        )

    def of_jobs(self, places: Tensor) -> _Program:
        """Some of the jobs."""
        chosen = places.tolist()
        matching, divergences = self.matching[places], tuple(self.divergences[place] for place in chosen)
        return replace(
            self,
            owner=self.owner[places],
            batches=self.batches.of_jobs(chosen),
            held=self.held[places],
            held_mask=self.held_mask[places],
            train_rows=self.train_rows[places],
            train_mask=self.train_mask[places],
            matching=matching,
            divergences=divergences,
            matched=_matched(matching.tolist(), divergences, places.device),
            decay=self.decay[places],
            is_offset=self.is_offset[places],
        )

    def taken(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (n_jobs, n, n_covariates), outcomes and arms (n_jobs, n) of rows of each job's sample."""
        owner = self.owner[:, None]
        return self.inputs[owner, rows], self.outcome[owner, rows], self.arm[owner, rows]


def _matched(
    matching: Sequence[Sequence[float]], divergences: Sequence[Divergence], device: torch.device
) -> dict[Divergence, Tensor]:
    """Positions of jobs that are matched, by divergence."""
    found: dict[Divergence, list[int]] = {}
    for place, (alphas, divergence) in enumerate(zip(matching, divergences, strict=True)):
        if any(alphas):
            found.setdefault(divergence, []).append(place)
    return {divergence: torch.tensor(places, device=device) for divergence, places in found.items()}


def _layers(
    n_covariates: int, n_arms: int, shape: NetworkShape, seeds: Sequence[int], dtype: torch.dtype
) -> list[Tensor]:
    """Weights and biases of the two layers of the representation and of the two of the heads; biases start at zero.

    The first layer of the heads has one block of units per arm, the second a column of weights for each block.
    """
    sizes = (
        (n_covariates, shape.hidden, n_covariates),
        (shape.hidden, shape.representation, shape.hidden),
        (shape.representation, n_arms * shape.head, shape.representation),
        (n_arms, shape.head, shape.head),
    )
    found = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for depth, (n_in, n_out, fan) in enumerate(sizes):
        found.append(draw_weights((n_in, n_out), (3.0 / fan) ** 0.5, generators).to(dtype))
        n_biases = n_arms if depth == len(sizes) - 1 else n_out
        found.append(torch.zeros(len(seeds), 1, n_biases, dtype=dtype))
    return found


def _represent(layers: Sequence[Tensor], inputs: Tensor) -> Tensor:
    return functional.silu(apply_stacked(layers[:4], inputs))


def _heads(layers: Sequence[Tensor], features: Tensor, is_offset: Tensor) -> Tensor:
    """(n_jobs, n_rows, n_arms)."""
    n_arms = layers[6].shape[1]
    hidden = functional.silu(apply_stacked(layers[4:6], features))
    blocks = hidden.reshape(*hidden.shape[:2], n_arms, layers[6].shape[2])
    found = (blocks * layers[6][:, None]).sum(3) + layers[7]
    added = torch.cat([torch.zeros_like(found[:, :, :1]), found[:, :, :1].expand(-1, -1, n_arms - 1)], dim=2)
    return found + added * is_offset[:, None, None]


def _centre_and_spread(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(n_jobs, 1, n_features) each, under weights (n_jobs, n_rows).

    Features that are standardised by them do not look matched because they are small.
    """
    centre = (weights[:, :, None] * features).sum(1, keepdim=True)
    variance = (weights[:, :, None] * (features - centre).square()).sum(1, keepdim=True)
    return centre, (variance + _SPREAD_FLOOR).sqrt()


def _moments(program: _Program, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`_centre_and_spread` over all training rows."""
    with torch.no_grad():
        inputs, _, _ = program.taken(program.train_rows)
        return _centre_and_spread(_represent(layers, inputs), program.train_mask)


def _errors(predicted: Tensor, outcome: Tensor, arm: Tensor, is_binary: bool) -> Tensor:
    """(n_jobs, n_rows)."""
    own = predicted.gather(2, arm[:, :, None])[:, :, 0]
    if is_binary:
        return functional.binary_cross_entropy_with_logits(own, outcome, reduction="none")
    return (own - outcome).square()


def _followed(program: _Program, layers: Sequence[Tensor], step: int) -> Tensor:
    """(n_jobs,) losses of a batch with all penalties."""
    rows, weights = program.batches.at(step)
    inputs, outcome, arm = program.taken(rows)
    features = _represent(layers, inputs)
    centre, spread = _centre_and_spread(features, weights)
    features = (features - centre) / spread
    errors = _errors(_heads(layers, features, program.is_offset), outcome, arm, program.is_binary)
    losses = (weights * errors).sum(1)
    sizes = [one.square().sum((1, 2)) for one in layers[::2]]
    losses = losses + program.decay * (_INPUT_DECAY * sizes[0] + torch.stack(sizes[1:]).sum(0))
    for divergence, matched in program.matched.items():
        # Arrays of rows by rows that do not fit into the cache cost more than they save.
        for places in torch.split(matched, max(1, _CACHED // rows.shape[1] ** 2)):
            shares = functional.one_hot(arm[places], program.n_arms) * weights[places][:, :, None]
            terms = matching_terms(features[places], shares, _DIVERGENCES[divergence])
            losses = losses.index_add(0, places, (terms * program.matching[places]).sum(1))
    return losses


def _held_out_losses(program: _Program, layers: Sequence[Tensor]) -> Tensor:
    """(n_jobs,) losses of the rows held out, without penalties."""
    centre, spread = _moments(program, layers)
    inputs, outcome, arm = program.taken(program.held)
    features = (_represent(layers, inputs) - centre) / spread
    errors = _errors(_heads(layers, features, program.is_offset), outcome, arm, program.is_binary)
    return (program.held_mask * errors).sum(1)
