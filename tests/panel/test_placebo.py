from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from causal_spark.errors import MissingCellsError, NotIdentifiedError, SolverError
from causal_spark.panel.assignments import placebo_assignments
from causal_spark.panel.did import did, did_placebos
from causal_spark.panel.event_study import event_study
from causal_spark.panel.placebo import PlaceboOptions, Placebos, earlier_starts
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import event_times
from causal_spark.panel.sdid import SdidOptions, sdid
from causal_spark.panel.summary import att, effect_cells
from causal_spark.panel.types import Fit, Penalties
from tests.panel.panels import block_panel, panel_of, prop99, staggered_panel
from tests.panel.settings import setting_of, variance_of


def placebo_of(panel, name, **options):
    return variance_of(setting_of(panel, name), "placebo", **options)


def assigned(setting, replicates):
    return placebo_assignments(setting.panel, replicates, setting.seed("variance:placebo"))


def placebo_panel(panel, assignment, shift=0):
    """The controls, until treatment moved back would be over, with the treated units' rows of W for those assigned."""
    controls = panel.take_units(np.flatnonzero(~panel.ever_treated))
    n_periods = panel.n_periods - shift
    treated = np.zeros((controls.n_units, n_periods), dtype=bool)
    treated[assignment] = panel.treated[panel.ever_treated][:, shift:]
    return panel_of(controls.outcome[:, :n_periods], treated)


@pytest.mark.parametrize(
    ("name", "published", "exact"),
    [("did", 17.7, 17.2868), ("sc", 9.9, 10.6330), ("sdid", 8.4, 9.3712), ("difp", 9.5, 10.0692)],
)
def test_proposition_99_standard_errors_are_near_the_published_ones(name, published, exact):
    """Arkhangelsky et al. (2021), Table 1, from random draws of controls with early-stopped weights.

    With one treated unit ours is the exact spread over all 38 controls, without drawing. The published figures repeat
    some controls by chance and leave others out, and their weights stop early, hence 15%. The second figure is our own
    and guards against change.
    """
    found = placebo_of(prop99(), name)
    assert found.n_replicates == 38
    assert found.att.std_error == pytest.approx(published, rel=0.15)
    assert found.att.std_error == pytest.approx(exact, abs=1e-3)
    assert found.att.df is None
    assert VARIANCES["placebo"].conditioning == "none"


def test_one_treated_unit_uses_each_control_once_with_the_divisor_of_algorithm_4():
    panel = block_panel(9, 10, n_treated=1, n_post=3, seed=1)
    penalties = sdid(panel).penalties
    effects = []
    for control in range(8):
        pseudo = panel.take_units(np.r_[np.delete(np.arange(8), control), control])
        treated = np.zeros((8, 10), dtype=bool)
        treated[-1, 7:] = True
        pseudo = pseudo.with_treatment(treated)
        effects.append(att(pseudo, sdid(pseudo, SdidOptions(), penalties)))
    found = placebo_of(panel, "sdid", replicates=200)
    assert found.n_replicates == 8
    assert found.att.std_error == pytest.approx(np.sqrt(np.mean((effects - np.mean(effects)) ** 2)), rel=1e-9)


@pytest.mark.parametrize(("effect", "extreme"), [(0.0, False), (0.3, False), (5.0, True)])
def test_the_permutation_p_value_is_the_share_of_assignments_at_least_as_far_from_zero(effect, extreme):
    panel = block_panel(9, 10, n_treated=2, n_post=3, effect=effect, seed=1)
    setting = setting_of(panel)
    effects = []
    for assignment in assigned(setting, 200):
        pseudo = placebo_panel(panel, assignment)
        effects.append(att(pseudo, did(pseudo)))
    assert len(effects) == 21
    all_effects = np.abs([*effects, att(panel, setting.fit)])
    found = variance_of(setting, "placebo").permutation_p_value
    assert found == pytest.approx(np.mean(all_effects >= all_effects[-1]), rel=1e-12)
    assert (found < 1.5 / 22) == extreme
    # Drawn assignments are not all there are, and give no exact test.
    assert variance_of(setting, "placebo", replicates=20).permutation_p_value is None


