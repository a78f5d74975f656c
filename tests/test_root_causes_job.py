"""The root causes job from configuration to Delta tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import RootCauses
from causal_spark.config import load_config, parse_config
from causal_spark.engine.root_causes import RootCauseWork
from causal_spark.errors import ConfigError, InputError
from causal_spark.job import describe, report, run_job
from causal_spark.root_causes_job import ROOT_CAUSES, RootCausesConfig
from tests.node_frames import EDGES, QUICK, incidents, services
from tests.written import assert_declared, assert_read_alike

SHIPPED = Path(__file__).parent.parent / "conf" / "root_causes.yaml"
KEYS = {
    "root_causes": ["group_id", "event_id", "node"],
    "distribution_changes": ["group_id", "period", "functional", "node"],
    "intrinsic_contributions": ["group_id", "node"],
    "graph_diagnostics": ["group_id", "node"],
}


def table() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Normal rows, events and changed rows of two regions, with a column that tells what they are."""
    normal = pd.concat([services(150, k, region) for k, region in enumerate(("north", "south"))], ignore_index=True)
    events = pd.concat([incidents(3, 2 + k, region) for k, region in enumerate(("north", "south"))], ignore_index=True)
    changed = services(160, 5, push=1.0)
    return (
        normal.assign(kind=0, incident=None, week=None),
        events.assign(kind=1, week=None),
        changed.assign(kind=2, incident=None, week="w1"),
    )


def config_for(folder: Path, **changes: Any) -> RootCausesConfig:
    tree: dict[str, Any] = {
        "input": {"location": str(folder / "input")},
        "columns": {"groups": ["region"], "event_id": "incident", "period": "week"},
        "rows": {"normal": "kind = 0", "events": "kind = 1", "changed": "kind = 2 AND load IS NOT NULL"},
        **QUICK,
        "graph": [list(edge) for edge in EDGES],
        "output": {"location": str(folder / "out")},
    }
    return parse_config(RootCausesConfig, tree | changes)


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causes")
    rows = pd.concat(table(), ignore_index=True).sample(frac=1, random_state=6)
    rows["incident"] = rows["incident"].map(lambda one: None if one is None or pd.isna(one) else str(int(one)))
    spark.createDataFrame(rows).repartition(4).write.format("delta").save(str(folder / "input"))
    spark.createDataFrame(EDGES, "cause string, effect string").write.format("delta").save(str(folder / "edges"))
    assert run_job(spark, ROOT_CAUSES, config_for(folder)).new
    return folder


@pytest.mark.spark
def test_tables_are_as_the_contract_says_and_every_reader_sees_them(spark: SparkSession, finished: Path) -> None:
    names = ("runs", "failures", *RootCauseWork.tables)
    assert_declared(spark, finished / "out", names)
    assert_read_alike(spark, finished / "out", names, may_be_empty=("failures",))


@pytest.mark.spark
def test_tables_hold_the_bits_that_pandas_gives(spark: SparkSession, finished: Path) -> None:
    normal, events, changed = table()
    result = RootCauses(**QUICK).fit(
        normal, events, changed=changed, event_id="incident", period="week", groups=["region"]
    )
    for name, keys in KEYS.items():
        found = spark.read.format("delta").load(str(finished / "out" / name)).toPandas().drop(columns="run_id")
        found, wanted = (frame.sort_values(keys, ignore_index=True) for frame in (found, getattr(result, name)))
        assert len(wanted) > 0
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True, check_dtype=False, obj=name)


@pytest.mark.spark
def test_a_graph_in_a_table_is_the_same_graph(spark: SparkSession, finished: Path) -> None:
    from_table = {"location": str(finished / "edges")}
    resolved = ROOT_CAUSES.resolve(spark, config_for(finished, graph=from_table))
    assert sorted(resolved.graph) == sorted(EDGES)  # type: ignore[arg-type]
    output = {"location": str(finished / "sorted")}
    again = run_job(spark, ROOT_CAUSES, config_for(finished, graph=sorted([*edge] for edge in EDGES), output=output))
    assert again.new
    assert not run_job(spark, ROOT_CAUSES, config_for(finished, graph=from_table, output=output)).new
    with pytest.raises(InputError, match="no column 'source'"):
        ROOT_CAUSES.resolve(spark, config_for(finished, graph=from_table | {"cause": "source"}))


@pytest.mark.spark
def test_a_second_run_is_none_and_people_are_told_the_causes(spark: SparkSession, finished: Path) -> None:
    again = run_job(spark, ROOT_CAUSES, config_for(finished))
    assert not again.new
    said = report(spark, ROOT_CAUSES, again)
    for expected in ("already there", "What made the most extreme", "queue", "quantile:0.9", "variance_share"):
        assert expected in said
    planned = describe(spark, ROOT_CAUSES, config_for(finished))
    assert "2 groups" in planned
    assert "Target latency, 6 edges, additive mechanisms" in planned
    assert "nothing was estimated" in planned


@pytest.mark.spark
def test_a_condition_that_is_no_sql_is_refused(spark: SparkSession, finished: Path) -> None:
    for condition in ("kind = ", "sort = 1"):
        with pytest.raises(ConfigError, match="condition in rows is not valid"):
            describe(spark, ROOT_CAUSES, config_for(finished, rows={"normal": condition}))
    with pytest.raises(InputError, match="no column 'regon'"):
        describe(spark, ROOT_CAUSES, config_for(finished, columns={"groups": ["regon"]}, rows={"normal": "true"}))


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    config = load_config(RootCausesConfig, str(SHIPPED))
    assert set(type(config).model_fields) == config.model_fields_set
    assert set(type(config.columns).model_fields) == config.columns.model_fields_set
    assert set(type(config.rows).model_fields) == config.rows.model_fields_set


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("target=departures", "Did you mean 'departure_delay'"),
        ("tail=sideways", "tail"),
        ("draws=5", "draws"),
        ("functionals=[mode]", "Functional 'mode'"),
        ("graph=[[a, b], [b, a]]", "cycle|no node"),
        ("columns.event_id=null", "nothing tells them apart"),
        ("rows.event=x", "Did you mean 'events'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(RootCausesConfig, str(SHIPPED), [setting])
