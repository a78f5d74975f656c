"""E2B, end-to-end balancing: weights learned by their error on made-up responses.

Bahadori, Tchetgen Tchetgen, Heckerman (ICML 2022). A network gives every row a log-weight from its covariates and
treatment. It is trained on the expected squared error of the curve that the weights lead to, over random responses with
a known curve (`responses`), through the very second stage that will be used. No outcome is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from causal_spark.dose_response.entropy_balancing import decorrelate
from causal_spark.dose_response.expected_loss import StackedResponses, expected_losses, stack_responses
from causal_spark.dose_response.moments import independent, ranks
from causal_spark.dose_response.responses import CLIP, Link, ResponseOptions, Responses, make_responses
from causal_spark.dose_response.sampled_loss import DrawnResponses, draw_responses, sampled_losses
from causal_spark.dose_response.types import CurveProblem, Floats, Notice, Segment, Weighting, normalised
from causal_spark.errors import ShapeError, SolverError
from causal_spark.neural.stacked import apply_stacked, stacked_layers
from causal_spark.neural.training import Trained, TrainingOptions, train

Parameters = Literal["network", "free"]
Loss = Literal["exact", "sampled"]
Noise = float | Literal["outcome"]
Device = Literal["cpu", "auto"]
#: Noise of the responses starts at so much or more and is halved as long as enough rows stay effective.
_MOST_NOISE = 32.0
#: An option that asks for more noise than this is trusted up to a factor: noise is halved on to the option's divided by
#: it, as long as a per cent of variance buys so many of bias.
_USUAL_NOISE = 0.5
_TRUSTED = 100.0
_WORTH = 2.0
#: Share of the rows otherwise to stay effective that have to where variance buys that much.
_LESS_WHERE_WORTH = 0.73
_LEVEL_STEPS = 60
#: `least_effective` holds for so many rows; with more of them, variance matters less and bias as much as ever.
_USUAL_ROWS = 500.0
_LESS_WITH_ROWS = 0.2
#: Segments of more rows than so many pieces have are trained on these.
_PIECE_ROWS = 2048
_N_PIECES = 16
#: Of a moment of variance one so much of a miss is left, small beside what chance does to it.
_RIDGE = 0.01
#: Drawn responses by which sampled losses are judged; none of them is trained on.
_N_JUDGES = 256
#: Occasions of draws; none is zero, as numpy takes a seed for the same as one with a zero behind it.
_TRAINING, _JUDGING = 1, 2
#: Share of the variance of what is balanced again that must not be in the rest of it.
_LEAST_NEW = 0.01
#: Names of options, whether a value is allowed, and what to say where it is not.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("hidden", "n_draws", "n_waves", "max_steps"), lambda value: value >= 1, "a positive number"),
    (("least_effective", "by_treatment"), lambda value: 0 <= value <= 1, "a share, between 0 and 1"),
    (("spread", "curvature"), lambda value: 0 <= value < np.inf, "a variance"),
    (("learning_rate",), lambda value: 0 < value < np.inf, "a positive number"),
)


@dataclass(frozen=True, slots=True)
class E2bOptions:
    """weights: given by a network, or free (a parameter per row). hidden: units of both hidden layers.
    least_effective: share of 500 rows that stay effective at least, or three quarters of it where a little variance
    buys much bias; of n rows, times (500 / n) to the power .2.
    loss: expected, in closed form (exact), or the mean over n_draws drawn responses, new in every step (sampled).
    spread, by_treatment, curvature, noise, n_waves, link: of the made-up responses, see `ResponseOptions`. A logistic
    link is for outcomes between zero and one, such as binary ones; it needs sampled losses. noise: outcome looks at the
    outcome, to see how much noise it has, and at nothing else of it; everything else looks at none.
    learning_rate, max_steps: of the last stretch of training, see `TrainingOptions`. device: auto trains on a GPU where
    there is one; its weights are not those of a CPU to the last bit.
    """

    weights: Parameters = "network"
    hidden: int = 32
    least_effective: float = 0.55
    loss: Loss = "exact"
    n_draws: int = 64
    spread: float = 3.0
    by_treatment: float = 0.2
    curvature: float = 1.0
    noise: Noise = 0.5
    n_waves: int = 64
    link: Link = "identity"
    learning_rate: float = 0.02
    max_steps: int = 3000
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name, allowed in (("weights", Parameters), ("loss", Loss), ("link", Link), ("device", Device)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is one of {', '.join(get_args(allowed))}")
        for names, is_allowed, says in _RANGES:
            for name in names:
                if not is_allowed(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)}; it is {says}")
        if self.noise != "outcome" and not (isinstance(self.noise, float | int) and 0 < self.noise < np.inf):
            raise ValueError(f"noise is {self.noise!r}; it is a positive number, or outcome")
        if self.noise == "outcome" and self.link != "identity":
            raise ValueError(f"noise: outcome is not known of link: {self.link}; give a number")
        if self.link != "identity" and self.loss == "exact":
            raise ValueError(f"link: {self.link} has no expected loss in closed form; it needs loss: sampled")

    def responses(self, problem: CurveProblem) -> ResponseOptions:
        """What `make_responses` takes. Raises `ValueError` where noise is to be the outcome's and nobody looked."""
        noise = problem.noise if self.noise == "outcome" else self.noise
        if noise is None:
            raise ValueError("noise: outcome needs a problem that knows it, see `with_outcome_noise`")
        return ResponseOptions(self.spread, self.by_treatment, self.curvature, noise, self.n_waves, self.link)

    @property
    def training(self) -> TrainingOptions:
        """What `train` takes."""
        return TrainingOptions(learning_rate=self.learning_rate, max_steps=self.max_steps)


