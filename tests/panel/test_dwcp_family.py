"""The classics as members of one family: their weights fed to the one solver give their predictions, to 1e-6 sd."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from causal_spark.panel.did import did
from causal_spark.panel.difp import difp
from causal_spark.panel.dwcp import DwcpOptions, dwcp
from causal_spark.panel.dwcp_constant import dwcp_constant
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.mc import McOptions, mc
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.sc import sc
from causal_spark.panel.sdid import sdid
from causal_spark.panel.summary import att
from causal_spark.panel.tuning import standardised
from causal_spark.panel.types import Fit, Floats, Panel, Penalties
from tests.panel import panels
from tests.panel.test_dwcp import PATTERNS, pattern_panel

# In standard deviations of the control cells.
PRECISION = 1e-6
# A period in which every unit is 0 and which weighs this much leaves no unit effect larger than rounding.
ANCHOR = 1e9

BLOCKS = pytest.mark.parametrize(
    "panel",
    [
        panels.prop99(),
        panels.cps(),
        panels.block_panel(12, 20, 3, 6, seed=1),
        panels.block_panel(15, 8, 1, 1, seed=2),
    ],
    ids=["prop99", "cps", "several", "one cell"],
)


def dense(fit: Fit, kind: str, size: int) -> Floats:
    (found,) = (weights for weights in fit.weights if weights.kind == kind)
    full = np.zeros(size)
    full[found.positions] = found.values
    return full


def solved(panel: Panel, weights: ProductWeights, lambda_nn: float = math.inf) -> Floats:
    """Predictions of the one solver from the control cells, in units of the outcome."""
    outcome, centre, scale = standardised(panel)
    fits = low_rank_fit(outcome, weights, np.array([lambda_nn]), tolerance=1e-9)
    assert fits.converged.all()
    return np.asarray(fits.predictions()[0] * scale + centre)


def assert_same_predictions(panel: Panel, found: Floats, expected: Floats) -> None:
    _, _, scale = standardised(panel)
    cells = panel.target_cells & np.isfinite(expected)
    assert cells.any()
    np.testing.assert_allclose(found[cells] / scale, expected[cells] / scale, rtol=0, atol=PRECISION)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equal_weights_and_no_low_rank_part_are_did(pattern: str) -> None:
    panel = pattern_panel(pattern)
    expected = did(panel).counterfactual
    assert_same_predictions(panel, solved(panel, ProductWeights.equal(panel.control_cells[None])), expected)
    own = dwcp(panel, penalties=Penalties(0.0, 0.0, math.inf)).counterfactual
    assert_same_predictions(panel, own, expected)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lambda_nn", [0.1, 1.0])
def test_equal_weights_and_a_penalty_are_matrix_completion(pattern: str, lambda_nn: float) -> None:
    panel = pattern_panel(pattern)
    expected = mc(panel, McOptions(tolerance=1e-9), Penalties(lambda_nn=lambda_nn)).counterfactual
    weights = ProductWeights.equal(panel.control_cells[None])
    assert_same_predictions(panel, solved(panel, weights, lambda_nn), expected)
    own = dwcp(panel, DwcpOptions(tolerance=1e-9), Penalties(0.0, 0.0, lambda_nn)).counterfactual
    assert_same_predictions(panel, own, expected)


def block_weights(panel: Panel, fit: Fit, time: Floats) -> ProductWeights:
    """Donors' weights and time weights at control cells; treated units and periods, which match themselves, at 1."""
    treated, post = panel.ever_treated, panel.treated.any(axis=0)
    unit = np.where(treated, 1.0, dense(fit, "unit", panel.n_units))
    return ProductWeights(unit[None], np.where(post, 1.0, time)[None], panel.control_cells[None])


@BLOCKS
@pytest.mark.parametrize("estimator", [sdid, difp])
def test_both_weight_vectors_give_sdid_and_uniform_periods_difp(
    panel: Panel, estimator: Callable[[Panel], Fit]
) -> None:
    fit = estimator(panel)
    time = dense(fit, "time", panel.n_periods) if estimator is sdid else np.ones(panel.n_periods)
    assert_same_predictions(panel, solved(panel, block_weights(panel, fit, time)), fit.counterfactual)


@BLOCKS
def test_simplex_weights_without_unit_effects_are_sc(panel: Panel) -> None:
    # Unit effects are held at one number by an anchor: a first period in which all are 0, and of very large weight. The
    # treated units are seen there only, donors in the treated periods too.
    fit = sc(panel)
    treated, post = panel.ever_treated, panel.treated.any(axis=0)
    outcome, centre, scale = standardised(panel)
    anchored = np.column_stack([np.zeros(panel.n_units), outcome])
    used = np.column_stack([np.ones(panel.n_units, dtype=bool), panel.control_cells & post & ~treated[:, None]])
    unit = np.where(treated, 1.0, dense(fit, "unit", panel.n_units))
    period = np.r_[ANCHOR, np.ones(panel.n_periods)]
    fits = low_rank_fit(anchored, ProductWeights(unit[None], period[None], used[None]), np.array([math.inf]))
    assert_same_predictions(panel, fits.predictions()[0][:, 1:] * scale + centre, fit.counterfactual)


@BLOCKS
def test_one_effect_in_the_weighted_fit_is_the_sdid_estimate(panel: Panel) -> None:
    # Arkhangelsky et al. (2021), Algorithm 1: a weighted regression on both effects and the treatment.
    fit = sdid(panel)
    treated, post = panel.ever_treated, panel.treated.any(axis=0)
    unit = np.where(treated, 1.0 / treated.sum(), dense(fit, "unit", panel.n_units))
    time = np.where(post, 1.0 / post.sum(), dense(fit, "time", panel.n_periods))
    scale = float(panel.outcome[panel.control_cells].std())
    outcome = (panel.outcome - panel.outcome.mean()) / scale
    weights = ProductWeights(unit[None], time[None], np.ones((1, *outcome.shape), dtype=bool))
    fits = low_rank_fit(outcome, weights, np.array([math.inf]), covariates=panel.treated[None].astype(float))
    assert fits.coefficients[0, 0] == pytest.approx(att(panel, fit) / scale, abs=PRECISION)


@BLOCKS
def test_the_constant_effect_with_equal_weights_is_did_on_a_block(panel: Panel) -> None:
    _, _, scale = standardised(panel)
    found = att(panel, dwcp_constant(panel, penalties=Penalties(0.0, 0.0, math.inf)))
    assert found / scale == pytest.approx(att(panel, did(panel)) / scale, abs=PRECISION)
