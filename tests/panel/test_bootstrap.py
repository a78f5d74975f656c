from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import NoControlUnitsError, NotIdentifiedError, TooFewTreatedError
from causal_spark.panel.bootstrap import BootstrapOptions, Bootstraps
from causal_spark.panel.did import did
from causal_spark.panel.event_study import event_study
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.types import PanelSize, Penalties
from tests.panel.panels import block_panel, panel_of, staggered_panel
from tests.panel.settings import setting_of, variance_of


class Recorder:
    """An estimator that keeps what it was called with."""

    def __init__(self, function=did):
        self._function = function
        self.panels, self.penalties, self.seeds = [], [], []

    def __call__(self, panel, options, penalties, seed):
        self.panels.append(panel)
        self.penalties.append(penalties)
        self.seeds.append(seed)
        return self._function(panel)


def textbook_did(panel, n_pre):
    """Means of four blocks of cells."""
    gaps = panel.outcome[:, n_pre:].mean(axis=1) - panel.outcome[:, :n_pre].mean(axis=1)
    return gaps[panel.ever_treated].mean() - gaps[~panel.ever_treated].mean()


@pytest.mark.parametrize("strata", ["none", "treatment"])
def test_the_standard_error_is_the_spread_over_the_drawn_panels(strata):
    panel = block_panel(14, 10, n_treated=4, n_post=3, effect=1.0, seed=2)
    spy = Recorder()
    found = variance_of(setting_of(panel, spy=spy), "bootstrap", replicates=40, strata=strata)
    assert found.n_replicates == len(spy.panels) == 40
    rows = []
    for drawn in spy.panels:
        rows.append([int(unit[1:]) for unit in drawn.units])
        np.testing.assert_array_equal(drawn.outcome, panel.outcome[rows[-1]])
        np.testing.assert_array_equal(drawn.treated, panel.treated[rows[-1]])
    # As many units as there are, with repetitions, another draw every time, and every unit in some draw.
    assert {len(drawn) for drawn in rows} == {14}
    assert max(len(set(drawn)) for drawn in rows) < 14
    assert len({tuple(drawn) for drawn in rows}) == 40
    assert {unit for drawn in rows for unit in drawn} == set(range(14))
    effects = [textbook_did(drawn, 7) for drawn in spy.panels]
    assert found.att.std_error == pytest.approx(np.sqrt(np.mean((effects - np.mean(effects)) ** 2)), rel=1e-9)
    assert found.att.df is None
    assert found.permutation_p_value is None


def test_event_standard_errors_are_the_spread_of_event_studies_of_drawn_panels():
    spy = Recorder()
    setting = setting_of(block_panel(14, 10, n_treated=4, n_post=3, seed=2), spy=spy)
    found = variance_of(setting, "bootstrap", replicates=30).details()
    studies = np.array([event_study(drawn, did(drawn)).estimate for drawn in spy.panels])
    assert list(found.event_times) == list(range(-7, 3))
    np.testing.assert_allclose([bar.std_error for bar in found.event_times.values()], studies.std(axis=0), rtol=1e-9)
    assert found.cells is None


def test_event_times_that_a_draw_lacks_get_no_standard_error():
    """The latest cohort, one unit of many, is in some draws only; event times -10 and -9 are its alone."""
    setting = setting_of(staggered_panel(14, 12, (8, 8, 8, 8, 10), seed=3))
    found = variance_of(setting, "bootstrap", replicates=60).details()
    assert min(event_study(setting.panel, setting.fit).event_time) == -10
    assert sorted(found.event_times) == list(range(-8, 4))


@pytest.mark.parametrize("n_treated", [2, 4])
def test_draws_never_lack_treated_or_untreated_units(n_treated):
    """Without drawing again, one in eleven draws of six units, two of a kind, would lack that kind."""
    panel = block_panel(6, 8, n_treated, 2)
    spy = Recorder()
    variance_of(setting_of(panel, spy=spy), "bootstrap", replicates=400)
    n = np.bincount([int(drawn.ever_treated.sum()) for drawn in spy.panels], minlength=7)
    assert n[0] == n[6] == 0
    # All other numbers come up, as often as in a binomial that knows neither end.
    assert n[1:6].min() > 0
    ways = (
        np.array([6, 15, 20, 15, 6]) * (n_treated / 6) ** np.arange(1, 6) * (1 - n_treated / 6) ** np.arange(5, 0, -1)
    )
    expected = 400 * ways / ways.sum()
    assert np.all(np.abs(n[1:6] - expected) < 4.0 * np.sqrt(expected) + 1.0)


def test_strata_by_treatment_keep_the_numbers_of_both():
    panel = staggered_panel(11, 9, (5, 6, 7), seed=1)
    panel = panel.take_units(np.random.default_rng(0).permutation(11))
    spies = {}
    for strata in ("none", "treatment"):
        spies[strata] = Recorder()
        variance_of(setting_of(panel, spy=spies[strata]), "bootstrap", replicates=50, strata=strata)
    n = {strata: {int(drawn.ever_treated.sum()) for drawn in spy.panels} for strata, spy in spies.items()}
    assert n["treatment"] == {3}
    assert len(n["none"]) > 3
    assert len({tuple(drawn.units) for drawn in spies["treatment"].panels}) == 50


