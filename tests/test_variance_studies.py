"""Studies of variances: designs are what they say, draws can be stopped and continued, tables count rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from causal_spark.panel.did import did
from causal_spark.panel.summary import att
from studies import coverage, variances
from studies.noise import ANCHORS, DESIGNS, GRID, N_PERIODS, N_UNITS, TARGETS, NoiseDesign, draw, homoskedastic_error
from studies.variances_summary import summarise


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("varying", "ar", "factor"), [("none", 0.0, 0.0), ("both", 0.5, 0.0), ("time", 0.95, 0.5)])
def test_the_true_variance_is_that_of_difference_in_differences(
    target: str, varying: str, ar: float, factor: float
) -> None:
    design = NoiseDesign(target, varying, ar, factor)
    standardised = []
    for seed in range(600):
        panel, variance = draw(design, seed)
        standardised.append(att(panel, did(panel)) / np.sqrt(variance))
    # Six standard errors of a variance of 600 draws, normal given the scales.
    assert np.mean(np.square(standardised)) == pytest.approx(1.0, abs=6 * np.sqrt(2 / 600))
    assert panel.outcome.shape == (N_UNITS, N_PERIODS)
    assert (int(panel.ever_treated.sum()), int(panel.treated.any(axis=0).sum())) == TARGETS[target]


def test_the_grid_is_complete_and_anchors_are_in_it() -> None:
    assert len(GRID) == len({design.name for design in GRID}) == 3 * 4 * 2
    assert set(ANCHORS) <= set(GRID)
    assert set(GRID) < set(DESIGNS.values())
    even = NoiseDesign("cell", "none", 0.0)
    assert homoskedastic_error(even) == pytest.approx(np.sqrt((1 + 1 / 39) * (1 + 1 / 49)))
    assert homoskedastic_error(NoiseDesign("cell", "both", 0.0, 1.0)) == homoskedastic_error(even)


def test_the_summary_counts_what_intervals_cover() -> None:
    n = 400
    truth = np.repeat([1.0, 2.0, 3.0, 4.0], n // 4)
    estimate = np.where(np.arange(n) % 10 == 0, 5.0, 0.1)
    rows = pd.DataFrame({"true_variance": truth, "estimate": estimate})
    for name in ("marginal", "unit", "time", "unit_time", "unit_time_direct"):
        rows[f"{name}_std_error"], rows[f"{name}_df"] = 1.0, 10.0
    # Twice as wide, and so wide in the noisiest quarter that it covers everything there.
    rows["unit_std_error"] = np.where(truth == 4.0, 4.0, 2.0)
    table = summarise(rows, "cell_both_ar0", "did").set_index("variance")
    assert table.loc["marginal", ["coverage", "coverage_q1", "coverage_q4"]].tolist() == [0.9, 0.9, 0.9]
    assert table.loc["unit", ["coverage_q1", "coverage_q4"]].tolist() == [0.9, 1.0]
    assert table.loc["unit", "width"] == pytest.approx(2.5)
    width, unit = stdtrit(10.0, 0.975), homoskedastic_error(DESIGNS["cell_both_ar0"])
    for effect in (1.4, 2.0, 2.8):
        power = [np.mean(np.abs(estimate + sign * effect * unit) > width) for sign in (-1, 1)]
        assert table.loc["marginal", f"power_{effect:g}"] == pytest.approx(np.mean(power))


def test_a_draw_is_the_same_whenever_it_is_made_and_only_missing_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variances, "WORK", tmp_path)
    monkeypatch.setattr(variances, "BATCH", 2)
    designs = ["cell_both_ar0.5", "block_both_ar0.5"]
    tasks = variances.open_tasks("development", "did", designs, 5)
    assert [(task.design[:5], task.first, task.n) for task in tasks] == [
        (name, first, n) for first, n in ((0, 2), (2, 2), (4, 1)) for name in ("cell_", "block")
    ]
    rows = variances.run(tasks[0])
    assert rows == variances.run(tasks[0])
    assert rows[1] == variances.run_draw(tasks[0], 1)
    variances.append_rows(variances.store_of("development", designs[0], "did"), rows)
    assert variances.open_tasks("development", "did", designs, 5) == tasks[1:]
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


def test_coverage_stands_beside_what_was_published() -> None:
    made = [
        {"design": "urate", "draw": k, "estimator": "did", "variance": "placebo", "estimate": 0.0, "std_error": 1.0}
        | {"covered": float(k % 2)}
        for k in range(100)
    ]
    made += [
        {"design": "N1.is.one", "draw": k, "estimator": "sdid", "variance": "jackknife", "estimate": 0.0}
        | {"std_error": np.nan, "covered": np.nan}
        for k in range(3)
    ]
    table = coverage.summarise(pd.DataFrame(made)).set_index(["design", "variance", "estimator"])
    row = table.loc["urate", "placebo", "did"]
    assert (row["n"], row["coverage"], row["published"]) == (100, 0.5, 0.6175)
    pooled = (50 + 0.6175 * 400) / 500
    assert row["z"] == pytest.approx((0.5 - 0.6175) / np.sqrt(pooled * (1 - pooled) * (1 / 100 + 1 / 400)))
    assert table.loc["N1.is.one", "jackknife", "sdid"][["n", "declined"]].tolist() == [0, 3]


def test_draws_that_lack_a_variance_are_made_again_for_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "WORK", tmp_path)
    everything = coverage.open_tasks(["urate", "N1.is.one"], 2)
    assert [(task.design, task.number, len(task.methods)) for task in everything] == [
        ("urate", 0, 8),
        ("N1.is.one", 0, 8),
        ("urate", 1, 8),
        ("N1.is.one", 1, 8),
    ]
    first = coverage.Task("N1.is.one", 0, ("jackknife", "jackknife_fitted"))
    rows = coverage.run(first)
    assert {row["variance"] for row in rows} == set(first.methods)
    coverage.append_rows(coverage.store_of("N1.is.one"), [row | {"commit": "123e4"} for row in rows])
    again = coverage.open_tasks(["N1.is.one"], 1)
    assert [set(task.methods) for task in again] == [set(coverage.METHODS) - set(first.methods)]


def test_both_jackknifes_stand_beside_the_published_one() -> None:
    made = [
        {"design": "urate", "draw": k, "estimator": "sdid", "variance": name, "estimate": 0.0, "std_error": 1.0}
        | {"covered": 1.0}
        for k in range(10)
        for name in ("jackknife", "jackknife_fitted")
    ]
    table = coverage.summarise(pd.DataFrame(made))
    assert table[["variance", "published"]].to_numpy().tolist() == [["jackknife", 0.9225], ["jackknife_fitted", 0.9225]]


@pytest.mark.parametrize("name", ["baseline", "N1.is.one", "blocksize.is.one", "penn.education", "resample.200"])
def test_designs_of_the_published_table_have_its_shapes(name: str) -> None:
    design = coverage.DESIGNS[name]
    panel = coverage.draw(design, 1)
    n_units = {"baseline": 50, "penn.education": 111, "resample.200": 200}.get(name, 50)
    assert panel.n_units == n_units
    assert int(panel.treated.any(axis=0).sum()) == design.n_post
    assert 1 <= int(panel.ever_treated.sum()) <= design.n_treated
    assert np.array_equal(panel.outcome, coverage.draw(design, 1).outcome)


def test_the_published_table_is_whole() -> None:
    published = pd.read_csv(coverage.PUBLISHED)
    assert set(published["design"]) == set(coverage.DESIGNS)
    assert published.groupby("variance").size().to_dict() == {"bootstrap": 12, "jackknife": 12, "placebo": 14}
