"""Conditional variances: when they are there, what they are made of, and what they say of quiet and noisy cells."""

import numpy as np
import pytest

from causal_spark.errors import ConstantOutcomeError, SolverError, TooFewControlsError, TooFewPeriodsError
from causal_spark.panel.conditional import CONDITIONING, ConditionalOptions
from causal_spark.panel.did import did
from causal_spark.panel.event_study import event_study
from causal_spark.panel.placebo import earlier_starts
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.types import Fit, PanelSize, Penalties
from tests.panel.panels import block_panel, panel_of, prop99, staggered_panel
from tests.panel.settings import all_four, setting_of, variance_of

ALL = list(CONDITIONING)


def std_errors(setting, **options):
    return {name: found.att.std_error for name, found in all_four(setting, **options).items()}


def noisy_panel(
    n_units=26, n_periods=24, n_treated=1, n_post=2, unit_scales=1.0, period_scales=1.0, seed=0, effect=0.0
):
    """Two-way effects and independent noise with the given scales of units (n_units, 1) and periods (n_periods,)."""
    rng = np.random.default_rng(seed)
    noise = unit_scales * period_scales * rng.normal(size=(n_units, n_periods))
    treated = block_panel(n_units, n_periods, n_treated, n_post).treated
    effects = 5.0 * rng.normal(size=(n_units, 1)) + 2.0 * rng.normal(size=n_periods)
    return panel_of(effects + noise + effect * treated, treated)


def with_missing(panel, cells):
    outcome = panel.outcome.copy()
    for cell in cells:
        outcome[cell] = np.nan
    return panel_of(outcome, panel.treated)


PANELS = {
    "one treated unit": lambda: block_panel(9, 14, 1, 2, seed=1),
    "several": lambda: block_panel(11, 14, 3, 2, seed=1),
    "cohorts": lambda: staggered_panel(11, 14, (9, 9, 11), seed=1),
    "missing cells": lambda: with_missing(block_panel(13, 16, 3, 3, seed=2), [(0, 3), (2, 14), (4, 10), (-1, 15)]),
}
SLOW = {"dwcp": Penalties(lambda_time=0.1, lambda_unit=0.5), "dwcp_constant": None, "dwcp_adaptive": None}


@pytest.mark.parametrize(
    ("name", "panel"),
    # The adaptive one takes seconds, and differs from its two parts in a weight only.
    [
        (name, panel)
        for name in ESTIMATORS
        for panel in PANELS
        if name != "dwcp_adaptive" or panel == "one treated unit"
    ],
)
def test_every_estimator_has_all_four_with_finite_parts(name, panel):
    setting = setting_of(PANELS[panel](), name, penalties=SLOW.get(name))
    options = {"replicates": 4, "starts": 1} if name in SLOW else {"replicates": 12, "starts": 3}
    target = setting.panel.target_cells & np.isfinite(setting.fit.counterfactual)
    study = event_study(setting.panel, setting.fit)
    for found in all_four(setting, **options).values():
        assert 0.0 < found.att.std_error < 20.0  # outcomes spread about 1
        assert found.att.df > 0.0
        assert found.permutation_p_value is None
        details = found.details()
        assert set(study.event_time[study.event_time >= 0].tolist()) <= set(details.event_times)
        assert all(0.0 <= bar.std_error < 100.0 and bar.df > 0.0 for bar in details.event_times.values())
        np.testing.assert_array_equal(np.isfinite(details.cells), target)
        assert np.all(details.cells[target] > 0.0)


@pytest.mark.parametrize("name", ["did", "sdid"])
@pytest.mark.parametrize("starts", [(15,), (15, 15, 15), (14, 16)], ids=["one", "block", "cohorts"])
def test_standard_errors_scale_with_the_outcome_and_know_nothing_of_unit_and_period_effects(name, starts):
    panel = staggered_panel(14, 18, starts, seed=3)
    rng = np.random.default_rng(0)
    added = panel.outcome + rng.normal(size=(14, 1)) + rng.normal(size=18)
    setting = setting_of(panel, name)
    expected = all_four(setting)
    for factor, outcome in ((1e-6, 1e-6 * panel.outcome), (1e4, 1e4 * panel.outcome), (1.0, added)):
        # The ridge of SDID is chosen by first differences, which hold period effects.
        kept = setting.fit.penalties if factor == 1.0 else None
        for variance, found in all_four(setting_of(panel_of(outcome, panel.treated), name, penalties=kept)).items():
            assert found.att.std_error == pytest.approx(factor * expected[variance].att.std_error, rel=1e-4)
            assert found.att.df == pytest.approx(expected[variance].att.df, rel=1e-3)
            cells = expected[variance].details().cells
            np.testing.assert_allclose(found.details().cells, factor * cells, rtol=1e-3)


