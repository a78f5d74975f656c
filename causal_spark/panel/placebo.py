"""Placebos: the estimator where the true effect is zero, on untreated units taken as treated, now or earlier.

Arkhangelsky et al. (2021), Algorithm 4, for any estimator and any assignment: the treated units leave the panel, and
their rows of the treatment indicator go to as many never-treated units, and so do their gaps: a cell that is not
observed in a treated unit is hidden in its stand-in. The placebo variance is the spread of such
estimates. It takes the noise of treated and control units as alike, and is the only one of that paper's variances for a
single treated unit.

For variances that condition (`conditional`) the same is done at earlier starts: treatment is moved back, and as many
periods leave the end of the panel, so that an estimate is made with as little behind the treated cells as in earnest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causal_spark.errors import GroupError, SolverError
from causal_spark.panel.assignments import all_assigned, lasting_treatment, placebo_assignments
from causal_spark.panel.blocks import n_fitted
from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.event_study import event_cells
from causal_spark.panel.inference import Details, ErrorBar, VarianceEstimate
from causal_spark.panel.replicates import (
    Replicates,
    ReplicateSet,
    Setting,
    event_times,
    raise_first,
    refit_seconds,
    replicate_seed,
)
from causal_spark.panel.stages import Arrays
from causal_spark.panel.summary import att, effect_cells
from causal_spark.panel.types import Bools, Floats, Ints, Panel, PanelSize, WeightedBlock

# Per number of the result, measured with 8,000 to 800,000 of them; from incomplete panels it takes longer.
_CLOSED_FORM_SECONDS = 2e-8
# What earlier starts leave of the pre-period, at least.
_SHARE_BEFORE = 0.5


@dataclass(frozen=True, slots=True)
class PlaceboOptions:
    """How the placebo variance is computed.

    replicates: re-estimates at most; when there are no more distinct assignments than that, each is used once, so the
        variance has no randomness left.
    retune: choose penalties anew in every replicate instead of keeping those of the estimate.
    """

    replicates: int = 200
    retune: bool = False

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError("replicates must be at least 2")


@dataclass(frozen=True, slots=True)
class Placebos:
    """Placebo assignments, all at one start; a `ReplicateSet`.

    replicates, retune: as in `PlaceboOptions`. earlier: 0 for the real start, else the which of ``n_earlier`` earlier
    ones, the latest first; the list is empty where there are not so many. detail: whether results hold ``errors``
    (n, n_treated_units, n_periods), the estimator's errors at treated cells and its residuals at others of the units
    assigned, NaN where there are none; ``squares`` (n, n_controls), squared weights of donors; ``fitted`` (n,),
    parameters that made the residuals small, see `n_fitted`; and ``places`` (n, n_treated_units), positions of the
    units assigned among the controls.
    Always there: ``att`` (n,) and ``event_effects`` (n, n_event_times), see `event_times`.
    """

    replicates: int
    retune: bool = False
    earlier: int = 0
    n_earlier: int = 0
    detail: bool = False

    def covers(self, other: ReplicateSet) -> bool:
        """Whether this is the same list, perhaps with more details."""
        if not isinstance(other, Placebos) or (other.detail and not self.detail):
            return False
        same = self.replicates == other.replicates and self.retune == other.retune and self.earlier == other.earlier
        return same and (self.earlier == 0 or self.n_earlier == other.n_earlier)

    def n_fits(self, size: PanelSize) -> int:
        """Assignments at most, exact for one treated unit; 0 where controls do not outnumber treated units."""
        n_controls = size.n_units - size.n_treated_units
        if n_controls <= size.n_treated_units or size.n_treated_units == 0:
            return 0
        return min(self.replicates, math.perm(n_controls, min(size.n_treated_units, 64)))

    def seconds(self, size: PanelSize, definition: EstimatorDefinition, options: Any) -> float:
        """Core seconds of one assignment."""
        at_once = size.n_treated_units and size.n_treated_cells % size.n_treated_units == 0
        if definition.placebos is not None and not self.retune and at_once:
            return _CLOSED_FORM_SECONDS * size.n_treated_units * size.n_periods
        return refit_seconds(self, size, definition, options)

    def numbers(self, size: PanelSize) -> int:
        """Floating point numbers that all results hold, at most."""
        one = 2 * size.n_periods
        if self.detail:
            # Errors, and what is made of them.
            one += 4 * size.n_treated_units * size.n_periods + size.n_units
        return self.n_fits(size) * one

    def shift(self, panel: Panel) -> int | None:
        """By how many periods treatment is moved back; None where there is no such start."""
        if self.earlier == 0:
            return 0
        shifts = earlier_starts(panel, self.n_earlier)
        return shifts[self.earlier - 1] if self.earlier <= len(shifts) else None

    def count(self, of: Setting) -> int:
        """Assignments; 0 where there is no such start. Raises as `placebo_assignments` does."""
        shift = self.shift(of.panel)
        return 0 if shift is None else len(self._assignments(of, shift))

    @property
    def _label(self) -> str:
        """Of the seed: other groups are drawn at each start, so that their errors average out."""
        return f"variance:placebo:{self.earlier}" if self.earlier else "variance:placebo"

    def _assignments(self, of: Setting, shift: int) -> Ints:
        return of.keep(
            ("assignments", self.replicates, self.earlier, shift),
            lambda: placebo_assignments(of.panel, self.replicates, of.seed(self._label), shift),
        )

    def run(self, of: Setting, start: int, stop: int) -> Arrays:
        """Results of assignments start to stop. Raises the first error of one without an estimate."""
        shift = self.shift(of.panel)
        assert shift is not None  # noqa: S101 - the list is empty
        assignments = self._assignments(of, shift)[start:stop]
        places = np.searchsorted(np.flatnonzero(~of.panel.ever_treated), assignments)
        errors, details = self._errors(of, shift, assignments, places)
        treated = earlier_treatment(of.panel, shift)
        found = {"att": _mean(errors, treated), "event_effects": _by_event_time(errors, treated, event_times(of.panel))}
        return {**found, **details, "errors": errors, "places": places} if self.detail else found

    def _errors(self, of: Setting, shift: int, assignments: Ints, places: Ints) -> tuple[Floats, Arrays]:
        controls = np.flatnonzero(~of.panel.ever_treated)
        untreated = of.panel.take_units(controls).until(of.panel.n_periods - shift)
        treatment = earlier_treatment(of.panel, shift)
        seen = of.panel.observed[of.panel.ever_treated][:, shift:]
        if of.definition.placebos is not None and not self.retune and seen.all():
            found = of.definition.placebos(untreated, treatment, places)
            if found is not None:
                squares = np.full((len(places), controls.size), (controls.size - places.shape[1]) ** -2.0)
                np.put_along_axis(squares, places, 0.0, axis=1)
                return found, {"squares": squares, "fitted": np.zeros(len(places))}
        errors = np.empty((len(places), *treatment.shape))
        squares, fitted = np.empty((len(places), controls.size)), np.zeros(len(places))
        failures: list[GroupError] = []
        penalties = None if self.retune else of.fit.penalties
        seed = of.seed(self._label)
        for b, place in enumerate(places):
            treated = np.zeros(untreated.treated.shape, dtype=np.bool_)
            treated[place] = treatment
            placebo = _without_cells(untreated.with_treatment(treated), place, ~seen)
            try:
                fit = of.definition.fit(placebo, of.options, penalties, replicate_seed(seed, *assignments[b].tolist()))
                att(placebo, fit)
            except GroupError as error:
                failures.append(error)
                continue
            errors[b] = effect_cells(placebo, fit)[place]
            if self.detail:
                squares[b], fitted[b] = squared_weights(placebo, fit.blocks), n_fitted_by(placebo, fit.blocks)
        raise_first(failures, len(places), "placebo")
        return errors, {"squares": squares, "fitted": fitted}


def _without_cells(panel: Panel, rows: Ints, hidden: Bools) -> Panel:
    """The panel without some cells of some units. hidden: (n_rows, n_periods)."""
    if not hidden.any():
        return panel
    observed, outcome = panel.observed.copy(), panel.outcome.copy()
    observed[rows] &= ~hidden
    outcome[~observed] = np.nan
    return replace(panel, observed=observed, outcome=outcome)


def earlier_treatment(panel: Panel, shift: int) -> Bools:
    """(n_treated_units, n_periods - shift): rows of W of ever-treated units, moved back by so many periods."""
    return lasting_treatment(panel)[:, shift:]


def earlier_starts(panel: Panel, n: int) -> tuple[int, ...]:
    """Shifts of at most n earlier starts, evenly spread, the latest first.

    At least half of the periods before the first treatment are left, and as far as that allows the moved cells lie
    before the real ones.
    """
    treated = panel.treated[panel.ever_treated]
    n_pre = n_periods_before(panel)
    if n == 0 or n_pre == 0:
        return ()
    most = n_pre - max(math.ceil(_SHARE_BEFORE * n_pre), 2)
    if most < 1:
        return ()
    least = min(int(np.count_nonzero(treated[~treated[:, 0]].any(axis=0))), most)
    return tuple(np.unique(np.linspace(least, most, n).round().astype(int)).tolist())


def n_periods_before(panel: Panel) -> int:
    """Periods before the first treatment of a unit that is not treated from the first period on; 0 without such."""
    starts = first_treated(panel.treated[panel.ever_treated])
    return int(starts[starts > 0].min(initial=panel.n_periods)) if (starts > 0).any() else 0


def squared_weights(panel: Panel, blocks: tuple[WeightedBlock, ...]) -> Floats:
    """(n_units,) squares of the weights that never-treated units have in the ATT.

    Blocks count by their treated cells. Without blocks all never-treated units count alike.
    """
    weights = np.zeros(panel.n_units)
    if not blocks:
        weights[~panel.ever_treated] = 1.0 / max(int(np.count_nonzero(~panel.ever_treated)), 1)
    for block in blocks:
        weights[block.donors] += block.unit * block.treated.size * block.n_post
    return np.asarray(np.square(weights / max(weights.sum(), np.finfo(float).tiny)))


def n_fitted_by(panel: Panel, blocks: tuple[WeightedBlock, ...]) -> float:
    """Parameters fitted to the treated units' outcomes before treatment, blocks counted by their treated cells."""
    n_cells = [block.treated.size * block.n_post for block in blocks]
    each = [n_fitted(panel.outcome, block) for block in blocks]
    return float(np.average(each, weights=n_cells)) if blocks else 0.0


