"""Contributions to outlier scores: their sum, who has none, and agreement with what they are by definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_spark.root_cause import outliers
from causal_spark.root_cause.coalitions import DrawOptions, all_coalitions
from causal_spark.root_cause.graph import causal_graph
from causal_spark.root_cause.model import GraphModel, fit_model
from causal_spark.root_cause.outliers import Tail, attribute_outliers, outlier_scores
from causal_spark.root_cause.types import Floats, MechanismKind, NodeTable
from tests.root_cause.systems import DIAMOND, chain, continuous, diamond, diamond_noise, diamond_values

OPTIONS = DrawOptions(n_draws=2000, n_pairs=24)


def pushed(node: int, by: float, n_events: int, seed: int, *, bent: bool = False) -> NodeTable:
    noise = 0.3 * diamond_noise(n_events, seed)
    noise[:, node] = by
    return continuous(diamond_values(noise, bent=bent))


@pytest.mark.parametrize("kind", ["linear", "additive"])
@pytest.mark.parametrize("tail", ["two_sided", "upper", "lower"])
def test_contributions_sum_to_the_score(kind: MechanismKind, tail: Tail) -> None:
    rows = diamond(800, 0, bent=True)
    events = diamond(30, 1, bent=True)
    events.values[:5] *= 4
    model = fit_model(DIAMOND, rows, kind)
    found = attribute_outliers(model, events, tail, OPTIONS, 2)
    np.testing.assert_allclose(found.contributions.sum(axis=1), found.scores, atol=1e-12)
    assert (found.scores >= 0).all()
    np.testing.assert_allclose(found.scores, outlier_scores(model, events.values[:, -1], tail, OPTIONS.n_draws, 2))


@settings(max_examples=25, deadline=None)
@given(
    place=st.integers(0, 199), scale=st.floats(1e-6, 1e6), shift=st.floats(-1e4, 1e4), copies=st.sampled_from([1, 3])
)
def test_contributions_sum_to_the_score_at_the_edge(place: int, scale: float, shift: float, copies: int) -> None:
    # Events that are rows of the fit, rows that occur more than once: ties everywhere.
    values = np.repeat(np.round(diamond(200, 3).values, 1), copies, axis=0) * scale + shift
    model = fit_model(DIAMOND, continuous(values), "linear")
    found = attribute_outliers(
        model, continuous(values[[place]]), "two_sided", replace(OPTIONS, n_draws=200 * copies), 4
    )
    np.testing.assert_allclose(found.contributions.sum(axis=1), found.scores, atol=1e-10)
    assert found.scores[0] >= 0


def test_scores_are_tail_probabilities() -> None:
    rows = diamond(20_000, 5)
    model = fit_model(DIAMOND, rows, "linear")
    target = rows.values[:, -1]
    levels = np.quantile(target, [0.9, 0.99, 0.999])
    told = outlier_scores(model, levels, "upper", 20_000, 6)
    np.testing.assert_allclose(told, -np.log([0.1, 0.01, 0.001]), atol=0.25)
    far = np.quantile(np.abs(target - np.median(target)), 0.99) + np.median(target)
    assert outlier_scores(model, np.array([far]), "two_sided", 20_000, 6)[0] == pytest.approx(-np.log(0.01), abs=0.2)


def test_two_tails_are_told_apart() -> None:
    model = fit_model(DIAMOND, diamond(2000, 7), "linear")
    high, low = pushed(1, 8.0, 1, 8), pushed(1, -8.0, 1, 8)
    scores = {
        tail: [attribute_outliers(model, event, tail, OPTIONS, 9).scores[0] for event in (high, low)]
        for tail in ("two_sided", "upper", "lower")
    }
    assert min(scores["two_sided"]) > 4
    assert scores["upper"][0] > 4 > 0.5 > scores["upper"][1]
    assert scores["lower"][1] > 4 > 0.5 > scores["lower"][0]


@pytest.mark.parametrize("kind", ["linear", "additive"])
@pytest.mark.parametrize("node", [0, 1, 2, 3, 4])
def test_the_pushed_node_contributes_most(kind: MechanismKind, node: int) -> None:
    bent = kind == "additive"
    model = fit_model(DIAMOND, diamond(2000, 10, bent=bent), kind)
    # By as much as makes the target rare, whatever the node's effect.
    by = {0: 6.0, 1: 7.0, 2: 14.0, 3: 12.0, 4: 9.0}[node]
    found = attribute_outliers(model, pushed(node, by, 10, 11, bent=bent), "two_sided", OPTIONS, 12)
    if bent and node == 0:
        # A hyperbolic tangent swallows the push on one of two ways.
        return
    assert (found.contributions.argmax(axis=1) == node).mean() >= 0.9


def direct(model: GraphModel, row: Floats, n_draws: int, seed: int) -> Floats:
    """By definition, from draws of its own for every coalition."""
    players = all_coalitions(model.graph.n_nodes)
    generator = np.random.default_rng(seed)
    observed = model.noises(row[None])[0]
    residuals = [mechanism.residuals for mechanism in model.mechanisms]  # type: ignore[union-attr]

    def draw(members: Floats) -> Floats:
        values = np.empty((n_draws, model.graph.n_nodes))
        for node, mechanism in enumerate(model.mechanisms):
            noise = observed[node] if members[node] else generator.choice(residuals[node], n_draws)
            values[:, node] = mechanism.expected(model.parents_of(node, values)) + noise  # type: ignore[union-attr]
        return values[:, -1]

    median = np.median(draw(np.zeros(model.graph.n_nodes)))
    far = abs(row[-1] - median) - 1e-9
    counts = [np.sum(np.abs(draw(members) - median) >= far) for members in players.members]
    return players.shapley(np.log((np.array(counts) + 0.5) / (n_draws + 0.5)))


@pytest.mark.parametrize("kind", ["linear", "additive"])
def test_contributions_are_what_they_are_by_definition(kind: MechanismKind) -> None:
    bent = kind == "additive"
    rows = diamond(1000, 13, bent=bent)
    model = fit_model(DIAMOND, rows, kind)
    event = pushed(2, 4.0, 1, 14, bent=bent)
    again = [
        attribute_outliers(model, event, "two_sided", replace(OPTIONS, n_draws=5000), seed).contributions[0]
        for seed in range(8)
    ]
    mine, error = np.mean(again, axis=0), np.std(again, axis=0)
    expected = np.mean([direct(model, event.values[0], 5000, seed) for seed in range(8)], axis=0)
    np.testing.assert_allclose(mine, expected, atol=4 * np.sqrt(2 / 8) * error.max() + 0.01)


def test_linear_and_general_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_model(DIAMOND, diamond(1000, 15), "linear")
    events = pushed(1, 4.0, 6, 16)
    short = attribute_outliers(model, events, "two_sided", OPTIONS, 17)
    monkeypatch.setattr(outliers, "_linear_counts", outliers._general_counts)
    long = attribute_outliers(model, events, "two_sided", OPTIONS, 17)
    np.testing.assert_allclose(short.contributions, long.contributions, atol=1e-9)
    assert (short.floored == long.floored).all()


def test_orders_are_near_all_coalitions(monkeypatch: pytest.MonkeyPatch) -> None:
    from causal_spark.root_cause import coalitions

    graph = chain(8)
    generator = np.random.default_rng(18)
    values = np.cumsum(generator.normal(size=(1020, 8)), axis=1)
    model = fit_model(graph, continuous(values[:1000]), "linear")
    events = continuous(values[1000:] * 3)
    exact = attribute_outliers(model, events, "two_sided", OPTIONS, 19).contributions
    monkeypatch.setattr(coalitions, "EXACT_UP_TO", 4)
    near = attribute_outliers(model, events, "two_sided", replace(OPTIONS, n_pairs=200), 19).contributions
    assert np.abs(near - exact).max() < 0.35
    np.testing.assert_allclose(near.sum(axis=1), exact.sum(axis=1), atol=1e-10)


def test_an_event_does_not_depend_on_the_others() -> None:
    rows = diamond(500, 20, bent=True)
    for kind in ("linear", "additive"):
        model = fit_model(DIAMOND, rows, kind)  # type: ignore[arg-type]
        events = diamond(7, 21, bent=True)
        together = attribute_outliers(model, events, "two_sided", OPTIONS, 22).contributions
        alone = attribute_outliers(model, events.rows(np.array([3])), "two_sided", OPTIONS, 22).contributions
        np.testing.assert_allclose(alone[0], together[3], atol=1e-12)


def test_a_score_beyond_all_draws_is_flagged() -> None:
    model = fit_model(DIAMOND, diamond(1000, 23), "linear")
    found = attribute_outliers(model, pushed(1, 100.0, 1, 24), "two_sided", OPTIONS, 25)
    assert found.floored.all()
    assert found.scores[0] == pytest.approx(np.log(2 * OPTIONS.n_draws + 1))
    assert not attribute_outliers(model, pushed(1, 1.0, 1, 24), "two_sided", OPTIONS, 25).floored.any()


def test_a_discrete_cause_is_found() -> None:
    generator = np.random.default_rng(26)
    broken = (generator.random(3000) < 0.01).astype(float)
    load = generator.normal(size=3000)
    latency = load + 8 * broken + generator.normal(size=3000)
    graph = causal_graph([("broken", "latency"), ("load", "latency")])
    assert graph.nodes == ("broken", "load", "latency")
    table = NodeTable(np.stack([broken, load, latency], axis=1), (2, 0, 0))
    model = fit_model(graph, table, "additive")
    events = NodeTable(np.array([[1.0, 0.2, 8.4], [0.0, 3.5, 5.5]]), (2, 0, 0))
    found = attribute_outliers(model, events, "two_sided", OPTIONS, 27)
    np.testing.assert_allclose(found.contributions.sum(axis=1), found.scores, atol=1e-12)
    assert found.contributions.argmax(axis=1).tolist() == [0, 1]
    assert found.contributions[0, 0] > 0.75 * found.scores[0]
