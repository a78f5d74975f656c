"""`RootCauses`: frames in, frames out, the same on pandas and on Spark; and what it refuses."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import RootCauses
from causal_spark.errors import ConfigError, EmptyInputError, InputError
from tests.node_frames import EDGES, QUICK, incidents, services

TABLES = ("root_causes", "distribution_changes", "intrinsic_contributions", "graph_diagnostics", "failures")


def frames() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two good regions, one without normal rows; the second has no changed rows."""
    normal = pd.concat([services(200, 0, "north"), services(250, 1, "south")], ignore_index=True)
    events = pd.concat([incidents(3, 2, region) for region in ("north", "south", "west")], ignore_index=True)
    changed = pd.concat([services(200, 3 + week, push=1.0).assign(week=week) for week in (1, 2)], ignore_index=True)
    return normal, events, changed


ROLES: dict[str, Any] = {"event_id": "incident", "period": "week", "groups": ["region"]}


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in ("group_id", "event_id", "period", "functional", "node", "stage") if name in frame]
    return frame.sort_values(keys, ignore_index=True)


@pytest.mark.spark
def test_spark_and_pandas_give_the_same_bits(spark: SparkSession) -> None:
    normal, events, changed = frames()
    local = RootCauses(**QUICK).fit(normal, events, changed=changed, **ROLES)
    shuffled = [spark.createDataFrame(one.sample(frac=1, random_state=4)).repartition(3) for one in frames()]
    remote = RootCauses(**QUICK).fit(shuffled[0], shuffled[1], changed=shuffled[2], **ROLES)
    for name in TABLES:
        mine, theirs = sorted_rows(getattr(local, name)), sorted_rows(getattr(remote, name).toPandas())
        assert len(mine) > 0
        pd.testing.assert_frame_equal(theirs[list(mine)], mine, check_exact=True, check_dtype=False, obj=name)
    assert local.summary.n_groups == 3
    assert local.summary.n_declined == 1
    remote.close()


def test_events_of_integers_and_dates_are_told_as_text() -> None:
    normal, events, _ = frames()
    north = events[events["region"] == "north"]
    found = RootCauses(**QUICK).fit(normal, north, event_id="incident", groups=["region"])
    assert set(found.root_causes["event_id"]) == {"0", "1", "2"}
    dated = north.assign(incident=pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]).date)
    found = RootCauses(**QUICK).fit(normal, dated, event_id="incident", groups=["region"])
    assert set(found.root_causes["event_id"]) == {"2024-01-01", "2024-01-02", "2024-01-03"}


def test_extreme_rows_are_detected() -> None:
    normal = pd.concat([services(400, 5), services(2, 6, push=8.0)], ignore_index=True)
    normal["incident"] = np.arange(402)
    found = RootCauses(**QUICK, min_score=4.5).fit(normal, event_id="incident").root_causes
    assert {"400", "401"} <= set(found["event_id"])
    assert found["event_id"].nunique() < 8
    assert (found["outlier_score"] >= 4.5).all()


def test_groups_do_not_depend_on_each_other() -> None:
    normal, events, changed = frames()
    together = RootCauses(**QUICK).fit(normal, events, changed=changed, **ROLES)
    south = [one[one["region"] == "south"] for one in (normal, events)]
    alone = RootCauses(**QUICK).fit(south[0], south[1], event_id="incident", groups=["region"])
    mine = together.root_causes[together.root_causes["region"] == "south"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.root_causes, mine, check_exact=True)


def test_numbers_that_are_labels_are_named() -> None:
    normal, events, _ = frames()
    coded = [one.assign(release=(one["release"] == "new").astype(int)) for one in (normal, events)]
    named = RootCauses(**QUICK, discrete=["release"]).fit(*coded, event_id="incident", groups=["region"])
    mechanisms = named.graph_diagnostics.set_index(["region", "node"])["mechanism"]
    assert mechanisms[("north", "release")] == "multinomial"
    as_numbers = RootCauses(**QUICK).fit(*coded, event_id="incident", groups=["region"]).graph_diagnostics
    assert (as_numbers.loc[as_numbers["node"] == "release", "mechanism"] == "empirical").all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"graph": [("a", "b"), ("b", "a")], "target": "a"}, "cycle"),
        ({"graph": [("a", "b", "c")]}, "no edge"),
        ({"graph": ["ab"]}, "no edge"),
        ({"target": "latenc"}, "Did you mean 'latency'"),
        ({"mechanism": "forest"}, "mechanism is 'forest'"),
        ({"mechanisms": {"cpu": "cubic"}}, "mechanism is 'cubic'"),
        ({"mechanisms": {"cpus": "linear"}}, "Did you mean 'cpu'"),
        ({"discrete": ["relase"]}, "Did you mean 'release'"),
        ({"tail": "both"}, "tail is 'both'"),
        ({"min_score": -1.0}, "min_score is -1.0"),
        ({"functionals": ("median",)}, "Functional 'median'"),
        ({"draws": 10}, "draws is 10"),
        ({"replicates": -1}, "replicates is -1"),
        ({"confidence_level": 1.0}, "confidence_level is 1.0"),
    ],
)
def test_settings_that_are_not_valid_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RootCauses(**(QUICK | settings)).fit(services(50, 7))


def test_frames_that_cannot_serve_are_refused() -> None:
    normal, events, _ = frames()
    with pytest.raises(EmptyInputError):
        RootCauses(**QUICK).fit(normal.iloc[:0])
    with pytest.raises(ConfigError, match="nothing tells them apart"):
        RootCauses(**QUICK).fit(normal, events)
    with pytest.raises(InputError, match="event rows have no column 'cpu'"):
        RootCauses(**QUICK).fit(normal, events.drop(columns="cpu"), event_id="incident")
    with pytest.raises(InputError, match="normal rows have no column 'load'"):
        RootCauses(**QUICK).fit(normal.drop(columns="load"))
    with pytest.raises(InputError, match="'release' is bigint in the event rows and string"):
        RootCauses(**QUICK).fit(normal, events.assign(release=1), event_id="incident")
    with pytest.raises(InputError, match=r"'incident' .event. has type double"):
        RootCauses(**QUICK).fit(normal, events.assign(incident=0.5), event_id="incident")
    with pytest.raises(InputError, match=r"'latency' .target. is discrete"):
        RootCauses(**QUICK).fit(normal.assign(latency="slow"))
    with pytest.raises(InputError, match=r"'latency' .target. is discrete"):
        RootCauses(**QUICK, discrete=["latency"]).fit(normal.assign(latency=1))
    assert len(EDGES) == 6
