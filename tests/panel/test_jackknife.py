import numpy as np
import pytest
import synthdid

from causal_spark.errors import NoControlUnitsError, TooFewControlsError, TooFewTreatedError
from causal_spark.panel.did import did
from causal_spark.panel.event_study import event_study
from causal_spark.panel.jackknife import LeftOut
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.sdid import SdidOptions
from causal_spark.panel.summary import att
from causal_spark.panel.types import PanelSize, Penalties
from tests.panel.panels import block_panel, cps, panel_of, staggered_panel
from tests.panel.settings import setting_of, variance_of

WEIGHTED = ["sc", "difp", "sdid"]


def spread(effects):
    """Arkhangelsky et al. (2021), Algorithm 3."""
    effects = np.asarray(effects)
    n = len(effects)
    return np.sqrt((n - 1) / n * np.sum((effects - effects.mean(axis=0)) ** 2, axis=0))


def blocks_of(panel, fit, name):
    """(window, pre-periods, donors' weights, periods' weights) by cohort and window, from the weights that are listed.

    Their kinds name the cohort's first period, and that of the window where there are several.
    """
    start = np.where(panel.ever_treated, panel.treated.argmax(axis=1), panel.n_periods)
    cohorts = sorted({int(s) for s in start if s < panel.n_periods})
    found = []
    for weights in fit.weights:
        kind, *at = weights.kind.split(":")
        if kind != "unit":
            continue
        first = [int(label) for label in at] or cohorts
        cohort, begin = first[0], first[-1]
        later = [c for c in cohorts if c > begin] if len(at) == 2 else []
        omega = np.zeros(panel.n_units)
        omega[weights.positions] = weights.values
        lambda_ = np.full(cohort, 0.0 if name == "sc" else 1.0 / cohort)
        for others in fit.weights:
            if others.kind == weights.kind.replace("unit", "time"):
                lambda_ = np.zeros(cohort)
                lambda_[others.positions] = others.values
        window = np.arange(begin, min([*later, panel.n_periods]))
        found.append((np.flatnonzero(start == cohort), window, omega, lambda_))
    return found


def effects_without(panel, blocks, unit):
    """(n_units, n_periods) effects at treated cells, NaN elsewhere; weights are kept and, without one's, scaled up."""
    effects = np.full(panel.outcome.shape, np.nan)
    for treated, window, omega, lambda_ in blocks:
        kept = omega.copy()
        if unit is not None:
            kept[unit] = 0.0
        synthetic = kept / kept.sum() @ panel.outcome
        gaps = panel.outcome - synthetic
        for i in treated:
            if i != unit:
                effects[i, window] = gaps[i, window] - lambda_ @ gaps[i, : len(lambda_)]
    return effects


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("starts", [(8, 8, 8), (7, 7, 10, 10, 10)], ids=["block", "cohorts"])
@pytest.mark.parametrize("donors", ["never_treated", "not_yet_treated"])
def test_weights_are_kept_and_those_of_the_other_donors_scaled_up(name, starts, donors):
    panel = staggered_panel(15, 13, starts, effect=1.0, seed=4)
    panel = panel.take_units(np.random.default_rng(1).permutation(15))
    setting = setting_of(panel, name, ESTIMATORS[name].options(donors=donors))
    blocks = blocks_of(panel, setting.fit, name)
    assert np.nanmean(effects_without(panel, blocks, None)) == pytest.approx(att(panel, setting.fit), rel=1e-9)
    effects = [effects_without(panel, blocks, unit) for unit in range(15)]
    found = variance_of(setting, "jackknife")
    assert found.n_replicates == 15
    assert found.att.df is None
    assert found.att.std_error == pytest.approx(spread([np.nanmean(one) for one in effects]), rel=1e-9)
    # By event time: cells so many periods behind their unit's first treated one.
    start = panel.treated.argmax(axis=1)
    bars = found.details().event_times
    for event_time in range(13 - min(starts)):
        units = np.flatnonzero(panel.ever_treated & (start + event_time < 13))
        means = [np.nanmean(one[units, start[units] + event_time]) for one in effects]
        assert bars[event_time].std_error == pytest.approx(spread(means), rel=1e-9)


def test_did_is_fitted_again_without_each_unit():
    panel = staggered_panel(11, 10, (6, 6, 8), effect=1.0, seed=2)
    studies, effects = [], []
    for unit in range(11):
        others = panel.take_units(np.delete(np.arange(11), unit))
        effects.append(att(others, did(others)))
        study = event_study(others, did(others))
        studies.append(dict(zip(study.event_time.tolist(), study.estimate, strict=True)))
    found = variance_of(setting_of(panel), "jackknife")
    assert found.n_replicates == 11
    assert found.att.std_error == pytest.approx(spread(effects), rel=1e-9)
    # Without the only unit of the later cohort there is nothing eight and seven periods before treatment.
    bars = found.details().event_times
    assert sorted(bars) == list(range(-6, 4))
    for event_time, bar in bars.items():
        assert bar.std_error == pytest.approx(spread([study[event_time] for study in studies]), rel=1e-9)


def test_matrix_completion_is_fitted_again_with_the_penalties_of_the_estimate():
    panel = block_panel(12, 10, n_treated=3, n_post=3, seed=6)
    setting = setting_of(panel, "mc")
    assert setting.fit.penalties.lambda_nn is not None
    effects = []
    for unit in range(12):
        others = panel.take_units(np.delete(np.arange(12), unit))
        effects.append(att(others, ESTIMATORS["mc"].fit(others, setting.options, setting.fit.penalties, 0)))
    found = variance_of(setting, "jackknife").att.std_error
    assert found == pytest.approx(spread(effects), rel=1e-6)
    other = variance_of(setting_of(panel, "mc", penalties=Penalties(lambda_nn=1e-2)), "jackknife").att.std_error
    assert abs(other / found - 1.0) > 0.01


