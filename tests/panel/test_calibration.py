"""The model fitted to a panel: its published scales, and draws that have its moments."""

from __future__ import annotations

import numpy as np
import pytest

from causal_spark.panel.calibration import Calibration, calibrate, draw_treated, logit_probabilities
from causal_spark.panel.types import Bools, Floats
from tests.panel.panels import cps, prop99, pwt, untreated_outcomes


def size(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def everywhere(outcome: Floats) -> Bools:
    return np.ones(outcome.shape, dtype=bool)


def fitted(outcome: Floats, rank: int = 4) -> Calibration:
    return calibrate(outcome, everywhere(outcome), rank)


# Root mean squares of the additive and the interactive part, standard deviation of the noise, AR(2) coefficients, of
# the four panels of Arkhangelsky et al. (2021); the AR coefficients agree with those in the authors' supplement.
@pytest.mark.parametrize(
    ("outcome", "additive", "interactive", "noise", "ar"),
    [
        pytest.param(cps("log_wage").outcome, 0.992, 0.100, 0.098, (0.01, -0.06), id="log_wage"),
        pytest.param(cps("hours").outcome, 0.789, 0.402, 0.575, (0.06, 0.00), id="hours"),
        pytest.param(pwt().outcome, 0.972, 0.229, 0.069, (0.913, -0.221), id="log_gdp"),
        pytest.param(prop99().outcome, 0.935, 0.337, 0.166, (0.506, -0.058), id="smoking"),
    ],
)
def test_scales_of_the_published_panels(
    outcome: Floats, additive: float, interactive: float, noise: float, ar: tuple[float, float]
) -> None:
    found = fitted(outcome)
    assert size(found.additive) == pytest.approx(additive, abs=6e-4)
    assert size(found.interactive) == pytest.approx(interactive, abs=6e-4)
    assert np.sqrt(np.diag(found.covariance).mean()) == pytest.approx(noise, abs=6e-4)
    assert found.ar == pytest.approx(ar, abs=4e-3)


def test_additive_and_interactive_are_the_best_approximation_of_their_rank() -> None:
    outcome = untreated_outcomes(20, 14, seed=1, rank=3)
    found = fitted(outcome)
    standard = (outcome - found.centre) / found.scale
    values = np.linalg.svd(standard, compute_uv=False)
    residual = standard - found.additive - found.interactive
    assert np.linalg.norm(residual) == pytest.approx(np.linalg.norm(values[4:]))
    assert np.abs(found.interactive.mean(axis=0)).max() < 1e-12
    assert np.abs(found.interactive.mean(axis=1)).max() < 1e-12
    assert np.linalg.norm(found.covariance) == pytest.approx(np.linalg.norm(residual.T @ residual / 20))


def test_draws_have_the_models_mean_and_covariance_in_units_of_the_outcome() -> None:
    outcome = 50.0 + 7.0 * pwt().outcome[:12, :8]
    found = fitted(outcome, rank=2)
    draws = found.draw(np.random.default_rng(3), 20_000)
    assert draws.shape == (20_000, 12, 8)
    standard = (draws - found.centre) / found.scale
    noise = standard - found.additive - found.interactive
    error = np.sqrt(found.covariance.max() / 20_000)
    assert np.abs(noise.mean(axis=0)).max() < 5 * error
    rows = noise.reshape(-1, 8)
    assert rows.T @ rows / len(rows) == pytest.approx(found.covariance, abs=0.02 * found.covariance.max())
    # Rows are independent of one another.
    between = np.einsum("nit,njt->ij", noise, noise) / noise.shape[0] / 8
    spread = np.sqrt(np.outer(np.diag(between), np.diag(between)))
    assert np.abs((between / spread)[~np.eye(12, dtype=bool)]).max() < 0.05


def test_autocorrelation_of_the_covariance_is_that_of_the_ar_process() -> None:
    # Autocorrelations of x_t = a x_{t-1} + b x_{t-2} + e_t: a / (1 - b), then by the recursion.
    rng = np.random.default_rng(5)
    noise = np.zeros((500, 130))
    for t in range(2, 130):
        noise[:, t] = 0.5 * noise[:, t - 1] + 0.3 * noise[:, t - 2] + rng.standard_normal(500)
    loud = 1e3 * rng.standard_normal((500, 1)) * rng.standard_normal((1, 100))
    found = fitted(loud + noise[:, 30:], rank=1)
    assert found.ar == pytest.approx((0.5, 0.3), abs=0.03)
    first = found.ar[0] / (1 - found.ar[1])
    correlation = found.covariance / found.covariance[0, 0]
    assert correlation[0, 1] == pytest.approx(first)
    assert correlation[0, 2] == pytest.approx(found.ar[0] * first + found.ar[1])
    assert correlation[3, 0] == pytest.approx(correlation[0, 3])


def test_equal_seeds_give_equal_draws_and_shorter_runs_begin_longer_ones() -> None:
    found = fitted(untreated_outcomes(9, 7, seed=2))
    long = found.draw(np.random.default_rng(1), 5)
    assert np.array_equal(long[:2], found.draw(np.random.default_rng(1), 2))
    assert not np.array_equal(long, found.draw(np.random.default_rng(2), 5))


def test_parts_can_be_taken_out() -> None:
    found = fitted(prop99().outcome)
    assert not found.without(additive=True).additive.any()
    assert not found.without(interactive=True).interactive.any()
    white = found.without(autocorrelation=True)
    assert np.trace(white.covariance) == pytest.approx(np.trace(found.covariance))
    assert np.count_nonzero(white.covariance) == white.covariance.shape[0]
    assert np.array_equal(found.without().covariance, found.covariance)


def test_cells_that_are_not_used_are_not_read() -> None:
    panel = prop99()
    used = ~panel.treated
    found = calibrate(panel.outcome, used)
    for outcome in (np.where(used, panel.outcome, np.nan), np.where(used, panel.outcome, 1e9)):
        other = calibrate(outcome, used)
        assert np.array_equal(other.additive + other.interactive, found.additive + found.interactive)
        assert np.array_equal(other.covariance, found.covariance)


def test_cells_that_are_not_used_are_completed_to_within_the_noise() -> None:
    truth = untreated_outcomes(40, 30, seed=8, noise=0.0)
    rng = np.random.default_rng(8)
    used = rng.random(truth.shape) > 0.1
    found = calibrate(truth + 0.3 * rng.standard_normal(truth.shape), used)
    completed = found.centre + found.scale * (found.additive + found.interactive)
    assert size((completed - truth)[~used]) < 0.2
    assert size((completed - truth)[used]) < 0.2


def test_a_units_missing_end_does_not_run_away() -> None:
    panel = prop99()
    errors = []
    for row in range(8):
        used = np.ones(panel.outcome.shape, dtype=bool)
        used[row, -12:] = False
        found = calibrate(panel.outcome, used)
        errors.append(panel.outcome[~used] / found.scale - found.centre / found.scale)
        errors[-1] -= (found.additive + found.interactive)[~used]
    # Without shrinkage 1.00 on these eight states after 500 steps, and growing.
    assert size(np.array(errors)) < 0.55


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3), (4, 3), (1, 6), (3, 1), (5, 40)])
def test_tiny_panels_give_finite_draws(shape: tuple[int, int]) -> None:
    outcome = np.random.default_rng(4).normal(size=shape)
    draws = fitted(outcome).draw(np.random.default_rng(1), 3)
    assert draws.shape == (3, *shape)
    assert np.isfinite(draws).all()


