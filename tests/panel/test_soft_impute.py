"""The solver for equally weighted cells against the general one, and what its masks and starts may not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_spark.panel import soft_impute
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.soft_impute import SoftImpute, SoftImputeFits
from causal_spark.panel.tuning import standardised
from causal_spark.panel.two_way import identified_cells, two_way_fit
from causal_spark.panel.types import Bools, Floats
from tests.panel import panels


def standard_outcomes(n: int, t: int, seed: int) -> Floats:
    outcome = panels.untreated_outcomes(n, t, seed=seed)
    return np.asarray((outcome - outcome.mean()) / outcome.std())


def block_mask(n: int, t: int) -> Bools:
    used = np.ones((n, t), dtype=bool)
    used[-n // 4 :, -t // 3 :] = False
    return used


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(2, 14),
    t=st.integers(2, 14),
    share=st.sampled_from([0.3, 0.6, 0.9]),
    penalty=st.sampled_from([0.05, 0.3, 1.0, 4.0]),
    seed=st.integers(0, 10**6),
)
def test_it_agrees_with_the_general_solver_on_any_mask(n: int, t: int, share: float, penalty: float, seed: int) -> None:
    outcome = standard_outcomes(n, t, seed)
    used = np.random.default_rng(seed).random((2, n, t)) < share
    used[:, 0, 0] = True
    lambda_nn = np.full(2, penalty)
    fits = SoftImpute(outcome, used).solve(lambda_nn, tolerance=1e-8)
    general = low_rank_fit(outcome, ProductWeights.equal(used), lambda_nn, tolerance=1e-9)
    assert fits.converged.all()
    # Cells with no observations of their own can be predicted in several optimal ways when few cells are used.
    np.testing.assert_allclose(fits.predictions[used], general.predictions()[used], atol=1e-6)


@pytest.mark.parametrize("penalty", [0.1, 0.8, 5.0])
@pytest.mark.parametrize("across", [False, True])
def test_it_agrees_with_the_general_solver_on_proposition_99(penalty: float, across: bool) -> None:
    panel = panels.prop99()
    outcome, controls = standardised(panel)[0], panel.control_cells
    if across:
        outcome, controls = outcome.T, controls.T
    fits = SoftImpute(outcome, controls[None]).solve(np.array([penalty]), tolerance=1e-6)
    general = low_rank_fit(outcome, ProductWeights.equal(controls[None]), np.array([penalty]), tolerance=1e-9)
    assert fits.converged.all()
    np.testing.assert_array_equal(fits.rank, general.rank)
    np.testing.assert_allclose(fits.predictions, general.predictions(), atol=2e-6)


def test_the_certificate_is_true() -> None:
    outcome, used = standard_outcomes(14, 11, 1), block_mask(14, 11)
    fits = SoftImpute(outcome, used[None]).solve(np.array([0.4]), tolerance=1e-6)
    dual = 2.0 * np.where(used, outcome - fits.predictions[0], 0.0)
    np.testing.assert_allclose([*dual.sum(axis=0), *dual.sum(axis=1)], 0.0, atol=1e-10)
    # Duality by hand: scaled residuals are feasible, and L is what the effects leave of the predictions.
    low_rank = fits.predictions[0] - two_way_fit(fits.predictions[0], np.ones(used.shape))
    primal = (dual**2 / 4).sum() + 0.4 * np.linalg.norm(low_rank, "nuc")
    dual *= min(1.0, 0.4 / np.linalg.norm(dual, 2))
    lower = (dual * outcome).sum() - (dual**2 / 4).sum()
    assert -1e-12 <= (primal - lower) / primal <= 1e-5
    # What is reported bounds the gap from above, and is what the tolerance is held against.
    assert (primal - lower) / primal - 1e-12 <= fits.gap[0] <= 1e-5


def test_components_are_solved_as_if_they_were_alone_and_empty_units_disturb_nothing() -> None:
    outcome = standard_outcomes(22, 15, 2)
    used = np.zeros((22, 15), dtype=bool)
    used[:10, :8], used[10:20, 8:14] = block_mask(10, 8), block_mask(10, 6)
    fits = SoftImpute(outcome, used[None]).solve(np.array([0.5]), tolerance=1e-9)
    assert fits.converged.all()
    for rows, columns in ((slice(0, 10), slice(0, 8)), (slice(10, 20), slice(8, 14))):
        alone = SoftImpute(outcome[rows, columns], used[None, rows, columns]).solve(np.array([0.5]), tolerance=1e-9)
        np.testing.assert_allclose(fits.predictions[0, rows, columns], alone.predictions[0], atol=1e-7)
        assert fits.iterations[0] <= 2 * alone.iterations[0] + 10
    general = low_rank_fit(outcome, ProductWeights.equal(used[None]), np.array([0.5]), tolerance=1e-9)
    inside = identified_cells(used)
    inside[20:], inside[:, 14:] = False, False
    np.testing.assert_allclose(fits.predictions[0][inside], general.predictions()[0][inside], atol=1e-6)


def test_neither_the_start_nor_the_batch_changes_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, block = standard_outcomes(16, 12, 3), block_mask(16, 12)
    used = np.stack([block & (np.random.default_rng(k).random(block.shape) < 0.8) for k in range(3)])
    lambda_nn = np.array([0.3, 1.0, 3.0])
    fits = SoftImpute(outcome, used).solve(lambda_nn, tolerance=1e-9)
    again = SoftImpute(outcome, used).solve(lambda_nn, tolerance=1e-9)
    np.testing.assert_array_equal(again.predictions, fits.predictions)
    warm = SoftImpute(outcome, used).solve(lambda_nn, np.full(used.shape, 5.0), tolerance=1e-9)
    np.testing.assert_allclose(warm.predictions, fits.predictions, atol=1e-7)
    assert SoftImpute(outcome, used).solve(lambda_nn, fits.predictions, tolerance=1e-9).iterations.max() <= 4
    monkeypatch.setattr(soft_impute, "_BYTES", 1)
    apart = SoftImpute(outcome, used).solve(lambda_nn, tolerance=1e-9)
    np.testing.assert_allclose(apart.predictions, fits.predictions, atol=1e-8)
    np.testing.assert_array_equal(apart.rank, fits.rank)


def test_a_small_penalty_is_approached_from_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = panels.prop99()
    outcome, controls = standardised(panel)[0], panel.control_cells
    monkeypatch.setattr(soft_impute, "low_rank_fit", None)
    fits = SoftImpute(outcome, controls[None]).solve(np.array([0.03]), tolerance=1e-6)
    assert fits.converged.all()
    assert fits.iterations[0] > 200


def solve_briefly(max_iterations: int) -> tuple[SoftImputeFits, Floats]:
    outcome, used = standard_outcomes(14, 10, 4), block_mask(14, 10)
    exact = SoftImpute(outcome, used[None]).solve(np.array([0.5]), tolerance=1e-9)
    return SoftImpute(outcome, used[None]).solve(
        np.array([0.5]), tolerance=1e-7, max_iterations=max_iterations
    ), exact.predictions


def test_what_does_not_converge_in_time_goes_to_the_general_solver() -> None:
    fits, exact = solve_briefly(2)
    assert fits.converged.all()
    assert fits.gap[0] <= 1e-6
    np.testing.assert_allclose(fits.predictions, exact, atol=1e-6)


def test_what_neither_solver_reaches_is_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_impute, "low_rank_fit", lambda *args, **keys: low_rank_fit(*args, **keys, max_sweeps=1))
    monkeypatch.setattr(soft_impute, "_RUNG", 1e6)
    fits, _ = solve_briefly(2)
    assert not fits.converged.any()
    assert np.isfinite(fits.predictions).all()


def test_a_large_penalty_leaves_the_two_way_fit() -> None:
    outcome, used = standard_outcomes(8, 12, 5), block_mask(8, 12)
    fits = SoftImpute(outcome, used[None]).solve(np.array([1e6]))
    assert fits.converged.all()
    assert fits.rank[0] == 0
    np.testing.assert_allclose(fits.predictions[0], two_way_fit(outcome, used.astype(float)), atol=1e-10)


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan, np.inf])
def test_a_penalty_that_is_not_positive_and_finite_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="lambda_nn"):
        SoftImpute(np.ones((3, 3)), np.ones((1, 3, 3), dtype=bool)).solve(np.array([penalty]))
