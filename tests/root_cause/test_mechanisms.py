"""Mechanisms: what is fitted, and that noise and values lead to each other."""

import numpy as np
import pytest
from scipy import special, stats

from causal_spark.errors import TooFewRowsError
from causal_spark.root_cause.components import curve, level_columns, spline_columns, spline_knots
from causal_spark.root_cause.fitting import Parent, fit_continuous, fit_discrete
from causal_spark.root_cause.mechanisms import ContinuousMechanism, DiscreteMechanism
from causal_spark.root_cause.model import fit_model, noise_ranks
from causal_spark.root_cause.types import Floats, NodeTable
from tests.root_cause.systems import DIAMOND, continuous, diamond, diamond_noise, diamond_values


def test_splines_are_straight_outside_their_knots_and_smooth_inside() -> None:
    knots, heights = np.array([-1.0, 0.0, 0.5, 2.0]), np.array([0.0, 1.0, -1.0, 0.5])
    found = curve(knots, heights)
    np.testing.assert_allclose(found(knots), heights, atol=1e-4)
    for start in (-1.0, 2.0):
        away = start + np.sign(start) * np.array([0.0, 1.0, 2.0, 30.0])
        slopes = np.diff(found(away)) / np.diff(away)
        np.testing.assert_allclose(slopes, slopes[0])
    grid = np.linspace(-2, 3, 5001)
    assert np.abs(np.diff(found(grid), 2)).max() < 1e-4


def test_columns_of_splines_span_the_curves_through_their_knots() -> None:
    values = np.random.default_rng(0).normal(size=200)
    knots = spline_knots(values, 5)
    assert knots is not None
    heights = np.array([0.0, 2.0, -1.0, 0.5, 3.0])
    np.testing.assert_allclose(spline_columns(knots, values) @ heights[1:], curve(knots, heights)(values), atol=1e-4)


def test_knots_that_coincide_are_no_knots() -> None:
    assert spline_knots(np.repeat([0.0, 1.0], 50), 5) is None
    assert spline_knots(np.zeros(50), 3) is None


def test_lines_are_those_of_least_squares() -> None:
    rows = diamond(500, 1)
    parents = [Parent(rows.values[:, 1], 0), Parent(rows.values[:, 2], 0)]
    found = fit_continuous(rows.values[:, 3], parents, "linear")
    design = np.column_stack([np.ones(500), rows.values[:, 1:3]])
    expected = np.linalg.lstsq(design, rows.values[:, 3], rcond=None)[0]
    np.testing.assert_allclose([found.intercept, *(float(one(np.array(1.0))) for one in found.components)], expected)
    np.testing.assert_allclose(found.residuals, rows.values[:, 3] - design @ expected, atol=1e-12)
    assert found.name == "linear"


def test_splines_are_taken_where_there_is_a_bend_and_only_there() -> None:
    chosen = []
    for seed in range(20):
        values = diamond(1000, seed, bent=True).values
        parents = [Parent(values[:, 1], 0), Parent(values[:, 2], 0)]
        found = fit_continuous(values[:, 3], parents, "additive")
        chosen.append([type(one).__name__ for one in found.components])
    # The first enters by a hyperbolic tangent, the second by a line.
    assert sum(one[0] == "Curve" for one in chosen) >= 18
    assert sum(one[1] == "Line" for one in chosen) >= 18


def test_a_bend_is_found_to_within_its_error() -> None:
    generator = np.random.default_rng(3)
    parent = generator.normal(size=4000)
    found = fit_continuous(2 * np.tanh(2 * parent) + 0.5 * generator.normal(size=4000), [Parent(parent, 0)], "additive")
    grid = np.linspace(-1.8, 1.8, 50)
    fitted = found.expected([grid])
    assert np.abs(fitted - 2 * np.tanh(2 * grid)).max() < 0.15
    assert found.name == "additive"


def test_a_discrete_parent_enters_by_steps() -> None:
    generator = np.random.default_rng(4)
    level = generator.integers(3, size=3000).astype(float)
    found = fit_continuous(
        np.array([0.0, 2.0, -1.0])[level.astype(int)] + generator.normal(size=3000), [Parent(level, 3)], "additive"
    )
    steps = found.expected([np.array([0.0, 1.0, 2.0])])
    assert np.abs(steps - [0.0, 2.0, -1.0]).max() < 0.15
    assert found.n_parameters == 2


def test_parents_that_say_the_same_do_no_harm() -> None:
    values = diamond(300, 5).values
    twice = [Parent(values[:, 1], 0), Parent(2 * values[:, 1] + 1, 0), Parent(np.full(300, 7.0), 0)]
    once = fit_continuous(values[:, 3], [Parent(values[:, 1], 0)], "linear")
    found = fit_continuous(values[:, 3], twice, "linear")
    np.testing.assert_allclose(found.residuals, once.residuals, atol=1e-9)


def test_too_few_rows_are_told() -> None:
    with pytest.raises(TooFewRowsError, match="4 rows are too few"):
        fit_continuous(np.arange(4.0), [Parent(np.arange(4.0), 0)], "linear")
    table = continuous(diamond(6, 0).values)
    table.values[0, 1] = np.nan
    with pytest.raises(TooFewRowsError, match=r"Node 'd' and its parents are known in 5 of 6 rows"):
        fit_model(DIAMOND, table, "linear")


