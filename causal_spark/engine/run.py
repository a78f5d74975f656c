"""Run a science over every group of a frame: on Spark in staged waves, or in this process.

Groups that the plan splits come after the others: their rounds (`causal_spark.engine.rounds`), then a wave that
finishes them.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.engine.columns import select_pandas, select_spark
from causal_spark.engine.frames import ddl
from causal_spark.engine.memory import memory_limit
from causal_spark.engine.pack import BUNDLE, pack, packed_fields, unpack
from causal_spark.engine.plan import Plan, Wave, make_bundles, make_plan, most_parts
from causal_spark.engine.rounds import (
    PART_KEY,
    PIECE_FIELDS,
    columns_with_pieces,
    round_rows,
    run_finishing,
    with_pieces,
)
from causal_spark.engine.stage import (
    failure_row,
    lost_row,
    result_columns,
    result_table,
    run_bundles,
    run_packed,
    staged_fields,
    staged_name,
    staged_schema,
)
from causal_spark.engine.tally import RunSummary, Tally, counted_columns
from causal_spark.engine.work import Group, GroupSize, Row, Work
from causal_spark.errors import EmptyInputError
from causal_spark.lake.schemas import RESERVED_PARTITIONS, TABLES
from causal_spark.lake.schemas.runs import FAILURES

log = logging.getLogger("causal_spark")

# Partition columns and a folder of the scratch area; the first two are reserved names of group columns.
_WAVE, _ATTEMPT = RESERVED_PARTITIONS
_PLANNED = "planned"
# Spark's reader holds a whole row group of nested columns at once, decoded: at the usual 128 MiB that is gigabytes.
_SMALL_ROW_GROUPS = {"parquet.block.size": str(16 * 2**20)}
# Reading all packed rows so many times costs less than writing them once more by wave.
_WAVES_WITHOUT_LAYOUT = 3


def require_rows(n_rows: int) -> None:
    """Raise `EmptyInputError` when there is nothing to estimate."""
    if n_rows == 0:
        raise EmptyInputError("The input has no rows.", "Check input.location and any filter before it.")


@dataclass(frozen=True, slots=True)
class SparkRun:
    """Results of a run on Spark, materialised in a work location.

    staged: its rows. absent: group ids that no task gave back, each with its row of ``failures``. folders: what it
    packed and staged, or took over.
    """

    spark: SparkSession
    work: Work
    staged: DataFrame
    absent: tuple[tuple[str, Row], ...]
    summary: RunSummary
    folders: tuple[str, ...]

    def frame(self, table: str) -> DataFrame:
        """One result table without ``run_id``, read from the work location."""
        keys = [F.col("_group_id").alias("group_id")]
        if TABLES[table].has_group_columns:
            keys += [F.col(column.name) for column in self.work.columns.groups]
        rows = self.staged.select(*keys, F.inline(F.col(staged_name(table))))
        if table == FAILURES.name and self.absent:
            extra = [(group_id, *row.values()) for group_id, row in self.absent]
            rows = rows.unionByName(self.spark.createDataFrame(extra, rows.schema))
        return rows


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where one attempt keeps what it packed and staged.

    folder: path that driver and workers share. attempt: name of this attempt. take_over: whether waves that an earlier
    attempt staged in the same folder under the same plan are used instead of run again.
    """

    folder: str
    attempt: str
    take_over: bool = False

    def path(self, name: str, attempt: str | None = None) -> str:
        """A folder of this attempt (or of another) below a name."""
        return f"{self.folder}/{name}/{_ATTEMPT}={attempt or self.attempt}"


