"""E2B, end-to-end balancing: weights learned by their error on made-up responses.

Bahadori, Tchetgen Tchetgen, Heckerman (ICML 2022). A network gives every row a log-weight from its covariates and
treatment. It is trained on the expected squared error of the curve that the weights lead to, over random responses with
a known curve (`responses`), through the very second stage that will be used. No outcome is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.e2b_training import (
    Program,
    free_weights,
    least_effective,
    network,
    network_inputs,
    train_weights,
)
from causal_spark.dose_response.entropy_balancing import decorrelate, decorrelated_moments
from causal_spark.dose_response.moments import independent
from causal_spark.dose_response.responses import make_responses
from causal_spark.dose_response.types import CurveProblem, Floats, Notice, Segment, Weighting, normalised
from causal_spark.errors import ShapeError
from causal_spark.neural.stacked import apply_stacked

#: Segments of more rows than so many pieces have are trained on these.
_PIECE_ROWS = 2048
_N_PIECES = 16
#: Of a moment of variance one so much of a miss is left, small beside what chance does to it.
_RIDGE = 0.01
#: Share of the variance of what is balanced again that must not be in the rest of it.
_LEAST_NEW = 0.01


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
    inputs = [network_inputs(one.segment) for one in problems]
    floors = [least_effective(one.segment, options) for one in problems]
    program = Program.of(problems, responses, inputs, floors, [(seed,) for seed in seeds], dtype, device_of(options))
    model = free_weights(program) if options.weights == "free" else network(program, options, seeds)
    trained = train_weights(program, model, torch.arange(len(problems), device=program.log_rows.device), options)
    with torch.no_grad():
        found = model.weights_in(program, trained.parameters).double().cpu().numpy()
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
    inputs = network_inputs(segment)
    floor = least_effective(segment, options) / segment.n_rows * _PIECE_ROWS
    of_pieces = [(seed, piece) for piece in range(_N_PIECES)]
    program = Program.of(
        pieces, responses, list(inputs[rows]), [floor] * _N_PIECES, of_pieces, torch.float64, device_of(options)
    )
    owners = torch.zeros(_N_PIECES, dtype=torch.long, device=program.log_rows.device)
    trained = train_weights(program, network(program, options, [seed], owners), owners, options, share)
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
    treatment, others = segment.standardised_treatment()[:, None], _balanced_again(segment, assignment)
    balanced = decorrelated_moments(treatment, others)
    resolve = partial(_resolved, segment.sample_weights, treatment, others, weights, weights @ balanced)
    return Weighting(weights, resolve, () if converged else (told,), balanced)


def _balanced_again(segment: Segment, assignment: Floats) -> Floats:
    """(n_rows, n_columns) covariates, and the fitted assignment where it has something that they have not."""
    others = np.concatenate([segment.standardised_covariates(), assignment[:, None]], axis=1)
    # What little an assignment has beyond the covariates may sit in a single row, of which two things would be asked.
    return np.asarray(others[:, independent(others, segment.sample_weights, _LEAST_NEW)])


def _resolved(
    sample_weights: Floats, treatment: Floats, others: Floats, weights: Floats, left: Floats, multipliers: Floats
) -> Floats:
    """Weights under multipliers: those learned, moved as little as keeps the imbalances that they have.

    Balanced are treatment (n_rows, 1), others (n_rows, n_columns), and the products of the two. left: (n_moments,)
    those imbalances.
    """
    rows = normalised(sample_weights * multipliers)
    with np.errstate(divide="ignore"):
        log_base = np.log(weights) + np.log(multipliers)
    # Of rare categories some replicates have no row to balance with.
    return decorrelate(log_base, rows, treatment, others, left=left, ridge=_RIDGE).or_nan