def test_noise_that_all_but_explodes_is_kept_stationary() -> None:
    walk = np.cumsum(np.random.default_rng(6).normal(size=(40, 30)), axis=1)
    found = fitted(walk, rank=1)
    assert np.abs(np.roots([1.0, *-found.ar])).max() <= 0.98 + 1e-9
    assert np.linalg.eigvalsh(found.covariance).min() > 0


def test_a_constant_panel_is_drawn_as_it_is() -> None:
    draws = fitted(np.full((5, 6), 3.0)).draw(np.random.default_rng(1), 2)
    assert draws == pytest.approx(3.0)


@pytest.mark.parametrize(("rank", "used"), [(0, True), (-1, True), (2, False)])
def test_what_cannot_be_fitted_is_refused(rank: int, used: bool) -> None:
    with pytest.raises(ValueError, match="rank must be at least 1"):
        calibrate(np.ones((4, 4)), np.full((4, 4), used), rank)


def test_a_logit_gives_back_the_expected_number_and_orders_by_the_factor() -> None:
    # With an intercept fitted probabilities add up to the number of chosen units (up to the ridge).
    factors = fitted(cps("log_wage").outcome).unit_factors
    chosen = cps("log_wage").ever_treated
    probability = logit_probabilities(factors, chosen)
    assert probability.sum() == pytest.approx(chosen.sum(), abs=0.05)
    assert probability[chosen].mean() > 2 * probability[~chosen].mean()


