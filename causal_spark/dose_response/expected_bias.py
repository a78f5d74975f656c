"""The bias that weights and second stage leave in a curve, judged by the outcome when all weights are made.

Standard errors say how far a curve lies from the one that the same method would find in all rows there could be. That
is not the curve that was asked for where the weights leave confounding, or where the second stage cannot follow the
curve. How far off it is depends on how the outcome goes by covariates and treatment: a random-effects model of the
outcome tells, and so does how sure it is of that. The estimate stays as it is; its interval is made wider.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.dose_response.components import fit_components
from causal_spark.dose_response.responses import CLIP, CovariateFunctions, draw_functions, modulations, smooth_curves
from causal_spark.dose_response.types import CurveProblem, Floats, standardised
from causal_spark.errors import SolverError

_N_WAVES = 64
#: Share of confounding that differs by treatment.
_BY_TREATMENT = 0.2
#: Rows that the model is fitted to; more of them change little.
MODEL_ROWS = 8192
#: Numbers held at once while functions of all rows are smoothed.
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeModel:
    """How an outcome goes by covariates and treatment: a sum of functions with normal coefficients.

    functions: of the covariates; scales: (n_functions,) their prior standard deviations; multiplied: (n_rows,
    n_modulations) functions of the treatment that each of them is multiplied with. curves, curves_at_grid: (n_rows,
    n_curves), (n_grid, n_curves) average curves other than lines, times their prior standard deviations.
    mean, covariance: (n_coefficients,) and the square of it, given the outcome; first come those of the functions with
    the first modulation, those with the others follow, and the curves'.
    """

    functions: CovariateFunctions
    scales: Floats
    multiplied: Floats
    curves: Floats
    curves_at_grid: Floats
    mean: Floats
    covariance: Floats


def fit_outcome(problem: CurveProblem, outcome: Floats, seed: int) -> OutcomeModel:
    """The posterior of an outcome's model, all variances by marginal likelihood.

    outcome: (n_rows,). Longer segments are judged by 8,192 of their rows. Raises `SolverError` where the outcome's
    variance is beyond doubles.
    """
    segment = problem.segment
    rows = np.arange(segment.n_rows)
    if len(rows) > MODEL_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MODEL_ROWS, replace=False))
    some = segment.of_rows(rows)
    weights = some.sample_weights
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.sqrt(weights @ (outcome[rows] - weights @ outcome[rows]) ** 2))
    if not np.isfinite(spread):
        raise SolverError(
            "The variance of the outcome is not finite.", "Rescale the outcome: its values are too large."
        )
    values = standardised(outcome[rows, None], weights)[:, 0]
    covariates = np.clip(segment.standardised_covariates()[rows], -CLIP, CLIP)
    functions = draw_functions(some.n_covariates, _N_WAVES, seed).on(covariates, weights)
    blocks = functions.blocks(covariates)
    curves, curves_at_grid = smooth_curves(segment, problem.grid)
    # A line for whatever lies beyond the bends of the curve, in long tails above all.
    line = some.standardised_treatment()[:, None]
    found = fit_components([line, curves[rows], *blocks], values, weights)
    of_line, of_curves, *of_blocks = np.sqrt(found.variances)
    scales = np.repeat(of_blocks, [block.shape[1] for block in blocks])
    multiplied, _ = modulations(segment, problem.grid, problem.is_line, _BY_TREATMENT)
    confounding = np.concatenate(blocks, axis=1) * scales
    of_treatment = [one[:, None] * confounding for one in multiplied[rows].T]
    columns = np.concatenate([*of_treatment, curves[rows] * of_curves, line * of_line], axis=1) / np.sqrt(found.noise)
    weighted = columns.T * (weights * len(rows))
    covariance = np.linalg.inv(np.eye(columns.shape[1]) + weighted @ columns)
    mean = covariance @ (weighted @ values) / np.sqrt(found.noise)
    # Every second stage follows a line.
    return OutcomeModel(
        functions,
        spread * scales,
        multiplied,
        spread * of_curves * curves,
        spread * of_curves * curves_at_grid,
        mean[:-1],
        covariance[:-1, :-1],
    )


def expected_bias(model: OutcomeModel, problem: CurveProblem, weights: Floats) -> Floats:
    """(n_grid,) root of the expected squared bias of the curve under weights (n_rows,), in units of the outcome.

    Of confounding that the weights leave and, but for lines, which nobody takes for the curve itself, of what the
    second stage cannot follow. The expectation is over what the model does not know.
    """
    segment = problem.segment
    covariates = segment.standardised_covariates()
    smoother = problem.stage.smoother(weights)
    n_functions = len(model.scales)
    smoothed = np.zeros((model.multiplied.shape[1], len(smoother), n_functions))
    means = np.zeros(n_functions)
    size = max(1, _CHUNK_NUMBERS // max(n_functions, 1))
    for start in range(0, segment.n_rows, size):
        rows = slice(start, start + size)
        blocks = model.functions.blocks(np.clip(covariates[rows], -CLIP, CLIP))
        functions = np.concatenate(blocks, axis=1) * model.scales
        means += segment.sample_weights[rows] @ functions
        smoothed += (smoother[:, rows] * model.multiplied[rows].T[:, None, :]) @ functions
    # Over all rows confounding has mean zero, which it need not have over those that the model saw.
    smoothed -= (smoother @ model.multiplied).T[:, :, None] * means
    missed = np.zeros_like(model.curves_at_grid) if problem.is_line else smoother @ model.curves - model.curves_at_grid
    left = np.concatenate([*smoothed, missed], axis=1)
    return np.asarray(np.sqrt((left @ model.mean) ** 2 + np.sum(left @ model.covariance * left, axis=1)))
