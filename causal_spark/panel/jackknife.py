"""Jackknife variance: how the estimate moves when one unit is left out.

Arkhangelsky et al. (2021), Algorithm 3: weights of units and periods are kept, those of the other donors scaled up; or,
as the simulations stored with that paper seem to have it (`studies`), all are fitted again. Estimators without such
weights are fitted again, with the penalties of the estimate. It takes units as independent, and with kept weights it
errs on the wide side where the fit is close, as that of synthetic control is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from causal_spark.errors import TooFewControlsError, TooFewTreatedError
from causal_spark.panel.blocks import predict_blocks
from causal_spark.panel.bootstrap import require_several_treated
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.inference import Details, ErrorBar, VarianceEstimate
from causal_spark.panel.placebo import event_spreads, spread_of
from causal_spark.panel.replicates import Replicates, ReplicateSet, Setting, estimates, event_times, refit_seconds
from causal_spark.panel.stages import Arrays
from causal_spark.panel.types import Fit, Ints, Panel, PanelSize, WeightedBlock

# Of a fit's time, what predictions take when weights are kept.
_SHARE_WITHOUT_WEIGHTS = 0.1


@dataclass(frozen=True, slots=True)
class JackknifeOptions:
    """weights: of units and periods, kept (Algorithm 3) or fitted anew without each unit."""

    weights: Literal["kept", "fitted"] = "kept"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The panel without each of its units in turn; a `ReplicateSet` with ``att`` and ``event_effects``."""

    keeps_weights: bool = True
    retune: bool = False

    def covers(self, other: ReplicateSet) -> bool:
        """Whether this is the same list."""
        return self == other

    def n_fits(self, size: PanelSize) -> int:
        """Units; 0 with one treated unit, or without controls."""
        return size.n_units if 2 <= size.n_treated_units < size.n_units else 0

    def seconds(self, size: PanelSize, definition: EstimatorDefinition, options: Any) -> float:
        """Core seconds of a fit without one unit, or of its predictions, where weights are kept."""
        refit = refit_seconds(self, size, definition, options)
        return _SHARE_WITHOUT_WEIGHTS * refit if self.keeps_weights and not definition.pools_periods else refit

    def numbers(self, size: PanelSize) -> int:
        """Floating point numbers that all results hold, at most."""
        return 2 * self.n_fits(size) * size.n_periods

    def count(self, of: Setting) -> int:
        """Units.

        Raises TooFewTreatedError where a cohort (without cohorts: the panel) has one treated unit only,
        TooFewControlsError where one donor has all the weight, NoControlUnitsError.
        """
        require_several_treated(of.panel, "jackknife")
        for block in of.fit.blocks if self.keeps_weights else ():
            if block.treated.size < 2:
                raise TooFewTreatedError(
                    "The jackknife needs several treated units in every cohort, but one of them has a single unit.",
                    "Use placebo or unit_time, which learn from untreated units how much estimates vary.",
                )
            if float(block.unit.max()) > 1.0 - 1e-9:
                raise TooFewControlsError(
                    "The jackknife keeps weights, but one donor has all of it, so that it cannot be left out.",
                    "Use placebo or unit_time.",
                )
        return of.panel.n_units

    def run(self, of: Setting, start: int, stop: int) -> Arrays:
        """Estimates without units start to stop. Raises the first error of one without an estimate."""
        fits = [partial(_fit_without, of, self.keeps_weights, unit) for unit in range(start, stop)]
        return estimates(fits, event_times(of.panel), "jackknife")


def _fit_without(of: Setting, keeps_weights: bool, unit: int) -> tuple[Panel, Fit]:
    if of.fit.blocks and keeps_weights:
        # With kept weights the others' predictions follow from those of all, and positions stay what they are.
        blocks = [_without(block, unit) for block in of.fit.blocks]
        counterfactual = predict_blocks(of.panel.outcome, blocks)
        counterfactual[unit] = np.nan
        return of.panel, replace(of.fit, counterfactual=counterfactual)
    others = of.panel.take_units(np.delete(np.arange(of.panel.n_units), unit))
    return others, of.definition.fit(others, of.options, of.fit.penalties, 0)


def _without(block: WeightedBlock, unit: int) -> WeightedBlock:
    others: Ints = np.flatnonzero(block.donors != unit)
    weights = block.unit[others]
    return replace(
        block,
        donors=block.donors[others],
        unit=weights / weights.sum(),
        treated=block.treated[block.treated != unit],
    )


def jackknife_sets(options: JackknifeOptions) -> tuple[ReplicateSet, ...]:
    """The one list of replicates the jackknife needs."""
    return (LeftOut(options.weights == "kept"),)


def jackknife_variance(of: Setting, options: JackknifeOptions, replicates: Replicates) -> VarianceEstimate:
    """(n - 1) / n times the sum of squared deviations of the n estimates from their mean (Algorithm 3).

    Raises as `LeftOut` does, and SolverError for an estimate that is not finite.
    """
    (wanted,) = jackknife_sets(options)
    found = replicates.of(wanted)
    n = int(found["att"].size)
    scale = float(np.sqrt(n - 1.0))
    return VarianceEstimate(
        ErrorBar(scale * spread_of(found["att"], "jackknife")),
        n,
        lambda: Details(event_spreads(of.panel, found, scale)),
    )
