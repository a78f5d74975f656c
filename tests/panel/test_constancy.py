"""The test of constancy: its size and power on simulated panels, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import UnsupportedCovariatesError
from causal_spark.panel.calibration import Calibration, calibrate
from causal_spark.panel.constancy import ConstancyOptions, assess, read_block
from causal_spark.panel.dwcp import DwcpOptions, dwcp
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, dwcp_constant
from causal_spark.panel.types import Constancy, Panel
from tests.panel import panels

STARTS = (12, 12, 12)


@pytest.fixture(scope="module")
def model() -> Calibration:
    outcome = panels.untreated_outcomes(16, 18, seed=30)
    return calibrate(outcome, np.ones(outcome.shape, dtype=bool), rank=2)


def drawn(model: Calibration, replicate: int, ramp: float = 0.0) -> Panel:
    """A draw with a mean-zero ramp over the treated periods, in standard deviations from end to end."""
    outcome = model.draw(np.random.default_rng([31, replicate]), 1)[0]
    treated = panels.treated_from(16, 18, STARTS)
    effect = np.r_[np.zeros(12), ramp * model.scale * np.linspace(-0.5, 0.5, 6)]
    return panels.panel_of(outcome + np.where(treated, effect, 0.0), treated)


def p_value(panel: Panel, seed: int) -> float:
    found = assess(read_block(panel), ConstancyOptions(), seed).constancy.p_value
    assert found is not None
    assert 0.0 <= found <= 1.0
    return found


def test_the_test_rejects_about_as_often_as_it_should_without_a_change(model: Calibration) -> None:
    values = np.array([p_value(drawn(model, k), k) for k in range(60)])
    assert (values <= 0.05).mean() <= 0.15
    # Not by never rejecting at all.
    assert 0.25 < values.mean() < 0.75


def test_the_test_sees_a_strong_ramp_and_more_of_a_stronger_one(model: Calibration) -> None:
    weak, strong = (np.array([p_value(drawn(model, k, ramp), k) for k in range(12)]) for ramp in (0.5, 2.0))
    assert (strong <= 0.05).mean() >= 0.9
    assert strong.mean() < weak.mean()


def test_a_constant_effect_does_not_change_the_statistic() -> None:
    panel = panels.block_panel(14, 16, 2, 5, seed=32)
    moved = replace(panel, outcome=panel.outcome + 7.0 * panel.treated)
    base, found = (assess(read_block(each), ConstancyOptions(), 3).constancy for each in (panel, moved))
    assert found.statistic == pytest.approx(base.statistic, rel=1e-3)
    assert found.p_value == pytest.approx(base.p_value, abs=1e-3)


def test_a_single_period_has_no_test() -> None:
    panel = panels.block_panel(12, 14, 2, 1, seed=33)
    assert assess(read_block(panel), ConstancyOptions(), 0).constancy == Constancy(None, None, None)


def test_too_few_calibration_panels_make_no_test() -> None:
    panel = panels.block_panel(12, 18, 2, 4, seed=34)
    options = ConstancyOptions(unit_placebos=2, time_placebos=1, bootstraps=0)
    assert assess(read_block(panel), options, 0).constancy == Constancy(None, None, None)
    assert assess(read_block(panel), replace(options, unit_placebos=3), 0).constancy.p_value is not None


def test_an_event_period_that_placebos_lack_does_no_harm() -> None:
    # Two cohorts, the longer-treated one absent from some unit placebos; and no bootstrap, which has all cells.
    panel = panels.staggered_panel(7, 20, (12, 14, 14, 14, 14), seed=35)
    found = assess(read_block(panel), ConstancyOptions(unit_placebos=8, time_placebos=2, bootstraps=0), 0)
    assert found.constancy.p_value is not None
    assert np.isfinite(found.covariance).all()


def test_slopes_say_how_the_constant_effect_moves_where_there_is_no_other() -> None:
    panel = panels.block_panel(14, 16, 2, 5, seed=36)
    block = read_block(panel)
    options = ConstancyOptions()
    # Slopes are those of the panel whose free effects are taken out.
    panel = replace(panel, outcome=block.untreated() * block.scale + block.centre)
    block = read_block(panel)
    base = assess(block, options, 0)
    profile = np.linspace(-1.0, 1.0, 5)
    # An orthonormal linear contrast over sqrt(5) of this profile.
    contrast = profile @ profile / np.linalg.norm(profile) / np.sqrt(5)
    added = np.where(panel.treated, np.r_[np.zeros(11), 0.05 * profile] * block.scale, 0.0)
    moved = assess(read_block(replace(panel, outcome=panel.outcome + added)), options, 0)
    assert moved.estimates[2] - base.estimates[2] == pytest.approx(0.05 * contrast, abs=1e-5)
    assert moved.estimates[3] - base.estimates[3] == pytest.approx(0.0, abs=1e-5)
    assert moved.estimates[0] - base.estimates[0] == pytest.approx(0.05 * contrast * base.slopes[0], rel=0.05)
    # An effect that treated units share does not change them, however large.
    large = assess(read_block(replace(panel, outcome=panel.outcome + 100.0 * added)), options, 0)
    np.testing.assert_allclose(large.slopes, base.slopes, atol=2e-3)


def test_every_member_that_tunes_reports_it_and_reruns_do_not() -> None:
    panel = panels.block_panel(12, 14, 2, 4, seed=37)
    expected = assess(read_block(panel), ConstancyOptions(), 5).constancy
    grids = {"lambda_time": (0.0,), "lambda_unit": (0.0,), "lambda_nn": (1.0,)}
    for fit in (
        dwcp(panel, DwcpOptions(**grids, tuning="block"), seed=5),
        dwcp_constant(panel, DwcpConstantOptions(**grids, bootstraps=0), seed=5),
    ):
        assert fit.constancy == expected
    assert dwcp(panel, DwcpOptions(**grids), fit.penalties).constancy is None
    assert dwcp_constant(panel, penalties=fit.penalties).constancy is None


def test_covariates_are_declined() -> None:
    panel = panels.block_panel(12, 14, 2, 4, seed=38)
    with pytest.raises(UnsupportedCovariatesError):
        read_block(replace(panel, covariates=panel.outcome[:, :, None]))


def test_cells_missing_where_a_calibration_panel_has_no_periods_or_units_do_no_harm() -> None:
    # Their rows and columns have cells of their own and no weight; long enough for a thin system.
    rng = np.random.default_rng(0)
    outcome = rng.normal(size=(60, 1)) * rng.normal(size=(1, 20)) + 0.5 * rng.normal(size=(60, 20))
    treated = np.zeros((60, 20), dtype=bool)
    treated[50:, 16:] = True
    outcome[3, 17] = outcome[55, 5] = np.nan
    found = assess(read_block(panels.panel_of(outcome, treated)), ConstancyOptions(), 0)
    assert found.converged
    assert found.constancy.p_value is not None
    assert found.constancy.p_value > 0.01