def test_with_many_units_it_finds_the_standard_error_of_a_difference_of_means():
    """Difference-in-differences of a block is one; 600 draws know its spread to 3%."""
    panel = block_panel(80, 8, n_treated=30, n_post=3, seed=5)
    gaps = panel.outcome[:, 5:].mean(axis=1) - panel.outcome[:, :5].mean(axis=1)
    treated, untreated = gaps[panel.ever_treated], gaps[~panel.ever_treated]
    expected = np.sqrt(treated.var() / 30 + untreated.var() / 50)
    for strata in ("none", "treatment"):
        found = variance_of(setting_of(panel), "bootstrap", replicates=600, strata=strata)
        assert found.att.std_error == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("strata", ["none", "treatment"])
def test_seeds_and_draws_do_not_depend_on_slices(strata):
    panel = block_panel(10, 8, 3, 2)
    wanted = Bootstraps(50, strata)
    whole, apart, longer, other = Recorder(), Recorder(), Recorder(), Recorder()
    wanted.run(setting_of(panel, spy=whole), 0, 12)
    for start, stop in ((8, 12), (0, 3), (3, 8)):
        wanted.run(setting_of(panel, spy=apart), start, stop)
    order = [*range(8, 12), *range(8)]
    assert apart.seeds == [whole.seeds[k] for k in order]
    assert [drawn.units.tolist() for drawn in apart.panels] == [whole.panels[k].units.tolist() for k in order]
    # More replicates extend the list; another seed of the run draws another one.
    Bootstraps(500, strata).run(setting_of(panel, spy=longer), 0, 12)
    Bootstraps(50, strata).run(setting_of(panel, spy=other, seed=2), 0, 12)
    assert longer.seeds == whole.seeds
    assert len({*whole.seeds, *other.seeds}) == 24


@pytest.mark.parametrize("retune", [False, True])
def test_penalties_are_kept_unless_retuned(retune):
    spy = Recorder()
    setting = setting_of(block_panel(10, 8, 3, 2), spy=spy)
    chosen = Penalties(lambda_nn=0.7)
    setting = replace(setting, fit=replace(setting.fit, penalties=chosen))
    variance_of(setting, "bootstrap", replicates=5, retune=retune)
    assert spy.penalties == [None if retune else chosen] * 5


@pytest.mark.parametrize("name", ["sc", "difp", "sdid", "mc"])
def test_every_fast_estimator_can_be_bootstrapped(name):
    """Against the same estimator on panels drawn here, which come of another random stream."""
    panel = block_panel(16, 10, n_treated=5, n_post=3, seed=7)
    setting = setting_of(panel, name)
    found = variance_of(setting, "bootstrap", replicates=100, strata="treatment").att.std_error
    rng, effects = np.random.default_rng(0), []
    for _ in range(100):
        drawn = panel.take_units(np.r_[rng.integers(0, 11, 11), rng.integers(11, 16, 5)])
        fit = ESTIMATORS[name].fit(drawn, setting.options, setting.fit.penalties, 0)
        effects.append((drawn.outcome - fit.counterfactual)[drawn.target_cells].mean())
    assert found == pytest.approx(np.std(effects), rel=0.35)  # the ratio of two such has a standard error of 10%


@pytest.mark.parametrize("name", ["sc", "difp", "sdid"])
@pytest.mark.parametrize("strata", ["none", "treatment"])
def test_draws_that_lose_a_cohort_keep_the_penalties_of_the_others(name, strata):
    """With two units a cohort is missing in every tenth draw: such draws are what the bootstrap is about."""
    setting = setting_of(staggered_panel(14, 12, (6, 6, 8, 8), seed=1), name)
    found = variance_of(setting, "bootstrap", replicates=100, strata=strata)
    # Their penalties follow from the panel, so that tuning anew changes little.
    retuned = variance_of(setting, "bootstrap", replicates=100, strata=strata, retune=True)
    assert found.att.std_error == pytest.approx(retuned.att.std_error, rel=0.2)


@pytest.mark.parametrize(
    ("n_treated", "error", "says"),
    [(1, TooFewTreatedError, "there is 1"), (6, NoControlUnitsError, "never treated")],
    ids=["one treated unit", "no controls"],
)
def test_it_declines_without_several_treated_or_without_untreated_units(n_treated, error, says):
    panel = staggered_panel(6, 9, tuple(range(3, 3 + n_treated)))
    with pytest.raises(error, match=says) as raised:
        variance_of(setting_of(panel), "bootstrap")
    assert "placebo" in raised.value.hint or "untreated units" in raised.value.hint
    assert Bootstraps(200).n_fits(PanelSize.of(panel)) == 0


def test_the_cost_model_counts_every_draw():
    panel = block_panel(9, 8, 2, 2)
    spy = Recorder()
    variance_of(setting_of(panel, spy=spy), "bootstrap", replicates=30)
    assert len(spy.panels) == Bootstraps(30).n_fits(PanelSize.of(panel)) == 30


def test_draws_without_an_estimate_decline_the_variance_and_say_how_many():
    """Without unit 0 only unit 1 is seen in the last period, and it, too, is not always drawn."""
    panel = block_panel(7, 8, n_treated=2, n_post=1)
    outcome = panel.outcome.copy()
    outcome[2:5, 7] = np.nan
    setting = setting_of(panel_of(outcome, panel.treated))
    with pytest.raises(NotIdentifiedError, match=r"\d+ of \d+ bootstrap replicates have no estimate") as raised:
        variance_of(setting, "bootstrap", replicates=60)
    assert raised.value.hint


@pytest.mark.parametrize(("options", "field"), [({"replicates": 1}, "replicates"), ({"strata": "cohort"}, "strata")])
def test_options_out_of_range_name_their_field(options, field):
    with pytest.raises(ValueError, match=field):
        BootstrapOptions(**options)
