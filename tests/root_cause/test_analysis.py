"""A segment's analysis: everything of one model, with standard errors, and nothing of others."""

from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import TooFewRowsError
from causal_spark.root_cause.analysis import Analysis, RootCauseOptions, functional_of
from causal_spark.root_cause.graph import causal_graph
from causal_spark.root_cause.types import NodeTable
from tests.root_cause.systems import DIAMOND, EDGES, continuous, diamond, diamond_noise, diamond_values

OPTIONS = RootCauseOptions(n_draws=800, n_refits=8)
#: The diamond with a node behind the target and one beside it.
WIDER = causal_graph([*EDGES, ("e", "f"), ("a", "g")])


def wider(n_rows: int, seed: int, push: float = 0.0) -> NodeTable:
    noise = diamond_noise(n_rows, seed)
    noise[:, 1] += push
    values = diamond_values(noise)
    generator = np.random.default_rng([seed, 1])
    f, g = values[:, 4] + generator.normal(size=n_rows), values[:, 0] + generator.normal(size=n_rows)
    columns = dict(zip("abcdefg", [*values.T, f, g], strict=True))
    return continuous(np.stack([columns[name] for name in WIDER.nodes], axis=1))


def test_nodes_that_are_no_ancestors_contribute_nothing() -> None:
    analysis = Analysis(WIDER, "e", wider(600, 0), OPTIONS, 1)
    outside = [WIDER.nodes.index(name) for name in "fg"]
    found = analysis.events(wider(4, 2, push=6.0))
    assert found.std_errors is not None
    assert (found.contributions[:, outside] == 0).all()
    assert (found.std_errors[:, outside] == 0).all()
    assert (found.evidence[:, outside] == 0).all()
    np.testing.assert_allclose(found.contributions.sum(axis=1), found.scores, atol=1e-12)
    assert np.isfinite(found.residual_z).all()
    contributions, errors = analysis.intrinsic()
    assert errors is not None
    assert (contributions[outside] == 0).all()
    changes = analysis.changes(wider(600, 3, push=1.0), 0)
    assert all((one.contributions[outside] == 0).all() for one in changes)


def test_what_broke_has_the_most_evidence() -> None:
    analysis = Analysis(WIDER, "e", wider(2000, 4), replace(OPTIONS, n_refits=0), 5)
    found = analysis.events(wider(30, 6, push=7.0))
    assert (found.evidence.argmax(axis=1) == WIDER.nodes.index("b")).mean() > 0.9
    assert found.std_errors is None
    assert (found.evidence >= 0).all()


def test_only_events_that_are_extreme_enough_are_told() -> None:
    rows, events = wider(1000, 7), wider(200, 8)
    every = Analysis(WIDER, "e", rows, replace(OPTIONS, n_refits=0), 9).events(events)
    some = Analysis(WIDER, "e", rows, replace(OPTIONS, n_refits=0, min_score=2.0), 9).events(events)
    assert len(every.chosen) == 200
    np.testing.assert_array_equal(some.chosen, np.flatnonzero(every.scores >= 2.0))
    np.testing.assert_allclose(some.contributions, every.contributions[some.chosen], atol=1e-12)
    assert 0 < len(some.chosen) < 60
    none = Analysis(WIDER, "e", rows, replace(OPTIONS, min_score=7.0), 9).events(events.rows(every.scores < 3))
    assert len(none.chosen) == 0


def test_intervals_hold_what_more_rows_say() -> None:
    event = wider(1, 10, push=4.0)
    large = Analysis(WIDER, "e", wider(40_000, 11), replace(OPTIONS, n_draws=20_000, n_refits=0), 12)
    truth = large.events(event).contributions[0]
    covered = []
    for seed in range(25):
        options = replace(OPTIONS, mechanism="linear", n_draws=4000, n_refits=20)
        found = Analysis(WIDER, "e", wider(400, 100 + seed), options, seed).events(event)
        assert found.std_errors is not None
        inside = np.abs(found.contributions[0] - truth) <= 1.96 * found.std_errors[0]
        covered.append(inside[[WIDER.nodes.index(name) for name in "abcde"]])
    assert np.mean(covered) > 0.85


def test_everything_comes_from_the_seed() -> None:
    rows, events = wider(400, 13), wider(3, 14)
    one, again, other = (Analysis(WIDER, "e", rows, OPTIONS, seed) for seed in (15, 15, 16))
    first, second, third = one.events(events), again.events(events), other.events(events)
    np.testing.assert_array_equal(first.contributions, second.contributions)
    assert first.std_errors is not None
    assert second.std_errors is not None
    np.testing.assert_array_equal(first.std_errors, second.std_errors)
    assert (first.contributions != third.contributions).any()
    # Whatever else is asked before.
    again.changes(wider(400, 17), 0)
    np.testing.assert_array_equal(again.intrinsic()[0], one.intrinsic()[0])


def test_changes_of_all_functionals_are_told_with_errors() -> None:
    options = replace(OPTIONS, functionals=("kl", "quantile:0.25", "mean", "variance"))
    analysis = Analysis(WIDER, "e", wider(1500, 18), options, 19)
    found = analysis.changes(wider(1500, 20, push=1.0), 0)
    assert [one.functional for one in found] == list(options.functionals)
    b = WIDER.nodes.index("b")
    for one in found:
        assert one.std_errors is not None
        if one.functional != "variance":
            assert one.contributions.argmax() == b
            assert one.contributions[b] > 3 * one.std_errors[b]
    mean = found[2]
    assert mean.observed is not None
    assert mean.contributions.sum() == pytest.approx(mean.observed)
    assert mean.contributions[b] == pytest.approx(1.5, abs=0.2)
    assert found[0].observed is None


def test_changes_need_rows() -> None:
    analysis = Analysis(WIDER, "e", wider(400, 21), OPTIONS, 22)
    with pytest.raises(TooFewRowsError, match="10 changed rows"):
        analysis.changes(wider(10, 23), 0)


def test_gaps_cost_only_the_rows_they_are_in() -> None:
    rows, events = wider(1000, 24), wider(5, 25)
    rows.values[::10, WIDER.nodes.index("c")] = np.nan
    events.values[0, WIDER.nodes.index("f")] = np.nan
    found = Analysis(WIDER, "e", rows, OPTIONS, 26).events(events)
    assert np.isfinite(found.contributions).all()
    assert np.isnan(found.residual_z[0]).tolist() == [name == "f" for name in WIDER.nodes]
    assert np.isfinite(found.evidence).all()


@pytest.mark.parametrize("name", ["median", "quantile", "quantile:0", "quantile:1.5", "quantile:x", "KL"])
def test_what_is_no_functional_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="it is one of mean"):
        functional_of(name)


def test_a_target_without_parents_is_its_own_cause() -> None:
    found = Analysis(DIAMOND, "a", diamond(500, 27), OPTIONS, 28).events(diamond(2, 29))
    np.testing.assert_allclose(found.contributions[:, 0], found.scores)