@pytest.mark.parametrize("effect", [0.0, 7.0])
def test_they_do_not_depend_on_the_effect(effect):
    found = std_errors(setting_of(noisy_panel(effect=effect, seed=3)))
    assert found == pytest.approx(std_errors(setting_of(noisy_panel(seed=3))), rel=1e-9)


@pytest.mark.parametrize("n_post", [1, 4])
def test_time_is_the_classical_placebo_variance_of_did(n_post):
    """(1 / n1 + 1 / n0) times the controls' sample variance of contrasts, with t of n0 - 1 degrees of freedom."""
    panel = noisy_panel(12, 20, 1, n_post, seed=4)
    contrasts = panel.outcome[:-1, -n_post:].mean(axis=1) - panel.outcome[:-1, :-n_post].mean(axis=1)
    found = variance_of(setting_of(panel), "time").att
    assert found.std_error**2 == pytest.approx((1 + 1 / 11) * contrasts.var(ddof=1), rel=1e-9)
    assert found.df == pytest.approx(10)
    # The same from the errors of the controls that stand in, each against the ten others.
    errors = np.array([c - np.delete(contrasts, j).mean() for j, c in enumerate(contrasts)])
    assert found.std_error**2 == pytest.approx(np.mean(errors**2) * (1 + 1 / 11) / (1 + 1 / 10), rel=1e-9)


def test_few_draws_of_groups_do_not_tell_as_much_as_all_units_in_them():
    """Five placebo groups of six are five numbers, although some twenty units are in one of them."""
    setting = setting_of(noisy_panel(40, 16, 6, 2))
    assert 1.0 < variance_of(setting, "time", replicates=5).att.df <= 5.0
    assert 1.0 < variance_of(setting, "unit_time", replicates=5, time_scale="direct").att.df <= 5.0
    assert variance_of(setting, "time", replicates=400).att.df > 25.0


@pytest.mark.parametrize("name", ["sc", "sdid"])
def test_marginal_pools_errors_of_all_starts(name):
    """Squared errors over 1 + the sum of squared weights, which is what they are proportional to under equal noise."""
    panel = noisy_panel(10, 24, 1, 2, seed=5)
    setting = setting_of(panel, name)
    shifts = earlier_starts(panel, 3)
    assert len(shifts) == 3

    def spread(fit):
        (weights,) = [w for w in fit.weights if w.kind == "unit"]
        return 1.0 + np.sum(weights.values**2)

    pooled = []
    for shift in (0, *shifts):
        for control in range(9):
            treated = np.zeros((9, 24 - shift), dtype=bool)
            treated[control, -2:] = True
            pseudo = panel_of(panel.outcome[:9, : 24 - shift], treated)
            fit = setting.definition.fit(pseudo, setting.options, setting.fit.penalties, 0)
            errors = (pseudo.outcome - fit.counterfactual)[control, -2:]
            pooled.append(np.square([errors.mean(), *errors]) / spread(fit))
    of_att, *of_cells = np.mean(pooled, axis=0) * spread(setting.fit)
    found = variance_of(setting, "marginal", starts=3)
    assert found.n_replicates == 4 * 9
    assert found.att.std_error**2 == pytest.approx(of_att, rel=1e-6)
    np.testing.assert_allclose(found.details().cells[-1, -2:] ** 2, of_cells, rtol=1e-6)
    # So it knows more than the variance given the period, with nine controls.
    assert found.att.df > 1.5 * variance_of(setting, "time", starts=3).att.df


def test_without_earlier_starts_marginal_is_the_variance_given_the_period():
    setting = setting_of(noisy_panel(12, 20, 2, 3, seed=6))
    marginal, time = (variance_of(setting, name, starts=0).att.std_error for name in ("marginal", "time"))
    assert marginal == pytest.approx(time, rel=1e-9)


def test_the_error_of_a_single_treated_cell_is_that_of_the_estimate():
    for found in all_four(setting_of(noisy_panel(n_post=1, seed=7))).values():
        details = found.details()
        assert details.cells[-1, -1] == pytest.approx(found.att.std_error, rel=1e-9)
        assert details.event_times[0].std_error == pytest.approx(found.att.std_error, rel=1e-9)
        assert details.event_times[0].df == pytest.approx(found.att.df, rel=1e-9)


def test_a_quiet_and_a_noisy_treated_unit_differ_given_the_unit_only():
    """Their controls are the same, on which the others rest; marginal asks how persistent all residuals are, too."""
    found = {}
    for label, scale in (("quiet", 0.25), ("noisy", 4.0)):
        scales = np.where(np.arange(26) == 25, scale, 1.0)[:, None]
        found[label] = std_errors(setting_of(noisy_panel(unit_scales=scales, n_post=3, seed=8)))
    assert found["quiet"]["time"] == pytest.approx(found["noisy"]["time"], rel=1e-9)
    assert found["quiet"]["marginal"] == pytest.approx(found["noisy"]["marginal"], rel=0.005)
    for name in ("unit", "unit_time"):
        assert found["quiet"][name] < 0.2 * found["noisy"][name]
        assert found["quiet"][name] < 0.6 * found["quiet"]["marginal"]
        assert found["noisy"][name] > 2.0 * found["noisy"]["marginal"]


