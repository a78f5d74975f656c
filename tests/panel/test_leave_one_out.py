"""The leave-one-out criterion: what is known early of a candidate, and what a race may and may not change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from causal_spark.panel.dwcp import DwcpOptions, dwcp
from causal_spark.panel.leave_one_out import LeaveOneOut
from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.tuning import Triple, search, standardised
from causal_spark.panel.types import Floats, Ints
from tests.panel import panels

GRIDS: Any = ((0.0, 0.3, 1.0), (0.0, 1.0), (math.inf, 3.0, 1.0, 0.3))


class Predictor:
    """Predicts 40 x 50 outcomes of 0 with errors whose mean square is known; counts what it is asked for."""

    def __init__(self, spread: float = 1.0) -> None:
        self.outcome: Floats = np.zeros((40, 50))
        self.noise = 1.0 + spread * np.random.default_rng(3).standard_normal(self.outcome.shape)
        self.own = np.random.default_rng(4).standard_normal(self.outcome.shape)
        self.asked: dict[Triple, int] = {}

    def predict(self, rows: Ints, columns: Ints, triple: Triple, tolerance: float) -> tuple[Floats, int, bool]:
        self.asked[triple] = self.asked.get(triple, 0) + rows.size
        error = (1.0 + triple[0]) * self.noise[rows, columns] + 0.1 * triple[1] * self.own[rows, columns]
        return error, 0 if triple[2] >= 1.0 else 3, True


def criterion(predictor: Predictor, n_cells: int | None = None, seed: int = 0) -> LeaveOneOut:
    scored = np.ones(predictor.outcome.shape, dtype=bool)
    return LeaveOneOut(predictor, scored, 1e-4, n_cells, seed)  # type: ignore[arg-type]


def test_a_race_over_all_cells_has_the_scores_of_leave_one_out() -> None:
    for triple in ((0.0, 0.0, 0.3), (0.3, 1.0, 0.3)):
        whole, _ = criterion(Predictor())(triple, None)
        raced, complete = criterion(Predictor(), 5_000)(triple, None)
        assert complete
        assert raced == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("n_cells", [None, 600])
def test_a_candidate_that_is_worse_is_left_early_with_a_score_above_its_rivals(n_cells: int | None) -> None:
    predictor = Predictor()
    score = criterion(predictor, n_cells)
    best, good, bad = (0.0, 0.0, 0.3), (0.05, 0.0, 0.3), (2.0, 0.0, 0.3)
    least, complete = score(best, None)
    assert complete
    assert predictor.asked[best] == (n_cells or 2_000)
    for worse in (good, bad):
        value, complete = score(worse, best)
        assert value > least
        assert not complete
        assert predictor.asked[worse] < predictor.asked[best]
    assert predictor.asked[bad] <= 100
    # Against a worse rival it is scored whole.
    assert score(best, bad if score(bad, None)[1] else None) == (pytest.approx(least), True)


def test_a_race_estimates_the_score_of_those_it_leaves() -> None:
    predictor = Predictor(0.1)
    score = criterion(predictor, 1_000)
    least, _ = score((0.0, 0.0, 0.3), None)
    value, complete = score((0.5, 0.0, 0.3), (0.0, 0.0, 0.3))
    assert not complete
    # 1.25 times squares with a standard deviation of .2, on 50 cells; four standard errors.
    assert value == pytest.approx(2.25 * least, abs=0.14)


def test_candidates_that_are_alike_all_see_every_cell_of_the_race() -> None:
    predictor = Predictor(0.0)
    score = criterion(predictor, 1_000)
    first, alike = (0.0, 0.0, 0.3), (0.0, 1e-9, 0.3)
    least, _ = score(first, None)
    value, complete = score(alike, first)
    assert complete
    assert value == pytest.approx(least)
    assert predictor.asked[alike] == 1_000


def test_a_race_leaves_nobody_for_rounding() -> None:
    predictor = Predictor(0.0)
    predictor.own = np.ones(predictor.outcome.shape)
    score = criterion(predictor, 1_000)
    first, behind = (0.0, 0.0, 0.3), (0.0, 1e-12, 0.3)
    score(first, None)
    # Worse in every cell, by rounding.
    assert score(behind, first)[1]
    assert predictor.asked[behind] == 1_000


def test_without_a_low_rank_part_a_larger_penalty_is_no_new_problem() -> None:
    predictor = Predictor()
    score = criterion(predictor)
    known = score((0.3, 1.0, 1.0), None)
    for nn in (2.0, math.inf):
        assert score((0.3, 1.0, nn), (0.3, 1.0, 1.0)) == known
    assert set(predictor.asked) == {(0.3, 1.0, 1.0)}
    # Not with a low-rank part, a smaller penalty or other weights.
    for triple in ((0.3, 1.0, 0.5), (0.3, 1.0, 0.9), (0.3, 0.0, math.inf)):
        score(triple, None)
        assert triple in predictor.asked


def test_cells_of_a_race_follow_from_the_seed() -> None:
    scores = [criterion(Predictor(), 200, seed)((0.0, 1.0, 0.3), None)[0] for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("method", ["cyclic", "grid"])
def test_what_is_known_early_changes_no_choice_and_no_complete_score(method: Any) -> None:
    panel = panels.block_panel(12, 10, 2, 3, seed=7)
    outcome, _, _ = standardised(panel)
    cells = SingleCells(outcome, panel.control_cells)
    scored = cells.identified_when_left_out()

    def plain(triple: Triple, rival: Triple | None) -> tuple[float, bool]:
        rows, columns = np.nonzero(scored)
        predicted, _, _ = cells.predict(rows, columns, triple, 1e-7)
        return float(((outcome[rows, columns] - predicted) ** 2).mean()), True

    quick = LeaveOneOut(cells, scored, 1e-7)
    chosen, path = search(quick, *GRIDS, method)
    wanted, everything = search(plain, *GRIDS, method)
    assert chosen == wanted
    exact = {(s.lambda_time, s.lambda_unit, s.lambda_nn): s.criterion for s in everything}
    for step in path:
        triple = (step.lambda_time, step.lambda_unit, step.lambda_nn)
        if triple in exact:
            assert step.criterion <= exact[triple] * (1 + 1e-5)
        if triple in quick.errors:
            assert step.criterion == pytest.approx(exact[triple], rel=1e-5)


def test_a_race_is_chosen_by_name_and_says_so() -> None:
    panel = panels.block_panel(14, 12, 2, 3, seed=9)
    options = DwcpOptions(*GRIDS, tuning="race", race_cells=100)
    fit = dwcp(panel, options, seed=5)
    assert fit.tuning == "race"
    assert fit.criterion == min(step.criterion for step in fit.path)
    again = dwcp(panel, options, seed=5)
    assert again.path == fit.path
    np.testing.assert_array_equal(again.counterfactual, fit.counterfactual)
    # At the penalties chosen the fit is the one that these penalties give; control cells that tuning has predicted
    # are shown as it predicted them.
    given = dwcp(panel, options, fit.penalties)
    np.testing.assert_array_equal(given.counterfactual[panel.treated], fit.counterfactual[panel.treated])
    np.testing.assert_allclose(given.counterfactual, fit.counterfactual, atol=options.cv_tolerance)


def test_a_race_needs_cells_enough() -> None:
    with pytest.raises(ValueError, match="race_cells"):
        DwcpOptions(race_cells=99)


@pytest.mark.parametrize("tuning", ["loocv", "race"])
def test_what_tuning_has_predicted_is_not_predicted_again(tuning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = panels.block_panel(16, 12, 2, 3, seed=4)
    options = DwcpOptions(*GRIDS, tuning=tuning, race_cells=100)
    asked: list[tuple[Triple, int, int]] = []
    original = SingleCells.predict

    def spy(self: SingleCells, rows: Any, columns: Any, triple: Triple, tolerance: float) -> Any:
        asked.extend((triple, i, t) for i, t in zip(rows.tolist(), columns.tolist(), strict=True))
        return original(self, rows, columns, triple, tolerance)

    monkeypatch.setattr(SingleCells, "predict", spy)
    fit = dwcp(panel, options, seed=3)
    chosen = (fit.penalties.lambda_time, fit.penalties.lambda_unit, fit.penalties.lambda_nn)
    at_chosen = [(i, t) for triple, i, t in asked if triple == chosen]
    assert len(at_chosen) == len(set(at_chosen))
    monkeypatch.undo()
    shown = panel.ever_treated[:, None] & panel.control_cells
    anew = dwcp(panel, options, fit.penalties)
    scale = panel.outcome[panel.control_cells].std()
    np.testing.assert_allclose(fit.counterfactual[shown], anew.counterfactual[shown], atol=1e-3 * scale)
    np.testing.assert_array_equal(fit.counterfactual[panel.treated], anew.counterfactual[panel.treated])
