"""What becomes of a group whose events and changes are explained, and what is told of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark import RootCauses
from causal_spark.engine.build_nodes import CHANGED, EVENT, NORMAL, build_nodes
from causal_spark.engine.columns import select_pandas
from causal_spark.engine.node_frames import stacked
from causal_spark.engine.root_causes import RootCauseWork
from causal_spark.engine.work import Group, GroupResult, GroupSize
from causal_spark.errors import DuplicateRowError, KeyValueError, NodeValueError, NoRowsError
from causal_spark.root_cause.analysis import Analysis
from causal_spark.root_cause.types import NodeTable
from tests.node_frames import EDGES, QUICK, incidents, services

NODES = ["load", "queue", "cpu", "release", "latency", "complaints"]


def work_and_group(
    normal: pd.DataFrame, events: pd.DataFrame | None = None, changed: pd.DataFrame | None = None, **settings: Any
) -> tuple[RootCauseWork, Group]:
    frames = {NORMAL: normal, EVENT: events, CHANGED: changed}
    given = {role: frame for role, frame in frames.items() if frame is not None}
    marks = {EVENT: "incident", CHANGED: "week" if changed is not None and "week" in changed else None}
    data = stacked(given, ["region", *NODES], marks)
    work = RootCauses(**(QUICK | settings)).plan_work(data, ["region"])
    rows = select_pandas(data, work.columns).drop_columns(["region"])
    return work, Group('{"region":{"string":"north"}}', {"region": "north"}, rows)


def _column(table: NodeTable, node: int) -> list[float]:
    return [float(row[node]) for row in table.values]  # noqa: PD011 - no frame


def told(result: GroupResult) -> list[tuple[str, str | None, str, str]]:
    return [(one.stage, one.estimator, one.kind, one.error_class) for one in result.failures]


def test_a_group_has_what_its_rows_ask_for() -> None:
    normal = services(300, 0)
    for events, changed in ((None, None), (incidents(3, 1), None), (None, services(300, 2)), (incidents(3, 1), normal)):
        work, group = work_and_group(normal, events, changed)
        found = work.run(group)
        assert told(found) == []
        n_rows = {name: len(rows) for name, rows in found.tables.items()}
        assert n_rows["graph_diagnostics"] == 6
        assert n_rows["intrinsic_contributions"] == 6
        assert n_rows["root_causes"] == (0 if events is None else 18)
        assert n_rows["distribution_changes"] == (0 if changed is None else 24)
        assert set(found.seconds) == {name for name, count in n_rows.items() if count}


def test_rows_say_what_the_analysis_found() -> None:
    normal, events = services(800, 3), incidents(4, 4)
    work, group = work_and_group(normal, events)
    rows = pd.DataFrame(work.run(group).tables["root_causes"])
    top = rows[rows["place"] == 1]
    assert (top["node"] == "queue").sum() >= 3
    assert (
        rows.groupby("event_id")["contribution"].sum() - rows.groupby("event_id")["outlier_score"].first()
    ).abs().max() < 1e-9
    assert rows.groupby("event_id")["place"].apply(sorted).tolist() == [[1, 2, 3, 4, 5, 6]] * 4
    reach = (rows["conf_high"] - rows["conf_low"]) / 2
    np.testing.assert_allclose(reach, 1.959964 * rows["std_error"], rtol=1e-6)
    assert (rows.loc[rows["node"] == "complaints", "contribution"] == 0).all()
    assert (rows["evidence"] >= 0).all()


def test_without_refits_there_are_no_intervals() -> None:
    work, group = work_and_group(services(300, 5), incidents(2, 6), replicates=0)
    rows = work.run(group).tables["root_causes"]
    assert all(row["std_error"] is None and row["conf_low"] is None for row in rows)


def test_an_event_that_is_not_known_is_told_and_the_others_explained() -> None:
    events = incidents(4, 7)
    events.loc[1, "cpu"] = np.nan
    events.loc[2, "release"] = "canary"
    events.loc[3, "complaints"] = np.nan
    work, group = work_and_group(services(300, 8), events)
    found = work.run(group)
    assert told(found) == [("read", None, "warned", "EventsLeftOut")]
    assert "2 of 4 events" in found.failures[0].message
    assert "1, 2" in found.failures[0].message
    rows = pd.DataFrame(found.tables["root_causes"])
    assert rows["event_id"].unique().tolist() == ["0", "3"]
    # Behind the target nothing need be known.
    assert rows.loc[(rows["event_id"] == "3") & (rows["node"] == "complaints"), "residual_z"].isna().all()


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda one: one.assign(incident=[0, 0, 1]), DuplicateRowError, "'0'"),
        (lambda one: one.assign(incident=["a", None, "b"]), KeyValueError, "missing in 1 rows"),
        (lambda one: one.assign(queue=[np.inf, 1.0, 2.0]), NodeValueError, "'queue' is infinite in 1 of 303"),
    ],
)
def test_bad_events_fail_the_group_with_a_remedy(spoil: Any, error: type[Exception], says: str) -> None:
    work, group = work_and_group(services(300, 9), spoil(incidents(3, 10)))
    found = work.run(group)
    assert told(found) == [("read", None, "failed", error.__name__)]
    assert says in found.failures[0].message
    assert found.failures[0].hint
    assert not any(found.tables.values())


def test_a_group_needs_normal_rows_and_enough_of_them() -> None:
    work, group = work_and_group(services(300, 11), incidents(3, 12))
    only = group.rows.filter(np.array(group.rows["_role"].to_pylist()) == EVENT)
    found = work.run(Group(group.group_id, group.key, only))
    assert told(found) == [("read", None, "declined", "NoRowsError")]
    few, group = work_and_group(services(5, 13), incidents(3, 14))
    found = few.run(group)
    assert told(found) == [("read", None, "declined", "TooFewRowsError")]
    assert "'latency'" in found.failures[0].message


def test_too_many_levels_are_no_category() -> None:
    normal = services(300, 15)
    work, group = work_and_group(normal.assign(release=[f"v{k}" for k in range(300)]))
    found = work.run(group)
    assert told(found) == [("read", None, "failed", "NodeValueError")]
    assert "300 levels" in found.failures[0].message


def test_a_period_that_is_too_short_does_not_cost_the_others() -> None:
    changed = pd.concat(
        [services(300, 16).assign(week=1), services(4, 17).assign(week=2), services(3, 18).assign(week=3)]
    )
    work, group = work_and_group(services(300, 19), None, changed)
    found = work.run(group)
    assert told(found) == [("estimate", "distribution_changes", "declined", "TooFewRowsError")]
    assert "2 of 3 periods (2, 3)" in found.failures[0].message
    assert {row["period"] for row in found.tables["distribution_changes"]} == {"1"}


def test_what_goes_wrong_in_one_analysis_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Analysis) -> Any:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Analysis, "intrinsic", broken)
    work, group = work_and_group(services(300, 20), incidents(2, 21))
    found = work.run(group)
    assert told(found) == [("estimate", "intrinsic_contributions", "failed", "ZeroDivisionError")]
    assert len(found.tables["root_causes"]) == 12


def test_an_analysis_that_takes_too_much_memory_is_not_begun() -> None:
    work, group = work_and_group(services(300, 22), incidents(2, 23))
    size = GroupSize(group.group_id, group.key, 302, {"events": 2, "changed_rows": 0})
    needed = work.memory(size)
    assert list(needed.estimators) == ["graph_diagnostics", "root_causes", "intrinsic_contributions"]
    tight = work.within(needed.estimators["root_causes"] - 1)
    found = tight.run(group)
    assert ("estimate", "root_causes", "failed", "GroupTooLargeError") in told(found)
    assert "302 rows of 6 nodes" in found.failures[0].message
    assert len(found.tables["graph_diagnostics"]) == 6
    assert "root_causes" not in tight.cost(size)
    assert work.within(needed.base - 1).refusal(size) is not None
    assert work.refusal(size) is None


def test_costs_grow_with_what_is_asked() -> None:
    work, _ = work_and_group(services(300, 24))

    def cost(n_rows: int, events: int, changed: int, **options: Any) -> float:
        size = GroupSize(
            "g", {"region": "north"}, n_rows + events + changed, {"events": events, "changed_rows": changed}
        )
        changed_work = replace(work, options=replace(work.options, **options))
        return sum(changed_work.cost(size).values())

    assert cost(300, 0, 0) < cost(300, 5, 0) < cost(300, 50, 0)
    assert cost(300, 5, 0) < cost(300, 5, 300) < cost(300, 5, 30_000)
    assert cost(300, 5, 0, n_refits=0) < cost(300, 5, 0) < cost(300, 5, 0, n_refits=30)


def test_levels_are_those_of_normal_and_changed_rows() -> None:
    changed = services(40, 25).assign(release="canary")
    events = incidents(2, 26).assign(release=["canary", "other"])
    work, group = work_and_group(services(40, 27), events, changed)
    built = build_nodes(group.rows, work.graph, "latency")
    release = work.graph.nodes.index("release")
    assert built.normal.n_levels[release] == 3
    assert built.event_ids == ("0",)
    assert _column(built.events, release) == [0]
    assert list(built.periods) == ["changed"]
    assert set(_column(built.periods["changed"], release)) == {0}
    assert set(_column(built.normal, release)) == {1, 2}


def test_no_normal_rows_are_told_by_the_builder() -> None:
    work, group = work_and_group(services(40, 28))
    with pytest.raises(NoRowsError, match="no normal rows"):
        build_nodes(group.rows.slice(0, 0), work.graph, "latency")
    assert work.measures == ("events", "changed_rows")
    assert EDGES[0] == ("load", "queue")