def test_cells_of_quiet_and_noisy_units_differ_given_the_unit_only():
    """Both in one panel; single effects have their own errors, the average one in between."""
    scales = np.ones((26, 1))
    scales[-2:, 0] = 0.25, 4.0
    for name, found in all_four(setting_of(noisy_panel(n_treated=2, n_post=3, unit_scales=scales, seed=9))).items():
        quiet, noisy = found.details().cells[-2:, -3:]
        if name in ("unit", "unit_time"):
            assert np.all(noisy > 5.0 * quiet)
        else:
            np.testing.assert_allclose(noisy, quiet, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.2, 5.0], ids=["quiet", "noisy"])
def test_a_quiet_or_noisy_treated_period_shows_given_the_period_only(factor):
    scales = np.ones(24)
    scales[-1] = factor
    found = std_errors(setting_of(noisy_panel(n_post=1, period_scales=scales, seed=10)))
    plain = std_errors(setting_of(noisy_panel(n_post=1, seed=10)))
    ratio = {name: found[name] / plain[name] for name in ALL}
    # Variances of a contrast with the mean of 23 periods before.
    of_contrast = (factor**2 + 1 / 23) / (1 + 1 / 23)
    assert ratio["time"] == pytest.approx(np.sqrt(of_contrast), rel=0.2)
    # Earlier starts call such a period improbable, which moves it towards them, but not all the way.
    assert min(factor, factor**0.6) < ratio["unit_time"] < max(factor, factor**0.6)
    # The others average over seven starts, of which one is noisy, or quiet.
    average = np.sqrt((6 + of_contrast) / 7)
    assert ratio["marginal"] == pytest.approx(average, rel=0.25)
    assert ratio["unit"] == pytest.approx(average, rel=0.25)
    if factor > 1.0:
        assert min(found["time"], found["unit_time"]) > 1.5 * max(found["marginal"], found["unit"])
    else:
        assert max(found["time"], found["unit_time"]) < 0.6 * min(found["marginal"], found["unit"])


def test_cells_and_event_times_are_noisier_in_noisy_periods_given_the_period():
    scales = np.ones(24)
    scales[-1] = 5.0
    panel = noisy_panel(n_treated=2, n_post=2, period_scales=scales, seed=11)
    by_cell, by_event_time = {}, {}
    for name, found in all_four(setting_of(panel)).items():
        details = found.details()
        assert np.isfinite(details.cells).sum() == np.isfinite(details.cells[-2:, -2:]).sum() == 4
        assert list(details.event_times) == list(range(-22, 2))
        bars = [details.event_times[k].std_error for k in (-1, 0, 1)]
        by_event_time[name] = bars[2] / max(bars[:2])
        by_cell[name] = float(np.mean(details.cells[-2:, -1] / details.cells[-2:, -2]))
    for ratio in (by_cell, by_event_time):
        for given, not_given in (("time", "marginal"), ("unit_time", "unit")):
            assert ratio[given] > 3.0
            assert ratio[given] > 1.3 * ratio[not_given]


def test_shrinking_draws_the_noise_of_treated_periods_towards_that_of_earlier_ones():
    """With eleven controls a period's noise is known to a fifth; here it came out high, earlier periods are alike."""
    panel = noisy_panel(12, 40, 1, 1, seed=12)
    outcome = panel.outcome.copy()
    outcome[:-1, -1] += 0.5 * (did(panel).counterfactual - outcome)[:-1, -1] * -1.0
    setting = setting_of(panel_of(outcome, panel.treated))
    direct = variance_of(setting, "unit_time", time_scale="direct").att
    shrunk = variance_of(setting, "unit_time", time_scale="shrunk").att
    unit = variance_of(setting, "unit").att
    assert direct.std_error > shrunk.std_error > unit.std_error
    assert shrunk.df > direct.df


@pytest.mark.parametrize("starts", [0, 1])
def test_there_is_nothing_to_shrink_towards_without_earlier_starts(starts):
    setting = setting_of(noisy_panel(seed=13))
    direct, shrunk = (variance_of(setting, "unit_time", starts=starts, time_scale=s).att for s in ("direct", "shrunk"))
    assert direct == shrunk


