"""The accuracy study: its seeds, its shortcuts against whole estimators, its bookkeeping and its arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.machine import read_rows
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.summary import att
from causal_spark.panel.types import Panel
from studies import dwcp as study
from studies.designs import DESIGNS, N_POST, N_TREATED, draw, model_of, seed_of, shapes, with_effect
from studies.shortcuts import SHORTCUTS
from studies.summary import cells, log_ratio, means, rmse, write_summary

CLASSICS = ("did", "sc", "difp", "mc", "sdid")


def small_panel(seed: int) -> Panel:
    """A draw cut down to 18 units and 24 periods, so that every estimator is quick."""
    panel = draw("smoking_random", seed)
    rows = np.r_[np.flatnonzero(panel.ever_treated)[:3], np.flatnonzero(~panel.ever_treated)[:15]]
    panel = panel.take_units(rows)
    return replace(
        panel,
        outcome=panel.outcome[:, -24:],
        treated=panel.treated[:, -24:],
        observed=panel.observed[:, -24:],
        periods=panel.periods[-24:],
    )


@pytest.mark.parametrize("name", DESIGNS)
def test_draws_are_panels_like_the_designs(name: str) -> None:
    panel = draw(name, 5)
    assert panel.outcome.shape == model_of(name).calibration.additive.shape
    assert 1 <= panel.ever_treated.sum() <= N_TREATED
    assert panel.treated[panel.ever_treated, -N_POST:].all()
    assert not panel.treated[:, :-N_POST].any()
    assert 0.8 < panel.outcome.std() < 1.2
    assert np.array_equal(panel.outcome, draw(name, 5).outcome)
    assert not np.array_equal(panel.outcome, draw(name, 6).outcome)


def test_california_is_no_unit_of_the_smoking_design() -> None:
    assert draw("smoking_random", 1).n_units == 38


def test_seeds_depend_on_what_is_drawn_and_tuning_shares_none_with_the_report() -> None:
    tasks = [
        study.Task(design, draws, number, (), {}, False)
        for design in DESIGNS
        for draws in ("report", "tuning")
        for number in range(300)
    ]
    assert len({task.seed for task in tasks}) == len(tasks)
    # Fixed once and for all: rows that are stored belong to these draws.
    assert study.Task("cps_hours", "report", 3, ("did",), {}, False).seed == seed_of(20261124, "report", "cps_hours", 3)
    assert seed_of(20261124, "report", "cps_hours", 3) == 8533317494215983618


def test_effects_have_mean_zero_and_their_size() -> None:
    for name, shape in shapes().items():
        assert shape.shape == (N_POST,)
        assert shape.sum() == pytest.approx(0, abs=1e-12), name
    assert np.diff(shapes()["ramp_0.1"]) == pytest.approx(0.2 / 9)
    assert (shapes()["ramp_0.2"][0], shapes()["ramp_0.2"][-1]) == (-0.2, 0.2)
    assert set(shapes()["jump"]) == {-0.1, 0.1}


@pytest.mark.parametrize("name", [*CLASSICS, "dwcp"])
def test_errors_of_estimators_that_read_controls_only_do_not_move_with_the_effect(name: str) -> None:
    panel = small_panel(11)
    options = ESTIMATORS[name].options(**({"lambda_nn": (0.3,)} if name == "dwcp" else {}))
    own = ESTIMATORS[name].fit(panel, options, None, 3)
    moved = with_effect(panel, shapes()["ramp_0.2"])
    assert att(moved, ESTIMATORS[name].fit(moved, options, None, 3)) == pytest.approx(att(panel, own), abs=1e-9)
    assert name in study.READS_CONTROLS_ONLY


@pytest.mark.parametrize("name", [name for name in study.NAMES if name in ESTIMATORS])
def test_a_constant_effect_is_added_to_the_estimate(name: str) -> None:
    panel = small_panel(12)
    fit, options = ESTIMATORS[name].fit, ESTIMATORS[name].options()
    moved = with_effect(panel, np.full(N_POST, 0.7))
    error = att(panel, fit(panel, options, None, 3))
    assert att(moved, fit(moved, options, None, 3)) - 0.7 == pytest.approx(error, abs=2e-4)


@pytest.mark.parametrize("name", SHORTCUTS)
def test_shortcuts_find_what_the_whole_estimator_finds(name: str) -> None:
    if name not in ESTIMATORS:
        pytest.fail(f"{name} is not registered")
    panel, options = small_panel(13), ESTIMATORS[name].options()
    short = SHORTCUTS[name](panel, options, 3, shapes())
    for shape in ("constant", "ramp_0.2", "jump"):
        moved = with_effect(panel, shapes()[shape])
        whole = study.found_by(moved, ESTIMATORS[name].fit(moved, options, None, 3))
        assert short[shape].error == pytest.approx(whole.error, abs=2e-4), shape
        assert (short[shape].lambda_time, short[shape].lambda_nn) == (whole.lambda_time, whole.lambda_nn)
        if whole.weight is not None:
            assert short[shape].weight == pytest.approx(whole.weight, abs=2e-3)


def test_a_run_is_continued_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "WORK", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    common = ["--designs", "smoking_random", "--processes", "1", "--estimators"]
    study.main([*common, "did", "sdid", "--n", "3"])
    store = study.store_of("report", "smoking_random", "sdid")
    before = read_rows(store)
    assert before.groupby("draw")["shape"].nunique().tolist() == [4, 4, 4]
    # A run that was killed leaves half a draw behind.
    store.write_text("\n".join(store.read_text().splitlines()[:-2]) + "\n", encoding="utf-8")
    arguments = study.arguments_of([*common, "did", "sdid", "sc", "--n", "4"])
    missing = [(task.number, task.estimators) for task in study.open_tasks(arguments)]
    assert missing == [(0, ("sc",)), (1, ("sc",)), (2, ("sdid", "sc")), (3, ("did", "sdid", "sc"))]
    study.main([*common, "did", "sdid", "sc", "--n", "4"])
    after = read_rows(store)
    assert after["error"][:12].tolist() == before["error"].tolist()
    assert not study.open_tasks(study.arguments_of([*common, "did", "sdid", "sc", "--n", "4"]))
    written = pd.read_csv(tmp_path / "results" / "dwcp_cells.csv")
    assert written.groupby(["shape", "estimator"])["n"].first().eq(4).all()
    run = read_rows(tmp_path / "results" / "dwcp_run.csv")
    assert set(run["estimator"]) == {"did", "sdid", "sc"}
    assert run["study_seed"].eq(20261124).all()
    assert run["command"].str.contains("--n 4").all()


def test_draws_made_with_other_options_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "WORK", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    common = ["--designs", "smoking_random", "--processes", "1", "--estimators", "sdid", "--n", "2"]
    study.main(common)
    with pytest.raises(SystemExit, match="other options"):
        study.main([*common, "--options", '{"sdid": {"ridge_unit": 1.0}}'])


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for processes in ("1", "2"):
        monkeypatch.setattr(study, "WORK", tmp_path / processes)
        monkeypatch.setattr(study, "RESULTS", tmp_path / processes / "results")
        study.main(["--designs", "cps_hours", "--estimators", "sdid", "sc", "--n", "3", "--processes", processes])
        found.append(study.stored("report", DESIGNS, study.NAMES).drop(columns="seconds"))
    first, second = (rows.sort_values(["estimator", "draw"], ignore_index=True) for rows in found)
    pd.testing.assert_frame_equal(first, second)


def test_rmse_and_its_error_against_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    values = [rmse(0.3 * rng.standard_normal(200)) for _ in range(3000)]
    spread = np.std([value for value, _ in values])
    assert np.mean([value for value, _ in values]) == pytest.approx(0.3, rel=0.01)
    assert np.mean([error for _, error in values]) == pytest.approx(spread, rel=0.05)
    # For normal errors RMSE / sqrt(2 n).
    assert spread == pytest.approx(0.3 / np.sqrt(400), rel=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_paired_ratios_and_their_error_against_repeated_samples(correlation: float) -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(3000):
        shared, own, other = rng.standard_normal((3, 200))
        mixed = correlation * shared
        rest = np.sqrt(1 - correlation**2)
        found.append(log_ratio(2.0 * (mixed + rest * own), mixed + rest * other))
    logs, errors = np.array(found).T
    assert logs.mean() == pytest.approx(np.log(2.0), abs=0.01)
    assert errors.mean() == pytest.approx(logs.std(), rel=0.06)


def made_rows(errors: dict[str, list[float]], design: str = "cps_hours") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"design": design, "draw": k, "shape": "constant", "estimator": name, "error": error, "seconds": 1.0}
            | {"p_value": 0.01 * k if name == "a" else None, "weight": None, "options": "{}", "commit": "c"}
            for name, values in errors.items()
            for k, error in enumerate(values)
        ]
    )


def test_cells_rank_estimators_on_common_draws() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(400)
    rows = made_rows(
        {"sdid": list(base), "a": list(0.5 * base[:300]), "b": list(0.505 * base + 0.1 * rng.standard_normal(400))}
    )
    table = cells(rows).set_index("estimator")
    # Of the 300 draws that both have the ratio is exactly one half, without error.
    assert table.loc["a", "ratio_to_sdid"] == pytest.approx(0.5)
    assert table.loc["a", "ratio_to_sdid_mcse"] == pytest.approx(0.0, abs=1e-9)
    assert table.loc["sdid", "ratio_to_sdid"] == 1.0
    assert table["n"].to_dict() == {"sdid": 400, "a": 300, "b": 400}
    assert table["best_or_tied"].to_dict()["a"]
    assert not table["best_or_tied"].to_dict()["sdid"]
    assert table.loc["a", "constancy_rejected"] == pytest.approx(5 / 300)


def test_declined_panels_are_counted_and_left_out_of_both_sides() -> None:
    table = cells(made_rows({"sdid": [1.0, -1.0, 5.0, 1.0], "a": [0.5, -0.5, np.nan, 0.5]})).set_index("estimator")
    assert (table.loc["a", "declined"], table.loc["a", "n"]) == (1, 3)
    assert table.loc["a", "ratio_to_sdid"] == pytest.approx(0.5)


def test_means_are_geometric_and_name_the_worst_design() -> None:
    base = list(np.random.default_rng(4).standard_normal(50))
    rows = pd.concat(
        [
            made_rows({"sdid": base, "a": [0.5 * x for x in base]}, "cps_hours"),
            made_rows({"sdid": base, "a": [0.98 * x for x in base]}, "cps_urate"),
        ],
        ignore_index=True,
    )
    table = means(cells(rows)).set_index("estimator")
    assert table.loc["a", "ratio_to_sdid"] == pytest.approx(0.7)
    assert (table.loc["a", "worst_design"], table.loc["a", "worst_ratio"]) == ("cps_urate", pytest.approx(0.98))
    assert (table.loc["a", "best"], table.loc["sdid", "best"]) == (2, 0)


def test_the_summary_says_where_rows_come_from(tmp_path: Path) -> None:
    rows = made_rows({"sdid": [1.0, -1.0, 2.0]})
    rows.loc[1, "commit"] = "d"
    text = write_summary(rows, tmp_path, {"commit": "e", "machine": "m", "command": "x"})
    assert "sdid" in text
    run = pd.read_csv(tmp_path / "dwcp_run.csv").iloc[0]
    assert (run["draws_made_at_commit"], run["summary_commit"], run["machine"]) == ("c d", "e", "m")
