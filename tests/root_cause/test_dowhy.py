"""DoWhy's exact mode says the same of the same models, up to the draws of both."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from causal_spark.root_cause.coalitions import DrawOptions
from causal_spark.root_cause.graph import causal_graph
from causal_spark.root_cause.intrinsic import intrinsic_contributions
from causal_spark.root_cause.model import fit_model
from causal_spark.root_cause.outliers import attribute_outliers
from causal_spark.root_cause.types import Floats, NodeTable
from tests.root_cause.systems import DIAMOND, EDGES, continuous, diamond, diamond_noise, diamond_values

gcm: Any = pytest.importorskip("dowhy.gcm", reason="DoWhy is the oracle")
N_RUNS, N_DRAWS = 6, 4000


class Distance:
    """Distance from the median: the feature of a two-sided score."""

    def fit(self, values: Floats) -> None:
        self.median = np.median(values)

    def score(self, values: Floats) -> Floats:
        return np.abs(np.asarray(values).reshape(-1) - self.median)


@pytest.fixture(scope="module")
def shapley() -> Any:
    gcm.config.disable_progress_bars()
    methods = gcm.shapley.ShapleyApproximationMethods
    return gcm.shapley.ShapleyConfig(approximation_method=methods.EXACT, n_jobs=1)


def their_model(kind: Any, graph: Any, rows: pd.DataFrame) -> Any:
    model = kind(graph)
    for node in graph.nodes:
        if graph.in_degree(node):
            model.set_causal_mechanism(node, gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor()))
        else:
            model.set_causal_mechanism(node, gcm.EmpiricalDistribution())
    gcm.fit(model, rows)
    return model


def frame(table: NodeTable, names: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(table.values, columns=list(names))


def alike(mine: list[Floats], theirs: list[Floats]) -> None:
    """Means over runs differ by no more than their Monte Carlo errors allow."""
    error = np.sqrt((np.var(mine, axis=0, ddof=1) + np.var(theirs, axis=0, ddof=1)) / N_RUNS)
    assert (np.abs(np.mean(mine, axis=0) - np.mean(theirs, axis=0)) <= 4.5 * error + 0.02 * np.abs(theirs).max()).all()
    # The comparison could fail: errors are small beside what is compared.
    assert error.max() < 0.15 * np.abs(theirs).max()


def test_contributions_to_outliers_are_dowhys(shapley: Any) -> None:
    rows = diamond(1500, 0)
    noise = 0.4 * diamond_noise(3, 1)
    noise[0, 1], noise[1, 0], noise[2, 3] = 4.0, 2.5, -5.0
    events = continuous(diamond_values(noise))
    graph = nx.DiGraph(EDGES)
    model = their_model(gcm.InvertibleStructuralCausalModel, graph, frame(rows, DIAMOND.nodes))
    theirs = []
    for seed in range(N_RUNS):
        gcm.util.general.set_random_seed(seed)
        found = gcm.attribute_anomalies(
            model,
            "e",
            frame(events, DIAMOND.nodes),
            anomaly_scorer=Distance(),
            num_distribution_samples=N_DRAWS,
            shapley_config=shapley,
        )
        theirs.append(np.stack([found[name] for name in DIAMOND.nodes], axis=1))
    ours = fit_model(DIAMOND, rows, "linear")
    options = DrawOptions(N_DRAWS, 24)
    alike(
        [attribute_outliers(ours, events, "two_sided", options, seed).contributions for seed in range(N_RUNS)], theirs
    )


def test_intrinsic_contributions_are_dowhys(shapley: Any) -> None:
    rows = diamond(1500, 2)
    graph = nx.DiGraph(EDGES)
    model = their_model(gcm.InvertibleStructuralCausalModel, graph, frame(rows, DIAMOND.nodes))
    theirs = []
    for seed in range(N_RUNS):
        gcm.util.general.set_random_seed(seed)
        found = gcm.intrinsic_causal_influence(
            model,
            "e",
            prediction_model=gcm.ml.create_linear_regressor(),
            num_samples_randomization=500,
            num_samples_baseline=2000,
            shapley_config=shapley,
        )
        theirs.append(np.array([found[name] for name in DIAMOND.nodes]))
    mine = intrinsic_contributions(fit_model(DIAMOND, rows, "linear"), DrawOptions(N_DRAWS, 24), 3)
    error = np.std(theirs, axis=0, ddof=1) / np.sqrt(N_RUNS)
    assert (np.abs(np.mean(theirs, axis=0) - mine) <= 4.5 * error + 0.04 * mine.sum()).all()


def test_the_graph_of_both_is_the_same() -> None:
    assert causal_graph(list(nx.DiGraph(EDGES).edges)) == DIAMOND