def run_on_spark(data: DataFrame, work: Work, scratch: Scratch) -> SparkRun:
    """Pack, plan and run every group of a frame, wave by wave. Raises `EmptyInputError` when there is no row."""
    spark = data.sparkSession
    started_at, clock = dt.datetime.now(dt.UTC), time.monotonic()
    packed = _pack(data, work, scratch.path("packed"))
    sizes, chunks = _group_sizes([row.asDict() for row in packed.select(*_size_columns(work)).collect()], work)
    rows_read = sum(size.n_rows for size in sizes)
    require_rows(rows_read)
    needs = [work.memory(size) for size in sizes]
    work = work.within(memory_limit(spark, work.memory_limit, needs, partial(most_parts, sizes, work)))
    refused = {size.group_id: found for size in sizes if (found := work.refusal(size)) is not None}
    plan = make_plan([size for size in sizes if size.group_id not in refused], work)
    n_waves = len(plan.waves)
    told = {"event": "planned", "n_groups": len(sizes), "rows_read": rows_read, "n_waves": n_waves}
    said = (len(sizes), rows_read, n_waves, plan.seconds)
    log.info("%d groups, %d rows; %d waves, about %.0f core seconds", *said, extra=told)
    for group_id, estimators in plan.splits.items():
        log.info("group %s is split: %s", group_id, estimators, extra={"event": "split", "group_id": group_id})
    planned = _planned(packed, plan, scratch)
    stage = f"staged_{plan.digest}"
    schema = ddl(staged_fields(work))
    kept = _staged_before(spark, schema, stage, ["_group_id"], [wave.n_groups for wave in plan.waves], scratch)
    tally = Tally(work)
    paths: list[str] = []
    paths_of_rounds: list[str] = []
    done_seconds = 0.0
    for wave in plan.waves:
        path = scratch.path(f"{stage}/{_WAVE}={wave.number}", kept.get(wave.number))
        if wave.number in kept:
            log.info("wave %d/%d: taken over from attempt %s", wave.number + 1, n_waves, kept[wave.number])
        else:
            rows = planned
            if wave.finishes:
                pieces, round_paths = _run_rounds(
                    planned.where(F.col(_WAVE) == wave.number), work, plan, scratch, clock
                )
                rows = with_pieces(planned, pieces, plan)
                paths_of_rounds += round_paths
            _run_wave(rows, work, wave, path)
        paths.append(path)
        staged = spark.read.schema(schema).parquet(path)
        tally.add_staged(row.asDict() for row in staged.select(*counted_columns(work)).collect())
        done_seconds += wave.seconds + (sum(one.seconds for one in plan.rounds) if wave.finishes else 0.0)
        elapsed = time.monotonic() - clock
        left = elapsed * (plan.seconds - done_seconds) / max(done_seconds, 1e-9)
        line = (wave.number + 1, n_waves, tally.line(), elapsed, left)
        told = {"event": "wave", "wave": wave.number + 1, "n_waves": n_waves, "seconds_left": round(left)}
        log.info("wave %d/%d: %s; %.0f s so far, about %.0f s left", *line, extra=told)
    absent = tuple(
        (
            size.group_id,
            failure_row(refused[size.group_id], work.job, size.n_rows)
            if size.group_id in refused
            else lost_row(work, size.n_rows),
        )
        for size in sizes
        if size.group_id not in tally.statuses
    )
    for group_id, failure in absent:
        tally.add_absent(group_id, failure)
    parts = [spark.read.schema(schema).parquet(path) for path in paths] or [spark.createDataFrame([], schema)]
    everything = reduce(DataFrame.unionByName, parts)
    used = (
        scratch.path("packed"),
        f"{scratch.folder}/{_PLANNED}_{scratch.attempt}",
        scratch.path(f"{stage}/{_WAVE}=-1"),
        *paths_of_rounds,
    )
    summary = tally.summary(started_at, rows_read, chunks)
    return SparkRun(spark, work, everything, absent, summary, (*used, *paths))


def _pack(data: DataFrame, work: Work, path: str) -> DataFrame:
    columns = work.columns
    keys = [column.name for column in columns.groups]
    rows = select_spark(data, columns)
    rows = rows.repartition(*keys) if keys else rows.repartition(1)

    def packer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return pack(batches, work)

    schema = ddl(packed_fields(work))
    # Every value column takes part, so that rows alike in unit and time come in one order too.
    packed = rows.sortWithinPartitions(*keys, *columns.sorting).mapInArrow(packer, schema)
    packed.write.mode("overwrite").options(**_SMALL_ROW_GROUPS).parquet(path)
    return data.sparkSession.read.schema(schema).parquet(path)


def _size_columns(work: Work) -> list[str]:
    keys = [column.name for column in work.columns.groups]
    return ["_group_id", *keys, "_chunk", "_n_rows", "_digest", *(f"_n_{name}" for name in work.measures)]


def _group_sizes(rows: Iterable[Mapping[str, Any]], work: Work) -> tuple[list[GroupSize], list[tuple[str, int, str]]]:
    """Sizes of groups, by id, and the digest of every chunk, from packed rows less their values."""
    keys = [column.name for column in work.columns.groups]
    found: dict[str, GroupSize] = {}
    chunks: list[tuple[str, int, str]] = []
    for row in rows:
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


def _planned(packed: DataFrame, plan: Plan, scratch: Scratch) -> DataFrame:
    """Packed rows with the wave and task they belong to, laid out so that a wave reads its own rows only."""
    spark = packed.sparkSession
    places = spark.createDataFrame(
        [(group.group_id, group.wave, group.task, group.bundle) for group in plan.groups],
        f"_group_id string, {_WAVE} int, _task int, {BUNDLE} int",
    )
    placed = packed.join(F.broadcast(places), "_group_id")
    if len(plan.waves) <= _WAVES_WITHOUT_LAYOUT:
        return placed
    path = f"{scratch.folder}/{_PLANNED}_{scratch.attempt}"
    placed.write.mode("overwrite").options(**_SMALL_ROW_GROUPS).partitionBy(_WAVE).parquet(path)
    return spark.read.schema(placed.schema).parquet(path)


