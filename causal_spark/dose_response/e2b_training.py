"""E2B's training: networks or free weights of many segments, led from much noise of the responses to little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.expected_loss import StackedResponses, expected_losses, stack_responses
from causal_spark.dose_response.moments import ranks
from causal_spark.dose_response.responses import CLIP, Link, Responses
from causal_spark.dose_response.sampled_loss import DrawnResponses, draw_responses, sampled_losses
from causal_spark.dose_response.types import CurveProblem, Floats, Segment
from causal_spark.errors import SolverError
from causal_spark.neural.stacked import apply_stacked, stacked_layers
from causal_spark.neural.training import Losses, Trained, TrainingOptions, train

#: Noise of the responses starts at so much or more and is halved as long as enough rows stay effective.
_MOST_NOISE = 32.0
#: An option that asks for more noise than this is trusted up to a factor: noise is halved on to the option's divided by
#: it, as long as a per cent of variance buys so many of bias.
_USUAL_NOISE = 0.5
_TRUSTED = 100.0
_WORTH = 2.0
#: Share of the rows otherwise to stay effective that have to where variance buys that much.
LESS_WHERE_WORTH = 0.73
_LEVEL_STEPS = 60
#: `least_effective` holds for so many rows; with more of them, variance matters less and bias as much as ever.
_USUAL_ROWS = 500.0
_LESS_WITH_ROWS = 0.2
#: Drawn responses by which sampled losses are judged; none of them is trained on.
_N_JUDGES = 256
#: Occasions of draws; none is zero, as numpy takes a seed for the same as one with a zero behind it.
_TRAINING, _JUDGING = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Problems side by side.

    log_rows: (n_problems, n_rows) logarithms of sample weights, minus infinity in the padding. inputs: (n_problems,
    n_rows, n_inputs) of the network. floors: (n_problems,) rows that are to stay effective. seeds: of each problem's
    drawn responses.
    """

    stacked: StackedResponses
    log_rows: Tensor
    inputs: Tensor
    floors: Tensor
    seeds: Sequence[tuple[int, ...]]

    @classmethod
    def of(
        cls,
        problems: Sequence[CurveProblem],
        responses: Sequence[Responses],
        inputs: Sequence[Floats],
        floors: Sequence[float],
        seeds: Sequence[tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Program:
        """Problems with their responses, the rows of the networks' inputs, and rows that are to stay effective.

        seeds: of drawn responses, a tuple for each problem.
        """
        segments = [one.segment for one in problems]
        n_rows = max(one.n_rows for one in segments)
        log_rows = np.full((len(segments), n_rows), -np.inf)
        padded = np.zeros((len(segments), n_rows, inputs[0].shape[1]))
        for place, (one, seen) in enumerate(zip(segments, inputs, strict=True)):
            log_rows[place, : one.n_rows] = np.log(one.sample_weights)
            padded[place, : one.n_rows] = seen
        return cls(
            stack_responses([one.stage for one in problems], responses, n_rows, dtype, device),
            torch.tensor(log_rows, dtype=dtype, device=device),
            torch.tensor(padded, dtype=dtype, device=device),
            torch.tensor(floors, dtype=dtype, device=device),
            seeds,
        )

    def drawn(self, link: Link, n_draws: int, *occasion: int) -> DrawnResponses:
        """Responses of one occasion, independent of those of any other."""
        seeds = [(*one, *occasion) for one in self.seeds]
        with torch.no_grad():
            return draw_responses(self.stacked, torch.softmax(self.log_rows, 1), link, n_draws, seeds)

    def of_problems(self, places: Tensor) -> Program:
        """Some of the problems."""
        seeds = [self.seeds[place] for place in places.tolist()]
        return Program(
            self.stacked.of_segments(places), self.log_rows[places], self.inputs[places], self.floors[places], seeds
        )


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """parameters: with which every model has the sample weights. weights_in: (program, parameters) -> (n_problems,
    n_rows), of the program whose models they are.
    """

    parameters: list[Tensor]
    weights_in: Callable[[Program, Sequence[Tensor]], Tensor]


def free_weights(program: Program) -> Model:
    """A parameter per row."""
    return Model(
        [torch.zeros_like(program.log_rows)], lambda within, current: torch.softmax(current[0] + within.log_rows, 1)
    )


def network(program: Program, options: E2bOptions, seeds: Sequence[int], owners: Tensor | None = None) -> Model:
    """owners: (n_problems,) the network of each problem; None gives every problem one of its own."""
    rows = program.inputs
    layers = stacked_layers((rows.shape[2], options.hidden, options.hidden, 1), seeds, rows.dtype, rows.device)

    def weights(within: Program, current: Sequence[Tensor]) -> Tensor:
        own = current if owners is None else [layer[owners] for layer in current]
        return torch.softmax(apply_stacked(own, within.inputs)[:, :, 0] + within.log_rows, 1)

    return Model(layers, weights)


def network_inputs(segment: Segment) -> Floats:
    """(n_rows, n_covariates + 1): standardised covariates without their far tails, and the treatment's rank."""
    covariates = np.clip(segment.standardised_covariates(), -CLIP, CLIP)
    return np.concatenate([covariates, ranks(segment.treatment, segment.sample_weights)[:, None]], axis=1)


def train_weights(program: Program, model: Model, owners: Tensor, options: E2bOptions, share: float = 1.0) -> Trained:
    """Train every model on the mean over its problems.

    owners: (n_problems,) their models. share: of its rows that a problem has; where it stands for more, noise is less.
    """
    n_models = len(model.parameters[0])
    counts = torch.bincount(owners, minlength=n_models)

    def by_model(values: Tensor) -> Tensor:
        return torch.zeros(n_models, dtype=values.dtype, device=values.device).index_add(0, owners, values) / counts

    def parts(by: DrawnResponses | None, current: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        weights = model.weights_in(program, current)
        if by is None:
            bias, variance = expected_losses(weights, program.stacked)
        else:
            bias, variance = sampled_losses(weights, program.stacked, by)
        return bias, variance

    def losses(by: DrawnResponses | None, noise: Tensor, current: Sequence[Tensor]) -> Tensor:
        bias, variance = parts(by, current)
        # The logarithm makes steps alike whatever the scale of the loss.
        return torch.log(by_model(bias + noise[owners] * variance))

    def in_step(noise: Tensor, current: Sequence[Tensor], step: int) -> Tensor:
        return losses(program.drawn(options.link, options.n_draws, _TRAINING, step), noise, current)

    def trained_at(noise: Tensor, start: list[Tensor], how: TrainingOptions) -> Trained:
        drawn = None if judges is None else partial(in_step, noise)
        # Pieces share a model, of which there is one.
        some = partial(_of_some, program, model, noise) if judges is None and n_models == len(owners) else None
        return train(partial(losses, judges, noise), start, how, drawn, some)

    def state(noise: Tensor, current: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            bias, variance = (by_model(one) for one in parts(judges, current))
            effective = by_model(1 / model.weights_in(program, current).square().sum(1) / program.floors)
        return effective, noise * variance / bias

    judges = program.drawn(options.link, _N_JUDGES, _JUDGING) if options.loss == "sampled" else None
    levels = _levels(by_model(program.stacked.noise), options, share)
    noise, parameters = _lowest_noise(trained_at, state, model.parameters, levels, options.training)
    trained = trained_at(noise, parameters, options.training)
    if not torch.isfinite(trained.losses).all():
        raise SolverError("The loss of e2b is not finite.", "Look for extreme treatments or covariates.")
    return trained


def _of_some(program: Program, model: Model, noise: Tensor, places: Tensor) -> tuple[Losses, None]:
    """Exact losses of some models, each with a problem of its own."""
    part, of_part = program.of_problems(places), noise[places]

    def losses(current: Sequence[Tensor]) -> Tensor:
        bias, variance = expected_losses(model.weights_in(part, current), part.stacked)
        return torch.log(bias + of_part * variance)

    return losses, None


def _levels(wanted: Tensor, options: E2bOptions, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Most, wanted and least noise."""
    most = torch.clamp(wanted, min=_MOST_NOISE * share)
    if options.noise == "outcome":
        return most, wanted, wanted
    return most, wanted, torch.minimum(wanted, torch.clamp(wanted / _TRUSTED, min=_USUAL_NOISE * share))


def least_effective(segment: Segment, options: E2bOptions) -> float:
    """Rows that are to stay effective, of those that the sample weights leave."""
    n_rows = float(1 / np.sum(segment.sample_weights**2))
    return float(options.least_effective * n_rows * min(1.0, (_USUAL_ROWS / n_rows) ** _LESS_WITH_ROWS))


def _lowest_noise(
    trained_at: Callable[[Tensor, list[Tensor], TrainingOptions], Trained],
    state: Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor]],
    parameters: list[Tensor],
    levels: tuple[Tensor, Tensor, Tensor],
    options: TrainingOptions,
) -> tuple[Tensor, list[Tensor]]:
    """The lowest noise of the responses, from the most to the wanted, that leaves enough rows effective.

    Where treatments hardly overlap, weights can always buy a little less bias on made-up responses with most of the
    sample; whether that pays depends on how much noise the real outcome has, which nobody knows before looking at it.
    Where they overlap well, bias is cheap: at the best weights its logarithm falls by noise times variance over bias
    when the variance's grows by one. There fewer rows have to stay, and noise may go on from the wanted to the least.

    state: (noise, parameters) -> (n_models,) effective rows per row that has to be, and what variance buys. levels:
    most, wanted, and least noise, (n_models,) each.
    """
    level, wanted, least = levels
    falling = torch.ones_like(level, dtype=torch.bool)
    brief = replace(options, max_steps=_LEVEL_STEPS, patience=_LEVEL_STEPS)
    while falling.any():
        found = trained_at(level, parameters, brief).parameters
        effective, buys = state(level, found)
        is_worth = buys >= _WORTH
        enough = effective >= torch.where(is_worth, LESS_WHERE_WORTH, 1.0)
        taken = falling & enough
        parameters = [
            torch.where(taken.view(-1, *[1] * (mine.dim() - 1)), new, mine)
            for mine, new in zip(parameters, found, strict=True)
        ]
        level = torch.where(falling & ~enough, 2 * level, level)
        lowest = torch.where(is_worth, least, wanted)
        falling = taken & (level > lowest)
        level = torch.where(falling, torch.maximum(level / 2, lowest), level)
    return level, parameters
