"""The shared low-rank solver against a slow proximal-gradient oracle, and its certificate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_spark.panel import low_rank
from causal_spark.panel.low_rank import LowRankFits, low_rank_fit
from causal_spark.panel.two_way import TwoWayOperator, identified_cells, two_way_fit
from causal_spark.panel.types import Floats
from tests.panel import panels


@dataclass(frozen=True)
class Oracle:
    prediction: Floats
    objective: float


def oracle(outcome: Floats, weights: Floats, lambda_nn: float, iterations: int = 20_000) -> Oracle:
    """Accelerated proximal gradient in L, effects profiled out by a dense pseudo-inverse."""
    n, t = outcome.shape
    rows, columns = np.divmod(np.arange(n * t), t)
    dummies = np.hstack([np.eye(n)[rows], np.eye(t)[columns]])
    root = np.sqrt(weights.ravel())
    effects_of = dummies @ np.linalg.pinv(dummies * root[:, None]) * root
    step = 1.0 / (2.0 * weights.max())
    low_rank = previous = np.zeros((n, t))
    momentum = 1.0
    for _ in range(iterations):
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = low_rank + (momentum - 1) / following * (low_rank - previous)
        residual = (outcome - ahead).ravel()
        residual = residual - effects_of @ residual
        u, s, v = np.linalg.svd(ahead + step * 2 * weights * residual.reshape(n, t), full_matrices=False)
        previous, low_rank = low_rank, (u * np.maximum(s - step * lambda_nn, 0)) @ v
        # Restart the momentum when it points uphill.
        momentum = 1.0 if ((ahead - low_rank) * (low_rank - previous)).sum() > 0 else following
    rest = (outcome - low_rank).ravel()
    effects = (effects_of @ rest).reshape(n, t)
    squares = (weights * (outcome - low_rank - effects) ** 2).sum()
    return Oracle(effects + low_rank, squares + lambda_nn * np.linalg.norm(low_rank, "nuc"))


def objective(outcome: Floats, weights: Floats, lambda_nn: float, fits: LowRankFits) -> float:
    low_rank = fits.unit_factors[0] @ fits.period_factors[0].T
    squares = (weights * (outcome - fits.predictions()[0]) ** 2).sum()
    return float(squares + lambda_nn * np.linalg.norm(low_rank, "nuc"))


@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(2, 7),
    t=st.integers(2, 7),
    penalty=st.floats(0.05, 3.0),
    spread=st.floats(0.0, 1.0),
    thorough=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_solver_reaches_the_oracles_optimum_on_small_panels(
    n: int, t: int, penalty: float, spread: float, thorough: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t))
    outcome /= outcome.std()
    weights = np.exp(spread * rng.normal(size=(n, t))) * (rng.random((n, t)) < 0.85)
    weights[0, 0] = 1.0
    fits = low_rank_fit(outcome, weights[None], np.array([penalty]), tolerance=1e-8, thorough=thorough)
    slow = oracle(outcome, weights, penalty, 4000)
    assert fits.converged.all()
    assert objective(outcome, weights, penalty, fits) <= slow.objective * (1 + 1e-7) + 1e-12
    used = weights > 0
    np.testing.assert_allclose(fits.predictions()[0][used], slow.prediction[used], atol=2e-4)


@pytest.mark.parametrize("penalty", [0.3, 1.0])
def test_predictions_at_unused_cells_equal_the_oracles(penalty: float) -> None:
    outcome = panels.untreated_outcomes(12, 9, seed=1)
    outcome /= outcome.std()
    weights = np.ones(outcome.shape)
    weights[9:, 6:] = 0.0
    fits = low_rank_fit(outcome, weights[None], np.array([penalty]), tolerance=1e-8)
    np.testing.assert_allclose(fits.predictions()[0], oracle(outcome, weights, penalty).prediction, atol=1e-6)


@pytest.mark.parametrize(("time", "unit", "penalty"), [(0.0, 0.0, 0.3), (0.3, 1.0, 0.05), (1.0, 3.0, 0.01)])
def test_a_batch_equals_its_problems_and_its_certificate_is_true(time: float, unit: float, penalty: float) -> None:
    rng = np.random.default_rng(2)
    outcome = panels.untreated_outcomes(14, 11, seed=2)
    outcome /= outcome.std()
    mask = np.ones(outcome.shape)
    mask[10:, 7:] = 0.0
    rows, columns = np.array([12, 3, 10]), np.array([8, 5, 10])
    decay = (
        np.exp(-unit * rng.random((3, 14)))[:, :, None]
        * np.exp(-time * np.abs(np.arange(11) - columns[:, None]))[:, None, :]
    )
    weights = decay * mask
    weights[np.arange(3), rows, columns] = 0.0
    tolerance = 1e-7
    fits = low_rank_fit(outcome, weights, np.full(3, penalty), (rows, columns), tolerance)
    assert fits.converged.all()
    for k in range(3):
        alone = low_rank_fit(
            outcome, weights[k : k + 1], np.array([penalty]), (rows[k : k + 1], columns[k : k + 1]), tolerance
        )
        cell = fits.predictions()[k, rows[k], columns[k]]
        assert alone.predictions_at(rows[k : k + 1], columns[k : k + 1])[0] == pytest.approx(cell, abs=1e-6)
        # Duality by hand: scaled residuals are feasible, and no primal value lies below the dual's.
        dual = 2 * weights[k] * (outcome - fits.predictions()[k])
        np.testing.assert_allclose([*dual.sum(axis=0), *dual.sum(axis=1)], 0.0, atol=1e-8)
        dual *= min(1.0, penalty / np.linalg.norm(dual, 2))
        safe = np.where(weights[k] > 0, weights[k], 1.0)
        lower = (dual * outcome).sum() - (dual**2 / (4 * safe)).sum()
        primal = objective(outcome, weights[k], penalty, alone)
        assert -1e-10 <= (primal - lower) / primal <= 10 * tolerance * 1.01


def test_weights_over_many_orders_of_magnitude_give_finite_certified_predictions() -> None:
    outcome = panels.untreated_outcomes(12, 10, seed=3)
    outcome /= outcome.std()
    decay = np.exp(-np.linspace(0, 120, 12))[:, None] * np.exp(-4.0 * np.abs(np.arange(10) - 9))
    decay[0, 9] = 0.0
    fits = low_rank_fit(outcome, decay[None], np.array([1e-3]), (np.array([0]), np.array([9])), 1e-6)
    assert fits.converged.all()
    assert np.isfinite(fits.predictions()).all()


def test_a_panel_with_many_units_is_solved_without_a_system_as_wide_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome = panels.untreated_outcomes(30, 8, seed=6)
    outcome /= outcome.std()
    weights = np.exp(-0.5 * np.abs(np.arange(8) - 7)) * np.ones((1, 30, 1))
    weights[0, 25:, 6:] = 0.0
    cell = (np.array([29]), np.array([7]))
    joint = low_rank_fit(outcome, weights, np.array([0.3]), cell, 1e-8)
    monkeypatch.setattr(low_rank, "_JOINT_ROWS", 10)
    apart = low_rank_fit(outcome, weights, np.array([0.3]), cell, 1e-8)
    assert apart.converged.all()
    assert apart.predictions_at(*cell)[0] == pytest.approx(joint.predictions_at(*cell)[0], abs=1e-6)
    assert (apart.sweeps != joint.sweeps).any()


def test_a_large_or_infinite_penalty_leaves_the_two_way_fit() -> None:
    outcome = panels.untreated_outcomes(8, 12, seed=4)
    weights = np.random.default_rng(0).random((2, 8, 12))
    fits = low_rank_fit(outcome, weights, np.array([np.inf, 1e6]))
    assert fits.converged.all()
    assert (fits.rank == 0).all()
    for k in range(2):
        np.testing.assert_allclose(fits.predictions()[k], two_way_fit(outcome, weights[k]), atol=1e-10)


def test_an_iteration_limit_is_reported_as_not_converged() -> None:
    outcome = panels.untreated_outcomes(12, 9, seed=5)
    fits = low_rank_fit(outcome, np.ones((1, 12, 9)), np.array([0.05]), tolerance=1e-9, max_sweeps=2)
    assert not fits.converged.any()
    assert fits.gap[0] > 1e-8


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan])
def test_a_penalty_that_is_not_positive_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="lambda_nn"):
        low_rank_fit(np.ones((3, 3)), np.ones((1, 3, 3)), np.array([penalty]))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 8), t=st.integers(1, 8), share=st.floats(0.1, 1.0), seed=st.integers(0, 10**6))
def test_batched_effects_equal_the_single_fit_on_any_mask(n: int, t: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t))
    weights = np.exp(rng.normal(size=(3, n, t))) * (rng.random((3, n, t)) < share)
    alpha, beta = TwoWayOperator(weights).effects(weights * outcome)
    for k in range(3):
        linked = identified_cells(weights[k] > 0)
        both = (alpha[k][:, None] + beta[k])[linked]
        np.testing.assert_allclose(both, two_way_fit(outcome, weights[k])[linked], atol=1e-9)
