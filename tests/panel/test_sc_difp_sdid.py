import dataclasses

import numpy as np
import pytest

from causal_spark.errors import (
    MissingCellsError,
    NoControlUnitsError,
    NoPrePeriodsError,
    NoTreatedCellsError,
    SolverError,
    UnsupportedCovariatesError,
    UnsupportedPatternError,
)
from causal_spark.panel.cohorts import read_cohorts
from causal_spark.panel.difp import DifpOptions, difp
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.sc import ScOptions, sc
from causal_spark.panel.sdid import SdidOptions, sdid
from causal_spark.panel.summary import att, effect_cells, summarise
from causal_spark.panel.types import Penalties
from tests.panel.panels import block_panel, panel_of, prop99, staggered_panel, treated_from

SCATTERED = np.nonzero(np.random.default_rng(0).random((40, 30)) < 0.2)
OPTIONS = {sc: ScOptions, difp: DifpOptions, sdid: SdidOptions}
METHODS = pytest.mark.parametrize("method", [sc, difp, sdid], ids=lambda f: f.__name__)


def weights_by_label(fit, kind, labels):
    (found,) = [w for w in fit.weights if w.kind == kind]
    return {labels[p]: v for p, v in zip(found.positions, found.values, strict=True)}


def dense(fit, kind, size):
    (found,) = [w for w in fit.weights if w.kind == kind]
    full = np.zeros(size)
    full[found.positions] = found.values
    return full