def test_with_many_units_that_of_did_finds_the_standard_error_of_a_difference_of_means():
    panel = block_panel(80, 8, n_treated=30, n_post=3, seed=5)
    gaps = panel.outcome[:, 5:].mean(axis=1) - panel.outcome[:, :5].mean(axis=1)
    treated, untreated = gaps[panel.ever_treated], gaps[~panel.ever_treated]
    expected = np.sqrt(treated.var() / 30 + untreated.var() / 50)
    assert variance_of(setting_of(panel), "jackknife").att.std_error == pytest.approx(expected, rel=0.05)


PEERS = {
    "cps": cps,
    "few": lambda: block_panel(20, 15, 4, 4, effect=0.5, seed=100),
    "many": lambda: block_panel(40, 30, 10, 10, effect=0.5, seed=101),
}


@pytest.mark.parametrize("name", PEERS)
def test_it_agrees_with_synthdid_py(name):
    """The peer stops Frank-Wolfe early. Given our weights it finds our standard error; with its own, nearly."""
    panel = PEERS[name]()
    panel = panel.take_units(np.argsort(panel.ever_treated, kind="stable"))
    n_controls, n_pre = int((~panel.ever_treated).sum()), int(panel.treated.any(axis=0).argmax())
    setting = setting_of(panel, "sdid")
    found = variance_of(setting, "jackknife").att.std_error
    peer = synthdid.synthdid_estimate(panel.outcome, n_controls, n_pre)
    assert synthdid.jackknife_se(peer) == pytest.approx(found, rel=0.05)
    peer.weights.omega, peer.weights.lambda_ = np.zeros(n_controls), np.zeros(n_pre)
    for weights in setting.fit.weights:
        full = peer.weights.omega if weights.kind == "unit" else peer.weights.lambda_
        full[weights.positions] = weights.values
    assert synthdid.jackknife_se(peer) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("name", ["did", *WEIGHTED])
@pytest.mark.parametrize("case", ["one treated unit", "no controls"])
def test_it_declines_without_several_treated_or_without_untreated_units(name, case):
    starts, options = ((6,), {}) if case == "one treated unit" else ((3, 3, 4, 4, 5, 5), {"donors": "not_yet_treated"})
    panel = staggered_panel(6, 9, starts)
    setting = setting_of(panel, name, None if name == "did" else ESTIMATORS[name].options(**options))
    error = TooFewTreatedError if case == "one treated unit" else NoControlUnitsError
    with pytest.raises(error) as raised:
        variance_of(setting, "jackknife")
    assert "placebo" in raised.value.hint or "untreated units" in raised.value.hint
    assert LeftOut().n_fits(PanelSize.of(panel)) == 0


@pytest.mark.parametrize("name", WEIGHTED)
def test_with_kept_weights_it_declines_a_cohort_of_a_single_unit(name):
    """Without that unit the ATT would be one of other cohorts."""
    panel = staggered_panel(12, 10, (6, 6, 8), seed=2)
    with pytest.raises(TooFewTreatedError, match="every cohort") as raised:
        variance_of(setting_of(panel, name), "jackknife")
    assert "placebo" in raised.value.hint
    found = variance_of(setting_of(panel), "jackknife")
    assert found.att.std_error > 0.0


@pytest.mark.parametrize("name", WEIGHTED)
def test_with_kept_weights_it_declines_where_one_donor_has_all_of_it(name):
    """Unit 0 is just like the treated ones, and the others are not at all."""
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.normal(size=12))
    outcome = np.vstack([path, -5.0 * path + rng.normal(size=(6, 12)), path, path])
    treated = block_panel(9, 12, 2, 3).treated
    options = SdidOptions(ridge_unit=0.0) if name == "sdid" else None
    setting = setting_of(panel_of(outcome, treated), name, options)
    assert setting.fit.blocks[0].unit.max() == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(TooFewControlsError, match="one donor") as raised:
        variance_of(setting, "jackknife")
    assert "placebo" in raised.value.hint


def test_units_outside_every_block_change_nothing_when_left_out():
    """A control that misses a cell is dropped; it counts as a unit whose leaving out moves nothing."""
    panel = block_panel(14, 12, n_treated=3, n_post=3, seed=3)
    outcome = panel.outcome.copy()
    outcome[4, 2] = np.nan
    panel = panel_of(outcome, panel.treated)
    setting = setting_of(panel, "sdid", SdidOptions())
    assert 4 not in setting.fit.blocks[0].donors
    blocks = blocks_of(panel, setting.fit, "sdid")
    complete = panel_of(np.nan_to_num(outcome), panel.treated)
    effects = [np.nanmean(effects_without(complete, blocks, unit)) for unit in range(14)]
    assert effects[4] == pytest.approx(att(panel, setting.fit), rel=1e-9)
    assert variance_of(setting, "jackknife").att.std_error == pytest.approx(spread(effects), rel=1e-9)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_may_be_fitted_anew_without_each_unit(name):
    panel = block_panel(14, 12, 3, 4, seed=6)
    setting = setting_of(panel, name)
    definition = ESTIMATORS[name]
    effects = []
    for unit in range(14):
        others = panel.take_units(np.delete(np.arange(14), unit))
        effects.append(att(others, definition.fit(others, definition.options(), setting.fit.penalties, 0)))
    found = variance_of(setting, "jackknife", weights="fitted")
    assert found.att.std_error == pytest.approx(spread(effects), rel=1e-9)
    assert found.att.std_error != pytest.approx(variance_of(setting, "jackknife").att.std_error, rel=1e-3)
