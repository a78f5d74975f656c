"""Every weighting by its name: the one list that configuration, planning and running read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from causal_spark.dose_response.dcow import DcowOptions, dcow
from causal_spark.dose_response.e2b import E2bOptions, e2b
from causal_spark.dose_response.ebct import EbctOptions, ebct1, ebct2
from causal_spark.dose_response.gps import GpsOptions, gps
from causal_spark.dose_response.permutation import PermutationOptions, permutation
from causal_spark.dose_response.types import CurveProblem, Weighting
from causal_spark.dose_response.unweighted import UnweightedOptions, unweighted


@dataclass(frozen=True, slots=True)
class WeightingDefinition:
    """A weighting: its function (problem, options, seed) -> weights, its options' class, and a line for people.

    The function may raise `GroupError`, a `DeclinedError` where the method has no meaning.
    """

    name: str
    fit: Callable[[CurveProblem, Any, int], Weighting]
    options: type[Any]
    description: str


WEIGHTINGS: Mapping[str, WeightingDefinition] = MappingProxyType(
    {
        one.name: one
        for one in (
            WeightingDefinition("unweighted", unweighted, UnweightedOptions, "Sample weights alone."),
            WeightingDefinition("gps", gps, GpsOptions, "Inverse generalised propensity scores, normal and linear."),
            WeightingDefinition("ebct1", ebct1, EbctOptions, "Entropy balancing of first moments."),
            WeightingDefinition("ebct2", ebct2, EbctOptions, "Entropy balancing of second moments."),
            WeightingDefinition("permutation", permutation, PermutationOptions, "Odds against shuffled treatments."),
            WeightingDefinition("dcow", dcow, DcowOptions, "Distance covariance optimal weights."),
            WeightingDefinition("e2b", e2b, E2bOptions, "End-to-end balancing on made-up responses."),
        )
    }
)
"""Weightings by name."""
