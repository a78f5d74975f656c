"""Lists of replicates: computed in slices, anywhere, once each, and shared."""

import numpy as np
import pytest

from causal_spark.errors import NotIdentifiedError
from causal_spark.panel.bootstrap import BootstrapOptions, Bootstraps, bootstrap_sets
from causal_spark.panel.conditional import CONDITIONING, ConditionalOptions, conditional_sets
from causal_spark.panel.did import did
from causal_spark.panel.jackknife import LeftOut
from causal_spark.panel.placebo import PlaceboOptions, Placebos, placebo_sets
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.replicates import (
    Replicates,
    Setting,
    distinct,
    event_times,
    most_chunks,
    n_chunks,
    replicate_seed,
    run_chunk,
)
from causal_spark.panel.types import PanelSize
from tests.panel.panels import block_panel, staggered_panel
from tests.panel.settings import setting_of, variance_of


class CountingDid:
    """Difference-in-differences that counts its fits."""

    def __init__(self):
        self.n = 0

    def __call__(self, panel, options, penalties, seed):
        self.n += 1
        return did(panel)


@pytest.fixture
def small_chunks(monkeypatch):
    """Of 25 replicates of a fast estimator."""
    monkeypatch.setattr("causal_spark.panel.replicates.MOST_PER_CHUNK", 25)


LISTS = [Placebos(60, detail=True), Placebos(60, earlier=1, n_earlier=2), Bootstraps(60, retune=True), LeftOut()]


@pytest.mark.parametrize("wanted", LISTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", ["did", "sdid"])
@pytest.mark.parametrize("starts", [(8,) * 4, (6, 6, 9, 9)], ids=["block", "cohorts"])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_join_to_the_numbers_of_one_go(wanted, name, starts):
    panel = staggered_panel(60, 12, starts)
    setting = setting_of(panel, name)
    whole = wanted.run(setting, 0, 60)
    assert n_chunks(wanted, setting) == 3
    # Chunks 2 and 0 come from elsewhere, that is from other settings of the same estimate; 1 is computed here.
    done = {wanted: {chunk: run_chunk(wanted, setting_of(panel, name), chunk) for chunk in (2, 0)}}
    joined = Replicates(setting, done=done).of(wanted)
    assert joined.keys() == whole.keys()
    for key, values in whole.items():
        assert len(values) == 60
        np.testing.assert_array_equal(joined[key], values)


@pytest.mark.parametrize("name", ["did", "sdid", "dwcp"])
@pytest.mark.parametrize("wanted", LISTS, ids=lambda one: type(one).__name__)
def test_a_plan_knows_how_many_chunks_there_are_before_the_panel_is_read(wanted, name):
    """So it must not depend on anything but sizes, and slow estimators need more chunks than fast ones."""
    panel = block_panel(70, 12, 1 if isinstance(wanted, Placebos) else 10, 4)
    definition, size = ESTIMATORS[name], PanelSize.of(panel)
    options = definition.options()
    setting = setting_of(panel)
    setting = Setting(panel, definition, options, setting.fit, setting.seed)
    assert n_chunks(wanted, setting) == most_chunks(wanted, size, definition, options)
    assert most_chunks(wanted, size, ESTIMATORS["did"], ESTIMATORS["did"].options()) == 1
    assert (n_chunks(wanted, setting) > 1) == (name == "dwcp")


@pytest.mark.parametrize(
    "wanted", [Placebos(20), Placebos(20, detail=True), Bootstraps(20), LeftOut()], ids=lambda one: type(one).__name__
)
def test_a_slice_does_not_depend_on_where_it_is_cut(wanted):
    setting = setting_of(block_panel(20, 10, 2, 3), "sdid")
    whole = wanted.run(setting, 0, 20)
    parts = [wanted.run(setting, start, stop) for start, stop in ((13, 20), (0, 7), (7, 13))]
    for key, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([parts[k][key] for k in (1, 2, 0)]), values)


