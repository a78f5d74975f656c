"""What tuning shares: the outcome's scale, cross-validation folds, search over penalty grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from causal_spark.errors import ConstantOutcomeError
from causal_spark.panel.types import Bools, Floats, Ints, Panel, TuningStep

# Scores closer than this are a tie: with L = 0 many lambda_nn differ by rounding only.
_BETTER = 1.0 - 1e-9

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


#: (triple, bound) -> (criterion, complete): work may stop once the criterion is known to exceed ``bound``; the number
#: returned is then a lower bound above ``bound`` and ``complete`` is False.
ScoreFunction = Callable[[Triple, float], tuple[float, bool]]


class _Search:
    """Scores of the triples tried so far, each computed once unless it was abandoned and is asked for again."""

    def __init__(self, score: ScoreFunction) -> None:
        self.score = score
        self.seen: dict[Triple, tuple[float, bool]] = {}

    def ask(self, triple: Triple, bound: float) -> float:
        value, complete = self.seen.get(triple, (-np.inf, False))
        if not complete and value <= bound:
            value, complete = self.seen[triple] = self.score(triple, bound)
        return value

    def along(self, start: Triple, axis: int, grid: tuple[float, ...]) -> Triple:
        """The best triple on the line through ``start``; ``start`` itself is on it only if the grid says so."""
        best, least = start, np.inf
        for value in grid:
            moved = (*start[:axis], value, *start[axis + 1 :])
            triple = (moved[0], moved[1], moved[2])
            found = self.ask(triple, least)
            if found < least * _BETTER:
                best, least = triple, found
        return best

    def everywhere(self, grids: tuple[tuple[float, ...], ...]) -> None:
        least = np.inf
        for nn in grids[2]:
            for unit in grids[1]:
                for time in grids[0]:
                    least = min(least, self.ask((time, unit, nn), least))

    def cyclic(self, grids: tuple[tuple[float, ...], ...]) -> None:
        alone = [self.along((0.0, 0.0, np.inf), axis, grids[axis])[axis] for axis in (0, 1, 2)]
        current = (alone[0], alone[1], alone[2])
        for _ in range(sum(map(len, grids))):
            before = current
            for axis in (1, 0, 2):
                current = self.along(current, axis, grids[axis])
            if current == before:
                return


def search(
    score: ScoreFunction,
    times: tuple[float, ...],
    units: tuple[float, ...],
    lambdas_nn: tuple[float, ...],
    method: Literal["cyclic", "grid"],
) -> tuple[Triple, tuple[TuningStep, ...]]:
    """The triple with the smallest score, and every triple tried, in order.

    ``grid`` tries all. ``cyclic`` is the search of Athey, Imbens, Qu, Viviano (2025): each penalty alone first, the
    others at no weighting and no low-rank part (0, 0, infinity); then coordinate descent from the three winners,
    lambda_unit, lambda_time, lambda_nn in turn, until a round changes nothing. lambda_nn runs from large to small: the
    large are cheap and give the others something to beat. Ties keep the earlier. An abandoned triple is listed with its
    lower bound, which exceeds a score that was complete.
    """
    grids = (times, units, tuple(sorted(lambdas_nn, reverse=True)))
    found = _Search(score)
    if method == "grid":
        found.everywhere(grids)
    else:
        found.cyclic(grids)
    complete = [triple for triple, (_, whole) in found.seen.items() if whole]
    least = min(found.seen[triple][0] for triple in complete)
    chosen = next(triple for triple in complete if found.seen[triple][0] * _BETTER <= least)
    return chosen, tuple(TuningStep(*triple, value) for triple, (value, _) in found.seen.items())
