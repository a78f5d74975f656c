"""The adaptive average: its weights by numerical integration, its limits, its equivariances, what it declines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from causal_spark.errors import (
    ConstantOutcomeError,
    NoControlUnitsError,
    NotIdentifiedError,
    NoTreatedCellsError,
    SolverError,
    UnsupportedCovariatesError,
    UnsupportedPatternError,
)
from causal_spark.panel.constancy import Assessment, ConstancyOptions, assess, growth, read_block
from causal_spark.panel.dwcp_adaptive import DwcpAdaptiveOptions, combine, dwcp_adaptive, dwcp_adaptive_cost, gls
from causal_spark.panel.sdid import sdid
from causal_spark.panel.summary import att, effect_cells
from causal_spark.panel.types import Constancy, Floats, Panel, PanelSize, Penalties
from tests.panel import panels

COVARIANCE = np.array(
    [[0.04, 0.03, 0.01, 0.0], [0.03, 0.09, 0.02, -0.01], [0.01, 0.02, 0.05, 0.0], [0.0, -0.01, 0.0, 0.02]]
)


def assessment(estimates: Floats, covariance: Floats, slopes: Floats, n: int = 32) -> Assessment:
    """What `combine` reads; the rest is empty."""
    nothing = Constancy(None, None, None)
    return Assessment(estimates, covariance, slopes, nothing, n, True, None, 0)


def likelihood(y: Floats, covariance: Floats) -> tuple[float, float]:
    """Mean of the first two, the rest having mean zero, and its marginal likelihood: sums over a fine grid of means."""
    direction = np.r_[1.0, 1.0, np.zeros(y.size - 2)]
    means = np.linspace(-30.0, 30.0, 20_001)
    density = multivariate_normal(np.zeros(y.size), covariance).pdf(y - means[:, None] * direction)
    return float(means @ density / density.sum()), float(density.sum() * (means[1] - means[0]))


@pytest.mark.parametrize("y", [[1.0, 1.5, 0.2, -0.1], [-2.0, 0.5, 0.0, 0.9]])
def test_least_squares_mean_and_likelihood_equal_sums_over_a_grid(y: list[float]) -> None:
    mean, log = gls(np.array(y), COVARIANCE)
    expected, mass = likelihood(np.array(y), COVARIANCE)
    other = gls(np.array([1.0, 1.0, 0.0, 0.0]), COVARIANCE)[1]
    assert mean == pytest.approx(expected, abs=1e-6)
    assert log - other == pytest.approx(np.log(mass / likelihood(np.r_[1.0, 1.0, 0.0, 0.0], COVARIANCE)[1]), abs=1e-5)


def test_independent_estimates_are_weighted_by_precision() -> None:
    assert gls(np.array([1.0, 3.0]), np.diag([1.0, 3.0]))[0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("y", "slopes"),
    [([0.5, 0.6, 0.1, 0.0], [0.8, -0.3]), ([1.2, 0.4, 0.9, -0.2], [0.9, 0.2]), ([0.3, 0.0, 0.2], [0.5])],
)
def test_the_average_weighs_amounts_of_change_by_their_likelihood(y: list[float], slopes: list[float]) -> None:
    covariance = COVARIANCE[: len(y), : len(y)]
    estimates, moved = np.array(y), np.array(slopes)
    means, masses = [], []
    for change in (0.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        sigma = change * np.sqrt(covariance[2, 2])
        # The linear contrast changes by sigma, the quadratic by half of it, and c by its slopes in them and by more.
        spread = covariance.copy()
        for k, size in enumerate([sigma, sigma / 2][: len(slopes)]):
            direction = np.zeros(len(y))
            direction[0], direction[2 + k] = moved[k], 1.0
            spread += size**2 * np.outer(direction, direction)
        spread[0, 0] += sigma**2 * (moved[0] ** 2 + sum(moved[1:] ** 2) / 4)
        mean, mass = likelihood(estimates, spread)
        means.append(mean)
        masses.append(mass)
    prior = np.array([0.1] + 5 * [0.18])
    weight = prior * masses / (prior @ masses)
    found, constancy = combine(assessment(estimates, covariance, moved))
    assert found == pytest.approx(weight @ means, abs=1e-5)
    assert constancy == pytest.approx(weight[0], abs=1e-5)


def test_estimates_that_agree_are_kept_and_a_huge_change_retreats_to_sdid() -> None:
    slopes = np.array([0.9, 0.1])
    same, weight = combine(assessment(np.array([1.3, 1.3, 0.0, 0.0]), COVARIANCE, slopes))
    assert same == pytest.approx(1.3)
    assert weight is not None
    assert weight > 0.5
    changing = np.array([1.3 + 0.9 * 8.0, 1.3, 8.0, 0.0])
    found, none = combine(assessment(changing, COVARIANCE, slopes))
    assert abs(found - 1.3) < 0.02 * abs(changing[0] - changing[1])
    assert none is not None
    assert none < 1e-10


def test_one_period_is_a_plain_least_squares_mean() -> None:
    y, covariance = np.array([1.0, 2.0]), COVARIANCE[:2, :2]
    assert combine(assessment(y, covariance, np.zeros(0))) == (gls(y, covariance)[0], None)


def test_estimates_without_errors_are_taken_as_they_are_and_no_panels_are_said_as_such() -> None:
    zero = np.zeros((4, 4))
    assert combine(assessment(np.array([1.0, 2.0, 0.0, 0.0]), zero, np.ones(2))) == (2.0, None)
    with pytest.raises(SolverError) as caught:
        combine(assessment(np.ones(4), zero, np.ones(2), n=0))
    assert caught.value.hint


PANELS: dict[str, Callable[[], Panel]] = {
    "block": lambda: panels.block_panel(14, 16, 3, 4, seed=1),
    "staggered": lambda: panels.staggered_panel(14, 16, (10, 10, 13), seed=2),
    "one unit": lambda: panels.block_panel(12, 16, 1, 5, seed=3),
    "two periods": lambda: panels.block_panel(12, 14, 2, 2, seed=4),
    "one period": lambda: panels.block_panel(12, 14, 2, 1, seed=5),
    "missing": lambda: missing_panel(),
    "no placebos": lambda: panels.block_panel(2, 5, 1, 2, seed=6),
}


def missing_panel() -> Panel:
    """Cells missing at random, a treated period of all treated units, and half of the controls' first treated one."""
    panel = panels.block_panel(20, 15, 3, 5, seed=7)
    outcome = panel.outcome.copy()
    outcome[17:, 11] = np.nan
    outcome[:17:2, 10] = np.nan
    outcome[np.random.default_rng(8).random(outcome.shape) < 0.03] = np.nan
    return panels.panel_of(outcome, panel.treated)


