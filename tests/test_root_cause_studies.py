"""The study of root causes: made-up systems, events whose causes are known, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.machine import append_rows, read_rows
from benchmarks.root_causes import SortedDistance
from studies import root_causes
from studies.root_cause_designs import DESIGNS, draw_incidents, draw_system
from studies.root_causes import Task, hits, make, open_tasks, run
from studies.root_causes_summary import summarise, write_summary

HERE = {"commit": "abc", "machine": "none"}


@pytest.mark.parametrize("design", list(DESIGNS))
@pytest.mark.parametrize("n_nodes", [10, 30])
def test_every_node_leads_to_the_target_which_is_the_last(design: str, n_nodes: int) -> None:
    for seed in range(5):
        system = draw_system(design, n_nodes, np.random.default_rng(seed))
        assert system.graph.n_nodes == n_nodes
        assert system.graph.lineage(system.target) == tuple(range(n_nodes))


@pytest.mark.parametrize("design", list(DESIGNS))
@pytest.mark.parametrize("n_causes", [1, 2])
def test_putting_the_causes_back_undoes_the_event(design: str, n_causes: int) -> None:
    generator = np.random.default_rng(1)
    system = draw_system(design, 10, generator)
    incidents = draw_incidents(system, 10, n_causes, generator)
    assert len(incidents.rows) == len(incidents.causes) > 5
    reference = system.values(system.noise(np.random.default_rng(2), 20_000))[:, -1]
    distance = np.abs(incidents.rows[:, -1] - np.median(reference))
    rarity = np.mean(np.abs(reference - np.median(reference)) >= distance[:, None], axis=1)
    assert (rarity < 2e-3).all()
    assert all(len(set(causes)) == n_causes for causes in incidents.causes)


def test_hits_count_causes_among_the_first() -> None:
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
    causes = [(0,), (0, 1), (2, 3)]
    np.testing.assert_allclose(hits(scores, causes, 1), [1, 1, 0])
    np.testing.assert_allclose(hits(scores, causes, 3), [1, 0.5, 1])


def test_a_draw_is_the_same_whenever_it_is_made_and_others_differ() -> None:
    task = Task("nonlinear", 10, 2, 3)
    (_, rows, first), (_, again, second), (_, other, _) = make(task), make(task), make(Task("nonlinear", 10, 2, 4))
    np.testing.assert_array_equal(rows.values, again.values)
    assert first.causes == second.causes
    assert not np.array_equal(rows.values, other.values)


def test_a_study_is_resumed_and_summarised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_causes, "N_ROWS", 300)
    monkeypatch.setattr(root_causes, "N_EVENTS", 6)
    monkeypatch.setattr(root_causes, "PEER_DRAWS", 0)
    store = tmp_path / "draws.csv"
    tasks = open_tasks(2, store)
    assert len(tasks) == 24
    mine = [task for task in tasks if task.design == "linear" and task.n_nodes == 10 and task.n_causes == 1]
    for task in mine:
        append_rows(store, run(task, HERE))
    assert len(open_tasks(2, store)) == 22
    assert not set(mine) & set(open_tasks(2, store))
    assert "contribution" in write_summary(store, tmp_path, {"command": "none"})
    table = pd.read_csv(tmp_path / "root_causes.csv").set_index("rule")
    assert set(table.index) == {"contribution", "contribution_linear", "residual_z", "evidence"}
    assert (table["n_draws"] == 2).all()
    assert (table["top_1"] > 0.7).all()
    assert (table["top_1_mc_error"] >= 0).all()
    assert table["cpu_seconds_per_event"].notna().sum() == 2


def test_peers_stand_beside_ours_on_the_same_draws() -> None:
    pytest.importorskip("dowhy")
    rows = pd.DataFrame(run(Task("linear", 10, 1, 999), HERE))
    peers = rows[rows["rule"] == "contribution"].assign(rule="dowhy_linear", top_1="0.2000")
    table = summarise(pd.concat([rows, peers], ignore_index=True)).set_index("rule")
    assert table.loc["dowhy_linear", "top_1"] == pytest.approx(0.2)
    same = float(rows.loc[rows["rule"] == "contribution", "top_1_first"].iloc[0])
    assert table.loc["dowhy_linear", "contribution_top_1_same"] == pytest.approx(same)
    assert len(read_rows.__doc__ or "") > 0


def test_the_best_scorer_of_the_peer_says_what_tail_probabilities_are() -> None:
    scorer = SortedDistance()
    values = np.random.default_rng(5).normal(size=1001)
    scorer.fit(values)
    distance = np.abs(values - np.median(values))
    told = scorer.score(values[:20])
    expected = [-np.log((np.sum(distance >= one) + 0.5) / 1001.5) for one in distance[:20]]
    np.testing.assert_allclose(told, expected)
