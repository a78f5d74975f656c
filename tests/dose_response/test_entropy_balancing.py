import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from causal_spark.dose_response import entropy_balancing
from causal_spark.dose_response.entropy_balancing import balance


def feasible(n_replicates, n_rows, n_moments, seed):
    """Log base weights, moments, and targets that some positive weights meet."""
    rng = np.random.default_rng(seed)
    moments = rng.normal(size=(n_rows, n_moments))
    targets = rng.dirichlet(np.full(n_rows, 3.0), n_replicates) @ moments
    return np.log(rng.dirichlet(np.full(n_rows, 5.0), n_replicates)), moments, targets


def nearest(base, moments, targets):
    """Weights of least relative entropy to the base under the constraints, by scipy, on the primal problem."""
    constraints = np.column_stack([np.ones(len(base)), moments])
    found = minimize(
        lambda w: float(np.sum(w * np.log(w / base))),
        np.full(len(base), 1 / len(base)),
        jac=lambda w: np.log(w / base) + 1,
        bounds=[(1e-10, 1)] * len(base),
        constraints={
            "type": "eq",
            "fun": lambda w: constraints.T @ w - np.r_[1, targets],
            "jac": lambda w: constraints.T,
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success
    return found.x


@pytest.mark.parametrize(("n_rows", "n_moments"), [(8, 1), (15, 3), (20, 6)])
def test_weights_are_the_nearest_in_relative_entropy(n_rows, n_moments):
    log_base, moments, targets = feasible(2, n_rows, n_moments, seed=n_rows)
    found = balance(log_base, moments, targets)
    assert found.converged.all()
    for r in range(2):
        np.testing.assert_allclose(found.weights[r], nearest(np.exp(log_base[r]), moments, targets[r]), atol=2e-6)


@pytest.mark.parametrize(("n_rows", "n_moments"), [(30, 1), (100, 10), (500, 40)])
def test_moments_are_met_by_positive_weights_that_sum_to_one(n_rows, n_moments):
    log_base, moments, targets = feasible(5, n_rows, n_moments, seed=1)
    found = balance(log_base, moments, targets)
    assert found.converged.all()
    assert found.weights.min() > 0
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found.weights @ moments, targets, atol=1e-7)


def test_targets_close_to_the_end_of_what_is_possible_are_met():
    moments = np.linspace(-1, 1, 50)[:, None]
    found = balance(np.zeros((2, 50)), moments, np.array([[0.99], [-0.995]]))
    assert found.converged.all()
    np.testing.assert_allclose(found.weights @ moments, [[0.99], [-0.995]], atol=1e-7)


def test_targets_that_are_met_already_leave_the_base_weights():
    log_base, moments, _ = feasible(3, 40, 4, seed=2)
    base = np.exp(log_base)
    found = balance(log_base + np.array([[0.0], [5.0], [-800.0]]), moments, base @ moments)
    assert found.converged.all()
    np.testing.assert_allclose(found.weights, base, atol=1e-9)


def test_base_weights_are_respected():
    """Rows with equal moments keep the ratio of their base weights, and rows without any have none."""
    log_base, moments, targets = feasible(2, 40, 3, seed=3)
    moments[1] = moments[0]
    with np.errstate(divide="ignore"):
        log_base[:, -1] = np.log(0.0)
    found = balance(log_base, moments, targets)
    assert found.converged.all()
    np.testing.assert_allclose(np.log(found.weights[:, 1] / found.weights[:, 0]), log_base[:, 1] - log_base[:, 0])
    assert (found.weights[:, -1] == 0).all()
    without = balance(log_base[:, :-1], moments[:-1], targets)
    np.testing.assert_allclose(found.weights[:, :-1], without.weights, atol=1e-8)


def test_rows_that_count_double_are_rows_that_occur_twice():
    log_base, moments, targets = feasible(1, 30, 3, seed=4)
    counts = np.random.default_rng(4).integers(1, 4, 30)
    found = balance(log_base + np.log(counts), moments, targets).weights[0]
    repeated = balance(np.repeat(log_base, counts, axis=1), np.repeat(moments, counts, axis=0), targets).weights[0]
    np.testing.assert_allclose(np.bincount(np.repeat(np.arange(30), counts), weights=repeated), found, atol=1e-8)


def test_a_ridge_trades_each_miss_for_its_multiplier():
    """log(w / base) is linear in the moments, and each moment misses its target by -ridge times its multiplier."""
    log_base, moments, targets = feasible(3, 60, 4, seed=5)
    ridge = 0.3
    found = balance(log_base, moments, targets + 0.3, ridge)
    assert found.converged.all()
    design = np.column_stack([np.ones(60), moments])
    for r in range(3):
        tilt = np.log(found.weights[r]) - log_base[r]
        solution, *_ = np.linalg.lstsq(design, tilt)
        np.testing.assert_allclose(design @ solution, tilt, atol=1e-9)
        missed = found.weights[r] @ moments - targets[r] - 0.3
        np.testing.assert_allclose(missed, -ridge * solution[1:], atol=1e-7)
        assert np.abs(missed).min() > 1e-4


def test_a_ridge_makes_targets_possible_that_no_weights_meet():
    moments = np.linspace(-1, 1, 20)[:, None]
    assert not balance(np.zeros((1, 20)), moments, np.array([[1.5]])).converged[0]
    assert balance(np.zeros((1, 20)), moments, np.array([[1.5]]), 0.1).converged[0]


@pytest.mark.parametrize("target", [1.0001, 1.5, 100.0, -3.0])
def test_targets_that_no_weights_meet_are_told_without_warning_and_do_not_disturb_others(target):
    log_base, moments, targets = feasible(3, 40, 2, seed=6)
    moments = np.tanh(moments)
    targets = np.exp(log_base) @ moments + 0.05
    alone = balance(log_base, moments, targets)
    targets[1, 0] = target
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = balance(log_base, moments, targets)
    assert found.converged.tolist() == [True, False, True]
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(found.weights[[0, 2]], alone.weights[[0, 2]], atol=1e-9)


@pytest.mark.parametrize("n_numbers", [1, 2500])
def test_replicates_at_once_in_chunks_and_one_at_a_time_agree(monkeypatch, n_numbers):
    log_base, moments, targets = feasible(7, 200, 5, seed=7)
    at_once = balance(log_base, moments, targets)
    for r in range(7):
        alone = balance(log_base[r : r + 1], moments, targets[r : r + 1])
        np.testing.assert_allclose(alone.weights[0], at_once.weights[r], atol=1e-9)
    seen = []
    newton = entropy_balancing._newton
    monkeypatch.setattr(entropy_balancing, "_CHUNK_NUMBERS", n_numbers)
    monkeypatch.setattr(entropy_balancing, "_newton", lambda part, *rest: seen.append(len(part)) or newton(part, *rest))
    in_chunks = balance(log_base, moments, targets)
    assert len(seen) > 1
    assert sum(seen) == 7
    np.testing.assert_array_equal(in_chunks.converged, at_once.converged)
    np.testing.assert_allclose(in_chunks.weights, at_once.weights, atol=1e-9)


def test_a_moment_given_twice_is_met_once():
    log_base, moments, targets = feasible(2, 50, 3, seed=8)
    twice = balance(log_base, np.hstack([moments, moments[:, :1]]), np.hstack([targets, targets[:, :1]]))
    assert twice.converged.all()
    np.testing.assert_allclose(twice.weights, balance(log_base, moments, targets).weights, atol=1e-8)
