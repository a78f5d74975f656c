"""What weightings are expected to cost a curve, before any outcome is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.expected_loss import expected_losses, stack_responses
from causal_spark.dose_response.responses import make_responses
from causal_spark.dose_response.sampled_loss import draw_responses, sampled_losses
from causal_spark.dose_response.types import CurveProblem, Floats

_N_DRAWS = 1024
#: Of draws that nothing is trained on or judged by.
_SCORING = 3


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """bias, variance: (n_weightings,) expected squared errors over made-up responses, from imbalance and from noise.

    Both are means over the grid.
    """

    bias: Floats
    variance: Floats

    @property
    def score(self) -> Floats:
        """(n_weightings,) the sum of both; the lower, the better."""
        return np.asarray(self.bias + self.variance)


def score_weightings(problem: CurveProblem, weights: Sequence[Floats], options: E2bOptions, seed: int) -> Scores:
    """The loss that e2b minimises, of any weights (n_rows,) of a segment, so that methods can be ranked on it.

    Noise is the option's. Where losses are sampled, so they are here, with draws that e2b has not seen.
    """
    chosen = options.responses(problem)
    responses = make_responses(problem.segment, problem.grid, problem.is_line, chosen, seed)
    given = stack_responses([problem.stage], [responses], problem.segment.n_rows, torch.float64, torch.device("cpu"))
    candidates = [torch.tensor(one)[None, :] for one in weights]
    if options.loss == "sampled":
        shares = torch.tensor(problem.segment.sample_weights)[None, :]
        drawn = draw_responses(given, shares, options.link, _N_DRAWS, [(seed, _SCORING)])
        found = [sampled_losses(one, given, drawn) for one in candidates]
    else:
        found = [expected_losses(one, given) for one in candidates]
    bias, variance = (np.array([float(one) for one in part]) for part in zip(*found, strict=True))
    return Scores(bias, chosen.noise * variance)
