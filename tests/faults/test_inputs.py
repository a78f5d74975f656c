"""What an input may bring, for every job: bad groups, gaps, hostile names, odd keys, any spread, too much of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.config import JobConfig
from causal_spark.engine.run import LocalRun, Scratch, SparkRun, run_in_process, run_on_spark
from causal_spark.errors import InputError
from causal_spark.job import run_job
from causal_spark.jobs import JOB_NAMES
from causal_spark.logs import logged
from tests.job_cases import CASES, JobCase, comparable, read, save, seen
from tests.written import assert_declared, assert_read_alike

pytestmark = [pytest.mark.spark, pytest.mark.reruns]

HOSTILE = "a'; DROP TABLE `runs`; --\n\x1b[2J\u2028\u00e9\"\\ 5"


def test_every_job_has_a_case() -> None:
    assert tuple(CASES) == JOB_NAMES


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> JobCase:
    return CASES[request.param]


@pytest.fixture(scope="module")
def finished(spark: SparkSession, case: JobCase, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which the job has run over good groups, a bad one, and two with odd keys; and its log."""
    folder = tmp_path_factory.mktemp(case.name)
    odd = [case.frame(HOSTILE, 4), case.frame("null", 5).assign(region=None)]
    save(spark, pd.concat([case.good(), case.bad(), *odd], ignore_index=True), folder)
    lines: list[str] = []
    with logged("json"):
        handler = logging.getLogger("causal_spark").handlers[-1]
        handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
        run_job(spark, case.job, case.config(folder))
    return folder, lines


def test_one_bad_group_is_told_of_and_the_others_are_there(spark: SparkSession, case: JobCase, finished: Any) -> None:
    folder, _ = finished
    run = read(spark, folder, "runs").collect()
    assert len(run) == 1
    assert (run[0]["n_groups"], run[0]["n_failed"]) == (5, 1)
    assert run[0]["n_groups"] == run[0]["n_succeeded"] + run[0]["n_declined"] + run[0]["n_failed"]
    failures = seen(folder, "failures")
    failed = failures[failures["kind"] == "failed"]
    assert failed[["group_id", "error_class"]].to_numpy().tolist() == [['{"region":{"string":"bad"}}', case.error]]
    first = seen(folder, case.job_tables[0])
    assert set(first["region"]) == {"north", "south", HOSTILE, None}
    assert run[0]["rows_written"] == sum(len(seen(folder, name)) for name in case.tables if name != "runs")


def test_every_reader_sees_the_tables_of_the_contract(spark: SparkSession, case: JobCase, finished: Any) -> None:
    folder, _ = finished
    assert_declared(spark, folder / "out", case.tables)
    assert_read_alike(spark, folder / "out", case.tables, may_be_empty=case.job_tables[1:])


def test_log_lines_are_json_and_clean_and_name_run_and_group(spark: SparkSession, case: JobCase, finished: Any) -> None:
    folder, lines = finished
    assert all(line.isprintable() for line in lines)
    told = [json.loads(line) for line in lines]
    run = read(spark, folder, "runs").collect()[0]
    assert {(line["job"], line["run_id"]) for line in told} == {(case.name, run["run_id"])}
    events = [line.get("event") for line in told]
    assert [event for event in events if event not in ("group_failed", "wave")] == [
        *("opened", "tables", "planned", "appending", "landed", "finished")
    ]
    failed = next(line for line in told if line["event"] == "group_failed")
    assert failed["group_id"] == '{"region":{"string":"bad"}}'
    assert failed["error_class"] == case.error
    last = told[-1]
    for name in ("n_groups", "n_succeeded", "n_declined", "n_failed", "rows_read", "rows_written"):
        assert last[name] == run[name]
    assert set(last["seconds_by_estimator"]) == set(json.loads(run["seconds_by_estimator"]))


def gaps(case: JobCase) -> pd.DataFrame:
    """Good groups, the outcome of one row of each missing."""
    frame = case.good()
    first = ~frame["region"].duplicated()
    return frame.assign(**{case.outcome: frame[case.outcome].where(~first)})


def on_spark(spark: SparkSession, case: JobCase, data: DataFrame, folder: Path, config: JobConfig) -> SparkRun:
    rows = case.job.rows(config, data)
    return run_on_spark(rows, case.job.work(config, rows), Scratch(str(folder / "scratch"), str(id(data))))


