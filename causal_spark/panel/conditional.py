"""Variances given the unit, the period, or both, beside the one given neither: from an estimator's own placebo errors.

Untreated units stand in for the treated ones (`placebo.Placebos`), in the target's own periods and at earlier starts
with later periods left out, so that every error is made with the target's information: as far from the last untreated
period, with as little behind it, with as many units averaged. Correlation within units over time and the part that
units share are in the errors, and need no model.

``marginal`` pools all errors: how far the estimate errs on average over units and periods. ``time`` pools those of the
target's own periods. ``unit`` and ``unit_time`` take errors relative to the scale of the residuals of the units they
are made at, and scale them back by the target's own; how noisy periods are is then averaged over starts (``unit``) or
taken from the target's own periods (``unit_time``), there shrunk towards the earlier ones as far as these allow.

Ideas: Almeida, Athey, Imbens, Lestant, Olaizola, "Estimating Variances for Causal Panel Data Estimators",
arXiv 2510.11841; the scales are those of `noise_scales`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from causal_spark.errors import ConstantOutcomeError, GroupError, SolverError, TooFewControlsError, TooFewPeriodsError
from causal_spark.panel.assignments import lasting_treatment
from causal_spark.panel.contrast_scales import Families, Family, Start, attenuation, unit_noise
from causal_spark.panel.event_study import event_cells
from causal_spark.panel.inference import Details, ErrorBar, VarianceEstimate
from causal_spark.panel.noise_levels import Levels
from causal_spark.panel.placebo import Placebos, earlier_starts, n_periods_before
from causal_spark.panel.replicates import Replicates, ReplicateSet, Setting, event_times
from causal_spark.panel.stages import Arrays
from causal_spark.panel.summary import effect_cells
from causal_spark.panel.types import Floats, Panel

TimeScale = Literal["shrunk", "direct"]
#: Names of the variances, and what each is conditional on.
CONDITIONING = {"marginal": "none", "unit": "unit", "time": "time", "unit_time": "unit_time"}

# Assignments at each earlier start, at least.
_FEWEST_EARLIER = 25


@dataclass(frozen=True, slots=True)
class ConditionalOptions:
    """How conditional variances, and the marginal one beside them, are computed.

    replicates: placebo assignments at most; with as many or fewer stand-ins for one treated unit each is used once.
    starts: earlier starts at most, 0 for none; each has a quarter of the assignments, 25 at least.
    time_scale: of ``unit_time``: ``direct`` takes the noise of the treated periods from their own placebos alone,
        ``shrunk`` draws it towards that of earlier starts, as far as these agree with one another and with it; with
        fewer than two earlier starts it is direct.
    retune: choose penalties anew in every replicate instead of keeping those of the estimate.
    """

    replicates: int = 200
    starts: int = 6
    time_scale: TimeScale = "shrunk"
    retune: bool = False

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError("replicates must be at least 2")
        if self.starts < 0:
            raise ValueError("starts must not be negative")
        if self.time_scale not in ("shrunk", "direct"):
            raise ValueError(f"time_scale must be shrunk or direct, not {self.time_scale!r}")


def conditional_sets(options: ConditionalOptions) -> tuple[ReplicateSet, ...]:
    """Placebos at the real start, and at each earlier one."""
    fewer = min(options.replicates, max(options.replicates // 4, _FEWEST_EARLIER))
    own = Placebos(options.replicates, options.retune, detail=True)
    earlier = [
        Placebos(fewer, options.retune, which, options.starts, detail=True) for which in range(1, options.starts + 1)
    ]
    return (own, *earlier)


def conditional_variance(name: str) -> Callable[[Setting, ConditionalOptions, Replicates], VarianceEstimate]:
    """The variance of that name, see `CONDITIONING`.

    It raises what placebos raise (TooFewControlsError above all: without spare control units nothing tells a period's
    noise), TooFewPeriodsError without an earlier start (``unit``) or without residuals of the treated units to take
    their scale from (``unit``, ``unit_time``), ConstantOutcomeError where all residuals are zero, and SolverError for
    errors that are not finite.
    """

    def estimate(of: Setting, options: ConditionalOptions, replicates: Replicates) -> VarianceEstimate:
        key = "conditional", options.replicates, options.starts, options.retune
        found = of.keep(key, lambda: _Analysis(of, options, replicates))
        return found.estimate(name, options.time_scale)

    return estimate


class _Analysis:
    """All four variances of one estimate; contrasts are worked out as they are asked for."""

    def __init__(self, of: Setting, options: ConditionalOptions, replicates: Replicates) -> None:
        panel = of.panel
        self._panel, self._pools_periods = panel, of.definition.pools_periods
        # Fourth powers must not overflow.
        untreated = panel.outcome[panel.control_cells]
        largest = float(np.abs(untreated).max())
        deviation = largest * float(np.std(untreated / largest)) if largest > 0.0 else 0.0
        self._unit = deviation if deviation > 0.0 else 1.0
        n_pre = n_periods_before(panel)
        controls = panel.take_units(np.flatnonzero(~panel.ever_treated))
        self._starts = [
            Start(**found, noise=unit_noise(controls, n_pre - shift, self._unit), shift=shift, n_pre=n_pre - shift)
            for found, shift in _placebos(panel, options, replicates, self._unit)
        ]
        self._errors = effect_cells(panel, of.fit)[panel.ever_treated] / self._unit
        self._target = panel.target_cells[panel.ever_treated] & np.isfinite(self._errors)
        self._families = Families(of, self._starts, self._errors, self._unit)
        decay = of.fit.penalties.lambda_time
        averages_past = of.definition.averages_past and (decay is None or decay == 0.0)
        self._levels = Levels(self._starts, averages_past)
        self._averages: dict[bytes, Family] = {}

    def estimate(self, name: str, time_scale: TimeScale) -> VarianceEstimate:
        """One of the four. Raises where it is undefined."""
        n_cells = self._target.sum(axis=1)
        family = self._average(n_cells / n_cells.sum())
        if name == "unit" and len(self._starts) < 2:
            raise TooFewPeriodsError(
                "The variance given the unit averages over starts before the real one, but there is none.",
                "Add periods before treatment, ask for starts, or use unit_time.",
            )
        if name.startswith("unit") and family.scales is None:
            raise TooFewPeriodsError(
                "The variance given the unit takes the treated units' scale from their residuals before treatment, but "
                "there are none, or fewer than two.",
                "Add periods before treatment, or use time or placebo.",
            )
        if name.startswith("unit") and family.constant:
            raise ConstantOutcomeError(
                "All residuals before treatment are zero, so that units have no scale.", "Use time or placebo."
            )
        n_periods = int(np.count_nonzero(self._target.any(axis=0)))
        shrink = time_scale == "shrunk"
        att = self._levels.variance(family, [start.att for start in self._starts], n_periods, name, shrink)
        if not att.df[0] >= 1.0:
            raise TooFewControlsError(
                f"The placebo errors leave {att.df[0]:.2f} degrees of freedom, which no interval can be made of.",
                "Add untreated units, or use placebo.",
            )
        own_only = name == "time" or (name == "unit_time" and not shrink)
        used = self._starts[:1] if own_only else self._starts
        return VarianceEstimate(
            att.bars(self._unit)[0],
            sum(start.att.size for start in used),
            lambda: Details(self._event_times(name, shrink), self._cells(name, shrink)),
        )

    def _average(self, shares: Floats) -> Family:
        key = shares.tobytes()
        if key not in self._averages:
            self._averages[key] = self._families.of_average(shares)
        return self._averages[key]

    def _event_times(self, name: str, shrink: bool) -> dict[int, ErrorBar]:
        found = {}
        treated = self._panel.treated[self._panel.ever_treated]
        event, counted = event_cells(treated, self._errors)
        n_controls = self._panel.n_units - len(treated)
        for k, event_time in enumerate(event_times(self._panel).tolist()):
            mine = (counted & (event == event_time)).any(axis=1)
            if not mine.any() or not np.isfinite(self._starts[0].event_effects[:, k]).all():
                continue
            n_units = int(np.count_nonzero(mine))
            family = self._average(mine / n_units)
            if name.startswith("unit") and (family.scales is None or family.constant):
                continue
            # Before treatment both are residuals, which follow the period effects that they inform.
            smaller = 1.0
            if self._pools_periods and event_time < 0:
                smaller = attenuation(n_units, self._panel.n_units) / attenuation(n_units, n_controls)
            errors = [smaller * start.event_effects[:, k] for start in self._starts]
            (bar,) = self._levels.variance(family, errors, 1, name, shrink).bars(self._unit)
            if bar.is_usable:
                found[event_time] = bar
        return found

    def _cells(self, name: str, shrink: bool) -> Floats:
        """(n_units, n_periods) standard errors of treated cells."""
        found = np.full(self._panel.outcome.shape, np.nan)
        units = np.flatnonzero(self._panel.ever_treated)
        patterns, of_unit = np.unique(lasting_treatment(self._panel), axis=0, return_inverse=True)
        for pattern in range(len(patterns)):
            members = np.flatnonzero(of_unit.ravel() == pattern)
            family = self._families.of_each(members)
            if name.startswith("unit") and (family.scales is None or family.constant):
                continue
            for t in np.flatnonzero(self._target[members].any(axis=0)).tolist():
                errors = [start.errors[:, members, t - start.shift].ravel() for start in self._starts]
                bars = self._levels.variance(family, errors, 1, name, shrink).bars(self._unit)
                wanted = self._target[members, t]
                found[units[members[wanted]], t] = np.array([bar.std_error for bar in bars])[wanted]
        return found


def _placebos(
    panel: Panel, options: ConditionalOptions, replicates: Replicates, unit: float
) -> Iterator[tuple[dict[str, Any], int]]:
    """Results of placebos over ``unit``, and their shift: of the real start and of all earlier ones that can be had."""
    own, *earlier = conditional_sets(options)
    yield _in_units(replicates.of(own), unit), 0
    for one, shift in zip(earlier, earlier_starts(panel, options.starts), strict=False):
        # Gaps in the data may leave a start without placebos; the others will do.
        with suppress(GroupError):
            yield _in_units(replicates.of(one), unit), shift


def _in_units(found: Arrays, unit: float) -> dict[str, Any]:
    if not np.isfinite(found["att"]).all():
        raise SolverError("A placebo estimate is not finite.", "Look for extreme outcomes.")
    return {**found, **{name: found[name] / unit for name in ("att", "event_effects", "errors")}}