@pytest.mark.parametrize("seed", range(4))
def test_estimates_that_differ_by_rounding_count_as_equally_far_from_zero(seed):
    """Gaps of (1, -1) about a common path: either control errs by 2 when it stands in, as does the treated unit."""
    rng = np.random.default_rng(seed)
    panel = block_panel(3, 6, n_treated=1, n_post=1)
    gap = np.outer([1.0, -1.0, 2.0], panel.treated[-1])
    outcome = rng.normal(size=(3, 1)) + rng.normal(size=6) + gap
    assert placebo_of(panel_of(outcome, panel.treated), "did").permutation_p_value == 1.0


@pytest.mark.parametrize("name", ["did", "sc", "sdid"])
@pytest.mark.parametrize("starts", [(6,), (5, 6)])
def test_a_treated_unit_without_a_row_counts_as_one_whose_outcome_is_missing(name, starts):
    panel = staggered_panel(9, 9, starts, seed=4)
    outcome = panel.outcome.copy()
    outcome[-1, 7] = np.nan
    no_outcome, treated = panel_of(outcome, panel.treated), panel.treated.copy()
    treated[-1, 7] = False
    no_row = panel_of(outcome, treated)
    found, expected = placebo_of(no_row, name), placebo_of(no_outcome, name)
    assert found.att == expected.att
    assert found.details().event_times == expected.details().event_times


def test_assigned_controls_take_over_the_treated_units_rows_and_the_treated_leave_the_panel():
    panel = staggered_panel(8, 9, (0, 5, 7), seed=2)
    seen = []

    def record(changed, options, penalties, seed):
        seen.append(changed)
        return did(changed)

    setting = setting_of(panel, spy=record)
    Placebos(40).run(setting, 0, 40)
    assignments = assigned(setting, 40)
    assert len(seen) == 40
    for changed, assignment in zip(seen, assignments, strict=True):
        assert changed.n_units == 5
        np.testing.assert_array_equal(changed.outcome, panel.outcome[:5])
        np.testing.assert_array_equal(changed.treated[assignment], panel.treated[5:])
        assert not np.delete(changed.treated, assignment, axis=0).any()


def test_event_standard_errors_are_the_spread_of_placebo_event_studies():
    setting = setting_of(staggered_panel(9, 10, (5, 7), seed=6))
    found = variance_of(setting, "placebo").details()
    estimated = event_study(setting.panel, setting.fit)
    errors = Placebos(200).run(setting, 0, 42)
    times = event_times(setting.panel)
    assert sorted(found.event_times) == estimated.event_time.tolist() == times.tolist()
    k = int(np.flatnonzero(times == 1)[0])
    assert found.event_times[1].std_error == pytest.approx(errors["event_effects"][:, k].std())
    assert found.cells is None
    after = times >= 0
    share = estimated.n_cells[after] / estimated.n_cells[after].sum()
    np.testing.assert_allclose(errors["event_effects"][:, after] @ share, errors["att"])


@pytest.mark.parametrize("name", ["did", "sdid"])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("starts", "missing"),
    [((12,), ()), ((12, 12), ()), ((9, 13), ()), ((12, 9, 9), ()), ((9, 13), ((0, 3), (2, 10), (4, 11)))],
    ids=["one", "block", "cohorts", "cohorts of one and two", "cohorts, missing cells"],
)
def test_event_effects_are_those_of_event_studies_of_placebo_panels(name, starts, missing, moved):
    panel = staggered_panel(11, 15, starts, seed=6)
    outcome = panel.outcome.copy()
    for cell in missing:
        outcome[cell] = np.nan
    setting = setting_of(panel_of(outcome, panel.treated), name)
    panel = setting.panel
    shift = earlier_starts(panel, 9)[-1] if moved else 0
    wanted = Placebos(12, earlier=len(earlier_starts(panel, 9)) if moved else 0, n_earlier=9, detail=True)
    found = wanted.run(setting, 0, 8)
    times = event_times(panel)
    for b, assignment in enumerate(np.flatnonzero(~panel.ever_treated)[found["places"]]):
        pseudo = placebo_panel(panel, assignment, shift)
        fit = setting.definition.fit(pseudo, setting.options, setting.fit.penalties, 0)
        study = event_study(pseudo, fit)
        expected = np.full(times.size, np.nan)
        expected[np.isin(times, study.event_time)] = study.estimate
        np.testing.assert_allclose(found["event_effects"][b], expected, rtol=1e-9, atol=1e-12)
        assert found["att"][b] == pytest.approx(att(pseudo, fit), rel=1e-9, abs=1e-12)


