"""Every weighting by its name: the one list that configuration, planning and running read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from causal_spark.dose_response import costs
from causal_spark.dose_response.costs import SegmentSize
from causal_spark.dose_response.dcow import DcowOptions, dcow
from causal_spark.dose_response.e2b import e2b, e2b_stacked, stack_shape
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.ebct import EbctOptions, ebct1, ebct2
from causal_spark.dose_response.gps import GpsOptions, gps
from causal_spark.dose_response.outcome_noise import with_outcome_noise
from causal_spark.dose_response.permutation import PermutationOptions, permutation
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting
from causal_spark.dose_response.unweighted import UnweightedOptions, unweighted


def _blind(problem: CurveProblem, outcome: Floats, options: Any, seed: int) -> CurveProblem:
    del outcome, options, seed
    return problem


@dataclass(frozen=True, slots=True)
class Stacking:
    """How problems are fitted side by side.

    fit: (problems, options, seeds) -> weights, for problems of one shape. shape: None where one is better fitted by
    itself. companions: problems of a size that are worth fitting together.
    """

    fit: Callable[[Sequence[CurveProblem], Any, Sequence[int]], list[Weighting]]
    shape: Callable[[CurveProblem, Any], Hashable]
    companions: Callable[[SegmentSize], int]


@dataclass(frozen=True, slots=True)
class WeightingDefinition:
    """A weighting: its function (problem, options, seed) -> weights, its options' class, and a line for people.

    The function may raise `GroupError`, a `DeclinedError` where the method has no meaning.
    seconds: (size, options, companions) -> of a fit, on one ordinary core. moments: size -> moments that every
    replicate of the bootstrap balances again. numbers: size -> float64 numbers held by a fit beyond some columns per
    covariate. look: (problem, outcome, options, seed) -> the problem with what the options want to know of the
    outcome; nothing but for few of them. stacking: None where nothing is gained by fitting several problems together.
    """

    name: str
    fit: Callable[[CurveProblem, Any, int], Weighting]
    options: type[Any]
    description: str
    seconds: Callable[[SegmentSize, Any, int], float]
    moments: Callable[[SegmentSize], int] = costs.no_moments
    numbers: Callable[[SegmentSize], float] = lambda size: 0.0 * size.n_rows
    look: Callable[[CurveProblem, Floats, Any, int], CurveProblem] = _blind
    stacking: Stacking | None = None

    def companions(self, size: SegmentSize) -> int:
        """Problems of this size that are worth fitting together."""
        return 1 if self.stacking is None else self.stacking.companions(size)

    def cost(self, size: SegmentSize, options: Any, n_companions: int, n_replicates: int) -> float:
        """Seconds of a fit, of its bootstrap and of its expected bias."""
        bootstrap = costs.bootstrap_seconds(size, self.moments(size), n_replicates)
        return self.seconds(size, options, n_companions) + bootstrap + costs.model_seconds(size)

    def held(self, size: SegmentSize, n_replicates: int) -> float:
        """Float64 numbers at the peak of a fit or of its bootstrap."""
        n_columns = size.n_covariates + self.moments(size)
        return self.numbers(size) + costs.array_numbers(size, n_columns, n_replicates)

    def shape(self, problem: CurveProblem, options: Any) -> Hashable:
        """Problems of one shape can be fitted together; None: only alone."""
        return None if self.stacking is None else self.stacking.shape(problem, options)

    def fit_together(self, problems: Sequence[CurveProblem], options: Any, seeds: Sequence[int]) -> list[Weighting]:
        """Weights of problems of one shape."""
        if self.stacking is None or len(problems) == 1:
            return [self.fit(problem, options, seed) for problem, seed in zip(problems, seeds, strict=True)]
        return self.stacking.fit(problems, options, seeds)


WEIGHTINGS: Mapping[str, WeightingDefinition] = MappingProxyType(
    {
        one.name: one
        for one in (
            WeightingDefinition(
                "unweighted",
                unweighted,
                UnweightedOptions,
                "Sample weights alone.",
                lambda size, options, n_companions: 1e-8 * size.n_rows,
            ),
            WeightingDefinition(
                "gps",
                gps,
                GpsOptions,
                "Inverse generalised propensity scores, normal and linear.",
                lambda size, options, n_companions: costs.balancing_seconds(size, size.n_covariates),
                lambda size: size.n_covariates,
            ),
            WeightingDefinition(
                "ebct1",
                ebct1,
                EbctOptions,
                "Entropy balancing of first moments.",
                lambda size, options, n_companions: costs.balancing_seconds(size, costs.first_moments(size)),
                costs.first_moments,
            ),
            WeightingDefinition(
                "ebct2",
                ebct2,
                EbctOptions,
                "Entropy balancing of second moments.",
                lambda size, options, n_companions: costs.balancing_seconds(size, costs.second_moments(size)),
                costs.second_moments,
            ),
            WeightingDefinition(
                "permutation",
                permutation,
                PermutationOptions,
                "Odds against shuffled treatments.",
                lambda size, options, n_companions: costs.permutation_seconds(size, options),
                numbers=lambda size: 8.0 * size.n_rows * size.n_second_order,
            ),
            WeightingDefinition(
                "dcow",
                dcow,
                DcowOptions,
                "Distance covariance optimal weights.",
                lambda size, options, n_companions: costs.dcow_seconds(size, options),
                numbers=lambda size: 8.0 * min(size.n_rows, 4000) ** 2,
            ),
            WeightingDefinition(
                "e2b",
                e2b,
                E2bOptions,
                "End-to-end balancing on made-up responses.",
                lambda size, options, n_companions: costs.e2b_seconds(size, n_companions),
                costs.first_moments,
                costs.e2b_numbers,
                with_outcome_noise,
                Stacking(e2b_stacked, stack_shape, costs.e2b_companions),
            ),
        )
    }
)
"""Weightings by name."""