def _run_wave(planned: DataFrame, work: Work, wave: Wave, path: str) -> None:
    columns = columns_with_pieces(work) if wave.finishes else [*(name for name, _ in packed_fields(work)), BUNDLE]
    order = ["_group_id", "_round", "_chunk"] if wave.finishes else [BUNDLE, "_group_id", "_chunk"]

    def runner(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return run_finishing(batches, work) if wave.finishes else run_packed(batches, work)

    rows = (
        planned.where(F.col(_WAVE) == wave.number)
        .repartitionById(wave.n_tasks, F.col("_task"))
        .sortWithinPartitions(*order)
        .select(*columns)
        .mapInArrow(runner, ddl(staged_fields(work)))
    )
    rows.write.mode("overwrite").options(**_SMALL_ROW_GROUPS).parquet(path)


def _run_rounds(
    packed: DataFrame, work: Work, plan: Plan, scratch: Scratch, clock: float
) -> tuple[DataFrame, tuple[str, ...]]:
    """Run the rounds of all groups that are split, one after the other: their pieces, and where these lie.

    packed: rows of these groups.
    """
    spark, schema = packed.sparkSession, ddl(PIECE_FIELDS)
    stage = f"rounds_{plan.digest}"
    kept = _staged_before(spark, schema, stage, PART_KEY, [len(one.parts) for one in plan.rounds], scratch)
    pieces = spark.createDataFrame([], schema)
    paths: list[str] = []
    for one in plan.rounds:
        path = scratch.path(f"{stage}/{_WAVE}={one.number}", kept.get(one.number))
        told = (one.number + 1, len(plan.rounds))
        if one.number in kept:
            log.info("round %d/%d: taken over from attempt %s", *told, kept[one.number], extra={"event": "round"})
        else:
            rows = round_rows(packed, pieces, one, work)
            rows.write.mode("overwrite").options(**_SMALL_ROW_GROUPS).parquet(path)
            done = (*told, len(one.parts), time.monotonic() - clock)
            log.info("round %d/%d: %d tasks done; %.0f s so far", *done, extra={"event": "round"})
        paths.append(path)
        pieces = spark.read.schema(schema).parquet(*paths)
    return pieces, (*paths, scratch.path(f"{stage}/{_WAVE}=-1"))


def _staged_before(
    spark: SparkSession, schema: str, stage: str, counted: list[str], expected: list[int], scratch: Scratch
) -> dict[int, str]:
    """Waves (or rounds) that some attempt staged whole, with that attempt.

    A half-committed one lacks files, so some of the expected number of groups, or whatever else is counted.
    """
    if not scratch.take_over:
        return {}
    # An empty wave of its own makes sure that there is something to list.
    spark.createDataFrame([], schema).write.mode("overwrite").parquet(scratch.path(f"{stage}/{_WAVE}=-1"))
    found = (
        spark.read.schema(f"{schema}, {_WAVE} int, {_ATTEMPT} string")
        .parquet(f"{scratch.folder}/{stage}")
        .groupBy(_WAVE, _ATTEMPT)
        .agg(F.countDistinct(*counted).alias("n"))
        .collect()
    )
    complete = sorted((row[_WAVE], row[_ATTEMPT]) for row in found if row["n"] == expected[row[_WAVE]])
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
    started_at = dt.datetime.now(dt.UTC)
    packed = list(pack(select_pandas(data, work.columns).to_batches(), work))
    sizes, chunks = _group_sizes(pa.Table.from_batches(packed).select(_size_columns(work)).to_pylist(), work)
    work = work.within(memory_limit(None, work.memory_limit, [work.memory(size) for size in sizes]))
    batches = list(run_bundles(_whole_bundles(unpack(packed, work), make_bundles(sizes, work)), work))
    staged = pa.Table.from_batches(batches, staged_schema(work)).sort_by(
        [("_group_id", "ascending"), ("_part", "ascending")]
    )
    tally = Tally(work)
    tally.add_staged(_counted(staged, work))
    return LocalRun(work, staged, tally.summary(started_at, len(data), chunks))


def _counted(staged: pa.Table, work: Work) -> Iterator[dict[str, Any]]:
    """What `counted_columns` gives on Spark."""
    sizes = {name: pc.list_value_length(staged[staged_name(name)]).to_pylist() for name in result_columns(work)}
    rows = staged.select(["_group_id", "_part", "_seconds", staged_name(FAILURES.name)]).to_pylist()
    for place, row in enumerate(rows):
        failures = row.pop(staged_name(FAILURES.name))
        causes = {name: [one[name] for one in failures] for name in ("kind", "stage", "estimator", "error_class")}
        yield {**row, **causes, **{f"n_{name}": counts[place] for name, counts in sizes.items()}}


def _whole_bundles(groups: Iterable[Group], bundles: Iterable[Sequence[GroupSize]]) -> Iterator[list[Group]]:
    """Groups by bundle, each as soon as all of its groups are there."""
    homes = {size.group_id: (number, len(bundle)) for number, bundle in enumerate(bundles) for size in bundle}
    waiting: dict[int, list[Group]] = {}
    for group in groups:
        number, n_groups = homes[group.group_id]
        waiting.setdefault(number, []).append(group)
        if len(waiting[number]) == n_groups:
            yield waiting.pop(number)
