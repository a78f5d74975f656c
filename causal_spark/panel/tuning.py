"""What tuning shares: the outcome's scale, cross-validation folds, search over penalty grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from causal_spark.errors import ConstantOutcomeError
from causal_spark.panel.types import Bools, Floats, Ints, Panel, TuningStep

#: (lambda_time, lambda_unit, lambda_nn)
Triple = tuple[float, float, float]


def standardised(panel: Panel) -> tuple[Floats, float, float]:
    """Outcomes less the mean of the control cells, over their standard deviation; that mean; that deviation.

    Penalties of `mc` and `dwcp` refer to this scale. Cells that are not control cells are 0, so nothing reads a treated
    outcome by accident. Raises ConstantOutcomeError when the control cells do not vary beyond rounding.
    """
    controls = panel.control_cells
    values = panel.outcome[controls]
    if values.size:
        origin = values[0]
        centred = values - origin
        mean = float(centred.mean())
        spread = float(np.abs(centred).max())
        # Squares are taken of numbers near 1, so outcomes of 1e-200 or 1e200 neither underflow nor overflow.
        deviation = spread * float(np.std(centred / spread)) if spread > 0 else 0.0
        if deviation > 8 * np.finfo(float).eps * float(np.abs(values).max()):
            outcome = np.zeros(panel.outcome.shape)
            outcome[controls] = (centred - mean) / deviation
            return outcome, float(origin + mean), deviation
    raise ConstantOutcomeError(
        "The outcomes of the control cells do not vary, so penalties have no scale.",
        "Drop this group, or use the did estimator, which has no penalty.",
    )


def fold_of_cells(controls: Bools, n_folds: int, seed: int) -> Ints:
    """(n_units, n_periods): each control cell's fold, 0 to n_folds - 1, -1 elsewhere; folds differ by one cell at most.

    A function of the mask of control cells and the seed only.
    """
    fold = np.full(controls.shape, -1, dtype=np.intp)
    count = int(controls.sum())
    fold[controls] = np.random.default_rng(seed).permutation(count) % n_folds
    return fold


def search(
    score: Callable[[Triple, float], float],
    times: tuple[float, ...],
    units: tuple[float, ...],
    lambdas_nn: tuple[float, ...],
    method: Literal["cyclic", "grid"],
) -> tuple[Triple, tuple[TuningStep, ...]]:
    """The triple with the smallest score, and every triple tried, in order.

    score: (triple, bound) -> criterion; it may stop and return infinity once it knows the criterion exceeds ``bound``,
    the best so far. ``grid`` tries all. ``cyclic`` is the search of Athey, Imbens, Qu, Viviano (2025): each penalty
    alone first, the others at no weighting and no low-rank part (0, 0, infinity); then coordinate descent from the
    three winners, lambda_unit, lambda_time, lambda_nn in turn, until a round changes nothing. Ties keep the earlier.
    """
    seen: dict[Triple, float] = {}
    best = np.inf

    def ask(triple: Triple, bound: float) -> float:
        nonlocal best
        if triple not in seen:
            seen[triple] = score(triple, bound)
            best = min(best, seen[triple])
        return seen[triple]

    if method == "grid":
        # Infinite lambda_nn costs nothing, so it goes first and gives the others something to beat.
        for nn in sorted(lambdas_nn, reverse=True):
            for time in times:
                for unit in units:
                    ask((time, unit, nn), best)
    else:
        grids = (times, units, tuple(sorted(lambdas_nn, reverse=True)))
        current = _alone(ask, grids)
        for _ in range(sum(map(len, grids))):
            before = current
            for axis in (1, 0, 2):
                current = _along(ask, current, axis, grids[axis])
            if current == before:
                break
    chosen = min(seen, key=lambda triple: seen[triple])
    path = tuple(TuningStep(*triple, criterion) for triple, criterion in seen.items())
    return chosen, path


def _alone(ask: Callable[[Triple, float], float], grids: tuple[tuple[float, ...], ...]) -> Triple:
    found = [0.0, 0.0, np.inf]
    for axis in (0, 1, 2):
        found[axis] = _along(ask, (0.0, 0.0, np.inf), axis, grids[axis])[axis]
    return (found[0], found[1], found[2])


def _along(ask: Callable[[Triple, float], float], start: Triple, axis: int, grid: tuple[float, ...]) -> Triple:
    best, best_score = start, np.inf
    for value in grid:
        moved = list(start)
        moved[axis] = value
        triple = (moved[0], moved[1], moved[2])
        found = ask(triple, best_score)
        if found < best_score:
            best, best_score = triple, found
    return best