@pytest.mark.parametrize("name", PANELS)
def test_scale_shift_and_a_constant_effect_are_followed(name: str) -> None:
    panel = PANELS[name]()
    base = dwcp_adaptive(panel)
    estimate = att(panel, base)
    assert np.isfinite(estimate)
    assert base.converged
    assert base.constancy is not None
    single = name == "one period"
    assert (base.constancy.weight is None) == single
    assert (base.constancy.p_value is None) == single
    moved = replace(panel, outcome=1e3 * (panel.outcome + 50.0 + 4.0 * panel.treated))
    found = dwcp_adaptive(moved)
    assert att(moved, found) / 1e3 == pytest.approx(estimate + 4.0, abs=2e-5)
    assert found.constancy is not None
    assert found.constancy.weight == pytest.approx(base.constancy.weight, abs=1e-3)


@pytest.mark.parametrize("name", ["block", "staggered", "missing"])
def test_the_mean_effect_of_the_fit_is_the_combined_estimate(name: str) -> None:
    panel = PANELS[name]()
    fit = dwcp_adaptive(panel, seed=4)
    block = read_block(panel)
    found = assess(block, ConstancyOptions(), 4, with_sdid=True)
    estimate, weight = combine(found)
    assert att(panel, fit) == pytest.approx(estimate * block.scale, abs=1e-10)
    assert fit.constancy is not None
    assert fit.constancy.weight == weight
    # Effects differ by cell as those of synthetic DiD do; untreated cells are left as they are.
    other = sdid(panel)
    apart = (fit.counterfactual - other.counterfactual)[panel.target_cells]
    np.testing.assert_allclose(apart[np.isfinite(apart)], apart[np.isfinite(apart)][0], atol=1e-10)
    before = panel.control_cells
    np.testing.assert_array_equal(fit.counterfactual[before], other.counterfactual[before])
    np.testing.assert_array_equal(np.isfinite(effect_cells(panel, fit)), np.isfinite(effect_cells(panel, other)))


def test_equal_seeds_give_equal_bits_and_given_penalties_are_kept() -> None:
    panel = PANELS["block"]()
    fit = dwcp_adaptive(panel, seed=1)
    again = dwcp_adaptive(panel, penalties=fit.penalties, seed=1)
    np.testing.assert_array_equal(again.counterfactual, fit.counterfactual)
    assert again.penalties == fit.penalties
    assert att(panel, dwcp_adaptive(panel, seed=2)) != att(panel, fit)
    assert att(panel, dwcp_adaptive(panel, penalties=Penalties(0.1, 0.0, 1.0), seed=1)) != att(panel, fit)


