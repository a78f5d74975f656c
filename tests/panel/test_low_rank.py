"""The shared low-rank solver against a slow proximal-gradient oracle, and its certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_spark.panel import common_effects, ridge_step
from causal_spark.panel.common_effects import tied_to_ground
from causal_spark.panel.low_rank import LowRankFits, low_rank_fit
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import TwoWayOperator, identified_cells, two_way_fit
from causal_spark.panel.types import Floats, Ints
from tests.panel import panels


@dataclass(frozen=True)
class Oracle:
    prediction: Floats
    objective: float
    coefficients: Floats


def oracle(
    outcome: Floats, weights: Floats, lambda_nn: float, iterations: int = 20_000, covariates: Floats | None = None
) -> Oracle:
    """Accelerated proximal gradient in L, effects and covariates profiled out by a dense pseudo-inverse."""
    n, t = outcome.shape
    rows, columns = np.divmod(np.arange(n * t), t)
    dummies = np.hstack([np.eye(n)[rows], np.eye(t)[columns]])
    if covariates is not None:
        dummies = np.hstack([dummies, covariates.reshape(len(covariates), -1).T])
    root = np.sqrt(weights.ravel())
    solve = np.linalg.pinv(dummies * root[:, None]) * root
    effects_of = dummies @ solve
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
    coefficients = (solve @ rest)[n + t :]
    return Oracle(effects + low_rank, squares + lambda_nn * np.linalg.norm(low_rank, "nuc"), coefficients)


def objective(outcome: Floats, weights: Floats, lambda_nn: float, fits: LowRankFits) -> float:
    low_rank = fits.unit_factors[0] @ fits.period_factors[0].T
    squares = (weights * (outcome - fits.predictions()[0]) ** 2).sum()
    return float(squares + lambda_nn * np.linalg.norm(low_rank, "nuc"))


def equal(used: Floats) -> ProductWeights:
    return ProductWeights.equal(used[None] > 0)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 7),
    t=st.integers(2, 7),
    penalty=st.floats(0.05, 3.0),
    spread=st.floats(0.0, 1.0),
    missing=st.sampled_from(["no", "block", "scattered"]),
    leave_out=st.booleans(),
    n_covariates=st.integers(0, 2),
    seed=st.integers(0, 10**6),
)
def test_solver_reaches_the_oracles_optimum_on_small_panels(
    n: int, t: int, penalty: float, spread: float, missing: str, leave_out: bool, n_covariates: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t))
    outcome /= outcome.std()
    used = np.ones((n, t), dtype=bool)
    if missing == "block":
        used[n // 2 :, t // 2 :] = False
    elif missing == "scattered":
        used = rng.random((n, t)) < 0.85
    used[0, 0] = True
    covariates = rng.normal(size=(n_covariates, n, t)) if n_covariates else None
    product = ProductWeights(
        np.exp(spread * rng.normal(size=(1, n))),
        np.exp(spread * rng.normal(size=(1, t))),
        used[None],
        (np.array([0]), np.array([0])) if leave_out else None,
    )
    weights = product.cells()[0]
    assert weights[0, 0] == (0 if leave_out else product.unit[0, 0] * product.period[0, 0])
    fits = low_rank_fit(outcome, product, np.array([penalty]), covariates=covariates, tolerance=1e-8)
    slow = oracle(outcome, weights, penalty, 4000, covariates)
    assert fits.converged.all()
    assert objective(outcome, weights, penalty, fits) <= slow.objective * (1 + 1e-7) + 1e-11
    cells = weights > 0
    np.testing.assert_allclose(fits.predictions()[0][cells], slow.prediction[cells], atol=2e-4)


@pytest.mark.parametrize("penalty", [0.3, 1.0])
def test_predictions_at_unused_cells_equal_the_oracles(penalty: float) -> None:
    outcome = panels.untreated_outcomes(12, 9, seed=1)
    outcome /= outcome.std()
    weights = np.ones(outcome.shape)
    weights[9:, 6:] = 0.0
    fits = low_rank_fit(outcome, equal(weights), np.array([penalty]), tolerance=1e-8)
    np.testing.assert_allclose(fits.predictions()[0], oracle(outcome, weights, penalty).prediction, atol=1e-6)


@pytest.mark.parametrize(("time", "unit", "penalty"), [(0.0, 0.0, 0.3), (0.3, 1.0, 0.05), (1.0, 3.0, 0.01)])
def test_a_batch_equals_its_problems_and_its_certificate_is_true(time: float, unit: float, penalty: float) -> None:
    rng = np.random.default_rng(2)
    outcome = panels.untreated_outcomes(14, 11, seed=2)
    outcome /= outcome.std()
    mask = np.ones(outcome.shape)
    mask[10:, 7:] = 0.0
    rows, columns = np.array([12, 3, 10]), np.array([8, 5, 10])
    unit_weights = np.exp(-unit * rng.random((3, 14)))
    period_weights = np.exp(-time * np.abs(np.arange(11) - columns[:, None]))
    product = ProductWeights(unit_weights, period_weights, mask[None] > 0, (rows, columns))
    weights = product.cells()
    tolerance = 1e-7
    fits = low_rank_fit(outcome, product, np.full(3, penalty), targets=(rows, columns), tolerance=tolerance)
    assert fits.converged.all()
    for k in range(3):
        one = np.array([k])
        alone = low_rank_fit(
            outcome, product.take(one), np.array([penalty]), targets=(rows[one], columns[one]), tolerance=tolerance
        )
        cell = fits.predictions()[k, rows[k], columns[k]]
        assert alone.predictions_at(rows[one], columns[one])[0] == pytest.approx(cell, abs=1e-6)
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
    cell = (np.array([0]), np.array([9]))
    weights = ProductWeights(
        np.exp(-np.linspace(0, 120, 12))[None],
        np.exp(-4.0 * np.abs(np.arange(10) - 9))[None],
        np.ones((1, 12, 10), dtype=bool),
        cell,
    )
    fits = low_rank_fit(outcome, weights, np.array([1e-3]), targets=cell, tolerance=1e-6)
    assert fits.converged.all()
    assert np.isfinite(fits.predictions()).all()


def long_problem(n_units: int = 40, seed: int = 6) -> tuple[Floats, ProductWeights, tuple[Ints, Ints], Floats]:
    """Three target cells of a long panel with a treated block: one in it, and two control cells left out."""
    outcome = panels.untreated_outcomes(n_units, 8, seed=seed)
    outcome /= outcome.std()
    used = np.ones((1, n_units, 8), dtype=bool)
    used[0, -5:, 6:] = False
    rng = np.random.default_rng(seed)
    cells = np.array([n_units - 1, 3, n_units - 2]), np.array([5, 7, 2])
    weights = ProductWeights(
        rng.random((3, n_units)) + 0.05, np.exp(-0.5 * np.abs(np.arange(8) - cells[1][:, None])), used, cells
    )
    return outcome, weights, cells, rng.normal(size=(1, n_units, 8))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_covariate", [False, True])
@pytest.mark.parametrize("nn", [0.02, 0.3])
def test_a_thin_system_gives_what_the_whole_one_gives(
    weighted: bool, with_covariate: bool, nn: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, weights, cells, x = long_problem(80)
    if not weighted:
        weights = replace(weights, unit=np.ones_like(weights.unit), period=np.ones_like(weights.period))
    found, systems = {}, []
    solve = common_effects._solve_thin
    monkeypatch.setattr(common_effects, "_solve_thin", lambda *given: systems.append(1) or solve(*given))
    for thin in (0.0, 1.0):
        monkeypatch.setattr(ridge_step, "_THIN", thin)
        systems.clear()
        found[thin] = low_rank_fit(
            outcome, weights, np.full(3, nn), covariates=x if with_covariate else None, targets=cells, tolerance=1e-9
        )
        assert bool(systems) == (thin > 0)
    for fits in found.values():
        assert fits.converged.all()
    np.testing.assert_allclose(found[1.0].predictions_at(*cells), found[0.0].predictions_at(*cells), atol=1e-8)
    np.testing.assert_allclose(found[1.0].coefficients, found[0.0].coefficients, atol=1e-8)
    # As many sweeps but for what rounding does to the acceleration.
    np.testing.assert_allclose(found[1.0].sweeps, found[0.0].sweeps, rtol=0.25)


def test_a_thin_system_is_not_used_where_it_would_lose_digits() -> None:
    _, weights, _, _ = long_problem()
    assert tied_to_ground(weights.cells())
    # Early and late periods are linked by light units only.
    apart = weights.used.copy()
    apart[0, 2:20, 4:] = apart[0, 20:, :4] = False
    for light, safe in ((1e-3, True), (1e-8, False)):
        unit = weights.unit.copy()
        unit[:, :2] *= light
        assert tied_to_ground(replace(weights, unit=unit, used=apart).cells()) == safe
    # No unit has all periods, but each period shares units with the heaviest.
    used = weights.used.copy()
    used[0, np.arange(40), np.arange(40) % 8] = False
    assert tied_to_ground(replace(weights, used=used).cells())


@pytest.mark.parametrize("limit", [10, 5])
def test_a_large_panel_is_solved_without_a_system_as_wide_as_its_sides(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, weights, cells, x = long_problem(30)
    joint = low_rank_fit(outcome, weights, np.full(3, 0.3), covariates=x, targets=cells, tolerance=1e-8)
    monkeypatch.setattr(ridge_step, "_THIN", 0.0)
    monkeypatch.setattr(ridge_step, "_JOINT_COLUMNS", limit)
    apart = low_rank_fit(outcome, weights, np.full(3, 0.3), covariates=x, targets=cells, tolerance=1e-8)
    assert apart.converged.all()
    np.testing.assert_allclose(apart.predictions_at(*cells), joint.predictions_at(*cells), atol=1e-6)
    assert (apart.sweeps != joint.sweeps).any()


def test_a_large_or_infinite_penalty_leaves_the_two_way_fit() -> None:
    outcome = panels.untreated_outcomes(8, 12, seed=4)
    rng = np.random.default_rng(0)
    product = ProductWeights(rng.random((2, 8)), rng.random((2, 12)), rng.random((1, 8, 12)) < 0.9)
    weights = product.cells()
    fits = low_rank_fit(outcome, product, np.array([np.inf, 1e6]))
    assert fits.converged.all()
    assert (fits.rank == 0).all()
    for k in range(2):
        np.testing.assert_allclose(fits.predictions()[k], two_way_fit(outcome, weights[k]), atol=1e-10)


def test_an_iteration_limit_is_reported_as_not_converged() -> None:
    outcome = panels.untreated_outcomes(12, 9, seed=5)
    fits = low_rank_fit(outcome, equal(np.ones((12, 9))), np.array([0.05]), tolerance=1e-9, max_sweeps=2)
    assert not fits.converged.any()
    assert fits.gap[0] > 1e-8


@pytest.mark.parametrize("transposed", [False, True])
def test_units_and_periods_of_weight_zero_are_as_good_as_absent(transposed: bool) -> None:
    outcome = panels.untreated_outcomes(11, 8, seed=7)
    rng = np.random.default_rng(1)
    unit, period = rng.random(11), rng.random(8)
    unit[[2, 9]], period[5] = 0.0, 0.0
    kept = np.ix_(unit > 0, period > 0)
    used = np.ones((1, 11, 8), dtype=bool)
    used[0, 7:, 6:] = False
    x = rng.normal(size=(1, 11, 8))
    whole = ProductWeights(unit[None], period[None], used)
    part = ProductWeights(unit[None, unit > 0], period[None, period > 0], used[0][kept][None])
    few = outcome[kept], x[0][kept][None]
    if transposed:
        outcome, x, whole, part = outcome.T, np.swapaxes(x, 1, 2), whole.transposed, part.transposed
        few = few[0].T, np.swapaxes(few[1], 1, 2)
    fits = low_rank_fit(outcome, whole, np.array([0.1]), covariates=x, targets="coefficients", tolerance=1e-9)
    alone = low_rank_fit(few[0], part, np.array([0.1]), covariates=few[1], targets="coefficients", tolerance=1e-9)
    assert fits.converged.all()
    np.testing.assert_allclose(fits.coefficients, alone.coefficients, atol=1e-7)
    found = fits.predictions()[0].T if transposed else fits.predictions()[0]
    expected = alone.predictions()[0].T if transposed else alone.predictions()[0]
    np.testing.assert_allclose(found[kept], expected, atol=1e-5)


@pytest.mark.parametrize("collinear", ["with the effects", "with each other"])
def test_collinear_covariates_do_not_change_the_fit(collinear: str) -> None:
    outcome = panels.untreated_outcomes(9, 7, seed=9)
    x = np.random.default_rng(4).normal(size=(1, 9, 7))
    more = np.broadcast_to(np.arange(9.0)[None, :, None], (1, 9, 7)) if collinear == "with the effects" else -2.0 * x
    used = np.ones((9, 7))
    used[6:, 5:] = 0.0
    penalty = np.array([0.4])
    one = low_rank_fit(outcome, equal(used), penalty, covariates=x, tolerance=1e-8)
    both = low_rank_fit(outcome, equal(used), penalty, covariates=np.concatenate([x, more]), tolerance=1e-8)
    assert both.converged.all()
    cells = used > 0
    np.testing.assert_allclose(both.predictions()[0][cells], one.predictions()[0][cells], atol=1e-6)
    if collinear == "with the effects":
        np.testing.assert_allclose(both.coefficients[0], [one.coefficients[0, 0], 0.0], atol=1e-6)
    else:
        assert both.coefficients[0] @ [1.0, -2.0] == pytest.approx(one.coefficients[0, 0], abs=1e-6)


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan])
def test_a_penalty_that_is_not_positive_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="lambda_nn"):
        low_rank_fit(np.ones((3, 3)), equal(np.ones((3, 3))), np.array([penalty]))


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
