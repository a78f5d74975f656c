"""Bootstrap variance: the spread of the estimate over panels of units drawn with replacement.

Arkhangelsky et al. (2021), Algorithm 2: all units are drawn together, and a draw without treated or without untreated
units is drawn again. Athey, Imbens, Qu, Viviano (2025), Algorithm 3, draw treated and untreated units apart. It takes
units as independent draws of one population and wants many of them, treated ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from causal_spark.errors import NoControlUnitsError, TooFewTreatedError
from causal_spark.panel.cohorts import Donors, zetas_for
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.inference import Details, ErrorBar, VarianceEstimate
from causal_spark.panel.placebo import event_spreads, spread_of
from causal_spark.panel.replicates import (
    Replicates,
    ReplicateSet,
    Setting,
    estimates,
    event_times,
    refit_seconds,
    replicate_seed,
)
from causal_spark.panel.stages import Arrays
from causal_spark.panel.types import Fit, Ints, Panel, PanelSize

Strata = Literal["none", "treatment"]


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """How the bootstrap variance is computed.

    replicates: panels drawn.
    strata: ``none`` draws all units together, ``treatment`` treated and untreated ones apart, each as many as there
        are.
    retune: choose penalties anew in every replicate instead of keeping those of the estimate.
    """

    replicates: int = 200
    strata: Strata = "none"
    retune: bool = False

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError("replicates must be at least 2")
        if self.strata not in ("none", "treatment"):
            raise ValueError(f"strata must be none or treatment, not {self.strata!r}")


@dataclass(frozen=True, slots=True)
class Bootstraps:
    """Panels of units drawn with replacement; a `ReplicateSet` with ``att`` and ``event_effects``."""

    replicates: int
    strata: Strata = "none"
    retune: bool = False

    def covers(self, other: ReplicateSet) -> bool:
        """Whether this is the same list."""
        return self == other

    def n_fits(self, size: PanelSize) -> int:
        """Panels drawn; 0 with one treated unit, or without controls."""
        return self.replicates if 2 <= size.n_treated_units < size.n_units else 0

    def seconds(self, size: PanelSize, definition: EstimatorDefinition, options: Any) -> float:
        """Core seconds of one panel."""
        return refit_seconds(self, size, definition, options)

    def numbers(self, size: PanelSize) -> int:
        """Floating point numbers that all results hold, at most."""
        return 2 * self.n_fits(size) * size.n_periods

    def count(self, of: Setting) -> int:
        """Panels drawn. Raises TooFewTreatedError with one treated unit, NoControlUnitsError without controls."""
        require_several_treated(of.panel, "bootstrap")
        return self.replicates

    def run(self, of: Setting, start: int, stop: int) -> Arrays:
        """Estimates on the drawn panels start to stop. Raises the first error of one without an estimate."""
        fits = [partial(self._fit, of, number) for number in range(start, stop)]
        return estimates(fits, event_times(of.panel), "bootstrap")

    def _fit(self, of: Setting, number: int) -> tuple[Panel, Fit]:
        seed = replicate_seed(of.seed("variance:bootstrap"), number)
        drawn = of.panel.take_units(self._units(of.panel, seed))
        penalties = None
        if not self.retune:
            # A draw may lack a cohort.
            donors: Donors = getattr(of.options, "donors", "never_treated")
            penalties = zetas_for(of.fit.penalties, of.panel, drawn, donors)
        return drawn, of.definition.fit(drawn, of.options, penalties, seed)

    def _units(self, panel: Panel, seed: int) -> Ints:
        rng = np.random.default_rng(seed)
        treated = panel.ever_treated
        # Those treated from the first period on say nothing of an effect.
        later = treated & ~panel.treated[:, 0]
        if self.strata == "treatment":
            both = np.flatnonzero(~treated), np.flatnonzero(treated)
            return np.concatenate([rng.choice(units, size=units.size) for units in both])
        while True:
            units = np.sort(rng.integers(0, panel.n_units, size=panel.n_units))
            if (later[units].any() or not later.any()) and not treated[units].all():
                return units


def require_several_treated(panel: Panel, what: str) -> None:
    """Raise TooFewTreatedError with fewer than two treated units and NoControlUnitsError without untreated ones.

    what: the variance, for the message.
    """
    n_treated = int(np.count_nonzero(panel.ever_treated))
    if n_treated < 2:
        raise TooFewTreatedError(
            f"The {what} needs several treated units, but there is {n_treated}: nothing else tells how much they vary.",
            "Use placebo or unit_time, which learn that from the untreated units.",
        )
    if n_treated == panel.n_units:
        raise NoControlUnitsError(
            f"The {what} needs units that are never treated.", f"Add untreated units, or leave the {what} variance out."
        )


def bootstrap_sets(options: BootstrapOptions) -> tuple[ReplicateSet, ...]:
    """The one list of replicates the bootstrap needs."""
    return (Bootstraps(options.replicates, options.strata, options.retune),)


def bootstrap_variance(of: Setting, options: BootstrapOptions, replicates: Replicates) -> VarianceEstimate:
    """Standard deviation of the estimates on the drawn panels around their mean, divisor n_replicates.

    Raises as `Bootstraps` does, and SolverError for an estimate that is not finite.
    """
    found = replicates.of(bootstrap_sets(options)[0])
    return VarianceEstimate(
        ErrorBar(spread_of(found["att"], "bootstrap")),
        int(found["att"].size),
        lambda: Details(event_spreads(of.panel, found)),
    )