def test_the_penalty_grows_with_the_number_of_units_beyond_a_hundred() -> None:
    assert [growth(n) for n in (20, 100, 400)] == [1.0, 1.0, 2.0]


def test_a_panel_without_noise_gives_its_effect() -> None:
    outcome = np.arange(12.0)[:, None] + np.sin(np.arange(14.0))
    treated = panels.treated_from(12, 14, (10, 10))
    panel = panels.panel_of(outcome + 2.5 * treated, treated)
    fit = dwcp_adaptive(panel)
    assert att(panel, fit) == pytest.approx(2.5, abs=1e-4)
    assert np.isfinite(fit.counterfactual[treated]).all()


def test_a_strong_change_is_seen_and_moves_the_estimate_towards_sdid() -> None:
    panel = panels.block_panel(16, 20, 4, 6, seed=9)
    # Largest in the middle of the treated periods, which the constant effect follows most.
    shape = np.array([-3.0, -1.0, 4.0, 4.0, -1.0, -3.0])
    moved = replace(panel, outcome=panel.outcome + np.where(panel.treated, np.r_[np.zeros(14), shape], 0.0))
    fit = dwcp_adaptive(moved)
    assert fit.constancy is not None
    assert fit.constancy.weight is not None
    assert fit.constancy.weight < 1e-6
    assert fit.constancy.p_value is not None
    assert fit.constancy.p_value < 1e-6
    block = read_block(moved)
    constant = float(assess(block, ConstancyOptions(), 0).estimates[0]) * block.scale
    safe = att(moved, sdid(moved))
    assert att(moved, fit) == pytest.approx(safe, abs=0.2 * abs(constant - safe))


def _all_treated(panel: Panel) -> Panel:
    treated = panel.treated.copy()
    treated[:, -1] = True
    return panel.with_treatment(treated)


def _on_and_off(panel: Panel) -> Panel:
    treated = panel.treated.copy()
    treated[-1, -1] = False
    return panel.with_treatment(treated)


@pytest.mark.parametrize(
    ("change", "error", "hint"),
    [
        (_on_and_off, UnsupportedPatternError, "dwcp"),
        (_all_treated, NoControlUnitsError, "did, mc or dwcp"),
        (lambda panel: panel.with_treatment(np.zeros_like(panel.treated)), NoTreatedCellsError, ""),
        (lambda panel: panel.with_treatment(np.repeat(panel.treated[-1:], 14, axis=0)), NotIdentifiedError, ""),
        (lambda panel: replace(panel, outcome=np.full(panel.outcome.shape, 0.1)), ConstantOutcomeError, ""),
        (lambda panel: replace(panel, covariates=panel.outcome[:, :, None]), UnsupportedCovariatesError, "dwcp"),
    ],
    ids=["on and off", "no donors", "nobody", "no controls", "constant", "covariates"],
)
def test_what_it_cannot_do_is_declined_with_a_hint(
    change: Callable[[Panel], Panel], error: type[Exception], hint: str
) -> None:
    with pytest.raises(error) as caught:
        dwcp_adaptive(change(PANELS["block"]()))
    assert caught.value.hint  # type: ignore[attr-defined]
    assert hint in caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize("penalties", [Penalties(-0.1), Penalties(lambda_nn=0.0), Penalties(float("nan"))])
def test_given_penalties_out_of_range_are_refused(penalties: Penalties) -> None:
    with pytest.raises(ValueError, match="lambda"):
        dwcp_adaptive(PANELS["block"](), penalties=penalties)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lambda_time": -1.0}, "lambda_time"),
        ({"lambda_nn": 0.0}, "lambda_nn"),
        ({"bootstraps": -1}, "bootstraps"),
        ({"unit_placebos": 2, "time_placebos": 2, "bootstraps": 2}, "bootstraps"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        DwcpAdaptiveOptions(**options)  # type: ignore[arg-type]


def test_cost_grows_with_the_panel_and_the_panels_to_calibrate_on() -> None:
    small, large = PanelSize(39, 31, 1, 12), PanelSize(200, 60, 10, 100)
    assert 0 < dwcp_adaptive_cost(small) < dwcp_adaptive_cost(large)
    assert dwcp_adaptive_cost(small, DwcpAdaptiveOptions(bootstraps=4)) < dwcp_adaptive_cost(small)
