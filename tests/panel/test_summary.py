import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from causal_spark.errors import NotIdentifiedError
from causal_spark.panel.event_study import event_study
from causal_spark.panel.inference import interval
from causal_spark.panel.sdid import sdid
from causal_spark.panel.summary import effect_cells, summarise, unidentified_cells
from causal_spark.panel.types import Fit, Notice
from tests.panel.panels import block_panel, panel_of, staggered_panel, treated_from


@pytest.fixture
def staggered():
    """5 x 6, units 3 and 4 treated from 3 and 4; unit 4's last cell is absent; effects are the event time plus one."""
    treated = treated_from(5, 6, (3, 4))
    outcome = np.where(treated, np.arange(6) - np.array([0, 0, 0, 3, 4])[:, None] + 1.0, 0.0)
    outcome[3, 0] = 0.6
    outcome[4, 5] = np.nan
    return panel_of(outcome, treated), Fit(
        counterfactual=np.where(treated.any(axis=1)[:, None], np.zeros((5, 6)), np.nan)
    )


def test_summary_counts_what_the_estimate_rests_on(staggered):
    panel, fit = staggered
    counterfactual = fit.counterfactual.copy()
    counterfactual[3, 5] = np.nan
    summary = summarise(panel, replace(fit, counterfactual=counterfactual))
    assert summary.estimate == pytest.approx((1 + 2 + 1) / 3)
    assert (summary.n_units, summary.n_periods) == (5, 6)
    assert (summary.n_treated_units, summary.n_control_units) == (2, 3)
    assert (summary.n_treated_cells, summary.n_cells_not_identified) == (4, 1)
    assert summary.n_pre_periods == 3
    assert summary.pre_rmse == pytest.approx(math.sqrt(0.36 / 7))


def test_treated_cells_without_a_prediction_are_counted_and_named_once():
    treated = np.zeros((4, 30), dtype=bool)
    treated[1, 15:] = treated[3, 28:] = True
    panel = panel_of(np.ones((4, 30)), treated, units=np.array(["d", "c", "b", "a"]))
    fit = Fit(counterfactual=np.zeros((4, 30)))
    assert unidentified_cells(panel, fit) == ()
    fit.counterfactual[1, 18:] = fit.counterfactual[3, 29] = fit.counterfactual[0, :] = np.nan
    (notice,) = unidentified_cells(panel, fit)
    assert notice.name == "UnidentifiedCells"
    assert notice.message.startswith("13 of 17 treated cells have no prediction (a @ 29, c @ 18, c @ 19, ")
    assert "c @ 26 and 3 more)" in notice.message
    said = replace(fit, notices=(Notice("DroppedCells", "Cells are lost.", "Look."),))
    assert unidentified_cells(panel, said) == ()
    other = replace(fit, notices=(Notice("Other", "Something else.", "Look."),))
    assert len(unidentified_cells(panel, other)) == 1


def test_event_study_averages_by_time_since_each_units_own_start(staggered):
    study = event_study(*staggered)
    np.testing.assert_array_equal(study.event_time, [-4, -3, -2, -1, 0, 1, 2])
    np.testing.assert_allclose(study.estimate, [0, 0.3, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(study.n_cells, [1, 2, 2, 2, 2, 1, 1])


def test_event_study_ignores_untreated_periods_after_a_first_treatment():
    treated = treated_from(3, 5, (2,))
    treated[2, 3] = False
    study = event_study(panel_of(np.ones((3, 5)), treated), Fit(counterfactual=np.zeros((3, 5))))
    np.testing.assert_array_equal(study.event_time, [-2, -1, 0, 2])


def test_event_study_weighted_by_cells_is_the_att():
    panel = staggered_panel(seed=3)
    fit = sdid(panel)
    study = event_study(panel, fit)
    after = study.event_time >= 0
    mean = np.average(study.estimate[after], weights=study.n_cells[after])
    assert mean == pytest.approx(summarise(panel, fit).estimate)
    assert np.isnan(effect_cells(panel, fit)[~panel.ever_treated]).all()


def test_pre_rmse_is_missing_without_pre_period_predictions():
    panel = block_panel(4, 5, n_treated=1, n_post=2)
    summary = summarise(panel, Fit(counterfactual=np.where(panel.treated, 0.0, np.nan)))
    assert summary.pre_rmse is None


def test_no_predicted_target_cell_is_not_identified():
    panel = block_panel(4, 5)
    with pytest.raises(NotIdentifiedError) as raised:
        summarise(panel, Fit(counterfactual=np.full((4, 5), np.nan)))
    assert raised.value.hint


@pytest.mark.parametrize("df", [None, 1.5, 7, 1e6])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval_is_walds(df, level):
    found = interval(-3.0, 1.5, df, level)
    law = stats.norm() if df is None else stats.t(df)
    assert found.statistic == -2.0
    assert found.p_value == pytest.approx(2 * law.cdf(-2.0))
    assert (found.conf_low, found.conf_high) == pytest.approx(
        (-3.0 - 1.5 * law.ppf(0.5 + level / 2), -3.0 + 1.5 * law.ppf(0.5 + level / 2))
    )


def test_a_zero_standard_error_has_a_point_interval_and_no_test():
    found = interval(2.0, 0.0)
    assert (found.statistic, found.p_value, found.conf_low, found.conf_high) == (None, None, 2.0, 2.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"confidence_level": 1.0},
        {"confidence_level": 0.0},
        {"df": 0.0},
        {"std_error": -1.0},
        {"std_error": math.nan},
        {"std_error": math.inf},
    ],
    ids=str,
)
def test_interval_refuses_arguments_without_meaning(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        interval(**{"estimate": 0.0, "std_error": 1.0, **bad})
