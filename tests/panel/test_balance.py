import time
from itertools import product

import numpy as np
import pytest

from causal_spark.errors import MissingCellsError
from causal_spark.panel.balance import balanced_part
from causal_spark.panel.difp import DifpOptions, difp
from causal_spark.panel.sc import ScOptions, sc
from causal_spark.panel.sdid import SdidOptions, sdid
from causal_spark.panel.summary import att, summarise
from causal_spark.panel.types import Penalties
from tests.panel.panels import block_panel, panel_of, staggered_panel

OPTIONS = {sc: ScOptions, difp: DifpOptions, sdid: SdidOptions}
METHODS = pytest.mark.parametrize("method", OPTIONS, ids=lambda f: f.__name__)


def random_masks(rng, n_donors, n_treated, n_pre, n_post):
    """Observed cells of donors and treated units: scattered gaps, late entry and exit, gaps in periods or in units."""
    shape = (n_donors + n_treated, n_pre + n_post)
    observed = rng.random(shape) > rng.choice([0.0, 0.03, 0.1, 0.3])
    kind = rng.integers(4)
    for i in range(shape[0]):
        if kind == 1 and rng.random() < 0.4:
            observed[i, : rng.integers(shape[1])] = False
        elif kind == 1 and rng.random() < 0.3:
            observed[i, rng.integers(shape[1]) :] = False
        elif kind == 2 and rng.random() < 0.3:
            observed[i, rng.random(shape[1]) < 0.5] = False
    for t in range(shape[1]):
        if kind == 3 and rng.random() < 0.3:
            observed[rng.random(shape[0]) < 0.5, t] = False
    donors, treated = observed[:n_donors], observed[n_donors:]
    treated = treated[treated[:, n_pre:].any(axis=1)]
    periods = np.r_[np.ones(n_pre, dtype=bool), treated[:, n_pre:].any(axis=0)]
    return donors[:, periods], treated[:, periods]


def largest(donors, treated, n_pre, min_share):
    """(n_targets, n_cells) of the best of all subsets of periods, each with the units complete in it."""
    best = None
    for chosen in product([False, True], repeat=donors.shape[1]):
        pre, post = np.array(chosen), np.array(chosen)
        pre[n_pre:], post[:n_pre] = False, False
        d = donors[:, pre | post].all(axis=1)
        t = treated[:, pre].all(axis=1) & treated[:, post].any(axis=1)
        if not (pre.any() and post.any() and d.any() and t.any() and treated[t][:, post].any(axis=0).all()):
            continue
        n_targets = int(treated[t][:, post].sum())
        n_cells = int(d.sum() * (pre | post).sum() + t.sum() * pre.sum() + n_targets)
        if n_cells >= min_share * (donors.sum() + treated.sum()):
            best = (n_targets, n_cells) if best is None else max(best, (n_targets, n_cells))
    return best


@pytest.mark.parametrize(
    ("min_share", "largest_shape", "n_panels"),
    [(0.0, (7, 4, 6, 5), 250), (0.5, (7, 4, 6, 5), 250), (0.5, (16, 6, 8, 4), 100)],
)
def test_parts_are_complete_and_nearly_always_the_largest_there_is(min_share, largest_shape, n_panels):
    """Of 2,200 other such panels 98.7% (share 0) and 99.6% (share 0.5) had the largest; 97% leaves room for chance."""
    rng = np.random.default_rng(7)
    n_incomplete = n_best = 0
    for _ in range(n_panels):
        n_donors, n_treated, n_pre, n_post = (int(rng.integers(1, n)) for n in largest_shape)
        donors, treated = random_masks(rng, n_donors, n_treated, n_pre, n_post)
        if not len(treated) or (donors.all() and treated[:, :n_pre].all()):
            continue
        part = balanced_part(donors, treated, n_pre, min_share)
        wanted = largest(donors, treated, n_pre, min_share)
        n_incomplete += 1
        if part is None or part.share < min_share:
            n_best += wanted is None
            # Some pair of a pre- and a post-period does whenever anything does.
            assert wanted is None or min_share > 0.0
            continue
        pre, post = part.periods[:n_pre], part.periods[n_pre:]
        assert donors[part.donors][:, part.periods].all()
        assert treated[part.treated][:, :n_pre][:, pre].all()
        targets = treated[part.treated][:, n_pre:][:, post]
        assert min(part.donors.sum(), pre.sum(), targets.size) > 0
        assert targets.any(axis=0).all()
        assert targets.any(axis=1).all()
        assert part.n_targets == targets.sum()
        assert part.n_cells == donors[part.donors][:, part.periods].sum() + pre.sum() * len(targets) + targets.sum()
        assert part.share == part.n_cells / (donors.sum() + treated.sum())
        assert (part.n_targets, part.n_cells) <= wanted
        n_best += (part.n_targets, part.n_cells) == wanted
    assert n_incomplete > 0.6 * n_panels
    assert n_best >= 0.97 * n_incomplete