def e2b(problem: CurveProblem, options: E2bOptions, seed: int) -> Weighting:
    """Weights of one segment, see the module. The bootstrap keeps the network and balances again around its weights.

    Beyond 32,768 rows the network is trained on 16 random pieces of 2,048 rows and applied to all.
    """
    if options.weights == "network" and trained_rows(problem.segment.n_rows) < problem.segment.n_rows:
        return _from_pieces(problem, options, seed)
    return e2b_stacked([problem], options, [seed])[0]


def trained_rows(n_rows: int) -> int:
    """Rows of a segment that its network is trained on."""
    return min(n_rows, _N_PIECES * _PIECE_ROWS)


def device_of(options: E2bOptions) -> torch.device:
    """Where networks are trained."""
    return torch.device("cuda" if options.device == "auto" and torch.cuda.is_available() else "cpu")


def stack_shape(problem: CurveProblem, options: E2bOptions) -> tuple[object, ...] | None:
    """Problems of one shape can be trained side by side; None where the network is trained on pieces."""
    n_rows = problem.segment.n_rows
    if options.weights == "network" and trained_rows(n_rows) < n_rows:
        return None
    return _shape(problem)


def _shape(problem: CurveProblem) -> tuple[object, ...]:
    stage = problem.stage
    return type(stage), stage.n_parameters, problem.is_line, len(problem.grid), problem.segment.n_covariates


def e2b_stacked(
    problems: Sequence[CurveProblem],
    options: E2bOptions,
    seeds: Sequence[int],
    dtype: torch.dtype = torch.float64,
) -> list[Weighting]:
    """Weights of several segments, trained side by side in one tensor program.

    Each is what `e2b` finds for it alone, as long as it is too short to be trained on pieces.

    problems: of one kind of second stage, with grids of one size and the same number of covariates; shorter segments
    are padded. seeds: one each. Raises `ShapeError` where the problems cannot be stacked.
    """
    if len({_shape(one) for one in problems}) != 1:
        raise ShapeError("Segments differ in second stage, grid or number of covariates.", "Train them apart.")
    responses = [
        make_responses(one.segment, one.grid, one.is_line, options.responses(one), seed)
        for one, seed in zip(problems, seeds, strict=True)
    ]
    inputs = [_network_inputs(one.segment) for one in problems]
    floors = [least_effective(one.segment, options) for one in problems]
    program = _Program.of(problems, responses, inputs, floors, [(seed,) for seed in seeds], dtype, device_of(options))
    model = _free_weights(program) if options.weights == "free" else _network(program, options, seeds)
    trained = _train(program, model, torch.arange(len(problems), device=program.log_rows.device), options)
    with torch.no_grad():
        found = model.weights(trained.parameters).double().cpu().numpy()
    return [
        _weighting(one.segment, made.assignment, normalised(weights[: one.segment.n_rows]), converged, options)
        for one, made, weights, converged in zip(problems, responses, found, trained.converged.tolist(), strict=True)
    ]


def _from_pieces(problem: CurveProblem, options: E2bOptions, seed: int) -> Weighting:
    segment = problem.segment
    drawn = np.random.default_rng(seed).permutation(segment.n_rows)[: _N_PIECES * _PIECE_ROWS]
    rows = np.sort(drawn.reshape(_N_PIECES, _PIECE_ROWS), axis=1)
    pieces = [problem.of_rows(one) for one in rows]
    # A piece stands for all rows, whose noise averages out further than its own.
    share = _PIECE_ROWS / segment.n_rows
    chosen = options.responses(problem)
    chosen = replace(chosen, noise=chosen.noise * share)
    responses = [make_responses(one.segment, one.grid, one.is_line, chosen, seed) for one in pieces]
    inputs = _network_inputs(segment)
    floor = least_effective(segment, options) / segment.n_rows * _PIECE_ROWS
    of_pieces = [(seed, piece) for piece in range(_N_PIECES)]
    program = _Program.of(
        pieces, responses, list(inputs[rows]), [floor] * _N_PIECES, of_pieces, torch.float64, device_of(options)
    )
    owners = torch.zeros(_N_PIECES, dtype=torch.long, device=program.log_rows.device)
    trained = _train(program, _network(program, options, [seed], owners), owners, options, share)
    with torch.no_grad():
        # Of all rows, which need not fit on a GPU.
        parameters = [layer.cpu() for layer in trained.parameters]
        log_weights = apply_stacked(parameters, torch.tensor(inputs)[None])[0, :, 0].numpy()
    log_weights = log_weights + np.log(segment.sample_weights)
    weights = normalised(np.exp(log_weights - log_weights.max()))
    return _weighting(segment, np.zeros(segment.n_rows), weights, bool(trained.converged.all()), options)


