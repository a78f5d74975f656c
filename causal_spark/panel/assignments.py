"""Placebo assignments: which never-treated units stand in for the treated ones."""

from __future__ import annotations

import math
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_spark.errors import NoTreatedCellsError, TooFewControlsError
from causal_spark.panel.types import Bools, Ints, Panel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def placebo_assignments(panel: Panel, replicates: int, seed: int, shift: int = 0) -> Ints:
    """(n_replicates, n_treated_units) positions of the never-treated units that stand in for the treated ones.

    Column k takes over the treatment of the k-th ever-treated unit. Rows are distinct as assignments: units that get
    the same treatment are not told apart. All assignments are listed in lexicographic order when they are no more than
    ``replicates``; else distinct ones are drawn uniformly, and a larger number of replicates extends the list
    of a smaller. Units that cannot stand in stay controls, see `stand_ins`.
    shift: periods by which treatment is moved back; as many leave the end of the panel.

    Raises NoTreatedCellsError without treated units, TooFewControlsError unless the units that can stand in outnumber
    them and there are two distinct assignments.
    """
    treated_rows = np.flatnonzero(panel.ever_treated)
    if treated_rows.size == 0:
        raise NoTreatedCellsError("No observed cell is treated.", "Check the treatment column.")
    treatment = lasting_treatment(panel)[:, shift:]
    controls = stand_ins(panel, shift)
    if controls.size <= treated_rows.size:
        raise TooFewControlsError(
            "Placebos need more never-treated units, observed before and during treatment, than treated ones, but "
            f"there are {controls.size} and {treated_rows.size}.",
            "Add untreated units, or leave the placebo variance out.",
        )
    groups = _same_treatment(treatment)
    n_distinct = _count(controls.size, [group.size for group in groups])
    if n_distinct <= replicates:
        chosen = np.array(list(_all_assignments(controls.size, groups, treated_rows.size)), dtype=np.intp)
    else:
        chosen = _draws(controls.size, groups, treated_rows.size, replicates, seed)
    return np.asarray(controls[chosen])


def lasting_treatment(panel: Panel) -> Bools:
    """(n_treated_units, n_periods): rows of W of ever-treated units, carried forward over cells that are not observed.

    A unit without a row in some treated period has W = 0 there, but a stand-in that is observed has to be treated.
    """
    treated, observed = panel.treated[panel.ever_treated].copy(), panel.observed[panel.ever_treated]
    for t in range(1, panel.n_periods):
        treated[:, t] |= ~observed[:, t] & treated[:, t - 1]
    return treated


def stand_ins(panel: Panel, shift: int = 0) -> Ints:
    """Positions of never-treated units that can stand in for treated ones.

    They have an outcome in some period in which a treated unit has a treated cell, and in some period before the first
    of these in which a treated unit has an outcome; treatment moved back by ``shift`` periods. Units treated from the
    first period on have no period before, and count only where there are no others.
    """
    treated, seen = lasting_treatment(panel)[:, shift:], panel.observed[panel.ever_treated][:, shift:]
    later = ~treated[:, 0]
    if later.any():
        treated, seen = treated[later], seen[later]
    during, first = (treated & seen).any(axis=0), int(treated.any(axis=0).argmax())
    before = seen.any(axis=0) & (np.arange(during.size) < first)
    observed = panel.observed[:, : during.size]
    usable = observed[:, during].any(axis=1) & (observed[:, before].any(axis=1) | (first == 0))
    return np.flatnonzero(~panel.ever_treated & usable)


def all_assigned(panel: Panel, n_replicates: int) -> bool:
    """Whether that many replicates are every distinct assignment there is."""
    treatment = lasting_treatment(panel)
    groups = _same_treatment(treatment)
    return n_replicates == _count(stand_ins(panel).size, [group.size for group in groups])


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
