"""Placebo variance: the spread of the estimate when untreated units are taken as treated.

Arkhangelsky et al. (2021), Algorithm 4, for any estimator and any assignment: the treated units leave the panel, and
their rows of the treatment indicator go to as many never-treated units. It takes the noise of treated and control units
as alike (homoskedastic across units), and is the only one of that paper's variances for a single treated unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_spark.errors import GroupError, NoTreatedCellsError, SolverError, TooFewControlsError
from causal_spark.panel.event_study import event_study
from causal_spark.panel.inference import VarianceEstimate
from causal_spark.panel.summary import att
from causal_spark.panel.types import Bools, EstimatorFunction, Floats, Ints, Panel, PanelSize, Penalties

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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


@dataclass(frozen=True, slots=True, eq=False)
class PlaceboErrors:
    """Estimates where the true effect is zero, in the order of the assignments.

    att: (n_replicates,); event_time: (k,) ascending; event_effects: (n_replicates, k), NaN where a replicate has no
    cell at that event time.
    """

    att: Floats
    event_time: Ints
    event_effects: Floats

    @staticmethod
    def concatenate(parts: Sequence[PlaceboErrors]) -> PlaceboErrors:
        """Join slices of the assignments computed apart, in their order."""
        return PlaceboErrors(
            att=np.concatenate([part.att for part in parts]),
            event_time=parts[0].event_time,
            event_effects=np.concatenate([part.event_effects for part in parts]),
        )


def placebo_assignments(panel: Panel, options: PlaceboOptions, seed: int) -> Ints:
    """(n_replicates, n_treated_units) positions of the never-treated units that stand in for the treated ones.

    Column k takes over the treatment of the k-th ever-treated unit. Rows are distinct as assignments: units that get
    the same treatment are not told apart. All assignments are listed in lexicographic order when they are no more than
    ``options.replicates``; else distinct ones are drawn uniformly, and a larger number of replicates extends the list
    of a smaller. Any slice of rows can be given to `placebo_errors`. Units that are observed in no treated period, or
    in none before, cannot stand in; they stay controls.

    Raises NoTreatedCellsError without treated units, TooFewControlsError unless the units that can stand in outnumber
    them and there are two distinct assignments.
    """
    treated_rows = np.flatnonzero(panel.ever_treated)
    controls = _stand_ins(panel)
    if treated_rows.size == 0:
        raise NoTreatedCellsError("No observed cell is treated.", "Check the treatment column.")
    if controls.size <= treated_rows.size:
        raise TooFewControlsError(
            "Placebos need more never-treated units, observed before and during treatment, than treated ones, but "
            f"there are {controls.size} and {treated_rows.size}.",
            "Add untreated units, or leave the placebo variance out.",
        )
    groups = _same_treatment(_lasting_treatment(panel))
    n_distinct = _count(controls.size, [group.size for group in groups])
    if n_distinct <= options.replicates:
        chosen = np.array(list(_all_assignments(controls.size, groups, treated_rows.size)), dtype=np.intp)
    else:
        chosen = _draws(controls.size, groups, treated_rows.size, options.replicates, seed)
    return np.asarray(controls[chosen])


def _lasting_treatment(panel: Panel) -> Bools:
    """(n_treated_units, n_periods): rows of W of ever-treated units, carried forward over cells that are not observed.

    A unit without a row in some treated period has W = 0 there, but a stand-in that is observed has to be treated.
    """
    treated, observed = panel.treated[panel.ever_treated].copy(), panel.observed[panel.ever_treated]
    for t in range(1, panel.n_periods):
        treated[:, t] |= ~observed[:, t] & treated[:, t - 1]
    return treated


def _stand_ins(panel: Panel) -> Ints:
    """Positions of never-treated units with an outcome in some treated period and in some period before it."""
    treated_periods = panel.treated.any(axis=0)
    first = int(treated_periods.argmax())
    during = panel.observed[:, treated_periods].any(axis=1)
    before = panel.observed[:, :first].any(axis=1) | (first == 0)
    return np.flatnonzero(~panel.ever_treated & during & before)


def placebo_errors(
    panel: Panel,
    estimator: EstimatorFunction,
    estimator_options: Any,
    penalties: Penalties | None,
    assignments: Ints,
    seed: int,
) -> PlaceboErrors:
    """Estimate every assignment's placebo effect.

    assignments: (n_replicates, n_treated_units) rows of `placebo_assignments`; penalties None tunes in each replicate,
    with a seed that depends on ``seed`` and the assignment only, not on the slice it comes in.
    A replicate the estimator declines would bias the variance if dropped, so the first error's class is raised with the
    number of replicates that failed.
    """
    treatment = _lasting_treatment(panel)
    controls = np.flatnonzero(~panel.ever_treated)
    untreated = panel.take_units(controls)
    event_time = _event_times(panel)
    effects = np.full(len(assignments), np.nan)
    event_effects = np.full((len(assignments), event_time.size), np.nan)
    failures: list[GroupError] = []
    for b, assignment in enumerate(assignments):
        treated = np.zeros(untreated.treated.shape, dtype=np.bool_)
        treated[np.searchsorted(controls, assignment)] = treatment
        placebo = untreated.with_treatment(treated)
        try:
            fit = estimator(placebo, estimator_options, penalties, _replicate_seed(seed, assignment))
            effects[b] = att(placebo, fit)
        except GroupError as error:
            failures.append(error)
            continue
        study = event_study(placebo, fit)
        event_effects[b, np.searchsorted(event_time, study.event_time)] = study.estimate
    if failures:
        first = failures[0]
        raise type(first)(
            f"{len(failures)} of {len(assignments)} placebo replicates have no estimate; the first: {first.message}",
            first.hint or "Leave the placebo variance out.",
        )
    return PlaceboErrors(effects, event_time, event_effects)


def placebo_variance(errors: PlaceboErrors) -> VarianceEstimate:
    """Standard deviation of the placebo estimates around their mean, divisor n_replicates (Algorithm 4).

    Event times some replicate has no effect for get no standard error. Raises TooFewControlsError with fewer than two
    replicates, SolverError for an estimate that is not finite.
    """
    n_replicates = int(errors.att.size)
    if n_replicates < 2:
        raise TooFewControlsError(
            f"A placebo variance needs two distinct assignments, but there is {n_replicates}.", "Add untreated units."
        )
    if not np.isfinite(errors.att).all():
        raise SolverError("A placebo estimate is not finite.", "Look for extreme outcomes.")
    complete = np.flatnonzero(np.isfinite(errors.event_effects).all(axis=0))
    return VarianceEstimate(
        std_error=_spread(errors.att),
        n_replicates=n_replicates,
        event_std_errors={int(errors.event_time[k]): _spread(errors.event_effects[:, k]) for k in complete},
    )


def placebo_n_fits(size: PanelSize, options: PlaceboOptions) -> int:
    """Fits the variance needs at most (exact for one treated unit); 0 where it will be declined."""
    n_controls = size.n_units - size.n_treated_units
    if n_controls <= size.n_treated_units or size.n_treated_units == 0:
        return 0
    return min(options.replicates, math.perm(n_controls, min(size.n_treated_units, 64)))


def _same_treatment(treated: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Ints]:
    """Positions of treated units by distinct row of the treatment indicator."""
    _, group_of = np.unique(treated, axis=0, return_inverse=True)
    return [np.flatnonzero(group_of == g) for g in range(int(group_of.max()) + 1)]


def _count(n_controls: int, sizes: Sequence[int]) -> int:
    total, left = 1, n_controls
    for size in sizes:
        total *= math.comb(left, size)
        left -= size
    return total


def _all_assignments(n_controls: int, groups: list[Ints], n_treated: int) -> Iterator[Ints]:
    def extend(taken: Ints, rest: list[Ints]) -> Iterator[Ints]:
        if not rest:
            yield taken.copy()
            return
        free = [c for c in range(n_controls) if c not in taken]
        for members in combinations(free, rest[0].size):
            filled = taken.copy()
            filled[rest[0]] = members
            yield from extend(filled, rest[1:])

    return extend(np.full(n_treated, -1, dtype=np.intp), groups)


def _draws(n_controls: int, groups: list[Ints], n_treated: int, n_draws: int, seed: int) -> Ints:
    def candidates() -> Iterator[tuple[int, ...]]:
        rng = np.random.default_rng(seed)
        while True:
            drawn = rng.choice(n_controls, size=n_treated, replace=False)
            for group in groups:
                drawn[group] = np.sort(drawn[group])
            yield tuple(drawn.tolist())

    def distinct() -> Iterator[tuple[int, ...]]:
        seen: set[tuple[int, ...]] = set()
        for candidate in candidates():
            if candidate not in seen:
                seen.add(candidate)
                yield candidate

    return np.array(list(islice(distinct(), n_draws)), dtype=np.intp)


def _replicate_seed(seed: int, assignment: Ints) -> int:
    return int(np.random.SeedSequence([seed, *assignment.tolist()]).generate_state(1, np.uint64)[0])


def _event_times(panel: Panel) -> Ints:
    """Every event time a panel with this treatment can have, ascending."""
    start = panel.treated[panel.ever_treated].argmax(axis=1)
    return np.arange(-int(start.max()), panel.n_periods - int(start.min()), dtype=np.intp)


def _spread(values: Floats) -> float:
    """Standard deviation, divisor n, without under- or overflow."""
    centred = values - values.mean()
    scale = float(np.abs(centred).max())
    return scale * float(np.sqrt(np.mean(np.square(centred / scale)))) if scale > 0.0 else 0.0
