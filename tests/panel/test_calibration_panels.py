"""Panels like the observed one: placebos keep to untreated cells and to the pattern, bootstraps to their model."""

from __future__ import annotations

import numpy as np
import pytest

from causal_spark.panel.calibration import calibrate
from causal_spark.panel.calibration_panels import CalibrationPanels, bootstrap_panels, placebo_panels
from causal_spark.panel.constant_effect import event_groups
from causal_spark.panel.types import Panel
from tests.panel import panels


def placebos(panel: Panel, n_unit: int, n_time: int, seed: int = 0) -> CalibrationPanels | None:
    return placebo_panels(
        panel.outcome, panel.observed, panel.target_cells, n_unit, n_time, np.random.default_rng(seed)
    )


def patterns(treated: np.ndarray) -> list[tuple[int, ...]]:
    """Treatment paths of the treated units, in an order of their own."""
    return sorted(tuple(row.astype(int)) for row in treated if row.any())


@pytest.mark.parametrize("starts", [(9, 9, 9), (8, 9, 11)], ids=["block", "staggered"])
def test_unit_placebos_are_never_treated_units_with_the_treated_ones_off(starts: tuple[int, ...]) -> None:
    panel = panels.staggered_panel(10, 14, starts, seed=1)
    found = placebos(panel, 6, 0)
    assert found is not None
    assert found.panels.n == 6
    assert found.placebo.all()
    assert (found.inflation == 1.0).all()
    assert (found.panels.unit_on == ~panel.ever_treated).all()
    assert found.panels.period_on.all()
    assert not found.panels.treated[:, panel.ever_treated].any()
    for k in range(6):
        assert patterns(found.panels.treated[k]) == patterns(panel.treated)
        np.testing.assert_array_equal(found.panels.outcome[k], panel.outcome)
    assert len({found.panels.treated[k].tobytes() for k in range(6)}) > 1


def test_at_most_half_of_the_controls_stand_in_and_errors_shrink_to_the_real_number_of_units() -> None:
    panel = panels.block_panel(11, 12, 7, 3, seed=2)
    found = placebos(panel, 4, 0)
    assert found is not None
    assert (found.panels.targets.any(axis=2).sum(axis=1) == 2).all()
    np.testing.assert_allclose(found.inflation, np.sqrt(2 / 7))


@pytest.mark.parametrize("pattern", ["block", "staggered", "on and off"])
def test_time_placebos_are_the_treated_units_before_anybody_is_treated(pattern: str) -> None:
    treated = panels.treated_from(9, 24, (19, 21) if pattern == "staggered" else (20, 20))
    if pattern == "on and off":
        treated[-1, 22] = False
    panel = panels.panel_of(panels.untreated_outcomes(9, 24, seed=3), treated)
    found = placebos(panel, 0, 4)
    assert found is not None
    assert found.panels.n == 4
    first = int(treated.any(axis=0).argmax())
    assert not (found.panels.cells & panel.treated).any()
    assert not found.panels.period_on[:, first:].any()
    assert found.panels.unit_on.all()
    span = treated[:, first:]
    for k in range(4):
        mine = found.panels.treated[k]
        assert not mine[~panel.ever_treated].any()
        begin = int(mine.any(axis=0).argmax())
        assert begin >= max(3, first // 4)
        np.testing.assert_array_equal(mine[:, begin : begin + span.shape[1]], span)
        assert mine.sum() == treated.sum()
        assert found.panels.period_on[k].sum() == begin + span.shape[1]
    assert len({found.panels.treated[k].tobytes() for k in range(4)}) == 4


def test_a_short_history_has_no_time_placebos_and_two_units_have_none_at_all() -> None:
    short = panels.block_panel(10, 9, 2, 4, seed=4)
    assert placebos(short, 0, 5) is None
    both = placebos(short, 3, 5)
    assert both is not None
    assert both.panels.n == 3
    assert placebos(panels.block_panel(2, 9, 1, 4, seed=4), 5, 5) is None


def test_placebos_whose_effect_is_not_identified_are_left_out() -> None:
    # Of four controls only one is seen in the treated periods, so no placebo of it has anything to compare with.
    outcome = panels.untreated_outcomes(5, 8, seed=5)
    outcome[:3, 6:] = np.nan
    panel = panels.panel_of(outcome, panels.treated_from(5, 8, [6]))
    assert placebos(panel, 8, 0) is None
    outcome[1, 6:] = 0.0
    found = placebos(panels.panel_of(outcome, panel.treated), 8, 0)
    assert found is not None
    assert (found.panels.targets.sum(axis=(1, 2)) == 2).all()
    assert set(np.flatnonzero(found.panels.targets.any(axis=(0, 2)))) <= {1, 3}


def test_time_placebos_do_without_never_treated_units_where_others_are_treated_later() -> None:
    treated = np.zeros((6, 20), dtype=bool)
    treated[:3, 16:] = treated[3:, 18:] = True
    panel = panels.panel_of(panels.untreated_outcomes(6, 20, seed=6), treated)
    found = placebos(panel, 4, 4)
    assert found is not None
    assert found.panels.n == 4
    assert not (found.panels.cells & treated).any()


def test_missing_cells_stay_missing_and_keep_their_event_groups() -> None:
    outcome = panels.untreated_outcomes(12, 16, seed=7)
    outcome[10:, 13] = np.nan
    outcome[:6, 11] = np.nan
    panel = panels.panel_of(outcome, panels.treated_from(12, 16, (11, 11)))
    found = placebos(panel, 8, 0)
    assert found is not None
    assert not (found.panels.cells & ~panel.observed).any()
    lacks_first = found.panels.targets[:, :6].any(axis=(1, 2))
    assert lacks_first.any()
    groups = event_groups(np.concatenate([panel.target_cells[None], found.panels.treated]))
    # Period 13 is missing for the treated, so that it is a group nowhere.
    assert groups.max() == 3
    assert (groups[:, :, 13] == -1).all()
    assert set(groups[1:, :, 12][found.panels.targets[:, :, 12]]) == {1}


def test_draws_have_the_models_moments_under_the_real_assignment() -> None:
    panel = panels.block_panel(8, 10, 2, 3, seed=8)
    rng = np.random.default_rng(9)
    found = bootstrap_panels(panel.outcome, panel.observed, panel.treated, 4000, rng)
    model = calibrate(panel.outcome, panel.observed)
    mean = model.centre + model.scale * (model.additive + model.interactive)
    noise = found.panels.outcome - mean
    spread = model.scale * np.sqrt(np.diag(model.covariance))
    assert np.abs(noise.mean(axis=0) / spread).max() < 5 / np.sqrt(4000)
    rows = noise.reshape(-1, 10)
    np.testing.assert_allclose(
        rows.T @ rows / len(rows) / np.outer(spread, spread),
        model.scale**2 * model.covariance / np.outer(spread, spread),
        atol=0.04,
    )
    assert not found.placebo.any()
    assert (found.inflation == 1.0).all()
    assert (found.panels.treated == panel.treated).all()
    assert found.panels.unit_on.all()
    assert found.panels.period_on.all()


def test_equal_seeds_give_equal_placebos() -> None:
    panel = panels.block_panel(12, 16, 2, 3, seed=10)
    one, two, other = placebos(panel, 4, 4, 1), placebos(panel, 4, 4, 1), placebos(panel, 4, 4, 2)
    assert one is not None
    assert two is not None
    assert other is not None
    np.testing.assert_array_equal(one.panels.treated, two.panels.treated)
    assert (one.panels.treated != other.panels.treated).any()