def _weighting(
    segment: Segment, assignment: Floats, weights: Floats, converged: bool, options: E2bOptions
) -> Weighting:
    told = Notice(
        "TrainingNotConverged",
        f"The loss of e2b was still falling after {options.max_steps} steps.",
        "Raise its option max_steps.",
    )
    others = _balanced_again(segment, assignment)
    return Weighting(
        weights,
        partial(_resolved, segment, others, weights),
        () if converged else (told,),
        _moments(segment.standardised_treatment(), others),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
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
    ) -> _Program:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """parameters: with which every model has the sample weights. weights: parameters -> (n_problems, n_rows)."""

    parameters: list[Tensor]
    weights: Callable[[Sequence[Tensor]], Tensor]


def _free_weights(program: _Program) -> _Model:
    offset = program.log_rows
    return _Model([torch.zeros_like(offset)], lambda current: torch.softmax(current[0] + offset, 1))


def _network(program: _Program, options: E2bOptions, seeds: Sequence[int], owners: Tensor | None = None) -> _Model:
    """owners: (n_problems,) the network of each problem; None gives every problem one of its own."""
    rows, offset = program.inputs, program.log_rows
    layers = stacked_layers((rows.shape[2], options.hidden, options.hidden, 1), seeds, rows.dtype, rows.device)

    def weights(current: Sequence[Tensor]) -> Tensor:
        own = current if owners is None else [layer[owners] for layer in current]
        return torch.softmax(apply_stacked(own, rows)[:, :, 0] + offset, 1)

    return _Model(layers, weights)


def _network_inputs(segment: Segment) -> Floats:
    """(n_rows, n_covariates + 1): standardised covariates without their far tails, and the treatment's rank."""
    covariates = np.clip(segment.standardised_covariates(), -CLIP, CLIP)
    return np.concatenate([covariates, ranks(segment.treatment, segment.sample_weights)[:, None]], axis=1)


def _train(program: _Program, model: _Model, owners: Tensor, options: E2bOptions, share: float = 1.0) -> Trained:
    """Train every model on the mean over its problems.

    owners: (n_problems,) their models. share: of its rows that a problem has; where it stands for more, noise is less.
    """
    n_models = len(model.parameters[0])
    counts = torch.bincount(owners, minlength=n_models)

    def by_model(values: Tensor) -> Tensor:
        return torch.zeros(n_models, dtype=values.dtype, device=values.device).index_add(0, owners, values) / counts

    def parts(by: DrawnResponses | None, current: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        weights = model.weights(current)
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
        return train(partial(losses, judges, noise), start, how, None if judges is None else partial(in_step, noise))

    def state(noise: Tensor, current: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            bias, variance = (by_model(one) for one in parts(judges, current))
            effective = by_model(1 / model.weights(current).square().sum(1) / program.floors)
        return effective, noise * variance / bias

    judges = program.drawn(options.link, _N_JUDGES, _JUDGING) if options.loss == "sampled" else None
    wanted = by_model(program.stacked.noise)
    most = torch.clamp(wanted, min=_MOST_NOISE * share)
    least = wanted
    if options.noise != "outcome":
        least = torch.minimum(wanted, torch.clamp(wanted / _TRUSTED, min=_USUAL_NOISE * share))
    noise, parameters = _lowest_noise(trained_at, state, model.parameters, (most, wanted, least), options.training)
    trained = trained_at(noise, parameters, options.training)
    if not torch.isfinite(trained.losses).all():
        raise SolverError("The loss of e2b is not finite.", "Look for extreme treatments or covariates.")
    return trained


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
        enough = effective >= torch.where(is_worth, _LESS_WHERE_WORTH, 1.0)
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


def _balanced_again(segment: Segment, assignment: Floats) -> Floats:
    """(n_rows, n_columns) covariates, and the fitted assignment where it has something that they have not."""
    others = np.concatenate([segment.standardised_covariates(), assignment[:, None]], axis=1)
    # What little an assignment has beyond the covariates may sit in a single row, of which two things would be asked.
    return np.asarray(others[:, independent(others, segment.sample_weights, _LEAST_NEW)])


def _resolved(segment: Segment, others: Floats, weights: Floats, multipliers: Floats) -> Floats:
    """Weights under multipliers: those learned, moved as little as keeps the imbalances that they have.

    Balanced are treatment, others (n_rows, n_columns), and the products of the two.
    """
    treatment = segment.standardised_treatment()
    moments = _moments(treatment, others)
    rows = normalised(segment.sample_weights * multipliers)
    with np.errstate(divide="ignore"):
        log_base = np.log(weights) + np.log(multipliers)
    # Of rare categories some replicates have no row to balance with.
    return decorrelate(log_base, rows, treatment[:, None], others, left=weights @ moments, ridge=_RIDGE).or_nan


def _moments(treatment: Floats, others: Floats) -> Floats:
    return np.concatenate([treatment[:, None], others, treatment[:, None] * others], axis=1)