def test_event_effects_leave_out_what_follows_treatment_that_ends():
    panel = staggered_panel(9, 12, (6, 8))
    treated = panel.treated.copy()
    treated[:, 10:] = False
    setting = setting_of(panel.with_treatment(treated))
    found = Placebos(12).run(setting, 0, 12)
    for b, assignment in enumerate(assigned(setting, 12)):
        pseudo = placebo_panel(setting.panel, assignment)
        study = event_study(pseudo, did(pseudo))
        known = np.isfinite(found["event_effects"][b])
        assert event_times(setting.panel)[known].tolist() == study.event_time.tolist() == list(range(-8, 4))
        np.testing.assert_allclose(found["event_effects"][b, known], study.estimate, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("retune", "given"), [(False, Penalties(zeta_unit=(1.0,))), (True, None)])
def test_penalties_are_kept_unless_retuned_and_seeds_belong_to_assignments(retune, given):
    calls = {}

    def spy(changed, options, penalties, seed):
        assert penalties == given
        calls[int(np.flatnonzero(changed.ever_treated)[0])] = seed
        return did(changed)

    setting = setting_of(block_panel(7, 8, 1, 2), spy=spy)
    setting = replace(setting, fit=replace(setting.fit, penalties=Penalties(zeta_unit=(1.0,))))
    wanted = Placebos(200, retune)
    wanted.run(setting, 0, 6)
    whole = dict(calls)
    calls.clear()
    for number in reversed(range(6)):
        wanted.run(setting, number, number + 1)
    assert calls == whole
    assert len(set(whole.values())) == 6


def test_retuned_placebos_of_did_are_fits_and_agree_with_the_closed_form():
    setting = setting_of(block_panel(12, 10, 2, 3))
    fitted, closed = (Placebos(20, retune, detail=True).run(setting, 0, 20) for retune in (True, False))
    for key, values in closed.items():
        np.testing.assert_allclose(fitted[key], values, atol=1e-12)


def test_a_replicate_without_an_estimate_declines_the_variance_and_says_how_many():
    def partial(changed, options, penalties, seed):
        if changed.treated[[1, 4]].any():
            raise NotIdentifiedError("No treated cell can be predicted.", "Add periods.")
        return did(changed)

    with pytest.raises(NotIdentifiedError, match="2 of 7 placebo replicates") as raised:
        variance_of(setting_of(block_panel(8, 8, 1, 2), spy=partial), "placebo")
    assert raised.value.hint == "Add periods."


@pytest.mark.parametrize("name", ["sc", "difp", "sdid"])
def test_placebos_of_incomplete_panels_drop_what_each_stand_in_needs(name):
    """Unit 0 misses period 3: as a donor it is left out, as the one treated unit it takes the period along."""
    definition = ESTIMATORS[name]
    panel = block_panel(10, 8, 1, 2, seed=3)
    outcome = panel.outcome.copy()
    outcome[0, 3] = np.nan
    panel = panel_of(outcome, panel.treated)
    penalties = definition.fit(panel, definition.options(), None, 0).penalties
    effects = []
    for stand_in in range(9):
        rows = np.arange(9) if stand_in == 0 else np.arange(1, 9)
        periods = np.delete(np.arange(8), 3) if stand_in == 0 else np.arange(8)
        treated = np.zeros((len(rows), len(periods)), dtype=bool)
        treated[rows == stand_in, -2:] = True
        pseudo = panel_of(outcome[np.ix_(rows, periods)], treated)
        effects.append(att(pseudo, definition.fit(pseudo, definition.options(), penalties, 0)))
    found = placebo_of(panel, name)
    assert found.n_replicates == 9
    assert found.att.std_error == pytest.approx(np.std(effects), rel=1e-9)