def _mean(errors: Floats, treated: Bools) -> Floats:
    """(n,) mean error over treated cells that have one."""
    return np.asarray(np.nanmean(errors[:, treated], axis=1))


def _by_event_time(errors: Floats, treated: Bools, event_time: Ints) -> Floats:
    """(n, k) mean error by event time, as `event_study` has it: treated cells, and those before the first of a unit."""
    event, counted = event_cells(treated, errors)
    start = -event[:, 0]
    errors = np.where(counted, errors, 0.0)
    sums = np.zeros((len(errors), event_time.size))
    n_cells = np.zeros(sums.shape, dtype=np.intp)
    for one in np.unique(start).tolist():
        members = start == one
        # Event times are consecutive. Moved back, units begin at later ones.
        first = -one - int(event_time[0])
        columns = slice(first, first + treated.shape[1])
        sums[:, columns] += errors[:, members].sum(axis=1)
        n_cells[:, columns] += counted[:, members].sum(axis=1)
    return np.asarray(np.divide(sums, n_cells, out=np.full(sums.shape, np.nan), where=n_cells > 0))


def placebo_sets(options: PlaceboOptions) -> tuple[ReplicateSet, ...]:
    """The one list of replicates the placebo variance needs."""
    return (Placebos(options.replicates, options.retune),)