def test_a_logit_finds_the_chances() -> None:
    generator = np.random.default_rng(6)
    parent, level = generator.normal(size=20_000), generator.integers(2, size=20_000).astype(float)
    logits = np.stack([np.zeros(20_000), 1.0 + parent, -0.5 - parent + level], axis=1)
    chances = special.softmax(logits, axis=1)
    values = (generator.random(20_000)[:, None] > chances.cumsum(axis=1)).sum(axis=1).astype(float)
    found = fit_discrete(values, 3, [Parent(parent, 0), Parent(level, 2)])
    told = np.exp(found.log_chances([parent, level]))
    assert np.abs(told - chances).mean() < 0.01
    assert found.surprises.mean() == pytest.approx(-np.log(told[np.arange(20_000), values.astype(int)]).mean())


def test_a_discrete_node_without_parents_has_the_shares_of_its_levels() -> None:
    found = fit_discrete(np.array([0.0] * 30 + [1.0] * 70), 3, [])
    np.testing.assert_allclose(np.exp(found.log_chances([])), [0.3, 0.7, 0.0], atol=0.005)
    assert np.exp(found.log_chances([]))[2] > 0


def posterior(observed: int, n_draws: int = 40_000) -> tuple[DiscreteMechanism, Floats, list[Floats]]:
    values = np.random.default_rng(7).integers(3, size=500).astype(float)
    parent = values + np.random.default_rng(8).normal(size=500)
    found = fit_discrete(values, 3, [Parent(parent, 0)])
    given = [np.asarray(0.7)]
    ranks = noise_ranks(found, n_draws, 9, 0)
    return found, found.posterior_draws(ranks, given, observed), given


@pytest.mark.parametrize("observed", [0, 1, 2])
def test_noise_given_a_level_leads_to_that_level(observed: int) -> None:
    mechanism, noise, given = posterior(observed)
    parts = [component(value) for component, value in zip(mechanism.components, given, strict=True)]
    assert (mechanism.value(parts, noise) == observed).all()


def test_noise_given_levels_in_their_proportions_is_gumbel() -> None:
    mechanism, _, given = posterior(0)
    chances = np.exp(mechanism.log_chances(given))
    pooled = np.concatenate([posterior(level, int(40_000 * chances[level]))[1] for level in range(3)])
    for level in range(3):
        assert stats.kstest(pooled[:, level], "gumbel_r").statistic < 0.015
    assert np.abs(np.corrcoef(pooled.T) - np.eye(3)).max() < 0.02


def test_noise_leads_back_to_the_rows_it_came_from() -> None:
    rows = diamond(400, 10, bent=True)
    model = fit_model(DIAMOND, rows, "additive")
    noises = model.noises(rows.values)
    found = np.empty_like(noises)
    for node, mechanism in enumerate(model.mechanisms):
        assert isinstance(mechanism, ContinuousMechanism)
        found[:, node] = mechanism.expected(model.parents_of(node, found)) + noises[:, node]
    np.testing.assert_allclose(found, rows.values, atol=1e-12)


def test_draws_of_noise_are_the_residuals_in_another_order() -> None:
    model = fit_model(DIAMOND, diamond(500, 11), "linear")
    drawn = model.draw(500, 3)
    for mechanism, noise in zip(model.mechanisms, drawn.of, strict=True):
        assert isinstance(mechanism, ContinuousMechanism)
        np.testing.assert_array_equal(np.sort(noise), np.sort(mechanism.residuals))
    correlations = np.corrcoef(np.stack(model.draw(20_000, 3).of))
    assert np.abs(correlations - np.eye(5)).max() < 0.03
    again = model.draw(500, 3)
    assert all((one == other).all() for one, other in zip(drawn.of, again.of, strict=True))


def test_total_effects_are_those_of_the_reduced_form() -> None:
    model = fit_model(DIAMOND, diamond(100_000, 12), "linear")
    effects, base = model.total_effects(4)
    expected = [0.8 * 2 * 1.5 - 0.5 * 0.7, 1.5, 0.7, 1.0, 1.0]
    np.testing.assert_allclose(effects, expected, atol=0.05)
    assert base == pytest.approx(0.0, abs=0.05)


def test_residual_z_tells_a_push_in_standard_deviations() -> None:
    rows = diamond(5000, 13)
    model = fit_model(DIAMOND, rows, "linear")
    noise = diamond_noise(1, 14)
    noise[0, 1] = 6.0
    z = model.residual_z(diamond_values(noise))
    assert z[0, 1] == pytest.approx(6.0, abs=0.3)
    assert np.abs(z[0, [0, 2, 3, 4]]).max() < 4
    with_gap = diamond_values(noise)
    with_gap[0, 2] = np.nan
    gone = model.residual_z(with_gap)
    assert np.isnan(gone[0]).tolist() == [False, False, True, True, False]


def test_residual_z_of_a_discrete_node_is_its_surprise() -> None:
    values = np.array([0.0] * 90 + [1.0] * 10)
    model = fit_model(DIAMOND.within((0,)), NodeTable(values[:, None], (2,)), "linear")
    z = model.residual_z(np.array([[0.0], [1.0], [np.nan]]))[:, 0]
    np.testing.assert_allclose(z[:2], np.sqrt(-2 * np.log([0.9, 0.1])), atol=0.02)
    assert np.isnan(z[2])


def test_level_columns_leave_the_first_out() -> None:
    np.testing.assert_array_equal(level_columns(np.array([0.0, 2.0]), 3), [[0, 0], [0, 1]])
