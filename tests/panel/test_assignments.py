from itertools import combinations

import numpy as np
import pytest

from causal_spark.errors import NoTreatedCellsError, TooFewControlsError
from causal_spark.panel.assignments import all_assigned, lasting_treatment, placebo_assignments, stand_ins
from causal_spark.panel.placebo import Placebos
from causal_spark.panel.types import PanelSize
from tests.panel.panels import block_panel, panel_of, staggered_panel
from tests.panel.settings import setting_of, variance_of


@pytest.mark.parametrize(
    ("starts", "n_units", "expected"), [((5, 5), 8, 15), ((5, 6), 8, 30), ((5, 5, 6), 9, 60), ((4,), 7, 6)]
)
def test_few_assignments_are_listed_once_each(starts, n_units, expected):
    panel = staggered_panel(n_units, 9, starts)
    assignments = placebo_assignments(panel, expected, seed=0)
    n_treated = len(starts)
    assert assignments.shape == (expected, n_treated)
    treatment = panel.treated[panel.ever_treated]
    as_sets = {frozenset((int(u), treatment[k].tobytes()) for k, u in enumerate(row)) for row in assignments}
    assert len(as_sets) == expected
    assert {frozenset(row.tolist()) for row in assignments} == {
        frozenset(c) for c in combinations(range(n_units - n_treated), n_treated)
    }
    np.testing.assert_array_equal(assignments, placebo_assignments(panel, expected, seed=9))


@pytest.mark.parametrize(("starts", "n_distinct"), [((5, 5), 15), ((5, 6), 30), ((4,), 7)])
def test_all_are_assigned_exactly_when_none_is_left_to_draw(starts, n_distinct):
    panel = staggered_panel(len(starts) + (7 if len(starts) == 1 else 6), 9, starts)
    for replicates in (n_distinct - 1, n_distinct, n_distinct + 100):
        n = len(placebo_assignments(panel, replicates, seed=0))
        assert n == min(replicates, n_distinct)
        assert all_assigned(panel, n) == (replicates >= n_distinct)


@pytest.mark.parametrize("seen", [slice(0, 6), slice(6, 9)], ids=["never during treatment", "never before"])
def test_units_without_outcomes_where_they_matter_do_not_stand_in(seen):
    panel = staggered_panel(9, 9, (6,), seed=4)
    outcome = panel.outcome.copy()
    outcome[2] = np.nan
    outcome[2, seen] = 1.0
    gappy = panel_of(outcome, panel.treated)
    others = [0, 1, 3, 4, 5, 6, 7]
    assert stand_ins(gappy).tolist() == others
    assert placebo_assignments(gappy, 200, 0)[:, 0].tolist() == others
    assert all_assigned(gappy, 7)
    assert variance_of(setting_of(gappy, "sdid"), "placebo").n_replicates == 7


def test_many_assignments_are_drawn_distinct_and_extend_each_other():
    panel = staggered_panel(20, 9, (5, 5, 6))
    few = placebo_assignments(panel, 50, seed=3)
    many = placebo_assignments(panel, 120, seed=3)
    np.testing.assert_array_equal(many[:50], few)
    assert len({(frozenset(r[:2].tolist()), int(r[2])) for r in many}) == 120
    assert not np.array_equal(few, placebo_assignments(panel, 50, seed=4))
    # 17 controls, each about 53 times: uniform draws.
    counts = np.bincount(placebo_assignments(panel, 900, seed=5)[:, 2], minlength=17)
    assert counts.min() > 25
    assert counts.max() < 90


def test_treatment_lasts_over_cells_without_a_row_but_not_over_observed_ones():
    panel = staggered_panel(6, 8, (3, 4))
    outcome, treated = panel.outcome.copy(), panel.treated.copy()
    outcome[4, [5, 6]] = np.nan  # no rows, treated before and after
    treated[4, [5, 6]] = False
    outcome[5, 2] = np.nan  # no row, not yet treated
    treated[5, 6:] = False  # rows that say untreated
    found = lasting_treatment(panel_of(outcome, treated))
    assert found[0].tolist() == [False] * 3 + [True] * 5
    assert found[1].tolist() == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize("n_treated", [0, 1, 3, 4, 6])
def test_placebos_need_more_controls_than_treated_units(n_treated):
    panel = block_panel(n_treated + min(n_treated, 3) if n_treated else 4, 8, n_treated)
    error = TooFewControlsError if n_treated else NoTreatedCellsError
    with pytest.raises(error) as raised:
        placebo_assignments(panel, 200, 0)
    assert raised.value.hint
    size = PanelSize(panel.n_units, panel.n_periods, n_treated, int(panel.treated.sum()))
    assert Placebos(200).n_fits(size) == 0


@pytest.mark.parametrize(
    ("n_units", "n_treated", "replicates", "expected"),
    [(39, 1, 200, 38), (39, 1, 20, 20), (50, 5, 200, 200), (5, 2, 200, 6)],
)
def test_the_cost_model_knows_an_upper_bound_of_fits(n_units, n_treated, replicates, expected):
    assert Placebos(replicates).n_fits(PanelSize(n_units, 10, n_treated, 3 * n_treated)) == expected
    assert len(placebo_assignments(block_panel(n_units, 10, n_treated, 3), replicates, 0)) <= expected
