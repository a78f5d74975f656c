"""The study of response curves: draws of its own, stored once, and tables that count rightly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.types import Weighting, kept
from causal_spark.errors import PositivityError
from studies import curve_draws, response_curves, response_curves_summary
from studies.curve_draws import METHODS, N_GRID, PRIORS, Cell, Task, fixed_grid, make, method_of, run
from studies.dose_designs import DESIGNS
from studies.response_curves_summary import CLASSICS, Draws, best_of, coverage_of, goals, ratio

COLUMNS = {"seconds": 0.5, "effective_rows": 100.0, "notices": np.nan, "declined": np.nan, "commit": "123e4"}


def made_up(errors: dict[str, list[float]], n_rows: int = 500) -> list[Draws]:
    """Cells of one design; errors are roots of mean squared errors, NaN where declined."""
    return [
        Draws("L2", n_rows, name, pd.DataFrame({"mse": np.square(values)} | COLUMNS)) for name, values in errors.items()
    ]


def test_no_draw_is_one_that_the_methods_were_developed_on() -> None:
    seeds = [
        curve_draws.seed_of_draw(kind, design, n_rows, number)
        for kind in ("curves", "coverage", "retraining")
        for design in DESIGNS
        for n_rows in (500, 2000)
        for number in range(60)
    ]
    assert len(set(seeds)) == len(seeds)
    # numpy takes [99, s] for the number whose lowest 32 bits are 99.
    same = np.random.default_rng([99, 7]).random() == np.random.default_rng(99 + (7 << 32)).random()
    assert same
    assert all(seed % 2**32 != 99 for seed in seeds)


def test_all_methods_see_the_same_draws_and_a_design_has_one_grid_for_coverage() -> None:
    first, again, other = (make("coverage", "VG", 60, number) for number in (3, 3, 4))
    assert np.array_equal(first.outcome, again.outcome)
    assert not np.array_equal(first.outcome, other.outcome)
    assert np.array_equal(first.problem.grid, other.problem.grid)
    assert first.problem.grid.shape == first.truth.shape == (N_GRID,)
    own = make("curves", "VG", 60, 3).problem
    assert own.grid[[0, -1]] == pytest.approx(np.quantile(own.segment.treatment, [0.05, 0.95]))
    assert fixed_grid("L1") == pytest.approx(np.linspace(-1, 1, N_GRID) * 1.6449 * math.sqrt(2), abs=0.03)


def test_wrong_priors_differ_from_the_default_in_one_option() -> None:
    default = method_of("e2b")[1]
    assert len(PRIORS) == 9
    for name, (option, value) in PRIORS.items():
        weighting, options = method_of(name)
        assert weighting == "e2b"
        assert {
            field for field in options.__dataclass_fields__ if getattr(options, field) != getattr(default, field)
        } == {option}
        assert getattr(options, option) == value


def test_paired_ratios_are_of_common_draws_with_the_delta_method_s_error() -> None:
    errors = pd.DataFrame({"mine": [1.0, 2.0, 3.0, np.nan], "theirs": [2.0, 4.0, 6.0, 100.0]})
    assert ratio(errors**2, "mine", "theirs") == pytest.approx((0.5, 0.0, 3))
    uneven = pd.DataFrame({"mine": [1.0, 3.0], "theirs": [2.0, 2.0]})
    # Squares 1 and 9 over their mean 5, less 1: -.8 and .8, with the standard error .8 of their mean; half of it is
    # that of the log of the ratio of roots.
    value = math.sqrt(5.0) / 2.0
    assert ratio(uneven**2, "mine", "theirs") == pytest.approx((value, value * 0.4, 2))
    assert ratio(errors.iloc[3:], "mine", "theirs")[2] == 0
    assert math.isnan(ratio(errors, "mine", "absent")[0])


def test_the_best_is_chosen_on_common_draws_among_those_that_accept_most() -> None:
    errors = pd.DataFrame(
        {
            "e2b": [1.0, 1.0, 1.0, 1.0],
            # The smallest mean, but only without the draw that is hard for all.
            "gps": [2.0, 2.0, 2.0, np.nan],
            "ebct1": [1.5, 1.5, 1.5, 9.0],
            "permutation": [0.1, np.nan, np.nan, np.nan],
        }
    )
    assert best_of(errors, CLASSICS) == "ebct1"
    assert best_of(errors, ("permutation",)) is None


def test_accuracy_counts_what_was_declined() -> None:
    errors = {"ebct1": [2.0, 2.0, np.nan], "gps": [3.0, 3.0, 3.0], "e2b": [1.0, 1.0, 5.0], "e2b_free": [1.0, 1.0, 1.0]}
    table = response_curves_summary.accuracy(made_up(errors)).set_index("method")
    assert table["declined"].to_dict() == {"ebct1": 1, "gps": 0, "e2b": 0, "e2b_free": 0}
    row = table.loc["e2b"]
    assert (row["best_classic"], row["best_other"]) == ("ebct1", "ebct1")
    assert (row["ratio_to_best_classic"], row["common_with_best_classic"]) == (pytest.approx(0.5), 2)
    assert row["rmse"] == pytest.approx(3.0)
    assert row["mean_rmse"] == pytest.approx(7 / 3)
    assert table.loc["e2b_free", "ratio_to_e2b"] == pytest.approx(1 / 3)


def test_consistency_tells_the_rate() -> None:
    cells = [
        one
        for n_rows in (500, 2000, 8000)
        for one in made_up({"e2b": [10 / n_rows**0.5, 20 / n_rows**0.5], "gps": [1.0, 1.0]}, n_rows)
    ]
    table = response_curves_summary.consistency(cells)
    assert table["n_rows"].tolist() == [500, 2000, 8000]
    assert table["rate"].to_numpy() == pytest.approx(-0.5)
    assert set(table["best_classic"]) == {"gps"}


def test_coverage_takes_draws_and_not_points_for_independent() -> None:
    truth = np.zeros(N_GRID)
    estimate = np.repeat([[0.0], [1.0], [-1.0], [4.0]], N_GRID, axis=1)
    found = coverage_of(estimate, np.ones_like(estimate), np.zeros_like(estimate), truth)
    assert found["coverage"] == found["coverage_by_std_error"] == 0.75
    assert found["coverage_mcse"] == pytest.approx(np.std([1, 1, 1, 0], ddof=1) / 2)
    assert found["rms_bias"] == pytest.approx(1.0)
    assert found["told_over_true"] == pytest.approx(1 / np.std([0, 1, -1, 4], ddof=1))


def test_intervals_hold_the_expected_bias() -> None:
    truth, estimate = np.zeros(N_GRID), np.repeat([[0.0], [1.0], [-1.0], [4.0]], N_GRID, axis=1)
    found = coverage_of(estimate, np.ones_like(estimate), np.full_like(estimate, 2.0), truth)
    assert found["coverage"] == 1.0
    assert found["coverage_by_std_error"] == 0.75
    assert found["rms_expected_bias"] == 2.0
    assert found["mean_width"] == pytest.approx(2 * 1.96 * np.sqrt(5), rel=1e-4)


def test_a_goal_that_is_missed_is_told() -> None:
    accuracy = pd.DataFrame(
        {
            "design": ["L1", "L2"],
            "n_rows": 500,
            "method": "e2b",
            "ratio_to_best_classic": [1.04, 0.74],
            "ratio_to_best_classic_mcse": 0.01,
            "ratio_to_best_other": [1.04, 1.06],
            "ratio_to_best_other_mcse": 0.01,
        }
    )
    coverage = pd.DataFrame({"design": ["VG", "VC"], "n_rows": 500, "method": "e2b", "coverage": [0.93, 0.98]})
    table = goals(accuracy, coverage.assign(coverage_mcse=0.01)).set_index(["design", "goal"])["verdict"]
    assert table["L1", "RMSE over best_classic"] == "met"
    assert table["L2", "RMSE over best_classic"] == "missed"
    assert table["L2", "RMSE over best_other"] == "missed"
    assert table["VG", "coverage"] == "met"
    assert table["VC", "coverage"] == "missed"
    assert table["HI", "coverage"] == table["HI", "RMSE over best_classic"] == "not run"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draws of 60 rows and methods that cost nothing, in a work folder of their own."""
    monkeypatch.setattr(response_curves, "WORK", tmp_path / "work")
    monkeypatch.setattr(response_curves, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(response_curves, "SIZES", (60,))
    monkeypatch.setattr(response_curves_summary, "SIZES", (60,))
    return tmp_path


def test_a_run_goes_on_where_it_was_and_sums_up_all_that_is_stored(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Task] = []

    def watched(task: Task) -> list[dict[str, object]]:
        seen.append(task)
        return run(task)

    monkeypatch.setattr(response_curves, "run", watched)
    common = ["--processes", "1", "--designs", "L1", "VG", "--part", "accuracy", "--methods"]
    response_curves.main([*common, "unweighted", "gps", "--n", "2"])
    assert {(task.cell.design, task.cell.method, task.numbers) for task in seen} == {
        (design, name, (0, 1)) for design in ("L1", "VG") for name in ("unweighted", "gps")
    }
    seen.clear()
    response_curves.main([*common, "unweighted", "ebct1", "--n", "3"])
    assert sorted((task.cell.method, task.numbers) for task in seen) == [
        ("ebct1", (0, 1, 2)),
        ("ebct1", (0, 1, 2)),
        ("unweighted", (2,)),
        ("unweighted", (2,)),
    ]
    table = pd.read_csv(tiny / "results" / "response_curves_accuracy.csv").set_index(["design", "method"])
    assert table["draws"].to_dict() == {
        (design, name): 2 if name == "gps" else 3 for design in ("L1", "VG") for name in ("unweighted", "gps", "ebct1")
    }
    assert (table["rmse"] > 0).all()
    assert "not run" in capsys.readouterr().out
    assert (tiny / "results" / "response_curves_run.json").is_file()


def test_coverage_and_retraining_of_a_tiny_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_draws, "RETRAINED_REPLICATES", 3)
    monkeypatch.setattr("causal_spark.dose_response.e2b_training._LEVEL_STEPS", 2)
    monkeypatch.setattr(
        curve_draws, "E2bOptions", lambda: METHODS["e2b"][1].__class__(hidden=4, n_waves=4, max_steps=4)
    )
    response_curves.main(
        ["--processes", "1", "--part", "coverage", "--designs", "L1", "--methods", "unweighted", "--n", "3"]
    )
    assert response_curves.main(["--processes", "1", "--part", "retraining", "--designs", "L1", "--n", "2"]) is None
    covered = pd.read_csv(tiny / "results" / "response_curves_coverage.csv").iloc[0]
    assert (covered["draws"], covered["declined"]) == (3, 0)
    assert 0 <= covered["coverage"] <= 1
    again = pd.read_csv(tiny / "results" / "response_curves_retraining.csv").iloc[0]
    assert again["draws"] == 2
    assert 0 < again["lowest"] <= again["anew_over_kept"] <= again["highest"] < np.inf


