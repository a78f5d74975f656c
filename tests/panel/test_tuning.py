"""What tuning shares: the outcome's scale, ranges of penalties, the search over placebo panels in rounds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from causal_spark.errors import ConstantOutcomeError
from causal_spark.panel.tuning import (
    LAMBDA_NN_FLOOR,
    BlockSearch,
    Triple,
    block_search,
    check_grids,
    check_tolerances,
    given_triple,
    scale_of,
    search,
    standardised,
    triple_of,
)
from causal_spark.panel.types import Floats, Ints, Penalties, TuningStep
from tests.panel import panels


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_scale_is_that_of_control_cells_at_any_magnitude(scale: float) -> None:
    panel = panels.block_panel(8, 7, 2, 2, effect=100.0, seed=1)
    outcome = panel.outcome + 3.0
    controls = outcome[panel.control_cells]
    origin, mean, deviation = scale_of(replace(panel, outcome=scale * outcome))
    assert deviation / scale == pytest.approx(controls.std(), rel=1e-12)
    assert (origin + mean) / scale == pytest.approx(controls.mean(), rel=1e-12)
    standard, centre, same = standardised(replace(panel, outcome=scale * outcome))
    assert same == deviation
    assert centre == origin + mean
    assert standard[panel.control_cells].std() == pytest.approx(1.0)
    assert standard[panel.control_cells].mean() == pytest.approx(0.0, abs=1e-12)
    assert (standard[panel.treated] == 0.0).all()


@pytest.mark.parametrize("level", [0.0, 0.1, 1e300])
def test_control_cells_that_do_not_vary_have_no_scale(level: float) -> None:
    panel = panels.block_panel(8, 7, 2, 2, seed=1)
    outcome = np.where(panel.treated, panel.outcome, level)
    with pytest.raises(ConstantOutcomeError):
        scale_of(replace(panel, outcome=outcome))


def test_penalties_that_are_not_given_mean_no_weighting_and_no_low_rank_part() -> None:
    assert given_triple(Penalties()) == (0.0, 0.0, math.inf)
    assert given_triple(Penalties(0.1, 0.2, LAMBDA_NN_FLOOR)) == (0.1, 0.2, LAMBDA_NN_FLOOR)
    assert triple_of(TuningStep(0.1, 0.2, 0.3, 9.0)) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    "penalties",
    [
        Penalties(-0.1),
        Penalties(math.inf),
        Penalties(0.0, math.nan),
        Penalties(0.0, 0.0, math.nan),
        Penalties(0.0, 0.0, 0.999 * LAMBDA_NN_FLOOR),
    ],
)
def test_penalties_out_of_range_are_refused(penalties: Penalties) -> None:
    with pytest.raises(ValueError, match="lambda"):
        given_triple(penalties)


def test_grids_and_tolerances_out_of_range_are_refused_by_name() -> None:
    good: tuple[float, ...] = (0.0, 1.0)
    check_grids(good, good, (1.0, math.inf))
    with pytest.raises(ValueError, match="lambda_time"):
        check_grids((), good, (1.0,))
    with pytest.raises(ValueError, match="lambda_unit"):
        check_grids(good, (math.inf,), (1.0,))
    with pytest.raises(ValueError, match="lambda_nn"):
        check_grids(good, good, (1.0, 0.0))
    for name, grids in (
        ("lambda_time", ((0.1, 0.1), good, (1.0,))),
        ("lambda_unit", (good, (0.1, 0.1), (1.0,))),
        ("lambda_nn", (good, good, (math.inf, 1.0, math.inf))),
    ):
        with pytest.raises(ValueError, match=f"{name} holds a number twice"):
            check_grids(*grids)
    with pytest.raises(ValueError, match="cv_tolerance"):
        check_tolerances(tolerance=1e-6, cv_tolerance=0.1)


TIMES, UNITS, PENALTIES = (0.0, 0.1, 0.2, 0.5), (0.6, 0.0, 0.3), (0.1, math.inf, 1.0)


class Landscape:
    """Squared errors by triple and panel from a formula, and what was asked for."""

    def __init__(self, n: int, seed: int) -> None:
        self.noise = np.random.default_rng(seed).random(n) + 0.5
        self.asked: list[tuple[list[Triple], Ints]] = []

    def value(self, triple: Triple) -> float:
        time, unit, nn = triple
        return 1.0 + (time - 0.2) ** 2 * 50 + (unit - 0.3) ** 2 + (0.0 if nn == 1.0 else 0.7)

    def __call__(self, triples: list[Triple], where: Ints) -> Floats:
        self.asked.append((triples, where))
        return np.array([[self.value(triple) for triple in triples]]).T * self.noise[where]


@pytest.mark.parametrize(
    "placebo",
    [(True,) * 9, (False,) * 9, (True,) * 5 + (False,) * 6, (True,), (True, False)],
    ids=["placebos", "bootstraps", "both", "one", "one of each"],
)
def test_the_winner_has_the_smallest_score_of_all_that_saw_every_panel(placebo: tuple[bool, ...]) -> None:
    landscape = Landscape(len(placebo), 3)
    chosen, path = block_search(BlockSearch(placebo, TIMES, UNITS, PENALTIES), landscape)
    assert chosen == (0.2, 0.3, 1.0)
    # All pairs at the smallest lambda_unit, then the winner beside every lambda_unit; none is listed twice.
    triples = [triple_of(step) for step in path]
    assert len(triples) == len(set(triples)) == 14
    assert set(triples) == {(t, 0.0, nn) for t in TIMES for nn in PENALTIES} | {(0.2, u, 1.0) for u in UNITS}
    # The score by hand, over the ten that saw all panels.
    final = path[4:]
    value = np.array([landscape.value((s.lambda_time or 0, s.lambda_unit or 0, s.lambda_nn or 0)) for s in final])
    kinds = len(set(placebo))
    np.testing.assert_allclose([step.criterion for step in final], kinds * value / np.median(value), rtol=1e-12)


def test_rounds_look_at_a_few_panels_of_each_kind_first_and_at_none_twice() -> None:
    landscape = Landscape(16, 4)
    placebo = (True,) * 10 + (False,) * 6
    searched = BlockSearch(placebo, TIMES, UNITS, PENALTIES)
    block_search(searched, landscape)
    (pairs, few), (finalists, rest), (beside, everything) = landscape.asked
    assert searched.n_rounds == 3
    assert len(pairs) == 12
    assert few.tolist() == [0, 3, 6, 9, 10, 11]
    assert len(finalists) == 8
    assert sorted([*few, *rest]) == list(range(16))
    assert beside == [(0.2, 0.3, 1.0), (0.2, 0.6, 1.0)]
    assert everything.tolist() == list(range(16))
    dropped = {pair for pair in pairs if pair not in finalists}
    assert max(map(landscape.value, finalists)) <= min(map(landscape.value, dropped))


def test_a_single_unit_penalty_needs_no_third_round() -> None:
    landscape = Landscape(8, 5)
    searched = BlockSearch((True,) * 8, TIMES, (0.5,), PENALTIES)
    chosen, _ = block_search(searched, landscape)
    assert chosen == (0.2, 0.5, 1.0)
    assert len(landscape.asked) == searched.n_rounds == 2


def test_kinds_count_alike_however_large_their_errors() -> None:
    # Bootstraps' errors are a million times as large and prefer another candidate by less.
    placebo = (True,) * 4 + (False,) * 4

    def squares(triples: list[Triple], where: Ints) -> Floats:
        by_kind = {0.0: (1.0, 3e6), 0.1: (2.0, 2.5e6), 0.2: (4.0, 5e6)}
        return np.array([[by_kind[time][0 if placebo[k] else 1] for k in where] for time, _, _ in triples])

    chosen, path = block_search(BlockSearch(placebo, (0.0, 0.1, 0.2), (0.0,), (math.inf,)), squares)
    assert chosen[0] == 0.0
    assert [step.criterion for step in path] == pytest.approx([1 / 2 + 1, 1 + 2.5 / 3, 2 + 5 / 3])


def test_ties_keep_the_larger_penalty_and_errors_of_zero_are_no_harm() -> None:
    def squares(triples: list[Triple], where: Ints) -> Floats:
        rounding = np.array([1e-13 * (nn == 1.0) for _, _, nn in triples])
        return np.repeat((1.0 - rounding)[:, None], where.size, axis=1)

    searched = BlockSearch((True,) * 6, (0.0,), (0.0,), (1.0, math.inf, 3.0))
    assert block_search(searched, squares)[0] == (0.0, 0.0, math.inf)
    nothing = block_search(searched, lambda triples, where: np.zeros((len(triples), where.size)))
    assert nothing[0] == (0.0, 0.0, math.inf)
    assert all(step.criterion == 0.0 for step in nothing[1])


@pytest.mark.parametrize("method", ["cyclic", "grid"])
def test_leave_one_out_search_chooses_from_the_lists_only(method: Literal["cyclic", "grid"]) -> None:
    def score(triple: Triple, rival: Triple | None) -> tuple[float, bool]:
        return triple[0] + triple[1] + min(triple[2], 9.0), True

    # No weighting scores best, and the cyclic search looks at it, but it is not in the lists.
    chosen, path = search(score, (0.5, 0.25), (1.0, 2.0), (3.0, 1.0), method)
    assert chosen == (0.25, 1.0, 1.0)
    assert (min(step.criterion for step in path) < score(chosen, None)[0]) == (method == "cyclic")