@pytest.mark.parametrize(
    ("donors", "treated", "n_pre", "wanted"),
    [
        (["xx.x", "..xx"], ["xxxx"], 3, (1, 6)),
        (["xx.x", ".xx."], [".xxx", "xxx.", ".xx."], 2, (3, 8)),
        ([".xx", "xxx"], ["xxx", "x.x"], 2, (2, 6)),
        (["xx.xxx"], ["x.xx..", ".xxxxx"], 3, (3, 8)),
        ([".xx.", "x..x"], ["xx.x"], 3, (1, 4)),
    ],
    ids=["discount", "no discount", "treated first", "treated last", "one pair of periods"],
)
def test_each_construction_finds_parts_the_others_miss(donors, treated, n_pre, wanted):
    masks = [np.array([[cell == "x" for cell in row] for row in rows]) for rows in (donors, treated)]
    part = balanced_part(*masks, n_pre, 0.0)
    best = largest(*masks, n_pre, 0.0)
    assert (part.n_targets, part.n_cells) == best == wanted


def masks_without(*gaps):
    """10 donors and 4 treated units over 12 pre- and 4 post-periods, observed but for the gaps (rows, columns)."""
    observed = np.ones((14, 16), dtype=bool)
    for rows, columns in gaps:
        observed[rows, columns] = False
    return observed[:10], observed[10:]


@pytest.mark.parametrize(
    ("gaps", "min_share", "dropped_units", "dropped_periods"),
    [
        ([], 0.5, [], []),
        ([(3, slice(0, 6))], 0.5, [3], []),
        ([(slice(0, 8), 5)], 0.5, [], [5]),
        # A donor that enters late goes, a period with gaps in many units goes, neither takes the other along.
        ([(3, slice(0, 6)), (slice(5, 14), 8)], 0.5, [3], [8]),
        # Target cells first: a treated unit is worth the periods it misses, as long as enough is left.
        ([(12, [0, 1])], 0.5, [], [0, 1]),
        ([(12, [0, 1])], 0.9, [12], []),
        # Donors that leave the panel go before post-periods do.
        ([(slice(0, 4), 15)], 0.5, [0, 1, 2, 3], []),
        ([(slice(0, 4), 15)], 0.75, [], [15]),
        # Target cells that are missing do no harm.
        ([(slice(10, 13), 13), (11, slice(14, 16))], 1.0, [], []),
    ],
)
def test_what_is_dropped_is_what_one_would_drop_by_hand(gaps, min_share, dropped_units, dropped_periods):
    donors, treated = masks_without(*gaps)
    part = balanced_part(donors, treated, 12, min_share)
    assert np.flatnonzero(~np.r_[part.donors, part.treated]).tolist() == dropped_units
    assert np.flatnonzero(~part.periods).tolist() == dropped_periods


def test_the_order_of_units_does_not_matter():
    rng = np.random.default_rng(3)
    for _ in range(30):
        donors, treated = rng.random((40, 20)) > 0.04, rng.random((5, 20)) > 0.04
        by_donor, by_treated = rng.permutation(40), rng.permutation(5)
        part = balanced_part(donors, treated, 15, 0.5)
        moved = balanced_part(donors[by_donor], treated[by_treated], 15, 0.5)
        np.testing.assert_array_equal(moved.periods, part.periods)
        np.testing.assert_array_equal(moved.donors, part.donors[by_donor])
        np.testing.assert_array_equal(moved.treated, part.treated[by_treated])


def test_large_blocks_are_quick():
    """About 0.01 s on an ordinary core; a hundred times that would be a loop over cells."""
    observed = np.random.default_rng(0).random((1000, 200)) > 0.05
    started = time.process_time()
    balanced_part(observed[:950], observed[950:], 150, 0.0)
    assert time.process_time() - started < 1.0


