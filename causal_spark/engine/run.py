"""Run a science over every group of a frame: on Spark in staged waves, or in this process."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.engine.columns import select_pandas, select_spark
from causal_spark.engine.keys import digest_of
from causal_spark.engine.pack import pack, packed_fields, unpack
from causal_spark.engine.plan import Plan, Wave, make_plan
from causal_spark.engine.stage import (
    group_status,
    lost_row,
    result_columns,
    result_table,
    run_groups,
    run_packed,
    staged_fields,
    staged_schema,
)
from causal_spark.engine.work import GroupSize, Work
from causal_spark.errors import EmptyInputError
from causal_spark.lake.schemas import FAILURES, TABLES

log = logging.getLogger("causal_spark")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did, as ``runs`` tells it. row_counts: rows per result table."""

    started_at: dt.datetime
    finished_at: dt.datetime
    n_groups: int
    n_succeeded: int
    n_declined: int
    n_failed: int
    rows_read: int
    input_digest: str
    seconds: Mapping[str, float]
    row_counts: Mapping[str, int]

    def seconds_json(self) -> str:
        """Worker seconds per estimator as JSON."""
        return json.dumps({name: round(value, 3) for name, value in sorted(self.seconds.items())})


@dataclass(slots=True)
class _Tally:
    """What has come back so far."""

    statuses: dict[str, str]
    seconds: Counter[str]

    def add(self, group_id: str, n_estimates: int, kinds: list[str], seconds: Mapping[str, float]) -> None:
        self.statuses[group_id] = group_status(n_estimates, kinds)
        self.seconds.update(seconds)

    def count(self, status: str) -> int:
        return sum(found == status for found in self.statuses.values())

    def line(self) -> str:
        n_done, n_declined, n_failed = (self.count(status) for status in ("succeeded", "declined", "failed"))
        return f"{n_done} groups done, {n_declined} declined, {n_failed} failed"


def _ddl(fields: list[tuple[str, str]]) -> str:
    return ", ".join(f"`{name}` {type_}" for name, type_ in fields)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def require_rows(n_rows: int) -> None:
    """Raise `EmptyInputError` when there is nothing to estimate."""
    if n_rows == 0:
        raise EmptyInputError("The input has no rows.", "Check input.location and any filter before it.")


def _input_digest(chunks: list[tuple[str, int, str]]) -> str:
    return digest_of(part for group, chunk, found in sorted(chunks) for part in (group, str(chunk), found))


@dataclass(frozen=True, slots=True)
class SparkRun:
    """Results of a run on Spark, materialised in a work location. staged: its rows; lost: groups that never came."""

    spark: SparkSession
    work: Work
    staged: DataFrame
    lost: tuple[str, ...]
    summary: RunSummary

    def frame(self, table: str) -> DataFrame:
        """One result table without ``run_id``, read from the work location."""
        keys = [F.col("_group_id").alias("group_id")]
        if TABLES[table].has_group_columns:
            keys += [F.col(column.name) for column in self.work.columns.groups]
        rows = self.staged.select(*keys, F.inline(F.col(table)))
        if table == FAILURES.name and self.lost:
            extra = [(group_id, *lost_row(self.work).values()) for group_id in self.lost]
            rows = rows.unionByName(self.spark.createDataFrame(extra, rows.schema))
        return rows


def run_on_spark(data: DataFrame, work: Work, folder: str, attempt: str) -> SparkRun:
    """Pack, plan and run every group of a frame.

    folder: path all workers can write to; rows are packed and staged below it. Waves that an earlier attempt staged
    there under the same plan are taken over, so a killed run goes on where it was.
    Raises `EmptyInputError` when there is no row.
    """
    spark = data.sparkSession
    started_at, clock = _now(), time.monotonic()
    packed = _pack(data, work, f"{folder}/packed/attempt={attempt}")
    sizes, chunks = _sizes(packed, work)
    rows_read = sum(size.n_rows for size in sizes)
    require_rows(rows_read)
    plan = make_plan(sizes, work)
    log.info(
        "%d groups, %d rows; %d waves, about %.0f core seconds", len(sizes), rows_read, len(plan.waves), plan.seconds
    )
    tally = _Tally({}, Counter())
    staged: list[DataFrame] = []
    done_seconds = 0.0
    stage = f"{folder}/staged_{plan.digest}"
    kept = _staged_before(spark, work, plan, stage, attempt)
    for wave in plan.waves:
        path = f"{stage}/wave={wave.number}/attempt={kept.get(wave.number, attempt)}"
        if wave.number in kept:
            log.info("wave %d/%d: taken over from attempt %s", wave.number + 1, len(plan.waves), kept[wave.number])
        else:
            _run_wave(packed, work, plan, wave, path)
        rows = spark.read.schema(_ddl(staged_fields(work))).parquet(path)
        staged.append(rows)
        head = rows.where(F.col("_part") == 0)
        for row in head.select(
            "_group_id", F.size(work.tables[0]).alias("n"), F.col("failures.kind").alias("kinds"), "_seconds"
        ).collect():
            tally.add(row["_group_id"], row["n"], row["kinds"], row["_seconds"])
        done_seconds += wave.seconds
        elapsed = time.monotonic() - clock
        left = elapsed * (plan.seconds - done_seconds) / max(done_seconds, 1e-9)
        log.info(
            "wave %d/%d: %s; %.0f s so far, about %.0f s left",
            wave.number + 1,
            len(plan.waves),
            tally.line(),
            elapsed,
            left,
        )
    lost = tuple(sorted(size.group_id for size in sizes if size.group_id not in tally.statuses))
    for group_id in lost:
        tally.add(group_id, 0, ["failed"], {})
    everything = reduce(DataFrame.unionByName, staged)
    sums = everything.agg(*[F.sum(F.size(name)).alias(name) for name in result_columns(work)]).collect()[0].asDict()
    sums[FAILURES.name] += len(lost)
    return SparkRun(spark, work, everything, lost, _summary(started_at, tally, rows_read, chunks, sums))