def test_a_logit_agrees_with_the_maximum_of_the_likelihood() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(2)
    factors = rng.normal(size=(60, 2)) / np.sqrt(60)
    chosen = rng.random(60) < 1 / (1 + np.exp(-np.sqrt(60) * factors[:, 0]))
    design = np.column_stack([np.ones(60), factors * np.sqrt(60)])

    def minus_log_likelihood(b: Floats) -> float:
        return float(np.logaddexp(0, design @ b).sum() - (design @ b)[chosen].sum())

    expected = 1 / (1 + np.exp(-design @ minimize(minus_log_likelihood, np.zeros(3), tol=1e-12).x))
    assert logit_probabilities(factors, chosen) == pytest.approx(expected, abs=1e-3)


def test_a_logit_of_a_separable_policy_stays_finite() -> None:
    factors = np.linspace(-1, 1, 30)[:, None]
    probability = logit_probabilities(factors, factors[:, 0] > 0)
    assert np.isfinite(probability).all()
    assert (probability[:14] < 0.05).all()
    assert (probability[-14:] > 0.95).all()


@pytest.mark.parametrize("value", [True, False])
def test_a_logit_needs_units_with_and_without_the_policy(value: bool) -> None:
    with pytest.raises(ValueError, match="must have the policy"):
        logit_probabilities(np.ones((5, 1)), np.full(5, value))


def test_no_more_than_so_many_units_are_treated_and_never_none() -> None:
    rng = np.random.default_rng(9)
    probability = np.full(20, 0.5)
    drawn = np.array([draw_treated(probability, 4, rng) for _ in range(2000)])
    assert set(drawn.sum(axis=1)) <= {1, 2, 3, 4}
    # All units alike: each is treated in about a fifth of the draws.
    assert np.abs(drawn.mean(axis=0) - 0.2).max() < 0.05
    assert {int(draw_treated(np.zeros(20), 4, rng).sum()) for _ in range(20)} == {4}


def test_units_are_treated_by_their_probability() -> None:
    probability = np.array([0.9, 0.5, 0.1, 0.0])
    rng = np.random.default_rng(10)
    drawn = np.array([draw_treated(probability, 3, rng) for _ in range(4000)])
    # Where nobody comes up (.045 of the draws) three of all four are treated.
    expected = probability + 0.1 * 0.5 * 0.9 * 0.75
    assert drawn.mean(axis=0) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("at_most", [0, 5, 9])
def test_at_most_must_leave_a_control_unit(at_most: int) -> None:
    with pytest.raises(ValueError, match="at_most must lie between 1 and 4"):
        draw_treated(np.full(5, 0.5), at_most, np.random.default_rng(1))