def without(panel, *gaps):
    outcome, treated = panel.outcome.copy(), panel.treated.copy()
    for rows, columns in gaps:
        outcome[rows, columns] = np.nan
        treated[rows, columns] = False
    return panel_of(outcome, treated, panel.units, panel.periods)


def part_of(panel, units, periods):
    cells = np.ix_(units, periods)
    return panel_of(panel.outcome[cells], panel.treated[cells], panel.units[units], panel.periods[periods])


@METHODS
@pytest.mark.parametrize(
    ("gaps", "units", "periods", "says"),
    [
        ([(3, slice(0, 6))], [3], [], "Left out: 1 donor (u0003). No treated cell loses"),
        ([(slice(0, 14), 2)], [], [2], "Left out: 1 period before treatment (2). No treated cell loses"),
        ([(slice(0, 14), 13)], [], [13], "Left out: 1 period after its start (13). 2 of 8 treated cells have no"),
        ([(19, slice(1, 11))], [19], [], "Left out: 1 treated unit (u0019). 4 of 8 treated cells have no"),
        ([([4, 9], 14), (slice(0, 15), 0)], [4, 9], [0], "2 donors (u0004, u0009); 1 period before treatment (0)."),
    ],
)
def test_a_fit_with_missing_cells_is_that_of_the_panel_without_what_it_says_it_dropped(
    method, gaps, units, periods, says
):
    panel = without(block_panel(20, 15, 2, 4, seed=1), *gaps)
    kept_units, kept_periods = np.delete(np.arange(20), units), np.delete(np.arange(15), periods)
    kept = part_of(panel, kept_units, kept_periods)
    fit, alone = method(panel), method(kept)
    np.testing.assert_array_equal(fit.counterfactual[np.ix_(kept_units, kept_periods)], alone.counterfactual)
    assert np.isnan(fit.counterfactual[units]).all()
    assert np.isnan(fit.counterfactual[:, periods]).all()
    assert fit.penalties == alone.penalties
    for found, wanted in zip(fit.weights, alone.weights, strict=True):
        positions = kept_periods if found.kind == "time" else kept_units
        np.testing.assert_array_equal(found.positions, positions[wanted.positions])
        np.testing.assert_array_equal(found.values, wanted.values)
    n_lost = panel.target_cells.sum() - kept.target_cells.sum()
    assert summarise(panel, fit).n_cells_not_identified == n_lost
    (notice,) = fit.notices
    assert notice.name == "DroppedCells"
    assert says in notice.message
    assert notice.hint
    assert not alone.notices


@METHODS
def test_treated_cells_missing_after_the_start_are_no_target_cells_and_change_nothing_else(method):
    whole = block_panel(20, 15, 3, 4, seed=2)
    base, fit = method(whole), method(without(whole, (17, [12, 14]), (18, [13])))
    np.testing.assert_array_equal(fit.counterfactual, base.counterfactual)
    assert fit.notices == ()


@METHODS
def test_post_periods_and_treated_units_without_any_target_cell_do_not_enter_the_weights(method):
    whole = block_panel(20, 15, 2, 4, seed=3)
    fit = method(without(whole, ([18, 19], 12), (0, 12)))
    alone = method(part_of(whole, np.arange(20), np.delete(np.arange(15), 12)))
    np.testing.assert_array_equal(np.delete(fit.counterfactual, 12, axis=1), alone.counterfactual)
    # A row with W = 1 and no outcome keeps the unit treated, but gives nothing to predict.
    panel = panel_of(without(whole, (18, slice(11, 15))).outcome, whole.treated)
    np.testing.assert_array_equal(
        method(panel).counterfactual[19], method(whole.take_units(np.r_[:18, 19])).counterfactual[18]
    )
    assert fit.notices == method(panel).notices == ()


@METHODS
def test_the_least_share_decides_between_an_estimate_and_none(method):
    panel = without(block_panel(20, 15, 2, 4, seed=4), (3, 5))
    kept = (17 * 15 + 2 * 15) / (18 * 15 - 1 + 2 * 15)
    options = OPTIONS[method]
    assert np.isfinite(att(panel, method(panel, options(min_balanced_share=kept))))
    assert f"{np.floor(1000 * kept) / 10:g}% of the observed cells" in method(panel).notices[0].message
    for share in (kept + 1e-9, 1.0):
        with pytest.raises(MissingCellsError, match="1 cell of 1 unit") as raised:
            method(panel, options(min_balanced_share=share))
        assert "mc" in raised.value.hint
    assert method(block_panel(20, 15), options(min_balanced_share=1.0)).notices == ()


