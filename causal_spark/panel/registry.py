"""Every panel estimator and variance by its name: the one list that configuration, planning and running read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from causal_spark.panel.did import DidOptions, did, did_cost
from causal_spark.panel.difp import DifpOptions, difp, difp_cost
from causal_spark.panel.dwcp import DWCP_STAGES, DwcpOptions, dwcp, dwcp_cost
from causal_spark.panel.dwcp_adaptive import DwcpAdaptiveOptions, dwcp_adaptive, dwcp_adaptive_cost
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, dwcp_constant, dwcp_constant_cost
from causal_spark.panel.inference import VarianceEstimate
from causal_spark.panel.mc import McOptions, mc, mc_arrays, mc_cost
from causal_spark.panel.placebo import (
    PlaceboOptions,
    placebo_assignments,
    placebo_errors,
    placebo_n_fits,
    placebo_variance,
)
from causal_spark.panel.sc import ScOptions, sc, sc_cost
from causal_spark.panel.sdid import SdidOptions, sdid, sdid_cost
from causal_spark.panel.stages import StagedDefinition
from causal_spark.panel.types import CostFunction, EstimatorFunction, Fit, Panel, PanelSize


@dataclass(frozen=True, slots=True)
class EstimatorDefinition:
    """An estimator: its function, its options' class, what it costs in time and memory, and a line for people.

    arrays: options -> float64 arrays of the panel's shape that a fit, tuning and placebos included, holds at its peak
    beyond the panel itself. Measured as peak resident memory between 0.4 and 4 million cells, and rounded up.
    staged: how its tuning and estimate on one long panel are split, None where they are not; `arrays` is then what one
    chunk holds.
    draws: name of the estimator whose random draws it shares, its own if None. The versions of DWCP share theirs, so
    that all of them report one test of constancy.
    """

    name: str
    fit: EstimatorFunction
    options: type[Any]
    cost: CostFunction
    arrays: Callable[[Any], float]
    description: str
    staged: StagedDefinition | None = None
    draws: str | None = None


#: (panel, estimator, its options, its fit on the panel, variance options, seed) -> variance.
VarianceFunction = Callable[[Panel, EstimatorDefinition, Any, Fit, Any, int], VarianceEstimate]


@dataclass(frozen=True, slots=True)
class VarianceDefinition:
    """A variance: its function, its options' class, and what it costs.

    conditioning: what it is conditional on. n_fits: (size, options) -> fits of the estimator it needs at most.
    retunes: whether those fits tune penalties anew.
    """

    name: str
    conditioning: str
    options: type[Any]
    run: VarianceFunction
    n_fits: Callable[[PanelSize, Any], int]
    retunes: Callable[[Any], bool]
    description: str


def _placebo(
    panel: Panel, definition: EstimatorDefinition, estimator_options: Any, fit: Fit, options: PlaceboOptions, seed: int
) -> VarianceEstimate:
    assignments = placebo_assignments(panel, options, seed)
    penalties = None if options.retune else fit.penalties
    return placebo_variance(placebo_errors(panel, definition.fit, estimator_options, penalties, assignments, seed))


def _placebo_retunes(options: PlaceboOptions) -> bool:
    return options.retune


ESTIMATORS: Mapping[str, EstimatorDefinition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            EstimatorDefinition(
                "did", did, DidOptions, did_cost, lambda _: 16.0, "Difference-in-differences by imputation."
            ),
            EstimatorDefinition("sc", sc, ScOptions, sc_cost, lambda _: 11.0, "Synthetic control, no intercept."),
            EstimatorDefinition(
                "difp", difp, DifpOptions, difp_cost, lambda _: 11.0, "Synthetic control with an intercept."
            ),
            EstimatorDefinition(
                "mc", mc, McOptions, mc_cost, mc_arrays, "Matrix completion with nuclear norm (MC-NNM)."
            ),
            EstimatorDefinition(
                "sdid", sdid, SdidOptions, sdid_cost, lambda _: 12.0, "Synthetic difference-in-differences."
            ),
            EstimatorDefinition(
                "dwcp",
                dwcp,
                DwcpOptions,
                dwcp_cost,
                lambda _: 300.0,
                "Doubly weighted causal panel estimator (TROP), a fit per treated cell.",
                DWCP_STAGES,
            ),
            EstimatorDefinition(
                "dwcp_constant",
                dwcp_constant,
                DwcpConstantOptions,
                dwcp_constant_cost,
                lambda _: 300.0,
                "DWCP with one constant effect, treated cells kept in.",
                draws="dwcp",
            ),
            EstimatorDefinition(
                "dwcp_adaptive",
                dwcp_adaptive,
                DwcpAdaptiveOptions,
                dwcp_adaptive_cost,
                lambda _: 320.0,
                "Average of constant-effect DWCP and synthetic DiD, weighted by how constant effects look.",
                draws="dwcp",
            ),
        )
    }
)

VARIANCES: Mapping[str, VarianceDefinition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            VarianceDefinition(
                "placebo",
                "none",
                PlaceboOptions,
                _placebo,
                placebo_n_fits,
                _placebo_retunes,
                "Spread of the estimate over untreated units taken as treated.",
            ),
        )
    }
)
