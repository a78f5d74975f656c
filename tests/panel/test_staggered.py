from itertools import pairwise

import numpy as np
import pytest

from causal_spark.errors import DeclinedError, GroupError, MissingCellsError, NoControlUnitsError
from causal_spark.panel.cohorts import first_treated, read_cohorts
from causal_spark.panel.difp import DifpOptions, difp
from causal_spark.panel.event_study import event_study
from causal_spark.panel.sc import ScOptions, sc
from causal_spark.panel.sdid import SdidOptions, sdid
from causal_spark.panel.summary import att, effect_cells, summarise
from causal_spark.panel.types import Penalties
from tests.panel.panels import block_panel, panel_of, staggered_panel, treated_from

OPTIONS = {sc: ScOptions, difp: DifpOptions, sdid: SdidOptions}
METHODS = pytest.mark.parametrize("method", OPTIONS, ids=lambda f: f.__name__)


def not_yet_treated(method, panel, **given):
    return method(panel, OPTIONS[method](donors="not_yet_treated"), **given)


def without(panel, unit, time):
    outcome = panel.outcome.copy()
    outcome[unit, time] = np.nan
    return panel_of(outcome, panel.treated)


def by_hand(method, panel):
    """Counterfactual, unit weights by (cohort, window) and zetas, window by window from panels of one cohort each."""
    start = first_treated(panel.treated)
    starts = sorted(s for s in set(start.tolist()) if 0 < s < panel.n_periods)
    counterfactual = np.full(panel.outcome.shape, np.nan)
    weights, zetas = {}, []
    for g in starts:
        total, n_periods = np.zeros(panel.outcome.shape), np.zeros(panel.outcome.shape)
        edges = [s for s in starts if s >= g] + [panel.n_periods]
        for a, b in pairwise(edges):
            donors = [i for i in range(panel.n_units) if start[i] >= b]
            if not donors:
                zetas.append(np.nan)
                continue
            units = np.array(donors + [i for i in range(panel.n_units) if start[i] == g])
            periods = np.array([t for t in range(panel.n_periods) if t < g or a <= t < b])
            cells = np.ix_(units, periods)
            sub = panel_of(panel.outcome[cells], panel.treated[cells])
            fit = method(sub)
            predicted = np.isfinite(fit.counterfactual)
            n_post = int(predicted[:, g:].any(axis=0).sum())
            total[cells] += np.where(predicted, n_post * fit.counterfactual, 0.0)
            n_periods[cells] += np.where(predicted, n_post, 0)
            weights[g, a] = dict(zip(units[fit.weights[0].positions].tolist(), fit.weights[0].values, strict=True))
            zetas.append(fit.penalties.zeta_unit[0])
        some = n_periods > 0
        counterfactual[some] = total[some] / n_periods[some]
    return counterfactual, weights, zetas


STAGGERED = {
    "never treated and three cohorts": staggered_panel(20, 16, (6, 6, 9, 12, 12), seed=1),
    "everybody treated in the end": staggered_panel(10, 14, (5, 5, 5, 8, 8, 8, 8, 11, 11, 11), seed=2),
    "one treated from the start": staggered_panel(12, 12, (0, 5, 8), seed=3),
    "a cohort a period": staggered_panel(9, 9, (1, 2, 3, 4, 5, 6, 7, 8), seed=4),
    "two units": staggered_panel(2, 6, (2, 4), seed=5),
    "missing cells of donors": without(staggered_panel(20, 16, (6, 6, 9, 12, 12), seed=6), [2, 17, 18], [3, 8, 14]),
    "missing cells of the treated": without(
        staggered_panel(20, 16, (6, 6, 9, 12, 12), seed=7), [15, 15, 15, 16, 18], [7, 2, 10, 15, 15]
    ),
}
PANELS = pytest.mark.parametrize("panel", STAGGERED.values(), ids=STAGGERED)


@METHODS
@PANELS
def test_windows_are_blocks_against_the_units_untreated_to_their_end(method, panel):
    fit = not_yet_treated(method, panel)
    counterfactual, weights, zetas = by_hand(method, panel)
    np.testing.assert_allclose(fit.counterfactual, counterfactual, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fit.penalties.zeta_unit, zetas, rtol=1e-12)
    assert np.isfinite(fit.counterfactual[panel.target_cells]).any()
    kinds = [w.kind for w in fit.weights if w.kind.startswith("unit")]
    assert kinds == [f"unit:{g}:{a}" for g, a in weights]
    for found in fit.weights:
        if found.kind in kinds:
            wanted = weights[tuple(int(part) for part in found.kind.split(":")[1:])]
            np.testing.assert_allclose(found.values, [wanted[i] for i in found.positions], rtol=1e-9, atol=1e-12)
    assert {w.kind.replace("time", "unit") for w in fit.weights if w.kind.startswith("time")} == (
        set(kinds) if method is sdid else set()
    )