@METHODS
def test_a_cohort_that_keeps_too_little_has_no_prediction_and_the_others_do(method):
    whole = staggered_panel(24, 16, starts=(8, 8, 11), seed=5)
    panel = without(whole, (23, slice(1, 11)))
    fit, alone = method(panel), method(whole.take_units(np.arange(23)))
    np.testing.assert_array_equal(fit.counterfactual[:23], alone.counterfactual)
    assert np.isnan(fit.counterfactual[23]).all()
    assert summarise(panel, fit).n_cells_not_identified == 5
    # The other cohort keeps its 23 x 16 cells; of this one 21 x 16 are observed, and 1 + 5 of the treated unit's.
    assert f"{np.floor(1000 * 23 * 16 / (23 * 16 + 21 * 16 + 6)) / 10:g}% of the observed" in fit.notices[0].message
    assert "1 of 2 cohorts or windows would keep less than 50%" in fit.notices[0].message
    assert "5 of 21 treated cells have no prediction" in fit.notices[0].message
    assert [w.kind for w in fit.weights if w.kind.startswith("unit")] == ["unit:8"]
    zetas = fit.penalties.zeta_unit
    assert zetas[0] == alone.penalties.zeta_unit[0]
    assert np.isnan(zetas[1])
    again = method(panel, penalties=fit.penalties)
    np.testing.assert_array_equal(again.counterfactual, fit.counterfactual)
    # Where such a block can be fitted, its zeta is computed as if none were given.
    given = method(whole, penalties=fit.penalties)
    np.testing.assert_array_equal(given.counterfactual[23], method(whole).counterfactual[23])


@METHODS
def test_notices_list_ten_labels_and_count_the_others(method):
    panel = without(block_panel(60, 15, 2, 4), *((i, i % 11) for i in range(13)))
    (notice,) = method(panel).notices
    assert (
        "13 donors (u0000, u0001, u0002, u0003, u0004, u0005, u0006, u0007, u0008, u0009 and 3 more)" in notice.message
    )


@METHODS
def test_units_treated_from_the_start_are_noticed_and_their_gaps_do_no_harm(method):
    panel = staggered_panel(12, 10, starts=(0, 6), seed=8)
    fit = method(without(panel, (10, [3, 7])))
    np.testing.assert_array_equal(fit.counterfactual, method(panel).counterfactual)
    (notice,) = fit.notices
    assert notice.name == "AlwaysTreatedUnits"
    assert "1 unit treated from the first period on cannot be used (u0010)" in notice.message
    assert "8 treated cells" in notice.message


@METHODS
@pytest.mark.parametrize("factor", [1e-9, 1e12])
def test_estimates_with_missing_cells_scale_with_the_outcome_and_ignore_its_origin(method, factor):
    panel = without(block_panel(20, 15, 2, 4, seed=6), (3, slice(0, 6)), (slice(0, 9), 8), (18, 13))
    base = method(panel)
    scaled, shifted = panel_of(panel.outcome * factor, panel.treated), panel_of(panel.outcome + 1e3, panel.treated)
    assert att(scaled, method(scaled)) == pytest.approx(att(panel, base) * factor, rel=1e-9)
    assert att(shifted, method(shifted)) == pytest.approx(att(panel, base), abs=1e-8)
    assert method(scaled).notices == method(shifted).notices == base.notices


@METHODS
def test_periods_are_named_as_dates(method):
    panel = without(block_panel(20, 15, 2, 4), (slice(0, 15), 2))
    dates = np.array([np.datetime64("2020-01-01T00:00:00.000000") + np.timedelta64(30 * t, "D") for t in range(15)])
    (notice,) = method(panel_of(panel.outcome, panel.treated, periods=dates)).notices
    assert "1 period before treatment (2020-03-01T00:00:00)" in notice.message


@METHODS
def test_given_penalties_count_blocks_whatever_is_missing(method):
    panel = without(block_panel(20, 15, 2, 4), (3, 2))
    fit = method(panel, penalties=Penalties(zeta_unit=(0.5,), zeta_time=(0.1,)))
    assert fit.penalties.zeta_unit == (0.5,)
