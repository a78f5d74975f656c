"""Draws of an estimator study: common to all estimators, the same in any chunks, exact shortcuts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from causal_spark.panel import study as studying
from causal_spark.panel.inference import interval
from causal_spark.panel.registry import ESTIMATORS, VARIANCES, VarianceMethod
from causal_spark.panel.replicates import Replicates
from causal_spark.panel.shaped import shaped_estimates, with_effect
from causal_spark.panel.simulation import ModelVariant, SimulationOptions, effect_of_shape, fit_simulation
from causal_spark.panel.study import Study, StudyDraws, StudyOptions
from causal_spark.panel.study_summary import accuracies, coverages, detectable_effect, recommend
from causal_spark.panel.summary import att
from causal_spark.panel.types import Panel
from tests.panel.panels import block_panel, prop99, pwt
from tests.panel.settings import setting_of

CLASSICS = ("did", "sc", "difp", "mc", "sdid")
PANEL = block_panel(18, 14, 2, 4, seed=1)
PLACEBO = VarianceMethod("placebo", VARIANCES["placebo"].options(replicates=10))
UNIT_TIME = VarianceMethod("unit_time", VARIANCES["unit_time"].options(replicates=12, starts=2))


def seed(label: str) -> int:
    return zlib.crc32(label.encode())


def study_of(
    name: str, options: StudyOptions, variances: Sequence[VarianceMethod] = (), panel: Panel = PANEL, **more: Any
) -> Study:
    definition = ESTIMATORS[name]
    simulation = fit_simulation(panel, options.simulation)
    return Study(simulation, options, definition, definition.options(**more), variances, seed)


def draws_of(study: Study) -> dict[ModelVariant, StudyDraws]:
    return study.gather([study.run(chunk) for chunk in study.chunks()])


def test_estimators_see_the_same_panels_and_nothing_depends_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    options = StudyOptions(replicates=7, variance_replicates=3)
    found = {name: draws_of(study_of(name, options, [PLACEBO])) for name in ("did", "sdid")}
    for design in options.designs:
        assert np.array_equal(found["did"][design].noise, found["sdid"][design].noise)
    monkeypatch.setattr(studying, "_CHUNK_DRAWS", 2)
    study = study_of("sdid", options, [PLACEBO])
    assert [(one.start, one.stop, one.with_variances) for one in study.chunks()[:4]] == [
        (0, 2, True),
        (2, 3, True),
        (3, 5, False),
        (5, 7, False),
    ]
    again = draws_of(study)
    for design, draws in found["sdid"].items():
        assert np.array_equal(draws.errors["constant"], again[design].errors["constant"])
        assert np.array_equal(draws.bars["placebo"], again[design].bars["placebo"])
        assert draws.bars["placebo"][0].shape == (3,)
        assert draws.errors["ramp"].shape == (7,)


@pytest.mark.parametrize("name", ["did", "sdid"])
def test_errors_and_error_bars_are_the_estimators_own(name: str) -> None:
    options = StudyOptions(designs=("heteroskedastic",), effects=("constant",), replicates=3, variance_replicates=2)
    found = draws_of(study_of(name, options, [PLACEBO, UNIT_TIME]))["heteroskedastic"]
    model = fit_simulation(PANEL, options.simulation).variant("heteroskedastic")
    for number in range(3):
        drawn = model.draw(seed(f"study:{number}"))
        setting = setting_of(drawn.panel, name)
        assert found.errors["constant"][number] == pytest.approx(att(drawn.panel, setting.fit), abs=1e-9)
        assert found.noise[number] == drawn.noise_variance
        if number < 2:
            object.__setattr__(setting, "seed", lambda label, number=number: seed(f"study:{number}:{label}"))
            bar = VARIANCES["unit_time"].estimate(setting, UNIT_TIME.options, Replicates(setting)).att
            told = [found.bars["unit_time"][k][number] for k in (0, 1)]
            assert told == pytest.approx([bar.std_error, math.inf if bar.df is None else bar.df], rel=1e-9)


def test_estimators_that_read_treated_outcomes_err_otherwise_where_effects_change() -> None:
    options = StudyOptions(designs=("calibrated",), effects=("constant", "ramp", "jump"), replicates=2)
    found = draws_of(study_of("dwcp_constant", options, [PLACEBO], lambda_unit=(0.0,)))["calibrated"]
    plain = draws_of(study_of("dwcp_constant", options, lambda_unit=(0.0,)))["calibrated"]
    assert found.errors["constant"] == pytest.approx(plain.errors["constant"], abs=1e-6)
    assert found.errors["ramp"] == pytest.approx(plain.errors["ramp"], abs=1e-6)
    assert np.abs(found.errors["ramp"] - found.errors["constant"]).min() > 1e-3
    controls = draws_of(study_of("sdid", options))["calibrated"]
    assert np.array_equal(controls.errors["ramp"], controls.errors["constant"])


@pytest.mark.parametrize("name", [*CLASSICS, "dwcp"])
def test_errors_of_estimators_that_read_controls_only_do_not_move_with_the_effect(name: str) -> None:
    definition = ESTIMATORS[name]
    options = definition.options(**({"lambda_nn": (0.3,)} if name == "dwcp" else {}))
    own = definition.fit(PANEL, options, None, 3)
    moved = with_effect(PANEL, effect_of_shape(PANEL, "ramp", 0.5))
    assert att(moved, definition.fit(moved, options, None, 3)) == pytest.approx(att(PANEL, own), abs=1e-9)
    assert not definition.reads_treated


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_constant_effect_is_added_to_the_estimate(name: str) -> None:
    fit, options = ESTIMATORS[name].fit, ESTIMATORS[name].options()
    moved = with_effect(PANEL, 0.7 * PANEL.treated)
    error = att(PANEL, fit(PANEL, options, None, 3))
    assert att(moved, fit(moved, options, None, 3)) - 0.7 == pytest.approx(error, abs=2e-4)


@pytest.mark.parametrize("name", [name for name, one in ESTIMATORS.items() if one.shaped])
def test_shortcuts_find_what_the_whole_estimator_finds(name: str) -> None:
    definition = ESTIMATORS[name]
    options = definition.options()
    effects = {"constant": 0.0 * PANEL.outcome, "ramp": effect_of_shape(PANEL, "ramp", 0.2)}
    short = shaped_estimates(PANEL, definition, options, 3, effects)
    for shape, effect in effects.items():
        moved = with_effect(PANEL, effect)
        whole = definition.fit(moved, options, None, 3)
        assert short[shape].estimate == pytest.approx(att(moved, whole), abs=2e-4)
        if whole.constancy is not None and whole.constancy.weight is not None:
            assert short[shape].weight == pytest.approx(whole.constancy.weight, abs=2e-3)


def test_what_has_no_estimate_or_no_interval_is_told() -> None:
    options = StudyOptions(
        SimulationOptions(treated_units=1), designs=("calibrated",), replicates=3, variance_replicates=3
    )
    jackknife = VarianceMethod("jackknife", VARIANCES["jackknife"].options())
    found = draws_of(study_of("did", options, [jackknife, PLACEBO]))["calibrated"]
    assert np.isfinite(found.errors["constant"]).all()
    assert np.isnan(found.bars["jackknife"][0]).all()
    assert np.isfinite(found.bars["placebo"][0]).all()
    assert list(found.reasons) == ["jackknife"]
    assert not coverages(found, "jackknife", 0.95, 1.0)


def made(errors: Any, std_error: Any = None, noise: Any = None, ramp: Any = None) -> dict[ModelVariant, StudyDraws]:
    errors = np.asarray(errors, dtype=float)
    bars = (
        {}
        if std_error is None
        else {"v": (np.broadcast_to(std_error, errors.shape) + 0.0, np.full(errors.size, np.inf))}
    )
    effects = {"constant": errors, "ramp": errors if ramp is None else np.asarray(ramp)}
    return {"calibrated": StudyDraws(effects, bars, np.ones(errors.size) if noise is None else noise, {})}  # type: ignore[dict-item]


def test_coverage_power_and_width_are_those_of_the_intervals() -> None:
    rng = np.random.default_rng(5)
    errors, std_error = rng.normal(size=200), 0.5 + rng.random(200)
    found = coverages(made(errors, std_error)["calibrated"], "v", 0.9, 2.0)
    assert [one.quartile for one in found] == [0]
    bars = [interval(error, s, None, 0.9) for error, s in zip(errors, std_error, strict=True)]
    assert found[0].coverage == np.mean([bar.conf_low <= 0 <= bar.conf_high for bar in bars])
    moved = [interval(2.0 + error, s, None, 0.9) for error, s in zip(errors, std_error, strict=True)]
    assert found[0].power == np.mean([not bar.conf_low <= 0 <= bar.conf_high for bar in moved])
    assert found[0].mean_width == pytest.approx(np.mean([bar.conf_high - bar.conf_low for bar in bars]))


def test_quarters_are_those_of_the_noise_among_draws_with_an_interval() -> None:
    noise = np.arange(42.0)[::-1]
    std_error = np.sqrt(noise + 1.0)
    std_error[:2] = np.nan
    found = coverages(made(np.zeros(42), std_error, noise)["calibrated"], "v", 0.95, 0.0)
    assert [(one.quartile, one.n) for one in found] == [(0, 40), (1, 10), (2, 10), (3, 10), (4, 10)]
    widths = [one.mean_width for one in found[1:]]
    assert widths == sorted(widths)
    assert found[1].mean_width == pytest.approx(2 * 1.959964 * np.sqrt(np.arange(10) + 1).mean(), rel=1e-6)


def test_the_best_is_recommended_with_its_interval_and_the_reason_says_by_how_much() -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(size=400)
    draws = {"a": made(2.0 * base, 2.0), "b": made(base, 1.0), "c": made(1.25 * base, 1.25)}
    found = recommend(draws, ("calibrated",), ("constant",), 0.95)
    assert (found.estimator, found.variance) == ("b", "v")
    assert "b: RMSE" in found.reason
    assert "20% below the next (c)" in found.reason
    assert "the v interval covers 9" in found.reason
    size = detectable_effect(draws, "calibrated")
    assert size == pytest.approx(2.8 * np.sqrt(np.square(base).mean()))
    power = coverages(draws["b"]["calibrated"], "v", 0.95, size)[0].power
    assert power == pytest.approx(0.8, abs=0.06)


def test_of_equals_one_whose_interval_holds_is_preferred() -> None:
    rng = np.random.default_rng(7)
    one, other = rng.normal(size=(2, 200))
    draws = {"narrow": made(0.99 * one, 0.3), "honest": made(other, 1.0), "bare": made(1.01 * one)}
    found = recommend(draws, ("calibrated",), ("constant",), 0.95)
    assert found.estimator == "honest"
    assert "as good as" in found.reason
    alone = recommend({"narrow": draws["narrow"]}, ("calibrated",), ("constant",), 0.95)
    assert "no interval covers 95%" in alone.reason
    assert recommend({"bare": draws["bare"]}, ("calibrated",), ("constant",), 0.95).variance is None
    without = recommend({"bare": made(0.5 * one), "other": made(one, 1.0)}, ("calibrated",), ("constant",), 0.95)
    assert (without.estimator, without.variance) == ("bare", None)
    assert "no interval was tried; the best with one is other: RMSE" in without.reason


def test_nothing_is_recommended_without_estimates_everywhere() -> None:
    draws = {"a": made([1.0, 2.0, 3.0], ramp=[1.0, np.nan, np.nan])}
    assert recommend(draws, ("calibrated",), ("constant", "ramp"), 0.95) is None
    assert recommend(draws, ("calibrated",), ("constant",), 0.95) is not None


def test_of_variances_that_hold_the_powerful_is_chosen_among_those_that_hold_as_well() -> None:
    rng = np.random.default_rng(9)
    errors = rng.normal(size=1000)
    exact, wide, short = np.full(1000, 1.0), np.full(1000, 1.5), np.full(1000, 0.96)
    infinite = np.full(1000, np.inf)
    base = made(errors)["calibrated"]
    draws = {"a": {"calibrated": replace(base, bars={"wide": (wide, infinite), "exact": (exact, infinite)})}}
    assert recommend(draws, ("calibrated",), ("constant",), 0.95).variance == "exact"
    draws["a"]["calibrated"].bars["short"] = (short, infinite)
    assert 0.93 < coverages(draws["a"]["calibrated"], "short", 0.95, 2.8)[0].coverage < 0.94
    # It covers a little too little, so that its power is no merit.
    assert recommend(draws, ("calibrated",), ("constant",), 0.95).variance == "exact"


def test_who_fails_where_effects_change_is_not_recommended_for_them() -> None:
    base = np.random.default_rng(8).normal(size=300)
    draws = {"fragile": made(0.9 * base, ramp=0.9 * base + 3.0), "robust": made(base)}
    assert recommend(draws, ("calibrated",), ("constant",), 0.95).estimator == "fragile"
    both = recommend(draws, ("calibrated",), ("constant", "ramp"), 0.95)
    assert both.estimator == "robust"
    assert "if effects change (ramp)" in both.reason
    assert [one.place for one in accuracies(draws, "calibrated", "ramp").values()] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"designs": ()},
        {"designs": ("calibrated", "calibrated")},
        {"effects": ("ramp",)},
        {"effects": ("constant", "ramp", "ramp")},
        {"replicates": 1},
        {"variance_replicates": 201},
        {"effect_size": 0.0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StudyOptions(**wrong)


def test_simulated_panels_reproduce_published_errors() -> None:
    """Arkhangelsky et al. (2021), table 3: Penn World Table, ten units at random, ten periods, 1,000 draws."""
    options = StudyOptions(
        SimulationOptions(treated_units=10, treated_periods=10), ("calibrated",), ("constant",), replicates=150
    )
    panel = pwt()
    published = {"did": 0.1290, "sc": 0.0457, "difp": 0.0446, "sdid": 0.0373}
    deviation = panel.outcome.std()
    for name, known in published.items():
        found = accuracies({name: draws_of(study_of(name, options, panel=panel))}, "calibrated", "constant")[name]
        error = math.hypot(found.rmse_mc_error / deviation, known / math.sqrt(2000))
        assert abs(found.rmse / deviation - known) < 3.5 * error, name


def test_prop99_is_studied_whole() -> None:
    options = StudyOptions(SimulationOptions("factors"), replicates=4, variance_replicates=2)
    found = {name: draws_of(study_of(name, options, [PLACEBO], prop99())) for name in ("did", "sdid")}
    assert recommend(found, options.designs, options.effects, 0.95).variance == "placebo"
