"""What tuning shares: the outcome's scale, penalties and their grids, folds, search over grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.errors import ConstantOutcomeError
from causal_spark.panel.types import Bools, Floats, Ints, Panel, Penalties, TuningStep

#: Scores closer than this share are a tie: with L = 0 many lambda_nn differ by rounding only.
TIE = 1e-9
_BETTER = 1.0 - TIE

#: Smallest nuclear-norm penalty on standardised outcomes: below it a fit all but repeats the control cells, and its
#: prediction elsewhere takes very long. With equal weights the treated cells of Proposition 99 take 338 sweeps at 1e-3;
#: at 1e-4 they are not there after 1,000.
LAMBDA_NN_FLOOR = 1e-3
# Panels of each kind on which block tuning tries all candidates, and how many of the candidates see all panels.
_FIRST_ROUND, _FINALISTS = 2, 8

#: (lambda_time, lambda_unit, lambda_nn)
Triple = tuple[float, float, float]


def check_grids(lambda_time: Sequence[float], lambda_unit: Sequence[float], lambda_nn: Sequence[float]) -> None:
    """Raise ValueError naming the grid that is empty or holds a penalty out of range."""
    for name, grid in (("lambda_time", lambda_time), ("lambda_unit", lambda_unit)):
        if not grid or not all(0 <= value < math.inf for value in grid):
            raise ValueError(f"{name} must be a tuple of finite numbers that are not negative.")
        _check_distinct(name, grid)
    if not lambda_nn or not all(value >= LAMBDA_NN_FLOOR for value in lambda_nn):
        raise ValueError(
            f"lambda_nn must be a tuple of numbers >= {LAMBDA_NN_FLOOR}: at 0 the controls are fitted perfectly."
        )
    _check_distinct("lambda_nn", lambda_nn)


def _check_distinct(name: str, grid: Sequence[float]) -> None:
    if len(set(grid)) < len(grid):
        raise ValueError(f"{name} holds a number twice: leave one of them out.")


def check_tolerances(**tolerances: float) -> None:
    """Raise ValueError naming the tolerance that is out of range."""
    for name, value in tolerances.items():
        if not 1e-10 <= value <= 1e-2:
            raise ValueError(f"{name} must lie between 1e-10 and 1e-2, not {value}.")


def given_triple(penalties: Penalties) -> Triple:
    """Penalties that are given, None read as no weighting and no low-rank part; ValueError when out of range."""
    time = 0.0 if penalties.lambda_time is None else float(penalties.lambda_time)
    unit = 0.0 if penalties.lambda_unit is None else float(penalties.lambda_unit)
    nn = math.inf if penalties.lambda_nn is None else float(penalties.lambda_nn)
    if not (0 <= time < math.inf and 0 <= unit < math.inf and nn >= LAMBDA_NN_FLOOR):
        raise ValueError(
            "lambda_time and lambda_unit must be finite and not negative, lambda_nn at least "
            f"{LAMBDA_NN_FLOOR}: at 0 the controls are fitted perfectly."
        )
    return time, unit, nn


def triple_of(step: TuningStep) -> tuple[float | None, float | None, float | None]:
    """The penalties of a step of the path."""
    return step.lambda_time, step.lambda_unit, step.lambda_nn


def standardised(panel: Panel) -> tuple[Floats, float, float]:
    """Outcomes less the mean of the control cells, over their standard deviation; that mean; that deviation.

    Penalties of `mc` and `dwcp` refer to this scale. Cells that are not control cells are 0, so nothing reads a treated
    outcome by accident. Raises ConstantOutcomeError when the control cells do not vary beyond rounding.
    """
    origin, mean, deviation = scale_of(panel)
    controls = panel.control_cells
    outcome = np.zeros(panel.outcome.shape)
    outcome[controls] = (panel.outcome[controls] - origin - mean) / deviation
    return outcome, origin + mean, deviation


def scale_of(panel: Panel) -> tuple[float, float, float]:
    """An origin among the control cells' outcomes, their mean beyond it, and their standard deviation.

    Subtracting one after the other keeps digits. Raises ConstantOutcomeError when the deviation is rounding only.
    """
    values = panel.outcome[panel.control_cells]
    if values.size:
        origin = values[0]
        centred = values - origin
        mean = float(centred.mean())
        spread = float(np.abs(centred).max())
        # Squares are taken of numbers near 1, so outcomes of 1e-200 or 1e200 neither underflow nor overflow.
        deviation = spread * float(np.std(centred / spread)) if spread > 0 else 0.0
        if deviation > 8 * np.finfo(float).eps * float(np.abs(values).max()):
            return float(origin), mean, deviation
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


#: (triple, rival) -> (criterion, complete): work may stop once the triple is known to be worse than its rival, one that
#: has a complete criterion; the number returned is then above the rival's and ``complete`` is False.
ScoreFunction = Callable[[Triple, Triple | None], tuple[float, bool]]


class _Search:
    """Scores of the triples tried so far, each computed once unless it was abandoned and is asked for again."""

    def __init__(self, score: ScoreFunction) -> None:
        self.score = score
        self.seen: dict[Triple, tuple[float, bool]] = {}

    def ask(self, triple: Triple, rival: Triple | None) -> float:
        value, complete = self.seen.get(triple, (-np.inf, False))
        if not complete and (rival is None or value <= self.seen[rival][0]):
            value, complete = self.seen[triple] = self.score(triple, rival)
        return value

    def best_of(self, triples: Iterable[Triple]) -> Triple | None:
        """The one with the smallest criterion, which is complete: an abandoned one is above that of its rival."""
        return min(triples, key=lambda triple: self.seen[triple][0], default=None)

    def along(self, start: Triple, axis: int, grid: tuple[float, ...]) -> Triple:
        """The best triple on the line through ``start``; ``start`` itself is on it only if the grid says so.

        It is scored first when it is, since most others are soon known to be worse than it.
        """
        line: list[Triple] = []
        for value in grid:
            moved = (*start[:axis], value, *start[axis + 1 :])
            line.append((moved[0], moved[1], moved[2]))
        found: dict[Triple, float] = {}
        for triple in sorted(line, key=lambda triple: triple != start):
            found[triple] = self.ask(triple, self.best_of(found))
        least = min(found.values())
        return next(triple for triple in line if found[triple] * _BETTER <= least)

    def everywhere(self, grids: tuple[tuple[float, ...], ...]) -> None:
        for nn in grids[2]:
            for unit in grids[1]:
                for time in grids[0]:
                    self.ask((time, unit, nn), self.best_of(self.seen))

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
    # The line through (0, 0, infinity) is tried for its winners; what is not in the lists is not for choosing.
    complete = [
        triple
        for triple, (_, whole) in found.seen.items()
        if whole and all(value in grid for value, grid in zip(triple, grids, strict=True))
    ]
    least = min(found.seen[triple][0] for triple in complete)
    chosen = next(triple for triple in complete if found.seen[triple][0] * _BETTER <= least)
    return chosen, tuple(TuningStep(*triple, value) for triple, (value, _) in found.seen.items())


@dataclass(frozen=True, slots=True)
class BlockSearch:
    """Search over triples by the squared error of the effect on panels whose true effect is zero, in rounds.

    The score is the mean squared error over placebos, over its median among the candidates, plus the same for
    bootstraps. All pairs of lambda_time and lambda_nn are tried on a few panels of each kind at the smallest
    lambda_unit; the best of them on all panels; then every lambda_unit at the winner. Candidates dropped after the
    first round are listed with that round's score.
    placebo: (n,) whether a panel is a placebo, else a bootstrap; the three grids.
    """

    placebo: tuple[bool, ...]
    times: tuple[float, ...]
    units: tuple[float, ...]
    lambdas_nn: tuple[float, ...]

    @property
    def n_rounds(self) -> int:
        """How often squared errors are asked for."""
        return 3 if len(self.units) > 1 else 2

    def ask(self, rounds: Sequence[Floats]) -> tuple[list[Triple], Ints] | None:
        """Triples and positions of panels of the next round; None when there is none.

        rounds: of each round before, squared errors (n_triples, n_panels), as it asked for them.
        """
        if len(rounds) == 0:
            return self._pairs, self._few
        if len(rounds) == 1:
            return self._finalists(rounds[0]), np.setdiff1d(np.arange(len(self.placebo)), self._few)
        if len(rounds) == 2 and len(self.units) > 1:
            best = self._final(rounds)[0]
            return self._beside(best), np.arange(len(self.placebo))
        return None

    def answer(self, rounds: Sequence[Floats]) -> tuple[Triple, tuple[TuningStep, ...]]:
        """The triple with the smallest score, and every triple tried."""
        best, triples, scores = self._final(rounds)
        first = zip(self._pairs, self._scores(rounds[0], self._few).tolist(), strict=True)
        path = [TuningStep(*triple, value) for triple, value in first if triple not in triples]
        path += [TuningStep(time, unit, nn, value) for (time, unit, nn), value in zip(triples, scores, strict=True)]
        return best, tuple(path)

    @property
    def _pairs(self) -> list[Triple]:
        return [(time, min(self.units), nn) for nn in sorted(self.lambdas_nn, reverse=True) for time in self.times]

    @property
    def _few(self) -> Ints:
        """A few panels of each kind; placebos from begin to end, as unit and time placebos come in turn."""
        kind = np.array(self.placebo)
        placebos, bootstraps = np.flatnonzero(kind), np.flatnonzero(~kind)
        spread = np.unique(np.linspace(0, max(placebos.size - 1, 0), 2 * _FIRST_ROUND).round().astype(np.intp))
        return np.concatenate([placebos[spread] if placebos.size else placebos, bootstraps[:_FIRST_ROUND]])

    def _finalists(self, squares: Floats) -> list[Triple]:
        order = np.argsort(self._scores(squares, self._few), kind="stable")
        return [self._pairs[k] for k in np.sort(order[:_FINALISTS])]

    def _beside(self, best: Triple) -> list[Triple]:
        return [(best[0], unit, best[2]) for unit in sorted(self.units)[1:]]

    def _scores(self, squares: Floats, where: Ints) -> Floats:
        total, kind = np.zeros(len(squares)), np.array(self.placebo)[where]
        for mine in (kind, ~kind):
            if mine.any():
                mean = squares[:, mine].mean(axis=1)
                total += mean / max(float(np.median(mean)), np.finfo(float).tiny)
        return total

    def _final(self, rounds: Sequence[Floats]) -> tuple[Triple, list[Triple], list[float]]:
        """The best triple after these rounds, all that saw every panel, and their scores."""
        everything = np.arange(len(self.placebo))
        triples = self._finalists(rounds[0])
        squares = np.empty((len(triples), everything.size))
        squares[:, self._few] = rounds[0][[self._pairs.index(triple) for triple in triples]]
        squares[:, np.setdiff1d(everything, self._few)] = rounds[1]
        scores = self._scores(squares, everything)
        best = triples[_first_best(scores)]
        if len(rounds) > 2:
            triples = triples + self._beside(best)
            scores = self._scores(np.concatenate([squares, rounds[2]]), everything)
            best = triples[_first_best(scores)]
        return best, triples, scores.tolist()


def _first_best(scores: Floats) -> int:
    """Position of the smallest score, the earlier of ties."""
    return int((scores * _BETTER <= scores.min()).argmax())


def block_search(
    rounds_of: BlockSearch, squares: Callable[[list[Triple], Ints], Floats]
) -> tuple[Triple, tuple[TuningStep, ...]]:
    """All rounds of a search. squares: (triples, positions of panels) -> (n_triples, n_panels) squared errors."""
    rounds: list[Floats] = []
    while (asked := rounds_of.ask(rounds)) is not None:
        rounds.append(squares(*asked))
    return rounds_of.answer(rounds)
