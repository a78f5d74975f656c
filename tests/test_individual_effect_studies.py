"""The study of individual effects: draws of its own, stored once, and tables that count rightly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies import arm_draws, individual_effects, individual_effects_summary
from studies.arm_designs import ARM_DESIGNS
from studies.arm_draws import N_ARMS, PREDECESSORS, STUDY_SEED, VARIANTS, Task, ate_error, make, pehe
from studies.designs import seed_of
from studies.individual_effects_summary import accuracy_of, by_arm_and_quartile, coverage_of, goals_of

DESIGNS = pytest.mark.parametrize("design", ARM_DESIGNS)


@DESIGNS
@pytest.mark.parametrize("n_arms", N_ARMS)
def test_designs_have_the_arms_means_and_chances_they_say(design: str, n_arms: int) -> None:
    seen, fresh = make(Task(design, n_arms, 0))
    n_rows = ARM_DESIGNS[design].n_rows
    for one in (seen, fresh):
        assert one.means.shape == one.propensities.shape == (n_rows, n_arms)
        np.testing.assert_allclose(one.propensities.sum(axis=1), 1)
        assert np.bincount(one.arm, minlength=n_arms).min() >= 10
        # Noise of variance one about the mean of the arm received.
        noise = one.outcome - one.means[np.arange(n_rows), one.arm]
        assert noise.std() == pytest.approx(1, abs=0.1)
        assert abs(noise.mean()) < 4 / math.sqrt(n_rows)
    # Arms are likelier for those who got them than for others: assigned by what is known.
    own = seen.propensities[np.arange(n_rows), seen.arm].mean()
    assert own > (seen.propensities.mean(axis=0) ** 2).sum() + 0.01
    assert not np.array_equal(seen.covariates[:5], fresh.covariates[:5])


@DESIGNS
def test_draws_are_confounded(design: str) -> None:
    gaps = []
    for draw in range(6):
        seen, _ = make(Task(design, 2, draw))
        naive = seen.outcome[seen.arm == 1].mean() - seen.outcome[seen.arm == 0].mean()
        truth = (seen.means[:, 1] - seen.means[:, 0]).mean()
        gaps.append(abs(naive - truth) / math.sqrt(2 / len(seen.arm)))
    assert np.mean(gaps) > 3


def test_strong_confounding_is_stronger() -> None:
    overlap = {
        design: np.mean([make(Task(design, 4, draw))[0].propensities.min(axis=1).mean() for draw in range(3)])
        for design in ("synth2k", "synth2k_strong")
    }
    assert overlap["synth2k_strong"] < 0.5 * overlap["synth2k"]


def test_draws_are_the_same_again_and_none_is_one_that_methods_were_developed_on() -> None:
    first, again, other = (make(Task("ihdp4", 4, draw))[0] for draw in (3, 3, 4))
    np.testing.assert_array_equal(first.outcome, again.outcome)
    assert not np.array_equal(first.outcome, other.outcome)
    seeds = [
        seed_of(STUDY_SEED, design, str(n_arms), draw)
        for design in ARM_DESIGNS
        for n_arms in N_ARMS
        for draw in range(60)
    ]
    assert len(set(seeds)) == len(seeds)
    # Development drew from [99, s], whose lowest 32 bits are 99.
    assert all(seed % 2**32 != 99 for seed in seeds)


def test_errors_are_means_over_pairs_of_arms() -> None:
    means = np.array([[0.0, 1, 2], [0, 1, 2]])
    found = means + np.array([[0.0, 1, 0], [0, -1, 0]])
    # Errors of the pairs (1, 0), (2, 0), (2, 1): +-1, 0, -+1.
    assert pehe(found, means) == pytest.approx(2 / 3)
    assert ate_error(found, means) == 0
    assert ate_error(means + np.array([0, 0.5, 0]), means) == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert pehe(means + 7, means) == 0


def test_a_draw_has_a_row_per_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    from causal_spark.multi_treatment import networks

    monkeypatch.setattr(networks, "_TRAINING", replace(networks._TRAINING, max_steps=20))
    small = {"ihdp4": replace(ARM_DESIGNS["ihdp4"], n_rows=120)}
    monkeypatch.setattr(arm_draws, "ARM_DESIGNS", small)
    monkeypatch.setattr(arm_draws, "ABLATED_ARMS", 2)
    store = tmp_path / "draws.csv"
    given = ["--designs", "ihdp4", "--arms", "2", "--n", "1", "--processes", "1", "--draws-only", "--store", str(store)]
    individual_effects.main(given)
    rows = pd.read_csv(store)
    wanted = {"memento", "memento_networks", "memento_uncalibrated", *PREDECESSORS, *VARIANTS}
    assert set(rows["method"]) == wanted
    assert len(rows) == len(wanted)
    assert ((rows["coverage"] > 0) & (rows["coverage"] <= 1)).all()
    assert rows["covered"].str.split(" ").map(len).tolist() == [4] * len(rows)
    # What is stored is not run again.
    before = store.read_text()
    individual_effects.main(given)
    assert store.read_text() == before
    assert individual_effects.open_tasks(["ihdp4"], [2], range(3), store) == [Task("ihdp4", 2, k) for k in (1, 2)]
    assert individual_effects.open_tasks(["ihdp4"], [2], range(2, 4), store) == [Task("ihdp4", 2, k) for k in (2, 3)]


def made_up(roots: dict[str, list[float]], n_arms: int = 2, design: str = "synth2k", **more: Any) -> pd.DataFrame:
    """Rows of a cell from errors by method."""
    rows = [
        {
            "design": design,
            "n_arms": n_arms,
            "draw": draw,
            "method": method,
            "root_pehe": value,
            "root_pehe_seen": value,
            "ate_error": value / 2,
            "seconds": 1.0,
            "coverage": 0.95,
            "coverage_seen": 0.95,
            "covered": "0.9 1 1 0.9",
            "width": 2.0,
            "spread": 1.0,
        }
        | more
        for method, values in roots.items()
        for draw, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


ROOTS = {"memento": [1.0, 2.0], "s_learner": [2.0, 2.0], "t_learner": [4.0, 4.0]} | {
    name: [9.0, 9.0] for name in ("x_learner", "dr_learner", "tarnet", "cfr")
}


def test_ratios_are_geometric_means_over_common_draws() -> None:
    table = accuracy_of(made_up(ROOTS)).set_index("method")
    assert table.loc["memento", "root_pehe"] == 1.5
    assert table.loc["s_learner", "pehe_ratio"] == pytest.approx(math.sqrt(0.5))
    logs = np.log([0.5, 1.0])
    assert table.loc["s_learner", "log_ratio_error"] == pytest.approx(logs.std(ddof=1) / math.sqrt(2))
    assert table.loc["memento", "pehe_ratio"] == 1


def test_goals_are_told_against_the_best_predecessor_of_each_cell() -> None:
    better = made_up(ROOTS)
    worse = made_up(ROOTS | {"memento": [2.2, 2.21]}, n_arms=4, coverage=0.9)
    rows = pd.concat([better, worse])
    goals: Any = goals_of(rows, coverage_of(rows))
    assert goals["pehe"]["ratio to the best predecessor, geometric mean over cells"] == pytest.approx(
        math.exp((math.log(0.5) / 2 + (math.log(1.1) + math.log(1.105)) / 2) / 2), abs=1e-4
    )
    assert goals["pehe"]["cells above the best predecessor by more than two Monte Carlo errors"] == ["synth2k, 4 arms"]
    assert goals["pehe"]["best predecessors"]["synth2k, 2 arms"].startswith("s_learner: 0.707")
    assert goals["coverage"]["cells with coverage from .93 to .97"] == "1 of 2"


def test_coverage_is_told_by_arm_and_quartile() -> None:
    covered = ["1 1 1 0.8;1 1 1 1", "1 1 1 0.8;1 1 1 0.7"]
    cells = by_arm_and_quartile(covered)
    assert cells.shape == (2, 2, 4)
    assert cells[1, 1, 3] == 0.7
    rows = made_up({"memento": [1.0, 1.0]}, n_arms=3)
    rows["covered"] = covered
    row = coverage_of(rows).iloc[0]
    assert (row["least_coverage"], row["least_arm"], row["least_quartile"]) == (pytest.approx(0.8), 1, 4)
    assert (row["n_below"], row["n_cells"]) == (2, 8)


def test_the_summary_is_written_from_what_is_stored(tmp_path: Path) -> None:
    rows = made_up(ROOTS, commit="1e5", machine="m")
    rows["pehe"], rows["pehe_seen"] = rows["root_pehe"] ** 2, rows["root_pehe"] ** 2
    store = tmp_path / "draws.csv"
    rows.drop(columns=["root_pehe", "root_pehe_seen"]).to_csv(store, index=False)
    said = individual_effects_summary.write_summary(store, tmp_path, {"command": "c"})
    assert "synth2k" in said
    table = pd.read_csv(tmp_path / "individual_effects.csv")
    assert table["root_pehe"].iloc[0] == 1.5
    text = (tmp_path / "individual_effects.json").read_text()
    assert '"1e5"' in text
    assert '"n_draws": 2' in text