@pytest.mark.parametrize("name", ["sc", "difp", "sdid"])
@pytest.mark.parametrize(
    ("missing", "options", "says"),
    [
        ([3], {"min_balanced_share": 1.0}, "9 of 9 placebo replicates"),
        ([0, 1, 2, 3, 4], {}, "1 of 9 placebo replicates"),
    ],
    ids=["complete blocks only", "one pre-period left"],
)
def test_placebos_decline_when_a_stand_in_has_too_few_cells(name, missing, options, says):
    panel = block_panel(10, 8, 1, 2)
    outcome = panel.outcome.copy()
    outcome[0, missing] = np.nan
    setting = setting_of(panel_of(outcome, panel.treated), name)
    setting = replace(setting, options=ESTIMATORS[name].options(**options))
    with pytest.raises(MissingCellsError, match=says) as raised:
        variance_of(setting, "placebo")
    assert raised.value.hint


def test_a_variance_needs_two_replicates_and_finite_estimates():
    with pytest.raises(ValueError, match="replicates"):
        PlaceboOptions(replicates=1)

    def huge(changed, options, penalties, seed):
        return Fit(np.full(changed.outcome.shape, -1e308))

    with np.errstate(over="ignore"), pytest.raises(SolverError, match="not finite") as raised:
        variance_of(setting_of(block_panel(6, 8, 1, 3), spy=huge), "placebo")
    assert raised.value.hint


def test_identical_controls_have_a_zero_standard_error():
    panel = panel_of(np.tile(np.arange(8.0), (6, 1)), block_panel(6, 8, 1, 2).treated)
    assert placebo_of(panel, "sdid").att.std_error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("factor", [1e-9, 1e12])
def test_standard_errors_scale_with_the_outcome(factor):
    panel = block_panel(10, 8, 2, 2, seed=4)
    found = placebo_of(panel_of(panel.outcome * factor, panel.treated), "sdid").att.std_error
    assert found == pytest.approx(placebo_of(panel, "sdid").att.std_error * factor, rel=1e-9)


@pytest.mark.parametrize("n_treated", [1, 2, 5])
@pytest.mark.parametrize("n_post", [1, 4])
@pytest.mark.parametrize("level", [0.0, 1e3])
def test_closed_form_placebos_of_did_are_its_fits(n_treated, n_post, level):
    """Errors at treated cells and residuals at the others, of every unit assigned."""
    panel = block_panel(12, 11, n_treated, n_post, seed=2)
    untreated = panel_of(panel.outcome + level, np.zeros_like(panel.treated))
    treatment = panel.treated[panel.ever_treated]
    rng = np.random.default_rng(0)
    assignments = np.array([rng.permutation(12)[:n_treated] for _ in range(9)])
    found = did_placebos(untreated, treatment, assignments)
    assert found.shape == (9, n_treated, 11)
    for errors, assignment in zip(found, assignments, strict=True):
        treated = np.zeros_like(panel.treated)
        treated[assignment] = treatment
        pseudo = untreated.with_treatment(treated)
        np.testing.assert_allclose(errors, effect_cells(pseudo, did(pseudo))[assignment], atol=1e-12 * max(level, 1.0))


@pytest.mark.parametrize(
    "case", ["missing cell", "covariates", "staggered", "ends", "always treated", "no unit left untreated"]
)
def test_closed_form_placebos_of_did_are_declined_where_they_would_be_wrong(case):
    panel = block_panel(8, 9, 2, 3)
    untreated = panel.with_treatment(np.zeros_like(panel.treated))
    treatment, assignments = panel.treated[panel.ever_treated].copy(), np.array([[0, 1], [4, 2]])
    assert did_placebos(untreated, treatment, assignments) is not None
    if case == "missing cell":
        outcome = untreated.outcome.copy()
        outcome[7, 0] = np.nan
        untreated = panel_of(outcome, untreated.treated)
    if case == "covariates":
        untreated = replace(untreated, covariates=np.zeros((8, 9, 1)))
    if case == "staggered":
        treatment[0, 6] = False
    if case == "ends":
        treatment[:, 8] = False
    if case == "always treated":
        treatment[:] = True
    if case == "no unit left untreated":
        untreated = untreated.take_units(np.arange(2))
    assert did_placebos(untreated, treatment, assignments) is None