@METHODS
def test_a_unit_treated_later_is_a_donor_up_to_its_start_only_if_asked_for(method):
    panel = STAGGERED["never treated and three cohorts"]
    outcome = panel.outcome.copy()
    outcome[17, :9] = outcome[15:17, :9].mean(axis=0)
    panel = panel_of(outcome, panel.treated)
    never, not_yet = method(panel), not_yet_treated(method, panel)
    weight = {w.kind: dict(zip(w.positions.tolist(), w.values, strict=True)).get(17, 0.0) for w in not_yet.weights}
    # More than an equal share of the 15 never treated and the three treated later.
    assert weight["unit:6:6"] > 1 / 18
    assert weight["unit:6:9"] == weight["unit:6:12"] == 0.0
    assert all(w.positions.max() < 15 for w in never.weights if w.kind.startswith("unit"))
    # Nobody starts after the last cohort.
    np.testing.assert_array_equal(never.counterfactual[18:], not_yet.counterfactual[18:])


@METHODS
@pytest.mark.parametrize("panel", [block_panel(20, 15, 2, 4), block_panel(8, 30, 1, 1)], ids=["many", "few donors"])
def test_one_cohort_gives_the_same_bits_whoever_may_be_a_donor(method, panel):
    base, fit = method(panel), not_yet_treated(method, panel)
    np.testing.assert_array_equal(fit.counterfactual, base.counterfactual)
    assert fit.penalties == base.penalties
    assert [w.kind for w in fit.weights] == [w.kind for w in base.weights]


@METHODS
def test_a_constant_effect_is_recovered_where_untreated_outcomes_are_additive(method):
    path = np.cumsum(np.random.default_rng(0).normal(size=14))
    treated = treated_from(9, 14, (5, 5, 5, 8, 8, 8, 11, 11, 11))
    panel = panel_of(np.tile(path, (9, 1)) + 3.0 * treated, treated)
    fit = not_yet_treated(method, panel)
    assert att(panel, fit) == pytest.approx(3.0, abs=1e-9)
    summary = summarise(panel, fit)
    assert (summary.n_treated_cells, summary.n_cells_not_identified) == (3 * (9 + 6 + 3), 3 * 3 * 3)
    (notice,) = fit.notices
    assert notice.name == "NoDonorsLeft"
    assert "From 11 on" in notice.message
    assert "27 treated cells" in notice.message
    after = event_study(panel, fit)
    np.testing.assert_allclose(after.estimate[after.event_time >= 0], 3.0, atol=1e-9)


@METHODS
@pytest.mark.parametrize("factor", [1e-9, 1e12])
@pytest.mark.parametrize("name", ["never treated and three cohorts", "missing cells of the treated"])
def test_estimates_scale_with_the_outcome_and_ignore_its_origin(method, factor, name):
    panel = STAGGERED[name]
    base = att(panel, not_yet_treated(method, panel))
    scaled, shifted = panel_of(panel.outcome * factor, panel.treated), panel_of(panel.outcome + 1e3, panel.treated)
    assert att(scaled, not_yet_treated(method, scaled)) == pytest.approx(base * factor, rel=1e-9)
    assert att(shifted, not_yet_treated(method, shifted)) == pytest.approx(base, abs=1e-8)


@METHODS
def test_given_penalties_are_one_per_window(method):
    panel = STAGGERED["everybody treated in the end"]
    fit = not_yet_treated(method, panel)
    again = not_yet_treated(method, panel, penalties=fit.penalties)
    np.testing.assert_array_equal(again.counterfactual, fit.counterfactual)
    assert len(fit.penalties.zeta_unit) == len(read_cohorts(panel, "not_yet_treated").blocks) == 6
    with pytest.raises(GroupError, match="3 ridge level"):
        not_yet_treated(method, panel, penalties=Penalties(zeta_unit=(1.0,) * 3))


@METHODS
@pytest.mark.parametrize(
    "panel",
    [
        staggered_panel(6, 8, (4,) * 6),
        staggered_panel(6, 8, (0, 0, 0, 4, 4, 4)),
        # The earlier cohort, the only one with donors, has no outcome before the later one starts.
        without(staggered_panel(6, 8, (3, 3, 3, 5, 5, 5)), [[0], [1], [2]], [3, 4]),
    ],
    ids=["one cohort", "treated from the start", "no outcomes while there are donors"],
)
def test_panels_in_which_no_window_has_donors_are_declined(method, panel):
    with pytest.raises(NoControlUnitsError, match="no donors") as raised:
        not_yet_treated(method, panel)
    assert raised.value.hint