@pytest.mark.parametrize("kind", ["curves", "coverage"])
def test_a_method_that_declines_leaves_a_row_that_says_why(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def declining(*given: object) -> Any:
        raise PositivityError("No.")

    monkeypatch.setattr(curve_draws, "WEIGHTINGS", {"ebct1": replace(WEIGHTINGS["ebct1"], fit=declining)})
    rows = run(Task(Cell(kind, "L1", 60, "ebct1"), (0, 1)))
    assert [row["declined"] for row in rows] == ["PositivityError"] * 2
    assert {row["mse" if kind == "curves" else "estimate_0"] for row in rows} == {""}


def test_draws_trained_side_by_side_are_trained_alone_where_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def alone(problem: object, options: object, seed: int) -> Weighting:
        calls.append(seed)
        if len(calls) == 2:
            raise PositivityError("No.")
        weights = np.full(60, 1 / 60)
        return Weighting(weights, kept(weights))

    def failing(*given: object) -> object:
        raise PositivityError("No.")

    monkeypatch.setattr(curve_draws, "e2b_stacked", failing)
    monkeypatch.setattr(curve_draws, "WEIGHTINGS", {"e2b": replace(WEIGHTINGS["e2b"], fit=alone)})
    rows = run(Task(Cell("curves", "L1", 60, "e2b"), (0, 1, 2)))
    assert [row["declined"] for row in rows] == ["", "PositivityError", ""]


def test_parts_share_draws_and_long_segments_are_not_stacked() -> None:
    accuracy, consistency, priors = (response_curves.cells_of(one) for one in list(response_curves.PARTS)[:3])
    assert {cell for cell in consistency if cell.n_rows in (500, 2000)} <= set(accuracy)
    assert not any("curvature" in cell.method and cell.design in ("L1", "L2") for cell in priors)
    assert {response_curves.batch_of(Cell("curves", "L1", n, "e2b")) for n in (500, 1000)} == {20}
    assert response_curves.batch_of(Cell("curves", "L1", 2000, "e2b")) == 10
    assert curve_draws.is_stacked(Cell("curves", "L1", 8000, "e2b"))
    assert not curve_draws.is_stacked(Cell("curves", "L1", 40_000, "e2b"))
