"""Panels drawn from a model of one: who is treated, how noise is spread, what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import (
    ConstantOutcomeError,
    GroupError,
    NoControlUnitsError,
    NoTreatedCellsError,
    TooFewPeriodsError,
)
from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.sc import sc
from causal_spark.panel.simulation import (
    Assignment,
    ModelVariant,
    SimulationOptions,
    effect_of_shape,
    fit_simulation,
    noise_scales,
)
from causal_spark.panel.types import Panel
from tests.panel.panels import block_panel, panel_of, prop99, staggered_panel, untreated_outcomes

ASSIGNMENTS: tuple[Assignment, ...] = ("uniform", "factors", "synthetic_control", "truly_treated", "observed")


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_draws_are_like_the_panel_and_follow_from_their_seed(assignment: Assignment) -> None:
    panel = staggered_panel(24, 18, (10, 10, 12), seed=1)
    found = fit_simulation(panel, SimulationOptions(assignment))
    drawn, again, other = found.draw(3).panel, found.draw(3).panel, found.draw(4).panel
    assert np.array_equal(drawn.outcome, again.outcome)
    assert np.array_equal(drawn.treated, again.treated)
    assert not np.array_equal(drawn.outcome, other.outcome)
    assert drawn.n_units == 24
    assert drawn.n_periods == (10 if assignment == "truly_treated" else 18)
    assert drawn.target_cells.any()
    assert found.draw(3).noise_variance > 0


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_truly_treated_cells_take_no_part(assignment: Assignment) -> None:
    panel = block_panel(20, 16, 2, 5, seed=2)
    moved = replace(panel, outcome=panel.outcome + 50.0 * panel.treated)
    one, two = (fit_simulation(each, SimulationOptions(assignment)).draw(5).panel for each in (panel, moved))
    assert np.array_equal(one.outcome, two.outcome)
    assert np.array_equal(one.treated, two.treated)


def test_who_is_treated() -> None:
    panel = block_panel(30, 20, 3, 6, seed=3)
    uniform = fit_simulation(panel, SimulationOptions())
    treated = np.stack([uniform.draw(k).panel.treated for k in range(600)])
    assert np.array_equal(np.unique(treated.any(axis=2).sum(axis=1)), [3])
    assert np.array_equal(np.unique(treated.any(axis=1).sum(axis=1)), [6])
    assert treated.any(axis=2).mean(axis=0) == pytest.approx(np.full(30, 0.1), abs=5 * np.sqrt(0.09 / 600))

    early = fit_simulation(panel, SimulationOptions("truly_treated", treated_periods=4)).draw(0).panel
    assert np.array_equal(early.ever_treated, panel.ever_treated)
    assert np.array_equal(np.unique(first_treated(early.treated)[early.ever_treated]), [10])
    assert early.n_periods == 14

    own = fit_simulation(panel, SimulationOptions("observed")).draw(0).panel
    assert np.array_equal(own.treated, panel.treated)

    fewer = fit_simulation(panel, SimulationOptions(treated_units=2, treated_periods=1)).draw(0).panel
    assert (fewer.ever_treated.sum(), fewer.treated.sum()) == (2, 2)


def test_factors_draw_units_like_those_with_the_policy() -> None:
    rng = np.random.default_rng(4)
    loading = np.sort(rng.normal(size=60))
    outcome = loading[:, None] * np.cumsum(rng.normal(size=20)) + 0.1 * rng.normal(size=(60, 20))
    panel = panel_of(outcome, np.zeros((60, 20), dtype=bool))
    # The probability is one half where the loading is .3.
    policy = rng.random(60) < 1 / (1 + np.exp(-8 * (loading - 0.3)))
    options = SimulationOptions("factors", rank=1, treated_units=5, treated_periods=4)
    probability = fit_simulation(panel, options, policy).probability
    assert probability is not None
    assert probability[-15:].min() > 0.8
    assert probability[:15].max() < 0.2
    chosen = np.mean([fit_simulation(panel, options, policy).draw(k).panel.ever_treated for k in range(30)], axis=0)
    assert chosen[:15].sum() < 0.02 * chosen.sum()


def test_synthetic_control_draws_donors_by_their_weights() -> None:
    panel = prop99()
    found = fit_simulation(panel, SimulationOptions("synthetic_control"))
    block = sc(panel).blocks[0]
    assert found.probability is not None
    assert found.probability[block.donors] == pytest.approx(np.minimum(block.unit, 1.0), abs=1e-9)
    assert found.probability[panel.ever_treated] == 0.0
    # A draw without any treats one at random: at most one unit is treated, as is truly.
    counts = [found.draw(k).panel.ever_treated.sum() for k in range(50)]
    assert set(counts) == {1}


def test_variants_take_parts_away_and_leave_the_rest() -> None:
    panel = block_panel(25, 20, 2, 5, seed=6, rank=3)
    whole = fit_simulation(panel, SimulationOptions())
    draws = {name: whole.variant(name).draw(7) for name in VARIANTS}
    base = draws["calibrated"].panel
    for drawn in draws.values():
        assert np.array_equal(drawn.panel.treated, base.treated)
    calibration = whole.calibration

    def parts(name: ModelVariant) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(draws[name].panel.outcome - base.outcome) / calibration.scale

    assert parts("no_additive") == pytest.approx(-calibration.additive, abs=1e-9)
    assert parts("no_interactive") == pytest.approx(-calibration.interactive, abs=1e-9)
    assert parts("noise_only") == pytest.approx(-calibration.additive - calibration.interactive, abs=1e-9)
    noise = (base.outcome - calibration.centre) / calibration.scale - calibration.additive - calibration.interactive
    assert parts("heteroskedastic") == pytest.approx(noise * (whole.uneven - 1.0), abs=1e-9)
    assert np.square(whole.uneven).mean() == pytest.approx(1.0)


VARIANTS: tuple[ModelVariant, ...] = (
    "calibrated",
    "heteroskedastic",
    "no_autocorrelation",
    "no_interactive",
    "no_additive",
    "noise_only",
)


@pytest.mark.parametrize("variant", ["calibrated", "heteroskedastic", "no_autocorrelation"])
def test_noise_variance_is_that_of_the_mean_over_treated_cells(variant: ModelVariant) -> None:
    outcome = 10.0 * untreated_outcomes(12, 14, seed=8)
    outcome[:6] += 5.0 * np.random.default_rng(9).normal(size=(6, 14))
    treated = np.zeros((12, 14), dtype=bool)
    treated[3:5, -3:] = True
    outcome[4, -1] = np.nan
    found = fit_simulation(panel_of(outcome, treated), SimulationOptions("observed", rank=2)).variant(variant)
    draws = [found.draw(k) for k in range(4000)]
    means = np.array([drawn.panel.outcome[drawn.panel.target_cells].mean() for drawn in draws])
    told = {round(drawn.noise_variance, 9) for drawn in draws}
    assert len(told) == 1
    assert means.var() == pytest.approx(told.pop(), rel=5 * np.sqrt(2 / 4000))


def test_noise_scales_are_those_of_units_and_periods() -> None:
    rng = np.random.default_rng(10)
    unit, period = np.exp(0.6 * rng.normal(size=60)), np.exp(0.4 * rng.normal(size=50))
    found_unit, found_period = noise_scales(rng.normal(size=(60, 50)) * unit[:, None] * period, 0)
    for found, true in ((found_unit, unit), (found_period, period)):
        assert np.square(found).mean() == pytest.approx(1.0)
        assert np.corrcoef(np.log(found), np.log(true))[0, 1] > 0.95
        assert np.log(found).std() == pytest.approx(np.log(true).std(), rel=0.1)
    # What chance explains is no difference.
    even_unit, even_period = noise_scales(rng.normal(size=(60, 50)), 0)
    assert np.ptp(even_unit) < 1e-9
    assert np.ptp(even_period) < 1e-9
    for nothing in (np.zeros((5, 6)), np.full((5, 6), 1e-14)):
        assert all((one == 1.0).all() for one in noise_scales(nothing, 0))


def test_missing_cells_are_missing_in_draws() -> None:
    panel = block_panel(20, 15, 2, 4, seed=11)
    outcome = panel.outcome.copy()
    outcome[3, 5], outcome[-1, -1] = np.nan, np.nan
    panel = panel_of(outcome, panel.treated)
    drawn = fit_simulation(panel, SimulationOptions()).draw(1).panel
    assert np.array_equal(drawn.observed, panel.observed)
    assert np.array_equal(np.isnan(drawn.outcome), ~panel.observed)


def test_units_and_periods_without_untreated_outcomes_are_left_out() -> None:
    panel = block_panel(20, 15, 2, 4, seed=12)
    treated = panel.treated.copy()
    treated[0] = True
    outcome = panel.outcome.copy()
    outcome[~treated[:, -1], -1] = np.nan
    drawn = fit_simulation(panel_of(outcome, treated), SimulationOptions()).draw(1).panel
    assert (drawn.n_units, drawn.n_periods) == (19, 14)
    assert "u0000" not in drawn.units.tolist()


def test_effects_have_mean_zero_over_observed_treated_cells_and_their_size() -> None:
    panel = staggered_panel(12, 12, (6, 8))
    outcome = panel.outcome.copy()
    outcome[-1, -2] = np.nan
    panel = panel_of(outcome, panel.treated)
    for shape in ("ramp", "jump"):
        effect = effect_of_shape(panel, shape, 0.2)  # type: ignore[arg-type]
        assert effect[panel.target_cells].mean() == pytest.approx(0.0, abs=1e-12)
        assert not effect[~panel.treated].any()
        assert np.ptp(effect[-2, 6:]) == pytest.approx(0.4)
        # Effects go by time since treatment.
        assert effect[-1, 8:] == pytest.approx(effect[-2, 6:10])
    steps = np.diff(effect_of_shape(panel, "ramp", 0.2)[-2, 6:])
    assert steps == pytest.approx(np.full(5, 0.4 / 5))
    assert len(np.unique(effect_of_shape(panel, "jump", 0.2)[-2, 6:].round(9))) == 2
    assert not effect_of_shape(panel, "constant", 0.2).any()


@pytest.mark.parametrize(
    ("panel", "options", "error"),
    [
        (block_panel(effect=0.0, n_treated=0), SimulationOptions(), NoTreatedCellsError),
        (block_panel(n_treated=0), SimulationOptions("factors", treated_units=2), NoTreatedCellsError),
        (block_panel(n_treated=0), SimulationOptions("synthetic_control"), NoTreatedCellsError),
        (block_panel(n_treated=0), SimulationOptions("truly_treated"), NoTreatedCellsError),
        (block_panel(n_treated=0), SimulationOptions("observed"), NoTreatedCellsError),
        (block_panel(), SimulationOptions(treated_units=19), NoControlUnitsError),
        (block_panel(), SimulationOptions(treated_periods=14), TooFewPeriodsError),
        (block_panel(n_post=13), SimulationOptions("truly_treated"), TooFewPeriodsError),
        (block_panel(), SimulationOptions("truly_treated", treated_periods=10), TooFewPeriodsError),
        (panel_of(np.ones((6, 6)), block_panel(6, 6, 1, 2).treated), SimulationOptions(), ConstantOutcomeError),
    ],
)
def test_what_cannot_be_simulated_is_declined_with_a_remedy(
    panel: Panel, options: SimulationOptions, error: type[GroupError]
) -> None:
    with pytest.raises(error) as raised:
        fit_simulation(panel, options)
    assert raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("name", ["rank", "treated_units", "treated_periods"])
def test_counts_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        SimulationOptions(**{name: 0})