def placebo_variance(of: Setting, options: PlaceboOptions, replicates: Replicates) -> VarianceEstimate:
    """Standard deviation of the placebo estimates around their mean, divisor n_replicates (Algorithm 4).

    Event times some replicate has no effect for get no standard error. The permutation p-value is the share of
    assignments, the real one among them, with an estimate at least as far from zero (Abadie et al. 2010); it is there
    when the replicates are all assignments.
    Raises TooFewControlsError with fewer than two assignments, NoTreatedCellsError, SolverError for an estimate that is
    not finite, and what placebo fits raise.
    """
    found = replicates.of(placebo_sets(options)[0])
    effects = found["att"]
    spread = spread_of(effects, "placebo")
    n = int(effects.size)
    p_value = None
    if all_assigned(of.panel, n):
        # Estimates that differ by rounding only are ties.
        estimate = abs(att(of.panel, of.fit)) * (1.0 - 1e-9)
        p_value = (1 + int(np.count_nonzero(np.abs(effects) >= estimate))) / (n + 1)
    return VarianceEstimate(ErrorBar(spread), n, lambda: Details(event_spreads(of.panel, found)), p_value)


def spread_of(effects: Floats, what: str) -> float:
    """Standard deviation of replicates' estimates, divisor n, without under- or overflow.

    Raises SolverError for one that is not finite. what: the kind of replicate, for the message.
    """
    if not np.isfinite(effects).all():
        raise SolverError(f"A {what} estimate is not finite.", "Look for extreme outcomes.")
    centred = effects - effects.mean()
    scale = float(np.abs(centred).max())
    return scale * float(np.sqrt(np.mean(np.square(centred / scale)))) if scale > 0.0 else 0.0


def event_spreads(panel: Panel, found: Arrays, factor: float = 1.0) -> dict[int, ErrorBar]:
    """So many standard deviations by event time, where every replicate has an effect."""
    effects = found["event_effects"]
    complete = np.flatnonzero(np.isfinite(effects).all(axis=0))
    times = event_times(panel)
    return {int(times[k]): ErrorBar(factor * spread_of(effects[:, k], "replicate")) for k in complete}
