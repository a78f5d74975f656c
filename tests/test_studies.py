"""The horse race: its designs and seeds, its bookkeeping and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.machine import read_rows
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.shaped import shaped_estimates
from studies import horse_race as study
from studies.designs import DESIGNS, N_TREATED, SHAPES, draw, model_of, seed_of
from studies.horse_race_summary import PUBLISHED, PUBLISHED_DWCP, cells, means, write_summary


@pytest.mark.parametrize("name", DESIGNS)
def test_draws_are_panels_like_the_designs(name: str) -> None:
    panel, design = draw(name, 5), DESIGNS[name]
    assert panel.outcome.shape == model_of(name).calibration.additive.shape
    assert 1 <= panel.ever_treated.sum() <= N_TREATED
    assert panel.treated[panel.ever_treated, -design.n_post :].all()
    assert not panel.treated[:, : -design.n_post].any()
    assert 0.5 < panel.outcome.std() < 1.5
    assert np.array_equal(panel.outcome, draw(name, 5).outcome)
    assert not np.array_equal(panel.outcome, draw(name, 6).outcome)


def test_designs_are_those_of_the_published_tables() -> None:
    rows = pd.read_csv(PUBLISHED)["simulation"], pd.read_csv(PUBLISHED_DWCP)["design"]
    for known, named in zip(rows, ("published", "published_dwcp"), strict=True):
        assert sorted(known) == sorted(getattr(one, named) for one in DESIGNS.values() if getattr(one, named))


def test_seeds_depend_on_what_is_drawn_and_other_kinds_share_none_with_the_report() -> None:
    tasks = [study.Task(kind, design, "did", tuple(range(300))) for design in DESIGNS for kind in ("report", "tuning")]
    assert len({task.seed(k) for task in tasks for k in task.numbers}) == 300 * len(tasks)
    # Fixed once and for all: rows that are stored belong to these draws.
    assert study.Task("report", "cps_hours", "sdid", (3,)).seed(3) == seed_of(20261127, "report", "cps_hours", 3)
    assert seed_of(20261127, "report", "cps_hours", 3) == 8297831310441167936


def test_effects_have_mean_zero_and_their_size() -> None:
    panel = draw("cps_hours", 1)
    effects = {name: shape(panel)[panel.treated].reshape(-1, 10) for name, shape in SHAPES.items()}
    for effect in effects.values():
        assert effect.sum(axis=1) == pytest.approx(np.zeros(len(effect)), abs=1e-12)
    assert np.diff(effects["ramp_0.1"][0]) == pytest.approx(0.2 / 9)
    assert np.ptp(effects["ramp_0.2"][0]) == pytest.approx(0.4)
    assert np.unique(effects["jump"].round(9)).tolist() == [-0.1, 0.1]
    assert not effects["constant"].any()


def test_rows_are_the_errors_of_the_estimators() -> None:
    (row,) = study.run(study.Task("report", "smoking_treated_unit", "sdid", (2,)))
    panel = draw("smoking_treated_unit", seed_of(study.STUDY_SEED, "report", "smoking_treated_unit", 2))
    definition = ESTIMATORS["sdid"]
    found = shaped_estimates(panel, definition, definition.options(), 0, {"constant": 0.0 * panel.outcome})
    assert float(str(row["constant"])) == pytest.approx(found["constant"].estimate, rel=1e-4)
    assert row["ramp_0.2"] == row["constant"]


COMMON = ["--designs", "smoking_treated_unit", "--processes", "1", "--estimators"]


@pytest.fixture
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "WORK", tmp_path / "work")
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "_BATCH", {})


@pytest.mark.usefixtures("_apart")
def test_a_run_is_continued_where_it_stopped(tmp_path: Path) -> None:
    study.main([*COMMON, "did", "sdid", "--n-classic", "3"])
    store = study.store_of("report", "smoking_treated_unit", "sdid")
    before = read_rows(store)
    assert len(before) == 6
    # A run that was killed leaves half a row behind.
    store.write_text(store.read_text()[:-20], encoding="utf-8")
    arguments = [*COMMON, "did", "sdid", "sc", "--n-classic", "4"]
    missing = {(task.estimator, *task.numbers) for task in study.open_tasks(study.arguments_of(arguments))}
    lost = before.iloc[-1]
    wanted = {("sc", k) for k in range(4)} | {("did", 3), ("sdid", 3), (lost["estimator"], lost["draw"])}
    assert missing == wanted
    study.main(arguments)
    after = read_rows(store).set_index(["estimator", "draw"])["constant"]
    assert len(after) == 12
    assert after.index.is_unique
    told = before.set_index(["estimator", "draw"])["constant"]
    assert after[told.index].tolist() == told.tolist()
    written = pd.read_csv(tmp_path / "results" / "horse_race.csv")
    assert written.groupby(["shape", "estimator"])["n"].first().eq(4).all()
    run = json.loads((tmp_path / "results" / "horse_race_run.json").read_text())
    assert run["draws_per_design"] == {"did": 4, "sc": 4, "sdid": 4}
    assert "--n-classic 4" in run["command"]


@pytest.mark.usefixtures("_apart")
def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for processes in ("1", "2"):
        monkeypatch.setattr(study, "WORK", tmp_path / processes)
        study.main([*COMMON, "sdid", "sc", "--n-classic", "3", "--processes", processes])
        found.append(study.stored("report").drop(columns="seconds"))
    first, second = (rows.sort_values(["estimator", "draw"], ignore_index=True) for rows in found)
    pd.testing.assert_frame_equal(first, second)


def made_rows(errors: dict[str, list[float]], design: str = "cps_hours") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"design": design, "draw": k, "estimator": name, "seconds": 1.0, "commit": "c"}
            | dict.fromkeys(SHAPES, error)
            | {"p_value": 0.01 * k if name == "a" else None}
            | {f"weight_{shape}": None for shape in SHAPES}
            for name, values in errors.items()
            for k, error in enumerate(values)
        ]
    )


def constant(rows: pd.DataFrame) -> pd.DataFrame:
    table = cells(rows)
    return table[table["shape"] == "constant"].set_index("estimator")


def test_cells_rank_estimators_on_common_draws_and_tell_errors_of_all() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(400)
    rows = made_rows(
        {"sdid": list(base), "a": list(0.5 * base[:300]), "b": list(0.505 * base + 0.1 * rng.standard_normal(400))}
    )
    table = constant(rows)
    # Of the 300 draws that all have the ratio is exactly one half, without error.
    assert table.loc["a", "ratio_to_sdid"] == pytest.approx(0.5)
    assert table.loc["a", "ratio_to_sdid_mc_error"] == pytest.approx(0.0, abs=1e-9)
    assert table.loc["sdid", "ratio_to_sdid"] == 1.0
    assert table["n"].to_dict() == {"sdid": 400, "a": 300, "b": 400}
    assert table["n_common"].eq(300).all()
    assert table.loc["sdid", "rmse"] == pytest.approx(np.sqrt(np.square(base).mean()))
    assert table["best_or_tied"].to_dict()["a"]
    assert not table["best_or_tied"].to_dict()["sdid"]
    assert table.loc["a", "constancy_rejected"] == pytest.approx(5 / 300)
    assert table.loc["sdid", "published_rmse"] == 0.1895
    assert table.loc["sdid", "published_over_dwcp"] == 1.19


def test_declined_panels_are_counted_and_left_out_of_both_sides() -> None:
    table = constant(made_rows({"sdid": [1.0, -1.0, 5.0, 1.0], "a": [0.5, -0.5, np.nan, 0.5]}))
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
    table = means(cells(rows))
    table = table[table["shape"] == "constant"].set_index("estimator")
    assert table.loc["a", "ratio_to_sdid"] == pytest.approx(0.7)
    assert (table.loc["a", "worst_design"], table.loc["a", "worst_ratio"]) == ("cps_urate", pytest.approx(0.98))
    assert (table.loc["a", "best"], table.loc["sdid", "best"]) == (2, 0)


def test_the_summary_says_where_rows_come_from_and_how_far_the_published_are(tmp_path: Path) -> None:
    rows = made_rows({"sdid": [1.0, -1.0, 2.0]})
    rows.loc[1, "commit"] = "d"
    assert "sdid" in write_summary(rows, tmp_path, {"commit": "e", "machine": "m", "command": "x"})
    run = json.loads((tmp_path / "horse_race_run.json").read_text())
    assert (run["draws_made_at_commit"], run["commit"], run["machine"]) == (["c", "d"], "e", "m")
    assert (run["compared_with_published"], run["beyond_three_standard_errors"]) == (1, 1)
    assert "Nothing can be compared" in write_summary(rows[:1], tmp_path, {"commit": "e"})
