"""Every panel estimator and variance by its name: the one list that configuration, planning and running read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from causal_spark.panel.bootstrap import BootstrapOptions, bootstrap_sets, bootstrap_variance
from causal_spark.panel.conditional import (
    CONDITIONING,
    ConditionalOptions,
    conditional_sets,
    conditional_variance,
)
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.did import DidOptions, did, did_cost, did_placebos
from causal_spark.panel.difp import DifpOptions, difp, difp_cost
from causal_spark.panel.dwcp import DWCP_STAGES, DwcpOptions, dwcp, dwcp_cost
from causal_spark.panel.dwcp_adaptive import DwcpAdaptiveOptions, dwcp_adaptive, dwcp_adaptive_cost
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, dwcp_constant, dwcp_constant_cost
from causal_spark.panel.inference import VarianceEstimate
from causal_spark.panel.jackknife import JackknifeOptions, jackknife_sets, jackknife_variance
from causal_spark.panel.mc import McOptions, mc, mc_arrays, mc_cost
from causal_spark.panel.placebo import PlaceboOptions, placebo_sets, placebo_variance
from causal_spark.panel.replicates import Replicates, ReplicateSet, Setting, distinct
from causal_spark.panel.sc import ScOptions, sc, sc_cost
from causal_spark.panel.sdid import SdidOptions, sdid, sdid_cost
from causal_spark.panel.shaped import dwcp_adaptive_shaped, dwcp_constant_shaped, dwcp_shaped


@dataclass(frozen=True, slots=True)
class VarianceDefinition:
    """A variance: its function, its options' class, and what it costs.

    conditioning: what it is conditional on. options: its options' class.
    sets: options -> lists of replicates. estimate: (setting, options, their results) -> variance. Both may raise
    `GroupError`, a `DeclinedError` where the variance has no meaning.
    """

    name: str
    conditioning: str
    options: type[Any]
    sets: Callable[[Any], tuple[ReplicateSet, ...]]
    estimate: Callable[[Setting, Any, Replicates], VarianceEstimate]
    description: str


@dataclass(frozen=True, slots=True)
class VarianceMethod:
    """A variance that is wanted: its name and its options."""

    name: str
    options: Any


ESTIMATORS: Mapping[str, EstimatorDefinition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            EstimatorDefinition(
                "did",
                did,
                DidOptions,
                did_cost,
                lambda _: 16.0,
                "Difference-in-differences by imputation.",
                placebos=did_placebos,
                pools_periods=True,
                averages_past=True,
            ),
            EstimatorDefinition("sc", sc, ScOptions, sc_cost, lambda _: 11.0, "Synthetic control, no intercept."),
            EstimatorDefinition(
                "difp",
                difp,
                DifpOptions,
                difp_cost,
                lambda _: 11.0,
                "Synthetic control with an intercept.",
                averages_past=True,
            ),
            EstimatorDefinition(
                "mc",
                mc,
                McOptions,
                mc_cost,
                mc_arrays,
                "Matrix completion with nuclear norm (MC-NNM).",
                pools_periods=True,
                averages_past=True,
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
                pools_periods=True,
                averages_past=True,
                shaped=dwcp_shaped,
            ),
            EstimatorDefinition(
                "dwcp_constant",
                dwcp_constant,
                DwcpConstantOptions,
                dwcp_constant_cost,
                lambda _: 300.0,
                "DWCP with one constant effect, treated cells kept in.",
                draws="dwcp",
                pools_periods=True,
                averages_past=True,
                shaped=dwcp_constant_shaped,
                reads_treated=True,
            ),
            EstimatorDefinition(
                "dwcp_adaptive",
                dwcp_adaptive,
                DwcpAdaptiveOptions,
                dwcp_adaptive_cost,
                lambda _: 320.0,
                "Average of constant-effect DWCP and synthetic DiD, weighted by how constant effects look.",
                draws="dwcp",
                shaped=dwcp_adaptive_shaped,
                reads_treated=True,
            ),
        )
    }
)

_CONDITIONAL = (
    "Placebo errors pooled over untreated units and starts of treatment.",
    "Given the treated units: placebo errors scaled to how noisy these are, averaged over starts.",
    "Given the treated periods: placebo errors of untreated units in these.",
    "Given both: placebo errors of untreated units in the treated periods, scaled to how noisy the treated units are.",
)

VARIANCES: Mapping[str, VarianceDefinition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            VarianceDefinition(
                "placebo",
                "none",
                PlaceboOptions,
                placebo_sets,
                placebo_variance,
                "Spread of the estimate over untreated units taken as treated.",
            ),
            VarianceDefinition(
                "jackknife",
                "none",
                JackknifeOptions,
                jackknife_sets,
                jackknife_variance,
                "How the estimate moves when one unit is left out.",
            ),
            VarianceDefinition(
                "bootstrap",
                "none",
                BootstrapOptions,
                bootstrap_sets,
                bootstrap_variance,
                "Spread of the estimate over panels of units drawn with replacement.",
            ),
            *(
                VarianceDefinition(
                    name,
                    conditioning,
                    ConditionalOptions,
                    conditional_sets,
                    conditional_variance(name),
                    description,
                )
                for (name, conditioning), description in zip(CONDITIONING.items(), _CONDITIONAL, strict=True)
            ),
        )
    }
)


def replicate_sets(variances: Sequence[VarianceMethod]) -> tuple[ReplicateSet, ...]:
    """Every list of replicates that some of these variances needs."""
    return distinct([one for variance in variances for one in VARIANCES[variance.name].sets(variance.options)])
