"""No balancing: every row counts by its sample weight."""

from __future__ import annotations

from dataclasses import dataclass

from causal_spark.dose_response.types import CurveProblem, Weighting, kept


@dataclass(frozen=True, slots=True)
class UnweightedOptions:
    """None."""


def unweighted(problem: CurveProblem, options: UnweightedOptions, seed: int) -> Weighting:
    """The sample weights, which is right where the treatment was assigned at random."""
    del options, seed
    rows = problem.segment.sample_weights
    return Weighting(rows, kept(rows))
