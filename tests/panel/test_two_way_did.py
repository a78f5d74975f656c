"""Two-way effects against a dense least-squares oracle, and DiD by imputation against published figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_spark.errors import NotIdentifiedError, NoTreatedCellsError
from causal_spark.panel.did import DidOptions, did, did_cost
from causal_spark.panel.two_way import equal_two_way_fit, identified_cells, two_way_covariate_fit, two_way_fit
from causal_spark.panel.types import Bools, Floats, Panel, PanelSize
from tests.panel import panels


def dense_fit(outcome: Floats, weights: Floats, covariates: Floats | None = None) -> tuple[Floats, Bools]:
    """Dummy-variable least squares by SVD: fitted values, and the cells whose regressors the used cells span."""
    n, t = outcome.shape
    rows, columns = np.divmod(np.arange(n * t), t)
    design = np.hstack([np.eye(n)[rows], np.eye(t)[columns]])
    if covariates is not None:
        design = np.hstack([design, covariates.reshape(n * t, -1)])
    used = (weights > 0).ravel()
    root = np.sqrt(weights.ravel()[used])
    _, values, vectors = np.linalg.svd(design[used] * root[:, None])
    basis = vectors[: (values > 1e-9 * values.max(initial=0.0)).sum()]
    solution = np.linalg.lstsq(design[used] * root[:, None], outcome.ravel()[used] * root, rcond=1e-12)[0]
    spanned = np.linalg.norm(design - design @ basis.T @ basis, axis=1) < 1e-7
    return (design @ solution).reshape(n, t), spanned.reshape(n, t)


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 9),
    t=st.integers(1, 9),
    n_short=st.integers(0, 8),
    level=st.sampled_from([0.0, 1e6]),
    seed=st.integers(0, 10**6),
)
def test_the_closed_form_of_equal_weights_is_the_general_fit(
    n: int, t: int, n_short: int, level: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t)) + level
    used = np.ones((n, t), dtype=bool)
    used[: min(n, n_short)] = rng.random(t) < 0.6
    used = used[rng.permutation(n)]
    general = two_way_fit(outcome, used.astype(float))
    np.testing.assert_allclose(equal_two_way_fit(outcome, used), general, rtol=0, atol=1e-13 * (1.0 + level))
    unread = np.where(used, outcome, np.nan)
    np.testing.assert_allclose(equal_two_way_fit(unread, used), general, rtol=0, atol=1e-13 * (1.0 + level))


def att(panel: Panel, counterfactual: Floats) -> float:
    cells = panel.target_cells & np.isfinite(counterfactual)
    return float((panel.outcome - counterfactual)[cells].mean())


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), t=st.integers(1, 9), share=st.floats(0.05, 1.0), seed=st.integers(0, 10**6))
def test_two_way_fit_equals_dummy_least_squares_on_any_mask(n: int, t: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t))
    weights = np.where(rng.random((n, t)) < share, np.exp(rng.normal(size=(n, t))), 0.0)
    fitted = two_way_fit(np.where(weights > 0, outcome, np.nan), weights)
    oracle, spanned = dense_fit(outcome, weights)
    np.testing.assert_array_equal(np.isfinite(fitted), spanned)
    np.testing.assert_array_equal(identified_cells(weights > 0), spanned)
    np.testing.assert_allclose(fitted[spanned], oracle[spanned], atol=1e-9)


@pytest.mark.parametrize("decades", [20, 100, 250])
def test_two_way_fit_keeps_its_digits_when_weights_span_many_orders(decades: int) -> None:
    # Unit 0 outweighs the donors by 10^decades and misses the last period, which only donors then speak for.
    rng = np.random.default_rng(3)
    outcome = rng.normal(size=(5, 4))
    weights = np.full((5, 4), 10.0**-decades)
    weights[0] = [1.0, 2.0, 3.0, 0.0]
    # In the limit unit 0 fits itself, and the donors' mean gap between the last period and unit 0's shape is added.
    shape = outcome[0, :3] - outcome[0, :3].mean()
    gap = (outcome[1:, 3] - (outcome[1:, :3] - shape).mean(axis=1)).mean()
    expected = outcome[0, :3].mean() + gap
    assert two_way_fit(outcome, weights)[0, 3] == pytest.approx(expected, abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 9), t=st.integers(3, 9), k=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_covariate_fit_equals_joint_least_squares_with_collinear_columns(n: int, t: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n, t))
    weights = (rng.random((n, t)) < 0.8).astype(float)
    covariates = rng.normal(size=(n, t, k)) * 10.0 ** rng.integers(-3, 4, size=k)
    # A copy of the first column, one of time alone and one of unit alone carry no information of their own.
    of_time, of_unit = np.broadcast_to(np.arange(t), (n, t)), rng.normal(size=(n, 1)) + np.zeros(t)
    covariates = np.dstack([covariates, covariates[:, :, 0] * 3, of_time, of_unit])
    fit = two_way_covariate_fit(outcome, weights, covariates)
    unit_scale = covariates / np.abs(covariates).max(axis=(0, 1))
    oracle, spanned = dense_fit(outcome, weights, unit_scale)
    np.testing.assert_array_equal(np.isfinite(fit.fitted), spanned)
    np.testing.assert_allclose(
        fit.fitted[spanned], oracle[spanned], atol=1e-6 * np.abs(oracle[spanned]).max(initial=1.0)
    )


def test_a_covariate_that_moves_only_at_treated_cells_leaves_them_unidentified() -> None:
    panel = panels.block_panel()
    with pytest.raises(NotIdentifiedError):
        did(replace(panel, covariates=panel.treated[:, :, None].astype(float)))


def test_did_recovers_a_covariate_effect_that_differs_between_treated_and_control_cells() -> None:
    panel = panels.block_panel(effect=1.0, noise=0.0, rank=0)
    covariate = np.random.default_rng(5).normal(size=panel.outcome.shape) + 2.0 * panel.treated
    with_covariate = replace(panel, outcome=panel.outcome + 0.7 * covariate, covariates=covariate[:, :, None])
    assert att(with_covariate, did(with_covariate).counterfactual) == pytest.approx(1.0, abs=1e-9)


def test_did_reproduces_proposition_99() -> None:
    # Arkhangelsky et al. (2021), Table 1: -27.3 (synthdid-py and others: -27.3491).
    panel = panels.prop99()
    assert att(panel, did(panel, DidOptions(), None, 0).counterfactual) == pytest.approx(-27.3491, abs=1e-3)


def test_did_on_a_block_is_the_difference_of_four_means() -> None:
    panel = panels.block_panel(effect=0.5)
    rows, post = panel.ever_treated, panel.treated.any(axis=0)
    y = panel.outcome
    means = [y[np.ix_(r, c)].mean() for r in (rows, ~rows) for c in (post, ~post)]
    assert att(panel, did(panel).counterfactual) == pytest.approx(means[0] - means[1] - means[2] + means[3], abs=1e-12)


@pytest.mark.parametrize("pattern", ["staggered", "on and off", "missing", "single cell"])
def test_did_recovers_an_exact_effect_under_any_pattern(pattern: str) -> None:
    base = panels.untreated_outcomes(12, 9, seed=4, rank=0, noise=0.0)
    treated = np.zeros(base.shape, dtype=bool)
    if pattern == "single cell":
        treated[3, 8] = True
    elif pattern == "on and off":
        treated[2, 1::2] = treated[5, ::3] = True
    else:
        treated[2, 4:] = treated[5, 6:] = True
    outcome = base + 2.0 * treated
    if pattern == "missing":
        outcome[np.random.default_rng(1).random(base.shape) < 0.25] = np.nan
    panel = panels.panel_of(outcome, treated)
    result = did(panel).counterfactual
    effects = (panel.outcome - result)[panel.target_cells & np.isfinite(result)]
    assert effects.size > 0
    np.testing.assert_allclose(effects, 2.0, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_did_is_equivariant_to_scale_and_shift(scale: float, shift: float) -> None:
    panel = panels.staggered_panel()
    moved = replace(panel, outcome=scale * (panel.outcome + shift))
    expected = did(panel).counterfactual
    np.testing.assert_allclose(did(moved).counterfactual / scale - shift, expected, atol=1e-9)


def test_did_does_not_depend_on_the_order_of_units_and_repeats_its_bits() -> None:
    panel = panels.staggered_panel()
    order = np.random.default_rng(0).permutation(panel.n_units)
    first = did(panel).counterfactual
    np.testing.assert_allclose(did(panel.take_units(order)).counterfactual, first[order], atol=1e-12)
    np.testing.assert_array_equal(did(panel).counterfactual, first)


def test_did_of_a_constant_outcome_is_that_constant() -> None:
    panel = replace(panels.block_panel(), outcome=np.full((20, 15), 7.0))
    np.testing.assert_allclose(did(panel).counterfactual, 7.0, rtol=1e-14)


def test_a_treated_cell_of_a_period_without_controls_is_not_identified() -> None:
    panel = panels.block_panel()
    treated = panel.treated.copy()
    treated[:, -1] = True
    result = did(panel.with_treatment(treated)).counterfactual
    assert np.isnan(result[:, -1]).all()
    assert np.isfinite(result[:, :-1]).all()


@pytest.mark.parametrize("case", ["nobody", "everybody at once", "no pre-period", "always treated"])
def test_did_declines_what_it_cannot_identify(case: str) -> None:
    panel = panels.block_panel()
    treated = np.zeros_like(panel.treated)
    if case == "everybody at once":
        treated[:, 10:] = True
    elif case == "no pre-period":
        treated[-1] = True
    elif case == "always treated":
        treated[:] = True
    error = NoTreatedCellsError if case == "nobody" else NotIdentifiedError
    with pytest.raises(error) as caught:
        did(panel.with_treatment(treated))
    assert caught.value.hint


def test_did_cost_grows_with_the_panel() -> None:
    small, large = PanelSize(50, 40, 10, 100), PanelSize(1000, 200, 10, 100)
    assert 0 < did_cost(small, DidOptions(), True) < did_cost(large, DidOptions(), True)
