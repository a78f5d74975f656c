"""Segments the tests share."""

from __future__ import annotations

import numpy as np
import torch

from causal_spark.dose_response.expected_loss import expected_losses, stack_responses
from causal_spark.dose_response.responses import Responses
from causal_spark.dose_response.second_stage import StageName, StageOptions, curve_problem
from causal_spark.dose_response.types import CurveProblem, Floats, Segment


def segment_of(covariates: Floats, treatment: Floats, sample_weights: Floats | None = None) -> Segment:
    """A segment from arrays; rows count the same unless weights, of any sum, are given."""
    weights = np.ones(len(treatment)) if sample_weights is None else np.asarray(sample_weights, dtype=np.float64)
    names = tuple(f"x{j}" for j in range(covariates.shape[1]))
    return Segment(np.asarray(covariates, dtype=np.float64), np.asarray(treatment), weights / weights.sum(), names)


def random_segment(
    n_rows: int = 120, n_covariates: int = 3, strength: float = 0.5, seed: int = 0, weighted: bool = False
) -> Segment:
    """Normal covariates; the treatment is the first one, ``strength`` times, plus standard normal noise."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(n_rows, n_covariates))
    treatment = strength * covariates[:, 0] + rng.normal(size=n_rows)
    return segment_of(covariates, treatment, rng.uniform(0.5, 2.0, n_rows) if weighted else None)


def problem_of(
    segment: Segment, stage: StageName = "line", grid: Floats | None = None, n_knots: int = 5
) -> CurveProblem:
    """The curve between the 5% and 95% quantiles of the treatment, at 15 doses, unless a grid is given."""
    if grid is None:
        grid = np.linspace(*np.quantile(segment.treatment, [0.05, 0.95]), 15)
    return curve_problem(segment, grid, stage, StageOptions(n_knots=n_knots))


def losses_of(problem: CurveProblem, responses: Responses, weights: Floats) -> tuple[float, float]:
    """`expected_losses` of one segment."""
    stacked = stack_responses([problem.stage], [responses], problem.segment.n_rows, torch.float64, torch.device("cpu"))
    bias, variance = expected_losses(torch.tensor(weights)[None, :], stacked)
    return float(bias[0]), float(variance[0])