def with_gaps_at_the_start_of_treatment():
    """A unit without rows in its first two treated periods counts as treated from the third."""
    panel = staggered_panel(14, 12, (6, 6), seed=9)
    outcome, treated = panel.outcome.copy(), panel.treated.copy()
    outcome[13, 6:8], treated[13, 6:8] = np.nan, False
    return panel_of(outcome, treated)


@METHODS
@pytest.mark.parametrize("donors", ["never_treated", "not_yet_treated"])
@pytest.mark.parametrize(
    ("panel", "n_not_identified"),
    [
        (block_panel(12, 10, 1, 1), 0),
        (block_panel(12, 10, 4, 3), 0),
        (block_panel(60, 5, 2, 1), 0),
        (block_panel(6, 60, 2, 20), 0),
        (staggered_panel(12, 10, (0, 0, 6, 9)), 20),
        (without(staggered_panel(20, 12, (6, 9)), [18, 18, 19], [7, 11, 10]), 0),
        (with_gaps_at_the_start_of_treatment(), 0),
    ],
    ids=[
        "one treated cell",
        "several treated units",
        "more donors than periods",
        "more periods than donors",
        "treated from the start",
        "gaps after the start",
        "gaps at the start",
    ],
)
def test_every_pattern_a_block_method_takes_has_finite_estimates(method, donors, panel, n_not_identified):
    fit = method(panel, OPTIONS[method](donors=donors))
    effects = effect_cells(panel, fit)[panel.target_cells]
    assert int(np.isnan(effects).sum()) == n_not_identified
    assert fit.converged
    start = first_treated(panel.treated)
    assert np.isnan(fit.counterfactual[(start == 0) | (start == panel.n_periods)]).all()
    for found in fit.weights:
        assert found.values.sum() == pytest.approx(1.0)
        if found.kind.startswith("unit"):
            window = int(found.kind.split(":")[-1]) if ":" in found.kind else start[start > 0].min()
            assert (start[found.positions] > window).all()


@METHODS
@pytest.mark.parametrize("donors", ["never_treated", "not_yet_treated"])
@pytest.mark.parametrize("effect", [0.0, 2.0])
@pytest.mark.parametrize("level", [0.0, 7.0, 1e9])
@pytest.mark.parametrize("gaps", [[], [0, 7]])
def test_constant_untreated_outcomes_give_the_difference(method, donors, effect, level, gaps):
    treated = treated_from(8, 9, (4, 6))
    panel = panel_of(level + effect * treated, treated)
    panel = without(panel, gaps, [5] * len(gaps))
    assert att(panel, method(panel, OPTIONS[method](donors=donors))) == pytest.approx(effect, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_any_panel_has_finite_estimates_or_a_reason_and_loses_no_treated_cell_in_silence(seed):
    rng = np.random.default_rng(seed)
    outcomes = set()
    for _ in range(40):
        n_units, n_periods = (int(n) for n in rng.integers(2, 14, size=2))
        treated = treated_from(n_units, n_periods, rng.integers(0, n_periods, rng.integers(1, n_units + 1)).tolist())
        outcome = rng.choice([1e-9, 1.0, 1e12]) * rng.normal(size=treated.shape).cumsum(axis=1)
        missing = rng.random(treated.shape) < rng.choice([0.0, 0.02, 0.1, 0.4])
        outcome[missing] = np.nan
        panel = panel_of(outcome, treated & ~missing if rng.random() < 0.5 else treated)
        for method, options in OPTIONS.items():
            for donors in ("never_treated", "not_yet_treated"):
                chosen = options(donors=donors, min_balanced_share=float(rng.choice([0.0, 0.5, 1.0])))
                try:
                    fit = method(panel, chosen)
                except DeclinedError as error:
                    outcomes.add(type(error) if error.hint else "no hint")
                    continue
                summary = summarise(panel, fit)
                assert np.isfinite(summary.estimate)
                assert fit.converged
                assert fit.notices or summary.n_cells_not_identified == 0
                assert np.isnan(fit.counterfactual[~panel.ever_treated]).all()
                outcomes |= {notice.name for notice in fit.notices}
    assert {"DroppedCells", "AlwaysTreatedUnits", "NoDonorsLeft", MissingCellsError, NoControlUnitsError} <= outcomes
    assert "no hint" not in outcomes