def _summary(
    started_at: dt.datetime,
    tally: _Tally,
    rows_read: int,
    chunks: list[tuple[str, int, str]],
    row_counts: Mapping[str, int],
) -> RunSummary:
    return RunSummary(
        started_at=started_at,
        finished_at=_now(),
        n_groups=len(tally.statuses),
        n_succeeded=tally.count("succeeded"),
        n_declined=tally.count("declined"),
        n_failed=tally.count("failed"),
        rows_read=rows_read,
        input_digest=_input_digest(chunks),
        seconds=dict(tally.seconds),
        row_counts=dict(row_counts),
    )


def _pack(data: DataFrame, work: Work, path: str) -> DataFrame:
    columns = work.columns
    keys = [column.name for column in columns.groups]
    rows = select_spark(data, columns)
    rows = rows.repartition(*keys) if keys else rows.repartition(1)

    def packer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return pack(batches, work)

    schema = _ddl(packed_fields(work))
    packed = rows.sortWithinPartitions(*keys, *columns.order).mapInArrow(packer, schema)
    packed.write.mode("overwrite").parquet(path)
    return data.sparkSession.read.schema(schema).parquet(path)


def _sizes(packed: DataFrame, work: Work) -> tuple[list[GroupSize], list[tuple[str, int, str]]]:
    keys = [column.name for column in work.columns.groups]
    measured = [f"_n_{name}" for name in work.measures]
    found: dict[str, GroupSize] = {}
    chunks: list[tuple[str, int, str]] = []
    for row in packed.select("_group_id", *keys, "_chunk", "_n_rows", "_digest", *measured).collect():
        group_id = row["_group_id"]
        chunks.append((group_id, row["_chunk"], row["_digest"]))
        before = found.get(group_id)
        counted = {name: row[f"_n_{name}"] for name in work.measures}
        n_rows = row["_n_rows"]
        if before is not None:
            counted = {name: value + before.measures[name] for name, value in counted.items()}
            n_rows += before.n_rows
        found[group_id] = GroupSize(group_id, {key: row[key] for key in keys}, n_rows, counted)
    return [found[group_id] for group_id in sorted(found)], chunks


def _run_wave(packed: DataFrame, work: Work, plan: Plan, wave: Wave, path: str) -> None:
    places = packed.sparkSession.createDataFrame(
        [(group.group_id, group.task) for group in plan.in_wave(wave.number)], "_group_id string, _task int"
    )

    def runner(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return run_packed(batches, work)

    rows = (
        packed.join(F.broadcast(places), "_group_id")
        .repartitionById(wave.n_tasks, F.col("_task"))
        .sortWithinPartitions("_group_id", "_chunk")
        .mapInArrow(runner, _ddl(staged_fields(work)))
    )
    rows.write.mode("overwrite").parquet(path)


def _staged_before(spark: SparkSession, work: Work, plan: Plan, folder: str, attempt: str) -> dict[int, str]:
    """Waves that some attempt staged whole, with that attempt; a half-committed one lacks files, so whole groups."""
    schema = _ddl(staged_fields(work))
    # An empty wave of its own makes sure that there is something to list.
    spark.createDataFrame([], schema).write.mode("overwrite").parquet(f"{folder}/wave=-1/attempt={attempt}")
    found = (
        spark.read.schema(f"{schema}, wave int, attempt string")
        .parquet(folder)
        .groupBy("wave", "attempt")
        .agg(F.countDistinct("_group_id").alias("n"))
        .collect()
    )
    complete = sorted((row["wave"], row["attempt"]) for row in found if row["n"] == plan.waves[row["wave"]].n_groups)
    return dict(complete)


@dataclass(frozen=True, slots=True)
class LocalRun:
    """Results of a run in this process. staged: every staged row, ordered by group id."""

    work: Work
    staged: pa.Table
    summary: RunSummary

    def table(self, table: str) -> pa.Table:
        """One result table without ``run_id``, in Arrow."""
        return result_table(self.staged, table, self.work)

    def frame(self, table: str) -> pd.DataFrame:
        """The same as a pandas frame."""
        frame: pd.DataFrame = self.table(table).to_pandas()
        return frame


def run_in_process(data: pd.DataFrame, work: Work) -> LocalRun:
    """The same as `run_on_spark` for a pandas frame that has rows, without Spark."""
    started_at = _now()
    packed = list(pack(select_pandas(data, work.columns).to_batches(), work))
    batches = list(run_groups(unpack(packed, work), work))
    staged = pa.Table.from_batches(batches, staged_schema(work)).sort_by(
        [("_group_id", "ascending"), ("_part", "ascending")]
    )
    tally = _Tally({}, Counter())
    for row in staged.select(["_group_id", "_part", work.tables[0], FAILURES.name, "_seconds"]).to_pylist():
        if row["_part"] == 0:
            kinds = [failure["kind"] for failure in row[FAILURES.name]]
            tally.add(row["_group_id"], len(row[work.tables[0]]), kinds, dict(row["_seconds"]))
    chunks = [
        (group_id, chunk, found)
        for batch in packed
        for group_id, chunk, found in zip(
            *(batch.column(name).to_pylist() for name in ("_group_id", "_chunk", "_digest")), strict=True
        )
    ]
    counts = {name: pc.sum(pc.list_value_length(staged[name])).as_py() for name in result_columns(work)}
    return LocalRun(work, staged, _summary(started_at, tally, len(data), chunks, counts))
