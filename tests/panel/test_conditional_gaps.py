"""Conditional variances where data have gaps, exact fits, late starts or few units: like for like, or no number."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from causal_spark.panel.conditional import CONDITIONING
from causal_spark.panel.event_study import event_study
from causal_spark.panel.noise_scales import series_scales
from causal_spark.panel.placebo import earlier_starts
from causal_spark.panel.summary import att
from tests.panel.panels import panel_of, treated_from
from tests.panel.settings import all_four, setting_of, variance_of


def noise_panel(seed, n_units=25, n_periods=28, starts=(20,), scale=None):
    noise = np.random.default_rng(seed).normal(size=(n_units, n_periods))
    if scale is not None:
        noise[-len(starts) :] *= np.reshape(scale, (-1, 1))
    return panel_of(noise, treated_from(n_units, n_periods, starts))


@pytest.mark.parametrize("gap", ["leaves early", "enters late"])
def test_placebos_have_the_gaps_of_the_treated_unit(gap):
    estimates, errors = [], {name: [] for name in ("placebo", "time", "unit_time")}
    for seed in range(60):
        panel = noise_panel(seed)
        outcome = panel.outcome.copy()
        outcome[-1, slice(21, None) if gap == "leaves early" else slice(0, 17)] = np.nan
        setting = setting_of(panel_of(outcome, panel.treated), "did")
        estimates.append(att(setting.panel, setting.fit))
        for name, found in errors.items():
            found.append(variance_of(setting, name).att.std_error)
    # The standard error of a standard deviation of 60 draws is 9% of it.
    for name, found in errors.items():
        assert np.mean(found) == pytest.approx(np.std(estimates), rel=0.3), name


@pytest.mark.parametrize("name", ["sc", "difp", "sdid", "did"])
def test_controls_without_noise_before_treatment_spoil_nothing(name):
    panel = noise_panel(3, n_units=30, n_periods=20, starts=(16,))
    outcome = np.maximum(panel.outcome + 1.0, 0.0)
    outcome[:3, :14] = 0.0
    outcome[3] = 0.0
    found = all_four(setting_of(panel_of(outcome, panel.treated), name))
    time = found["time"].att.std_error
    for variance in CONDITIONING:
        assert 0.1 * time < found[variance].att.std_error < 10.0 * time, variance
        details = found[variance].details()
        assert all(bar.is_usable for bar in details.event_times.values())
        assert np.isfinite(details.cells[panel.treated]).all()


@pytest.mark.parametrize("scale", [1e-100, 1e90])
def test_standard_errors_scale_with_the_outcome_however_large(scale):
    panel = noise_panel(5)
    plain = all_four(setting_of(panel, "did"))
    scaled = all_four(setting_of(panel_of(panel.outcome * scale, panel.treated), "did"))
    for name, found in plain.items():
        assert scaled[name].att.std_error == pytest.approx(found.att.std_error * scale, rel=1e-6)


def test_a_long_post_period_does_not_hide_that_rows_were_demeaned():
    rng = np.random.default_rng(8)
    series = rng.normal(size=(400, 10))
    series -= series.mean(axis=1, keepdims=True)
    wide = np.full((400, 40), np.nan)
    wide[:, :10] = series
    short, long = series_scales(series), series_scales(wide)
    assert short.shrinkage == pytest.approx(0.1, abs=0.03)
    assert long.shrinkage == pytest.approx(short.shrinkage)
    np.testing.assert_allclose(long.autocorrelation, short.autocorrelation, atol=1e-12)
    np.testing.assert_allclose(long.df, short.df)


def test_event_times_have_the_scale_of_the_units_that_have_them():
    truth = {"noisy": [], "quiet": []}
    found = {"noisy": [], "quiet": []}
    for seed in range(40):
        panel = noise_panel(seed, starts=(14, 20), scale=(4.0, 0.25))
        setting = setting_of(panel, "did")
        study = event_study(panel, setting.fit)
        bars = variance_of(setting, "unit_time").details().event_times
        # Only the second unit has so early a period, only the first one so late an event time.
        for kind, event_time in (("quiet", -18), ("noisy", 12)):
            truth[kind].append(study.estimate[study.event_time == event_time][0])
            found[kind].append(bars[event_time].std_error)
    for kind, errors in found.items():
        assert np.mean(errors) == pytest.approx(np.std(truth[kind]), rel=0.45), kind
    assert np.mean(found["noisy"]) > 5 * np.mean(found["quiet"])


def test_bars_before_treatment_are_those_of_residuals():
    gaps, errors = [], []
    for seed in range(80):
        panel = noise_panel(seed, n_units=20, n_periods=24, starts=(20,) * 5)
        setting = setting_of(panel, "did")
        study = event_study(panel, setting.fit)
        early = study.event_time < 0
        gaps.append(study.estimate[early])
        bars = variance_of(setting, "time").details().event_times
        errors.append([bars[int(k)].std_error for k in study.event_time[early]])
    assert np.mean(errors) == pytest.approx(np.std(gaps), rel=0.06)


def test_a_period_without_placebos_has_no_bar_of_another_period():
    panel = noise_panel(2, n_units=16, n_periods=20, starts=(14, 18, 18))
    outcome = panel.outcome.copy()
    outcome[:13, 15] = np.nan
    setting = setting_of(panel_of(outcome, panel.treated), "did")
    assert np.isfinite(setting.fit.counterfactual[13, 15])
    for name in ("time", "unit_time"):
        cells = variance_of(setting, name).details().cells
        assert np.isnan(cells[13, 15])
        assert np.isfinite(cells[13, 16])


def test_a_unit_treated_from_the_first_period_on_changes_nothing_for_the_others():
    panel = noise_panel(4, n_units=16, n_periods=24, starts=(0, 18))
    setting = setting_of(panel, "sdid")
    assert len(earlier_starts(panel, 6)) == len(earlier_starts(noise_panel(4, 16, 24, (18,)), 6)) == 4
    found = all_four(setting)
    alone = all_four(setting_of(panel.take_units(np.delete(np.arange(16), 14)), "sdid"))
    for name in CONDITIONING:
        assert found[name].att.std_error == pytest.approx(alone[name].att.std_error, rel=0.5)


def test_treated_units_by_the_hundred_need_little_memory():
    panel = noise_panel(6, n_units=300, n_periods=30, starts=(24,) * 100)
    setting = setting_of(panel, "did")
    tracemalloc.start()
    variance_of(setting, "unit_time").details()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Replicates x treated x periods numbers are 5 MB at the real start; with the controls in place of the periods,
    # 32 MB times the arrays made of them.
    assert peak < 60e6