@pytest.mark.parametrize(
    ("method", "options", "golden", "tolerance"),
    [
        # Exact optimum; the R package synthdid prints -15.6038, its Frank-Wolfe stopping early.
        (sdid, SdidOptions(), -15.6054, 0.001),
        # Agreed by several exact implementations without ridge; R's early-stopped value is -19.6197.
        (sc, ScOptions(), -19.5136, 0.001),
        (sc, ScOptions(ridge=0.0), -19.5136, 0.001),
        (difp, DifpOptions(), -11.1090, 0.001),
        (difp, DifpOptions(ridge=0.0), -11.1090, 0.001),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_proposition_99_golden_values(method, options, golden, tolerance):
    panel = prop99()
    fit = method(panel, options)
    assert att(panel, fit) == pytest.approx(golden, abs=tolerance)
    assert fit.converged
    assert fit.tuning == "analytic"


def test_proposition_99_sdid_weights():
    """The leading weights as the package of Arkhangelsky et al. (2021) prints them, to three decimals."""
    panel = prop99()
    fit = sdid(panel)
    unit = weights_by_label(fit, "unit", panel.units)
    time = weights_by_label(fit, "time", panel.periods)
    assert [time[year] for year in (1986, 1987, 1988)] == pytest.approx([0.366, 0.206, 0.427], abs=0.001)
    expected = {"Nevada": 0.124, "New Hampshire": 0.105, "Connecticut": 0.078, "Delaware": 0.070, "Colorado": 0.058}
    assert {state: unit[state] for state in expected} == pytest.approx(expected, abs=0.001)
    assert sum(unit.values()) == pytest.approx(1.0)
    assert sum(time.values()) == pytest.approx(1.0)


def half_gradients(panel, fit):
    """Half gradients of SDID's two objectives, straight from Arkhangelsky et al. (2021), equations 2.1 and 2.3."""
    n_pre = int(panel.treated.any(axis=0).argmax())
    controls, treated = panel.outcome[~panel.ever_treated], panel.outcome[panel.ever_treated]
    unit = dense(fit, "unit", panel.n_units)[~panel.ever_treated]
    time = dense(fit, "time", panel.n_periods)[:n_pre]
    (zeta_unit,), (zeta_time,) = fit.penalties.zeta_unit, fit.penalties.zeta_time
    residual = controls[:, :n_pre].T @ unit - treated[:, :n_pre].mean(axis=0)
    by_unit = controls[:, :n_pre] @ (residual - residual.mean()) + n_pre * zeta_unit**2 * unit
    residual = controls[:, :n_pre] @ time - controls[:, n_pre:].mean(axis=1)
    by_time = controls[:, :n_pre].T @ (residual - residual.mean()) + len(controls) * zeta_time**2 * time
    return (unit, by_unit), (time, by_time)


@pytest.mark.parametrize("panel", [prop99(), block_panel(40, 30, 3, 8, seed=1)], ids=["prop99", "generated"])
def test_sdid_weights_satisfy_their_optimality_conditions(panel):
    for weights, gradient in half_gradients(panel, sdid(panel)):
        excess = gradient - gradient.min()
        assert excess @ weights <= 1e-10 * np.ptp(gradient)


def test_sdid_ridge_levels_are_the_papers():
    panel = block_panel(20, 15, n_treated=2, n_post=4)
    fit = sdid(panel)
    noise = np.diff(panel.outcome[:18, :11], axis=1).std(ddof=1)
    assert fit.penalties.zeta_unit == pytest.approx((8**0.25 * noise,))
    assert fit.penalties.zeta_time == pytest.approx((1e-6 * noise,))


def test_counterfactual_is_the_weighted_comparison_of_the_paper():
    panel = block_panel(20, 15, n_treated=2, n_post=4, seed=2)
    fit = sdid(panel)
    unit, time = dense(fit, "unit", 20), dense(fit, "time", 15)
    synthetic = unit @ panel.outcome
    for i in (18, 19):
        np.testing.assert_allclose(fit.counterfactual[i], synthetic + time @ (panel.outcome[i] - synthetic))
    assert np.isnan(fit.counterfactual[:18]).all()
    treated, post = panel.outcome[18:].mean(axis=0), np.arange(15) >= 11
    double_difference = (treated - synthetic)[post].mean() - (treated - synthetic) @ time
    assert att(panel, fit) == pytest.approx(double_difference, abs=1e-12)


def test_difp_is_sdid_with_uniform_time_weights_and_sc_has_no_intercept():
    panel = block_panel(20, 15, n_treated=2, n_post=4, seed=3)
    effects = effect_cells(panel, difp(panel))
    np.testing.assert_allclose(effects[18:, :11].mean(axis=1), 0.0, atol=1e-12)
    fit = sc(panel)
    np.testing.assert_allclose(fit.counterfactual[18], dense(fit, "unit", 20) @ panel.outcome)
    assert [w.kind for w in fit.weights] == ["unit"]


@METHODS
def test_staggered_cohorts_are_estimated_each_against_the_never_treated(method):
    panel = staggered_panel(24, 16, starts=(8, 8, 11), seed=4)
    fit = method(panel)
    for rows, start in (([21, 22], 8), ([23], 11)):
        keep = np.r_[np.arange(21), rows]
        alone = method(panel.take_units(keep))
        np.testing.assert_array_equal(fit.counterfactual[rows], alone.counterfactual[21:])
        assert f"unit:{start}" in {w.kind for w in fit.weights}
    cells = effect_cells(panel, fit)
    assert att(panel, fit) == pytest.approx((cells[21:23, 8:].sum() + cells[23, 11:].sum()) / 21)
    assert len(fit.penalties.zeta_unit) == 2


@METHODS
def test_a_constant_effect_is_recovered_where_untreated_outcomes_are_additive(method):
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.normal(size=12))
    panel = panel_of(np.tile(path, (9, 1)) + 3.0 * treated_from(9, 12, (8, 8)), treated_from(9, 12, (8, 8)))
    assert att(panel, method(panel)) == pytest.approx(3.0, abs=1e-9)


@METHODS
@pytest.mark.parametrize("level", [0.0, 0.1, 1e9])
def test_constant_controls_give_the_difference_of_means_not_nan(method, level):
    treated = treated_from(7, 9, (5,))
    panel = panel_of(level + 2.5 * treated, treated)
    fit = method(panel)
    assert att(panel, fit) == pytest.approx(2.5, rel=1e-6)
    assert dense(fit, "unit", 7)[:6] == pytest.approx(np.full(6, 1 / 6))


@METHODS
@pytest.mark.parametrize(
    ("n_units", "n_periods", "starts"),
    [(2, 2, (1,)), (2, 6, (4,)), (8, 2, (1,)), (8, 3, (1, 1)), (30, 4, (2,)), (5, 40, (30, 30)), (3, 3, (1, 2))],
)
def test_smallest_shapes_have_finite_estimates(method, n_units, n_periods, starts):
    panel = staggered_panel(n_units, n_periods, starts, seed=5)
    fit = method(panel)
    assert np.isfinite(fit.counterfactual[panel.ever_treated]).all()
    assert np.isfinite(summarise(panel, fit).estimate)


@METHODS
@pytest.mark.parametrize("factor", [1e-9, 1e12])
@pytest.mark.parametrize("shape", [(20, 15), (40, 8)])
def test_estimates_scale_with_the_outcome_and_ignore_its_origin(method, factor, shape):
    panel = block_panel(*shape, n_treated=2, n_post=4, seed=6)
    base = att(panel, method(panel))
    scaled = panel_of(panel.outcome * factor, panel.treated)
    shifted = panel_of(panel.outcome + 1000.0, panel.treated)
    assert att(scaled, method(scaled)) == pytest.approx(base * factor, rel=1e-9)
    assert att(shifted, method(shifted)) == pytest.approx(base, abs=1e-8)


@METHODS
@pytest.mark.parametrize("shape", [(20, 15, 4), (40, 8, 4), (60, 6, 3), (15, 40, 5)])
def test_order_of_units_does_not_matter(method, shape):
    panel = block_panel(shape[0], shape[1], n_treated=2, n_post=shape[2], seed=7)
    shuffled = panel.take_units(np.random.default_rng(1).permutation(shape[0]))
    assert att(shuffled, method(shuffled)) == pytest.approx(att(panel, method(panel)), abs=1e-9)


@METHODS
def test_units_treated_from_the_start_are_left_out_and_not_identified(method):
    panel = staggered_panel(12, 10, starts=(0, 6), seed=8)
    fit = method(panel)
    without = panel.take_units(np.r_[np.arange(10), 11])
    np.testing.assert_array_equal(fit.counterfactual[11], method(without).counterfactual[10])
    assert summarise(panel, fit).n_cells_not_identified == 10


@METHODS
def test_given_penalties_are_kept(method):
    panel = block_panel(seed=9)
    fit = method(panel, penalties=Penalties(zeta_unit=(0.7,), zeta_time=(0.2,)))
    assert fit.penalties.zeta_unit == (0.7,)
    assert fit.penalties.zeta_time == ((0.2,) if method is sdid else None)
    assert not np.allclose(fit.counterfactual, method(panel).counterfactual, equal_nan=True)
    with pytest.raises(SolverError, match="2 ridge level"):
        method(panel, penalties=Penalties(zeta_unit=(0.7, 0.7)))


def absent(panel, unit, time):
    outcome, treated = panel.outcome.copy(), panel.treated.copy()
    outcome[unit, time] = np.nan
    treated[unit, time] = False
    return panel_of(outcome, treated)


def middle_cell(panel):
    treated = np.zeros_like(panel.treated)
    treated[-1, 3] = True
    return panel.with_treatment(treated)


def on_off(panel):
    treated = panel.treated.copy()
    treated[-1, -1] = False
    return panel.with_treatment(treated)


@METHODS
@pytest.mark.parametrize(
    ("panel", "error", "says"),
    [
        (block_panel(6, 8, n_treated=6), NoControlUnitsError, "no donors"),
        (block_panel(6, 8, n_treated=2, n_post=8), NoPrePeriodsError, "first period"),
        (block_panel(6, 8, n_treated=0), NoTreatedCellsError, "treated"),
        (on_off(block_panel(6, 8)), UnsupportedPatternError, "1 unit"),
        (block_panel(6, 8, n_treated=6, n_post=8), NoControlUnitsError, "no donors"),
        (staggered_panel(6, 8, starts=[0] * 3 + [4] * 3), NoControlUnitsError, "no donors"),
        (middle_cell(block_panel(6, 8, 1)), UnsupportedPatternError, "1 unit"),
        # Every donor misses the whole post-period, every treated unit the whole pre-period, everybody a fifth.
        (absent(block_panel(6, 8), slice(0, 4), slice(4, 8)), MissingCellsError, "none keeps anything"),
        (absent(block_panel(6, 8), slice(4, 6), slice(0, 4)), MissingCellsError, "8 cells of 2 units"),
        (absent(block_panel(40, 30), *SCATTERED), MissingCellsError, "50%"),
        (
            dataclasses.replace(block_panel(6, 8), covariates=np.zeros((6, 8, 1))),
            UnsupportedCovariatesError,
            "covariates",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_panels_without_meaning_for_block_methods_are_declined_with_a_remedy(method, panel, error, says):
    with pytest.raises(error, match=says) as raised:
        method(panel)
    assert raised.value.hint


@METHODS
@pytest.mark.parametrize(
    ("starts", "helps"), [((4, 4, 4, 6, 6, 6), True), ((4,) * 6, False), ((0, 0, 0, 4, 4, 4), False)]
)
def test_without_never_treated_units_the_hint_names_the_other_donors_where_they_help(method, starts, helps):
    with pytest.raises(NoControlUnitsError) as raised:
        method(staggered_panel(6, 8, starts=starts))
    assert ("not_yet_treated" in raised.value.hint) == helps


def test_cohorts_are_read_from_the_treated_mask():
    panel = staggered_panel(9, 10, starts=(4, 7, 4, 0))
    design = read_cohorts(panel)
    assert design.always_treated.tolist() == [8]
    assert [(b.start, b.first, b.end, b.treated.tolist(), b.donors.tolist(), b.suffix) for b in design.blocks] == [
        (4, 4, 10, [5, 7], [0, 1, 2, 3, 4], ":4"),
        (7, 7, 10, [6], [0, 1, 2, 3, 4], ":7"),
    ]


@METHODS
@pytest.mark.parametrize(
    ("n_units", "n_periods", "n_post"), [(40, 20, 1), (12, 60, 1), (40, 20, 10), (4, 30, 25), (100, 6, 2)]
)
def test_duplicate_donors_share_the_weight_of_one(method, n_units, n_periods, n_post):
    """Shared equally, a weight's square halves, so that a ridge for pairs is that of a zeta smaller by sqrt(2)."""
    panel = block_panel(n_units, n_periods, 1, n_post, seed=10)
    copies = panel.take_units(np.r_[np.arange(n_units - 1), np.arange(n_units)])
    alone = method(panel, penalties=Penalties(zeta_unit=(0.1 / np.sqrt(2.0),), zeta_time=(0.01,)))
    twice = method(copies, penalties=Penalties(zeta_unit=(0.1,), zeta_time=(0.01,)))
    assert twice.converged
    np.testing.assert_allclose(twice.counterfactual[-1], alone.counterfactual[-1], rtol=1e-8, atol=1e-8)
    both = dense(twice, "unit", 2 * n_units - 1)[:-1].reshape(2, -1)
    np.testing.assert_allclose(both, np.tile(dense(alone, "unit", n_units)[:-1] / 2, (2, 1)), atol=1e-8)


@METHODS
@pytest.mark.parametrize("n_periods", [6, 40])
def test_collinear_donors_give_a_finite_estimate_that_does_not_depend_on_their_order(method, n_periods):
    panel = block_panel(20, n_periods, 2, 3, seed=11)
    outcome = panel.outcome.copy()
    outcome[:6] = 0.5 * (outcome[6:12] + outcome[12:18])
    panel = panel_of(outcome, panel.treated)
    shuffled = panel.take_units(np.random.default_rng(2).permutation(20))
    assert method(panel).converged
    assert att(shuffled, method(shuffled)) == pytest.approx(att(panel, method(panel)), abs=1e-8)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ScOptions, "ridge"),
        (DifpOptions, "ridge"),
        (SdidOptions, "ridge_unit"),
        (SdidOptions, "ridge_time"),
        *((options, field) for options in OPTIONS.values() for field in ("min_balanced_share", "donors")),
    ],
)
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_options_out_of_range_name_their_field(options, field, value):
    with pytest.raises(ValueError, match=field):
        options(**{field: value})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["did", "sc", "difp", "sdid"])
def test_outcomes_too_large_to_add_up_are_refused_with_a_remedy(name):
    definition = ESTIMATORS[name]
    panel = panel_of(np.arange(42.0).reshape(6, 7) * 4e306, treated_from(6, 7, [5]))
    with pytest.raises(SolverError, match=r"overflow|not finite") as raised:
        definition.fit(panel, definition.options(), None, 0)
    assert raised.value.hint