def test_earlier_starts_end_the_panel_earlier_and_move_treatment_back_by_as_much():
    panel = staggered_panel(9, 20, (14, 16), seed=1)
    seen = []

    def record(changed, options, penalties, seed):
        seen.append((changed, penalties, seed))
        return did(changed)

    setting = setting_of(panel, spy=record)
    shifts = earlier_starts(panel, 3)
    assert len(shifts) == 2
    seeds, everything = [], []
    for which, shift in enumerate((0, *shifts)):
        seen.clear()
        found = Placebos(10, earlier=which, n_earlier=3, detail=True).run(setting, 0, 10)
        assert found["errors"].shape == (10, 2, 20 - shift)
        assignments = np.flatnonzero(~panel.ever_treated)[found["places"]]
        everything.append(assignments.tolist())
        for (changed, penalties, _), assignment in zip(seen, assignments, strict=True):
            expected = placebo_panel(panel, assignment, shift)
            assert changed.n_periods == 20 - shift
            np.testing.assert_array_equal(changed.outcome, expected.outcome)
            np.testing.assert_array_equal(changed.treated, expected.treated)
            np.testing.assert_array_equal(changed.periods, panel.periods[: 20 - shift])
            assert changed.treated[assignment].argmax(axis=1).tolist() == [14 - shift, 16 - shift]
            assert penalties is setting.fit.penalties
        seeds.append([seed for _, _, seed in seen])
    # Other groups are drawn at each start, so that the errors of drawing average out.
    assert everything[0] == assigned(setting, 10).tolist()
    assert all(one != other for one, other in combinations(everything, 2))
    assert not set(seeds[0]) & set(seeds[1])


@pytest.mark.parametrize(
    ("n_periods", "starts", "n", "expected"),
    [
        (20, (16,), 0, ()),
        (20, (16,), 1, (4,)),  # the latest start whose cells lie before the real ones
        (20, (16,), 3, (4, 6, 8)),  # half of 16 periods are left
        (20, (16,), 99, (4, 5, 6, 7, 8)),
        (20, (15,), 99, (5, 6, 7)),  # 8 of 15 are left
        (20, (10,), 99, (5,)),  # as far as half of the periods allow
        (20, (10, 16), 99, (5,)),  # those before the first treatment count
        (6, (4,), 99, (2,)),
        (5, (3,), 99, (1,)),  # two periods are left at least
        (5, (2,), 99, ()),
        (5, (1,), 99, ()),
    ],
)
def test_earlier_starts_leave_half_of_the_periods_before_treatment(n_periods, starts, n, expected):
    assert earlier_starts(staggered_panel(9, n_periods, starts), n) == expected


def test_the_registry_lists_estimators_and_variances_that_run_on_their_default_options():
    panel = block_panel(12, 10, 2, 3, effect=1.0, seed=3)
    assert list(ESTIMATORS) == ["did", "sc", "difp", "mc", "sdid", "dwcp", "dwcp_constant", "dwcp_adaptive"]
    for name, definition in ESTIMATORS.items():
        assert definition.name == name
        assert np.isfinite(att(panel, definition.fit(panel, definition.options(), None, 0)))
    conditioning = {"placebo": "none", "jackknife": "none", "bootstrap": "none", "marginal": "none"}
    conditioning |= {"unit": "unit", "time": "time", "unit_time": "unit_time"}
    assert {name: definition.conditioning for name, definition in VARIANCES.items()} == conditioning
    setting = setting_of(panel)
    for name in VARIANCES:
        found = variance_of(setting, name)
        assert 0.0 < found.att.std_error < 10.0
        assert found.n_replicates > 0
