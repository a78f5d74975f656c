"""MC-NNM: published figures, its special cases and what it declines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import (
    ConstantOutcomeError,
    NotIdentifiedError,
    NoTreatedCellsError,
    UnsupportedCovariatesError,
)
from causal_spark.panel.did import did
from causal_spark.panel.mc import McOptions, mc, mc_cost, smallest_null_penalty
from causal_spark.panel.tuning import fold_of_cells, standardised
from causal_spark.panel.types import Floats, Panel, PanelSize, Penalties
from tests.panel import panels
from tests.panel.test_low_rank import oracle


def att(panel: Panel, counterfactual: Floats) -> float:
    return float((panel.outcome - counterfactual)[panel.target_cells].mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_mc_reproduces_proposition_99(seed: int) -> None:
    # Arkhangelsky et al. (2021), Table 1, and several implementations: about -20.2; tuning moves it.
    panel = panels.prop99()
    fit = mc(panel, seed=seed)
    assert att(panel, fit.counterfactual) == pytest.approx(-20.2, abs=0.5)
    assert fit.converged
    assert fit.tuning == "cross_validation"
    assert fit.criterion == min(step.criterion for step in fit.path)
    chosen = [step.lambda_nn for step in fit.path if step.criterion == fit.criterion]
    assert chosen == [fit.penalties.lambda_nn]


@pytest.mark.parametrize("pattern", ["block", "staggered", "on and off", "missing"])
def test_mc_at_given_penalty_equals_the_oracle(pattern: str) -> None:
    panel = panels.staggered_panel(10, 8, (4, 4, 6), seed=3) if pattern == "staggered" else panels.block_panel(10, 8)
    if pattern == "on and off":
        treated = np.zeros_like(panel.treated)
        treated[2, ::2] = treated[7, 3:5] = True
        panel = panel.with_treatment(treated)
    if pattern == "missing":
        outcome = np.where(np.random.default_rng(4).random(panel.outcome.shape) < 0.15, np.nan, panel.outcome)
        panel = panels.panel_of(outcome, panel.treated)
    fit = mc(panel, McOptions(tolerance=1e-8), Penalties(lambda_nn=0.7))
    y, centre, scale = standardised(panel)
    slow = oracle(y, panel.control_cells.astype(float), 0.7).prediction * scale + centre
    assert fit.converged
    assert fit.tuning == "fixed"
    assert np.isfinite(fit.counterfactual).all()
    np.testing.assert_allclose(fit.counterfactual, slow, atol=1e-5)


@pytest.mark.parametrize("penalty", [np.inf, 1e4])
def test_mc_without_a_low_rank_part_is_did(penalty: float) -> None:
    panel = panels.staggered_panel()
    fit = mc(panel, penalties=Penalties(lambda_nn=penalty))
    np.testing.assert_allclose(fit.counterfactual, did(panel).counterfactual, atol=1e-9)
    assert fit.rank == 0


def test_the_path_starts_where_the_low_rank_part_appears() -> None:
    panel = panels.block_panel(seed=6)
    y, _, _ = standardised(panel)
    top = smallest_null_penalty(y, panel.control_cells.astype(float))
    assert mc(panel, penalties=Penalties(lambda_nn=top * 1.001)).rank == 0
    assert mc(panel, penalties=Penalties(lambda_nn=top * 0.999)).rank == 1


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e12, 0.0), (1.0, 1e6), (-3.0, 5.0)])
def test_mc_is_equivariant_to_scale_and_shift(scale: float, shift: float) -> None:
    panel = panels.block_panel(seed=7)
    base = mc(panel, seed=1)
    moved = mc(replace(panel, outcome=scale * (panel.outcome + shift)), seed=1)
    np.testing.assert_allclose(moved.counterfactual / scale - shift, base.counterfactual, atol=1e-5)
    assert moved.penalties.lambda_nn == pytest.approx(base.penalties.lambda_nn, rel=1e-8)


def test_mc_repeats_its_bits_and_does_not_depend_on_the_order_of_units() -> None:
    panel = panels.block_panel(seed=8)
    first = mc(panel, seed=2)
    np.testing.assert_array_equal(mc(panel, seed=2).counterfactual, first.counterfactual)
    order = np.random.default_rng(0).permutation(panel.n_units)
    shuffled = mc(panel.take_units(order), penalties=first.penalties)
    np.testing.assert_allclose(shuffled.counterfactual, first.counterfactual[order], atol=1e-5)


def test_a_refit_at_the_chosen_penalty_is_the_tuned_fit() -> None:
    panel = panels.block_panel(seed=3)
    fit = mc(panel, seed=1)
    np.testing.assert_array_equal(mc(panel, penalties=fit.penalties).counterfactual, fit.counterfactual)


def test_predictions_are_within_the_tolerance_of_the_optimum_where_many_cells_are_missing() -> None:
    panel = panels.pwt()
    given = Penalties(lambda_nn=0.24)
    fit, exact = (mc(panel, McOptions(tolerance=tolerance), given) for tolerance in (1e-6, 1e-9))
    assert fit.converged
    assert exact.converged
    error = np.abs(fit.counterfactual - exact.counterfactual).max() / standardised(panel)[2]
    assert error < 1.5e-6


def test_cells_that_are_not_identified_are_nan_and_leave_the_others_as_they_are() -> None:
    panel = panels.block_panel(seed=4)
    lone = np.vstack([panel.outcome, np.full((1, panel.n_periods), 50.0)])
    wider = panels.panel_of(lone, np.vstack([panel.treated, np.ones((1, panel.n_periods), dtype=bool)]))
    given = Penalties(lambda_nn=0.8)
    fit, alone = mc(wider, penalties=given), mc(panel, penalties=given)
    assert fit.converged
    assert np.isnan(fit.counterfactual[-1]).all()
    np.testing.assert_allclose(fit.counterfactual[:-1], alone.counterfactual, atol=1e-6)


def test_a_panel_too_small_to_hold_cells_out_is_estimated_without_tuning() -> None:
    panel = panels.panel_of(np.array([[1.0, 2.0], [3.0, 9.0]]), np.array([[False, False], [False, True]]))
    fit = mc(panel)
    assert (fit.tuning, fit.path, fit.criterion) == ("none", (), None)
    assert fit.counterfactual[1, 1] == pytest.approx(4.0)


def test_folds_split_control_cells_evenly_and_change_with_the_seed() -> None:
    controls = panels.block_panel().control_cells
    fold = fold_of_cells(controls, 5, 0)
    assert (fold[~controls] == -1).all()
    assert np.ptp(np.bincount(fold[controls])) <= 1
    assert (fold != fold_of_cells(controls, 5, 1)).any()


def test_mc_does_not_read_treated_outcomes() -> None:
    panel = panels.block_panel(seed=9)
    changed = replace(panel, outcome=np.where(panel.treated, 1e9, panel.outcome))
    np.testing.assert_array_equal(mc(changed).counterfactual, mc(panel).counterfactual)


def test_an_exactly_additive_outcome_needs_no_low_rank_part() -> None:
    panel = panels.block_panel(rank=0, noise=0.0, effect=2.0)
    fit = mc(panel)
    assert fit.penalties.lambda_nn == np.inf
    assert att(panel, fit.counterfactual) == pytest.approx(2.0, abs=1e-10)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("nobody", NoTreatedCellsError),
        ("no controls", NotIdentifiedError),
        ("constant", ConstantOutcomeError),
        ("covariates", UnsupportedCovariatesError),
    ],
)
def test_mc_declines_what_has_no_meaning(case: str, error: type[Exception]) -> None:
    panel = panels.block_panel()
    if case == "nobody":
        panel = panel.with_treatment(np.zeros_like(panel.treated))
    elif case == "no controls":
        panel = panel.with_treatment(np.repeat(panel.treated[-1:], panel.n_units, axis=0))
    elif case == "constant":
        panel = replace(panel, outcome=np.full(panel.outcome.shape, 0.1))
    else:
        panel = replace(panel, covariates=panel.outcome[:, :, None])
    with pytest.raises(error) as caught:
        mc(panel)
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "field", ["n_folds", "step", "lambda_floor", "patience", "refinements", "cv_tolerance", "tolerance"]
)
def test_options_out_of_range_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        McOptions(**{field: -1})


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_the_search_ends_as_low_as_a_fine_and_precise_one_over_the_whole_range(seed: int) -> None:
    panel = panels.block_panel(n_units=25, n_periods=20, n_post=5, seed=seed)
    # Hundreds of precise solves, down to the floor: what the quick search is to find.
    fine = mc(panel, McOptions(step=0.85, lambda_floor=0.01, patience=50, refinements=3, cv_tolerance=1e-5), seed=1)
    quick = mc(panel, seed=1)
    assert fine.criterion is not None
    assert quick.criterion is not None
    assert quick.criterion <= 1.01 * fine.criterion
    np.testing.assert_array_less(np.abs(quick.counterfactual - fine.counterfactual), 0.1 * panel.outcome.std())


def test_mc_cost_grows_with_the_panel_and_with_tuning() -> None:
    small, large = PanelSize(50, 40, 10, 100), PanelSize(200, 100, 10, 100)
    assert 0 < mc_cost(small, McOptions(), False) < mc_cost(small, McOptions(), True)
    assert mc_cost(small, McOptions(), True) < mc_cost(large, McOptions(), True)
