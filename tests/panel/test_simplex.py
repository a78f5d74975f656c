import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from causal_spark.errors import SolverError
from causal_spark.panel import simplex
from causal_spark.panel.simplex import simplex_least_squares


def objective(A, b, eta, x):
    return float(np.sum((A @ x - b) ** 2) + eta * x @ x)


def problem(n_rows, n_columns, seed, rank=None, target_noise=0.3):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_rows, n_columns))
    if rank is not None:
        A = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, n_columns))
    return A, A @ rng.dirichlet(np.ones(n_columns)) + target_noise * rng.normal(size=n_rows)


def by_nnls(A, b, eta):
    """Lawson and Hanson's NNLS with the simplex as one heavily weighted row, then rescaled."""
    n = A.shape[1]
    heavy = 1e3 * max(np.abs(A).max(), np.abs(b).max())
    stacked = np.vstack([A - b[:, None], np.sqrt(eta) * np.eye(n), heavy * np.ones(n)])
    target = np.zeros(len(stacked))
    target[-1] = heavy
    x = nnls(stacked, target, maxiter=100 * n)[0]
    return x / x.sum()


@settings(max_examples=150, deadline=None)
@given(
    n_rows=st.integers(1, 30),
    n_columns=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    rank=st.one_of(st.none(), st.integers(1, 3)),
    ridge=st.sampled_from([0.0, 1e-12, 1e-6, 1e-2, 1.0, 100.0]),
    noise=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_objective_is_no_worse_than_nnls_and_certificate_holds(n_rows, n_columns, seed, rank, ridge, noise):
    A, b = problem(n_rows, n_columns, seed, rank, noise)
    fit = simplex_least_squares(A, b, ridge)
    assert fit.x.min() >= 0.0
    assert fit.x.sum() == pytest.approx(1.0, abs=1e-12)
    assert fit.converged
    assert fit.kkt_residual < 1e-11
    spread = float(np.median(np.sum((A - b[:, None]) ** 2, axis=0)))
    assert objective(A, b, ridge, fit.x) <= objective(A, b, ridge, by_nnls(A, b, ridge)) + 1e-12 * (spread + ridge)


@pytest.mark.parametrize("ridge", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("shape", [(12, 5), (6, 10)])
def test_weights_agree_with_slsqp(shape, ridge):
    A, b = problem(*shape, seed=3)
    n = shape[1]
    peer = minimize(
        lambda x: objective(A, b, ridge, x),
        np.full(n, 1 / n),
        jac=lambda x: 2 * (A.T @ (A @ x - b) + ridge * x),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    fit = simplex_least_squares(A, b, ridge)
    assert objective(A, b, ridge, fit.x) <= peer.fun + 1e-10
    np.testing.assert_allclose(fit.x, peer.x, atol=1e-5)


@pytest.mark.parametrize(("n_rows", "n_columns", "ridge"), [(40, 15, 0.0), (15, 40, 0.0), (15, 40, 1.0), (5, 60, 0.0)])
def test_active_set_reaches_the_same_weights_as_pivoting(monkeypatch, n_rows, n_columns, ridge):
    A, b = problem(n_rows, n_columns, seed=1, target_noise=0.1)
    pivoted = simplex_least_squares(A, b, ridge)
    monkeypatch.setattr(
        simplex, "_pivot", lambda p: simplex._active_set(p, simplex._solve(p, np.array([n_columns // 2])))
    )
    walked = simplex_least_squares(A, b, ridge)
    assert walked.kkt_residual < 1e-12
    np.testing.assert_allclose(walked.x, pivoted.x, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e12])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_weights_do_not_depend_on_the_unit_of_measurement(factor, ridge):
    A, b = problem(20, 30, seed=5)
    scaled = simplex_least_squares(A * factor, b * factor, ridge * factor**2)
    np.testing.assert_allclose(scaled.x, simplex_least_squares(A, b, ridge).x, atol=1e-12)


@pytest.mark.parametrize(("n_rows", "n_columns", "ridge"), [(30, 20, 0.0), (8, 40, 0.0), (8, 40, 1e-9), (20, 40, 5.0)])
def test_order_of_columns_does_not_matter(n_rows, n_columns, ridge):
    A, b = problem(n_rows, n_columns, seed=7, target_noise=0.0)
    order = np.random.default_rng(0).permutation(n_columns)
    permuted = simplex_least_squares(A[:, order], b, ridge)
    np.testing.assert_allclose(permuted.x, simplex_least_squares(A, b, ridge).x[order], atol=1e-10)


def test_duplicated_columns_share_their_weight_equally():
    A, b = problem(25, 8, seed=2)
    fit = simplex_least_squares(np.hstack([A, A]), b)
    np.testing.assert_allclose(fit.x[:8], fit.x[8:], atol=1e-8)
    np.testing.assert_allclose(fit.x[:8] + fit.x[8:], simplex_least_squares(A, b).x, atol=1e-8)


def test_among_perfect_fits_the_least_norm_is_chosen():
    fit = simplex_least_squares(np.array([[-1.0, 0.0, 1.0, 5.0]]), np.zeros(1))
    reference = minimize(
        lambda x: x @ x,
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints=[
            {"type": "eq", "fun": lambda x: x.sum() - 1},
            {"type": "eq", "fun": lambda x: -x[0] + x[2] + 5 * x[3]},
        ],
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(fit.x, reference.x, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_nothing_to_choose_by_gives_equal_weights(ridge):
    np.testing.assert_array_equal(simplex_least_squares(np.ones((4, 5)), np.ones(4), ridge).x, np.full(5, 0.2))
    np.testing.assert_array_equal(simplex_least_squares(np.ones((4, 1)), np.zeros(4), ridge).x, np.ones(1))


def test_a_column_equal_to_the_target_takes_all_weight():
    A, _ = problem(30, 10, seed=4)
    np.testing.assert_allclose(simplex_least_squares(A, A[:, 3]).x, np.eye(10)[3], atol=1e-9)


def test_columns_of_very_different_size_are_solved_exactly():
    A, b = problem(20, 12, seed=6)
    A[:, ::3] *= 1e7
    fit = simplex_least_squares(A, b)
    assert fit.converged
    assert objective(A, b, 0.0, fit.x) <= objective(A, b, 0.0, by_nnls(A, b, 0.0)) * (1 + 1e-8)


@pytest.mark.parametrize(("n_rows", "n_columns", "ridge"), [(1, 5, 0.0), (2, 5, 0.1), (30, 6, 0.0), (6, 30, 1e-6)])
def test_an_intercept_is_the_same_as_centring(n_rows, n_columns, ridge):
    A, b = problem(n_rows, n_columns, seed=8)
    free = simplex_least_squares(A, b + 100.0, ridge, intercept=True)
    centred = simplex_least_squares(A - A.mean(axis=0), b - b.mean(), ridge)
    np.testing.assert_allclose(free.x, centred.x, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    A = np.ones((3, 3))
    A[1, 1] = bad
    with pytest.raises(SolverError):
        simplex_least_squares(A, np.zeros(3))


@pytest.mark.parametrize("n_rows", [4, 6])
def test_targets_equal_to_most_columns_up_to_rounding_are_solved(n_rows):
    """Counts in small units: centring leaves rounding where zeros belong, which must not set the scale."""
    rng = np.random.default_rng(n_rows)
    A = 1e-9 * np.round(3 * rng.random(size=(n_rows, 7))) * (np.arange(7) < 2)
    A += 1e-25 * rng.normal(size=A.shape)
    fit = simplex_least_squares(A, np.zeros(n_rows), 1e-30)
    assert fit.converged
    np.testing.assert_allclose(fit.x, np.array([0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.2]), atol=1e-6)