def in_process(case: JobCase, data: DataFrame, config: JobConfig) -> LocalRun:
    rows = case.job.rows(config, data)
    work = case.job.work(config, rows)
    frame = rows.toPandas()
    return run_in_process(frame, work)


def test_gaps_are_one_thing_and_order_and_spread_are_nothing(
    spark: SparkSession, case: JobCase, tmp_path: Path
) -> None:
    save(spark, gaps(case), tmp_path)
    config = case.config(tmp_path)
    data = spark.read.format("delta").load(str(tmp_path / "input"))
    nan = data.withColumn(case.outcome, F.coalesce(case.outcome, F.lit(float("nan"))))
    assert nan.where(F.isnan(case.outcome)).count() == 2
    runs = [
        in_process(case, data, config),
        on_spark(spark, case, data.repartition(1), tmp_path, config),
        on_spark(spark, case, nan.orderBy(F.rand(3)).repartition(3), tmp_path, config),
        on_spark(spark, case, data.orderBy(F.rand(5)).repartition(7), tmp_path, config),
    ]
    for name in case.job_tables:
        frames = [run.frame(name) for run in runs]
        wanted, *others = [
            comparable(frame if isinstance(frame, pd.DataFrame) else frame.toPandas()) for frame in frames
        ]
        for found in others:
            pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=False, obj=name)
    assert len({run.summary.input_digest for run in runs}) == 1


def test_keys_keep_their_type_and_numbers_that_are_none_are_refused(
    spark: SparkSession, case: JobCase, tmp_path: Path
) -> None:
    frame = case.good()
    save(spark, frame.assign(number=pd.Series(np.where(frame["region"] == "north", 1, 2))), tmp_path)
    data = spark.read.format("delta").load(str(tmp_path / "input")).drop("region")
    numbered = data.withColumn("region", F.when(F.col("number") == 1, F.lit(2**53 + 1)))
    run = on_spark(spark, case, numbered, tmp_path, case.config(tmp_path))
    found = {row["region"] for row in run.frame(case.job_tables[0]).select("region").distinct().collect()}
    assert found == {2**53 + 1, None}
    doubles = data.withColumn("region", F.when(F.col("number") == 1, F.lit(-0.0)).otherwise(F.lit(float("nan"))))
    with pytest.raises(InputError, match=r"'region' \(group\) has type double"):
        on_spark(spark, case, doubles, tmp_path, case.config(tmp_path))


def test_a_group_too_large_is_refused_before_it_is_run(spark: SparkSession, case: JobCase, tmp_path: Path) -> None:
    save(spark, case.good(), tmp_path)
    data = spark.read.format("delta").load(str(tmp_path / "input"))
    run = on_spark(spark, case, data, tmp_path, case.config(tmp_path, worker_memory=1e-7))
    assert (run.summary.n_groups, run.summary.n_failed) == (2, 2)
    assert run.summary.seconds == {}
    failures = run.frame("failures").toPandas()
    assert failures["error_class"].tolist() == ["GroupTooLargeError"] * 2
    assert failures["hint"].str.contains("worker_memory").all()


def renamed(tree: Any, old: str, new: str) -> Any:
    """A configuration with a column's name replaced wherever it is said."""
    if isinstance(tree, dict):
        return {key: renamed(value, old, new) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [renamed(value, old, new) for value in tree]
    return new if tree == old else tree


@pytest.mark.parametrize("name", ["Région", "a b", "x`; DROP TABLE runs", "run_id", "estimate\n"])
def test_names_that_no_reader_takes_are_refused_with_a_remedy(
    spark: SparkSession, case: JobCase, tmp_path: Path, name: str
) -> None:
    data = spark.createDataFrame(case.good()).withColumnRenamed("region", name)
    config = case.config(tmp_path, **renamed(case.tree, "region", name))
    with pytest.raises(InputError, match=r"columns\.rename"):
        on_spark(spark, case, data, tmp_path, config)


def test_other_columns_may_have_any_name(spark: SparkSession, case: JobCase, tmp_path: Path) -> None:
    data, tree = spark.createDataFrame(case.good()), case.tree
    # Dots, backticks, statements, line ends, and what our own escapes look like.
    for old, new in ((case.outcome, "x`.y; DROP TABLE runs\n"), ("x", "Sepal.Length%2E")):
        data, tree = data.withColumnRenamed(old, new), renamed(tree, old, new)
    assert on_spark(spark, case, data, tmp_path, case.config(tmp_path, **tree)).summary.n_succeeded == 2
