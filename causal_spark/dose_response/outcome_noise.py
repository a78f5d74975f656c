"""How much noise an outcome has around its response: the one look that e2b may take at it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from causal_spark.dose_response.components import fit_components
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.responses import CLIP, covariate_blocks, smooth_curves
from causal_spark.dose_response.types import CurveProblem, Floats, standardised

#: Bounds of what is told: beyond them nothing changes in the weights.
_LEAST, _MOST = 0.05, 64.0


def with_outcome_noise(problem: CurveProblem, outcome: Floats, options: E2bOptions, seed: int) -> CurveProblem:
    """The problem with the noise of an outcome (n_rows,) where the options ask for it; otherwise as it is."""
    if options.noise != "outcome":
        return problem
    return replace(problem, noise=outcome_noise(problem, outcome, options, seed))


def outcome_noise(problem: CurveProblem, outcome: Floats, options: E2bOptions, seed: int) -> float:
    """Variance of an outcome (n_rows,) around its response, in the units of `ResponseOptions.noise`.

    By marginal likelihood of a model with functions of the treatment and those functions of the covariates that
    made-up responses are of. Confounding of these has a variance of two.
    """
    segment = problem.segment
    weights = segment.sample_weights
    covariates = np.clip(segment.standardised_covariates(), -CLIP, CLIP)
    functions = covariate_blocks(covariates, weights, options.n_waves, seed)
    found = fit_components(
        [smooth_curves(segment, problem.grid)[0], *functions], standardised(outcome[:, None], weights)[:, 0], weights
    )
    confounding = float(found.variances[1:].sum())
    return float(np.clip(2.0 * found.noise / max(confounding, 1e-9), _LEAST, _MOST))
