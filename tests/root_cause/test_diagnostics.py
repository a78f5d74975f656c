"""Diagnostics: silent where graph and mechanisms are right, loud where they are not."""

import numpy as np
import pytest

from causal_spark.root_cause.diagnostics import NodeDiagnostics, diagnose
from causal_spark.root_cause.graph import CausalGraph, causal_graph
from causal_spark.root_cause.model import fit_model
from causal_spark.root_cause.types import MechanismKind, NodeTable
from tests.root_cause.systems import DIAMOND, EDGES, continuous, diamond

NAMES = "abcde"


def diagnosed(graph: CausalGraph, rows: NodeTable, kind: MechanismKind = "additive") -> dict[str, NodeDiagnostics]:
    table = continuous(rows.values[:, [NAMES.index(name) for name in graph.nodes]])
    return {one.node: one for one in diagnose(fit_model(graph, table, kind), table)}


def test_the_true_graph_is_hardly_ever_refuted() -> None:
    p_values = []
    n_refuted = 0
    for seed in range(60):
        found = diagnosed(DIAMOND, diamond(800, seed, bent=True))
        n_refuted += any(one.refuted for one in found.values())
        p_values += [one.on_parents.p_value for one in found.values() if one.on_parents is not None]
        p_values += [one.on_others.p_value for one in found.values() if one.on_others is not None]
    assert n_refuted <= 3
    # Fitting makes noise and parents a little less dependent than they are: p-values may be too large, not too small.
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_a_missing_edge_is_told_and_where() -> None:
    graph = causal_graph([edge for edge in EDGES if edge != ("b", "e")])
    found = diagnosed(graph, diamond(1500, 1))
    assert found["e"].refuted
    assert found["e"].other == "b"
    assert [name for name, one in found.items() if one.refuted] == ["e"]


def test_a_mechanism_that_does_not_bend_is_told() -> None:
    rows = diamond(3000, 2, bent=True)
    straight, bent = diagnosed(DIAMOND, rows, "linear"), diagnosed(DIAMOND, rows, "additive")
    assert straight["b"].refuted
    assert not bent["b"].refuted
    assert straight["b"].mechanism == "linear"
    assert bent["b"].mechanism == "additive"


def test_noise_that_spreads_with_a_parent_is_told() -> None:
    generator = np.random.default_rng(3)
    a = generator.normal(size=2000)
    b = a + np.exp(0.5 * a) * generator.normal(size=2000)
    graph = DIAMOND.within((0, 1))
    table = continuous(np.stack([a, b], axis=1))
    found = diagnose(fit_model(graph, table, "additive"), table)
    assert found[1].refuted


def test_the_fit_is_the_share_of_variance() -> None:
    found = diagnosed(DIAMOND, diamond(20_000, 4))
    # b is 1.6 a and noise of variance one.
    assert found["b"].fit == pytest.approx(2.56 / 3.56, abs=0.02)
    assert found["a"].fit is None
    assert found["a"].on_parents is None
    assert found["b"].n_rows == 20_000


def test_parents_that_say_nothing_fit_nothing() -> None:
    generator = np.random.default_rng(5)
    table = continuous(generator.normal(size=(300, 2)))
    found = diagnose(fit_model(DIAMOND.within((0, 1)), table, "additive"), table)
    assert found[1].fit == pytest.approx(0.0, abs=0.02)
    levels = NodeTable(np.stack([generator.normal(size=300), generator.integers(3, size=300)], axis=1), (0, 3))
    discrete = diagnose(fit_model(DIAMOND.within((0, 1)), levels, "additive"), levels)
    assert discrete[1].mechanism == "multinomial"
    assert discrete[1].fit == pytest.approx(0.0, abs=0.03)
    assert not discrete[1].refuted


def test_a_constant_node_is_no_trouble() -> None:
    rows = diamond(300, 6)
    rows.values[:, 1] = 4.0
    found = diagnosed(DIAMOND, rows, "linear")
    assert found["b"].fit == 0.0
    assert not found["b"].refuted