def test_variances_that_need_the_same_list_share_one_computation():
    spy = CountingDid()
    setting = setting_of(block_panel(13, 16, 1, 3), spy=spy)
    conditional = {"replicates": 30, "starts": 3}
    planned = [*placebo_sets(PlaceboOptions(replicates=30)), *conditional_sets(ConditionalOptions(**conditional))]
    results = Replicates(setting, planned)
    spy.n = 0
    placebo = variance_of(setting, "placebo", results, replicates=30)
    assert spy.n == 12  # the list with details, which covers that without
    for name in CONDITIONING:
        found = variance_of(setting, name, results, **conditional)
        found.details()
        assert found.n_replicates == (12 if name == "time" else 4 * 12)
    assert spy.n == 4 * 12
    assert placebo.att == variance_of(setting, "placebo", replicates=30).att


@pytest.mark.usefixtures("small_chunks")
def test_chunks_that_came_from_elsewhere_are_not_computed_again():
    spy = CountingDid()
    setting = setting_of(block_panel(60, 8, 1, 2), spy=spy)
    wanted = Placebos(60)
    parts = {chunk: run_chunk(wanted, setting, chunk) for chunk in range(3)}
    spy.n = 0
    variance_of(setting, "placebo", Replicates(setting, done={wanted: parts}), replicates=60)
    assert spy.n == 0
    del parts[1]
    variance_of(setting, "placebo", Replicates(setting, done={wanted: parts}), replicates=60)
    assert spy.n == 25


def test_an_error_is_found_once_and_raised_to_everybody_who_asks():
    calls = []

    def failing(panel, options, penalties, seed):
        calls.append(seed)
        raise NotIdentifiedError("No treated cell can be predicted.")

    setting = setting_of(block_panel(9, 16, 1, 3), spy=failing)
    results = Replicates(setting, conditional_sets(ConditionalOptions()))
    for name in CONDITIONING:
        with pytest.raises(NotIdentifiedError, match="8 of 8 placebo replicates") as raised:
            variance_of(setting, name, results)
        assert raised.value.hint == "Leave the placebo variance out."
    assert len(calls) == 8


@pytest.mark.usefixtures("small_chunks")
def test_an_error_of_a_chunk_from_elsewhere_is_raised():
    setting = setting_of(block_panel(60, 8, 1, 2))
    error = NotIdentifiedError("No treated cell can be predicted.", "Add periods.")
    results = Replicates(setting, done={Placebos(200): {1: error}})
    with pytest.raises(NotIdentifiedError) as raised:
        variance_of(setting, "placebo", results)
    assert raised.value is error


def test_lists_are_planned_once_and_details_cover_what_has_none():
    plain, detailed, earlier = Placebos(50), Placebos(50, detail=True), Placebos(50, earlier=1, n_earlier=3)
    bootstraps = bootstrap_sets(BootstrapOptions())
    assert distinct([plain, *bootstraps, detailed, earlier, *bootstraps, LeftOut(), plain]) == (
        *bootstraps,
        detailed,
        earlier,
        LeftOut(),
    )
    others = [Placebos(51), Placebos(50, retune=True), Placebos(50, earlier=2, n_earlier=3), LeftOut()]
    for other in others:
        assert not detailed.covers(other)
        assert not earlier.covers(other)
    assert not plain.covers(detailed)
    assert not earlier.covers(Placebos(50, earlier=1, n_earlier=4))  # other starts, where fewer are asked for


def test_a_list_without_replicates_has_no_results():
    """Four periods before treatment leave one earlier start, so the second of two lists is empty."""
    setting = setting_of(block_panel(9, 8, 1, 2))
    results = Replicates(setting)
    assert results.of(Placebos(20, earlier=1, n_earlier=9))["att"].shape == (8,)
    empty = Placebos(20, earlier=9, n_earlier=9)
    assert n_chunks(empty, setting) == 0
    assert results.of(empty) == {}


def test_event_times_reach_from_the_latest_start_to_the_end_after_the_earliest():
    assert event_times(staggered_panel(8, 9, (4, 7))).tolist() == list(range(-7, 5))
    assert event_times(block_panel(8, 9, 2, 1)).tolist() == list(range(-8, 1))


def test_seeds_of_replicates_differ_and_need_nothing_but_their_numbers():
    seeds = [replicate_seed(7, *what) for what in [(1,), (2,), (1, 2), (2, 1)]]
    assert seeds == [replicate_seed(7, *what) for what in [(1,), (2,), (1, 2), (2, 1)]]
    assert len(set(seeds)) == 4
    assert replicate_seed(8, 1) != seeds[0]