@pytest.mark.parametrize("name", ["sc", "difp", "sdid"])
@pytest.mark.parametrize("seed", range(3))
def test_placebos_that_are_fitted_exactly_do_not_blow_up_the_others(name, seed):
    """Forty donors fit twelve periods exactly, or nearly: residuals are no noise then, and errors not so many of it."""
    panel = prop99() if seed == 0 else block_panel(40, 16, 1, 4, seed=seed)
    found = std_errors(setting_of(panel, name))
    for given in ("unit", "unit_time"):
        assert 0.2 * found["marginal"] < found[given] < 5.0 * found["marginal"]


def test_a_treated_unit_seen_once_before_treatment_has_no_scale_of_its_own():
    """Its one residual is zero, being all that its intercept is fitted to."""
    panel = with_missing(noisy_panel(14, 16, 1, 3, seed=14), [(-1, slice(0, 12))])
    setting = setting_of(panel)
    for name in ("unit", "unit_time"):
        with pytest.raises(TooFewPeriodsError, match="fewer than two"):
            variance_of(setting, name)
    assert variance_of(setting, "time").att.std_error > 0.1


@pytest.mark.parametrize("gap", [(3, slice(0, 12)), (3, 15)], ids=["enters late", "misses a cell"])
@pytest.mark.parametrize("name", ["did", "sdid"])
def test_a_control_without_an_estimate_at_an_earlier_start_leaves_the_treated_periods_alone(gap, name):
    """The placebo variance can be had, and so can the one given the period, which is made of the same estimates."""
    panel = with_missing(block_panel(14, 20, 1, 1, seed=1), [gap])
    assert 4 in earlier_starts(panel, 6)  # the cell of period 15 is the treated one then
    setting = setting_of(panel, name, None if name == "did" else ESTIMATORS[name].options(min_balanced_share=0.0))
    placebo = variance_of(setting, "placebo")
    assert placebo.n_replicates == 13
    assert variance_of(setting, "time").att.std_error == pytest.approx(placebo.att.std_error, rel=0.15)


@pytest.mark.parametrize("name", ALL)
def test_they_decline_unless_controls_outnumber_treated_units(name):
    panel = block_panel(6, 12, 3, 2)
    with pytest.raises(TooFewControlsError, match="more never-treated units") as raised:
        variance_of(setting_of(panel), name)
    assert "Add untreated units" in raised.value.hint
    size = PanelSize.of(panel)
    assert sum(one.n_fits(size) for one in VARIANCES[name].sets(ConditionalOptions())) == 0


@pytest.mark.parametrize("name", ["did", "sc", "sdid"])
def test_given_the_unit_they_decline_without_periods_to_learn_its_scale_from(name):
    setting = setting_of(block_panel(9, 4, 1, 3), name)
    for variance, says in (("unit", "none"), ("unit_time", "fewer than two")):
        with pytest.raises(TooFewPeriodsError, match=says) as raised:
            variance_of(setting, variance)
        assert "Add periods before treatment" in raised.value.hint
    for variance in ("time", "marginal"):
        assert variance_of(setting, variance).att.std_error > 0.0


@pytest.mark.parametrize(("n_periods", "options"), [(4, {}), (20, {"starts": 0})], ids=["short", "not asked for"])
def test_given_the_unit_alone_they_need_an_earlier_start(n_periods, options):
    setting = setting_of(block_panel(9, n_periods, 1, 2))
    with pytest.raises(TooFewPeriodsError, match="starts before the real one") as raised:
        variance_of(setting, "unit", **options)
    assert "unit_time" in raised.value.hint
    assert variance_of(setting, "unit_time", **options).att.std_error > 0.0


@pytest.mark.parametrize("name", ["did", "sc", "sdid"])
@pytest.mark.parametrize("variance", ALL)
def test_constant_outcomes_are_declined_with_a_way_out(variance, name):
    panel = block_panel(9, 12, 1, 2)
    setting = setting_of(panel_of(np.full((9, 12), 0.1), panel.treated), name)
    if variance in ("unit", "unit_time"):
        with pytest.raises(ConstantOutcomeError) as raised:
            variance_of(setting, variance)
        assert "time" in raised.value.hint
    else:
        # They need no scale, and are what the hint names.
        assert variance_of(setting, variance).att.std_error == pytest.approx(0.0, abs=1e-12)


def test_placebo_estimates_must_be_finite():
    def huge(changed, options, penalties, seed):
        return Fit(np.full(changed.outcome.shape, -1e308))

    setting = setting_of(block_panel(6, 12, 1, 3), spy=huge)
    with np.errstate(over="ignore"), pytest.raises(SolverError, match="not finite") as raised:
        variance_of(setting, "time")
    assert raised.value.hint


@pytest.mark.parametrize(
    ("options", "field"),
    [({"replicates": 1}, "replicates"), ({"starts": -1}, "starts"), ({"time_scale": "none"}, "time_scale")],
)
def test_options_out_of_range_name_their_field(options, field):
    with pytest.raises(ValueError, match=field):
        ConditionalOptions(**options)
