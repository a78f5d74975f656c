import numpy as np
import pytest
from scipy.optimize import minimize

from causal_spark.dose_response.simplex_program import minimise_on_simplex


def objective(quadratic, linear, w):
    return float(w @ quadratic @ w + linear @ w)


def random_program(n, seed, ridge=0.1, pull=1.0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, n)) / np.sqrt(n)
    return factor @ factor.T + ridge * np.eye(n), pull * rng.normal(size=n)


def violation(quadratic, linear, w):
    """How far the gradient of a row with weight lies above the lowest of all, at most."""
    gradient = 2 * quadratic @ w + linear
    return float(np.max(gradient[w > 1e-12]) - np.min(gradient))


@pytest.mark.parametrize("n", [20, 30, 40])
@pytest.mark.parametrize("pull", [0.0, 0.1, 1.0])
def test_weights_agree_with_slsqp(n, pull):
    quadratic, linear = random_program(n, seed=n, pull=pull)
    found = minimise_on_simplex(quadratic, linear)
    peer = minimize(
        lambda w: objective(quadratic, linear, w),
        np.full(n, 1 / n),
        jac=lambda w: 2 * quadratic @ w + linear,
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert objective(quadratic, linear, found) <= peer.fun + 1e-9
    np.testing.assert_allclose(found, peer.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_no_condition_of_karush_kuhn_and_tucker_is_violated(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 150))
    quadratic, linear = random_program(n, seed, ridge=10.0 ** rng.uniform(-6, 0), pull=10.0 ** rng.uniform(-3, 1))
    found = minimise_on_simplex(quadratic, linear)
    assert violation(quadratic, linear, found) < 1e-7 * np.ptp(linear)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rank", [0, 3])
def test_programmes_without_full_rank_are_solved(rank):
    rng = np.random.default_rng(rank)
    factor, linear = rng.normal(size=(20, rank)), rng.normal(size=20)
    found = minimise_on_simplex(factor @ factor.T, linear)
    assert violation(factor @ factor.T, linear, found) < 1e-7


def test_one_row_may_take_all_weight():
    quadratic, linear = random_program(30, seed=3)
    linear[7] = -100.0
    np.testing.assert_allclose(minimise_on_simplex(quadratic, linear), np.eye(30)[7], atol=1e-12)


def test_with_nothing_to_choose_by_the_weights_are_equal():
    np.testing.assert_allclose(minimise_on_simplex(np.eye(9), np.ones(9)), 1 / 9, atol=1e-12)


def test_being_convex_on_vectors_that_sum_to_zero_is_enough():
    """Minus a matrix of distances: not positive semidefinite, but the programme is that of dcow."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(30, 2))
    distances = np.linalg.norm(points[:, None] - points[None, :], axis=2)
    assert np.linalg.eigvalsh(-distances).min() < -1
    wanted = rng.dirichlet(np.ones(30))
    # The energy distance to given weights is least at those weights.
    found = minimise_on_simplex(-distances, 2 * distances @ wanted)
    np.testing.assert_allclose(found, wanted, atol=1e-9)
