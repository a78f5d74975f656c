"""What every job does: configuration in, tables out, one exit code. What is a job's own is in its `Job`."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.command import command_parser, exit_code, session
from causal_spark.config import AnyConfig, JobConfig, load_config
from causal_spark.engine.columns import select_spark
from causal_spark.engine.keys import group_id
from causal_spark.engine.memory import SAFE_BYTES, in_gib, memory_limit
from causal_spark.engine.plan import make_plan, most_parts
from causal_spark.engine.publish import (
    Origin,
    Written,
    contract_groups,
    find_written,
    make_run_key,
    make_series,
    new_run_id,
)
from causal_spark.engine.run import Scratch, run_on_spark
from causal_spark.engine.source import EXAMPLE, Source, read_source, rows_where, write_example
from causal_spark.engine.work import GroupSize, Work
from causal_spark.errors import ConfigError
from causal_spark.lake.locations import Location, folder_address, output_location, without_secrets
from causal_spark.lake.schemas.runs import FAILURES, RUNS
from causal_spark.lake.tables import ensure_tables, few_rows
from causal_spark.lake.views import SUFFIX
from causal_spark.logs import about
from causal_spark.results import Result

log = logging.getLogger("causal_spark")

#: Rows of a table that are printed.
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Job(Generic[AnyConfig]):
    """One job.

    name: of its script and of its configuration in conf/. config: model of its configuration. work: (configuration,
    input) -> work, columns and methods checked. measures: the work's `Work.measures` as Spark aggregates, for a dry
    run. sizes: (work, size) -> what a dry run shows of a group. notes: lines of a dry run on how. report: (result
    tables of a run by name) -> text for people. shown: table that people query first. resolve: (session, configuration)
    -> the same with what it points to read in. rows: (configuration, input) -> the frame that ``work`` is about.
    """

    name: str
    description: str
    config: type[AnyConfig]
    work: Callable[[AnyConfig, DataFrame], Work]
    measures: Callable[[], Mapping[str, Column]]
    sizes: Callable[[Work, GroupSize], Mapping[str, Any]]
    notes: Callable[[AnyConfig], Sequence[str]]
    report: Callable[[Callable[[str], DataFrame]], str]
    shown: str
    resolve: Callable[[SparkSession, AnyConfig], AnyConfig] = lambda _, config: config
    rows: Callable[[AnyConfig, DataFrame], DataFrame] = lambda _, data: data

    def main(self, arguments: Sequence[str]) -> int:
        """Run the job as the command line says and return its exit code (0: done, or nothing to do)."""
        parser = command_parser(self.name, self.description)
        parser.add_argument("--force", action="store_true", help="run even if this run key already succeeded")
        options = parser.parse_args(arguments)
        run_id = new_run_id()

        def act() -> None:
            config = load_config(self.config, options.config, options.set)
            spark = session(self.name)
            if options.dry_run:
                sys.stdout.write(describe(spark, self, config))
            else:
                written = run_job(spark, self, config, force=options.force, run_id=run_id)
                with few_rows(spark, SHOWN):
                    sys.stdout.write(report(spark, self, written))

        return exit_code(act, self.name, run_id, options.log_format)


def run_job(
    spark: SparkSession, job: Job[AnyConfig], config: AnyConfig, *, force: bool = False, run_id: str | None = None
) -> Written:
    """Read, estimate, write. A run key that already succeeded is left as it is unless ``force``.

    run_id: of this attempt, where it has one already; never given twice.
    Raises the errors of reading, fitting and writing; see `causal_spark.command.EXIT_CODES`.
    """
    attempt = run_id or new_run_id()
    with about(job=job.name, run_id=attempt):
        return _run_job(spark, job, config, attempt, force=force)


def _run_job(spark: SparkSession, job: Job[AnyConfig], config: AnyConfig, attempt: str, *, force: bool) -> Written:
    output = output_location(config.output.location)
    config = job.resolve(spark, config)
    source, work = _prepare(spark, job, config, output)
    place = without_secrets(source.location)
    series = config.series or make_series(work, place, config.input.where)
    log.info("input opened: %s", place, extra={"event": "opened", "input_version": source.version})
    origin = Origin(config.identity(), place, source.version or "", series)
    # The folder goes by what determines the results, whatever the user calls the run: only then can an attempt that
    # died be taken up. Without a version of the input nothing tells whether it is the same, so the attempt is alone.
    same = None if source.version is None else make_run_key(work.job, origin)
    key = config.run_key or same
    if key is not None and not force:
        earlier = find_written(spark, output, work.job, key, series if config.run_key is None else None)
        if earlier is not None:
            return earlier
    scratch = Scratch(
        f"{_scratch_folder(config, output)}/{same or attempt}", attempt, take_over=not force and bool(same)
    )
    # What is wrong with the target shows before hours of estimation, not after.
    with few_rows(spark, 0):
        ensure_tables(spark, output, (RUNS.name, FAILURES.name, *work.tables), contract_groups(work))
    log.info("result tables are there", extra={"event": "tables"})
    run = run_on_spark(source.data, work, scratch)
    if source.version is None:
        origin = replace(origin, input_version=f"content:{run.summary.input_digest}")
    try:
        return Result(run.summary, run, origin.config_json).write_as(
            origin, config.output.location, None, config.run_key, force, config.max_failed_fraction, attempt
        )
    finally:
        _remove(scratch.folder, run.folders)


def _prepare(spark: SparkSession, job: Job[AnyConfig], config: AnyConfig, output: Location) -> tuple[Source, Work]:
    place, file_format = config.input.location, config.input.format
    if place.startswith(EXAMPLE):
        from causal_spark.examples import load_example

        name = place.removeprefix(EXAMPLE)
        place, file_format = write_example(spark, output, name, load_example(name)).address, "delta"
    source = rows_where(read_source(spark, place, file_format, config.columns.rename), config.input.where)
    source = replace(source, data=job.rows(config, source.data))
    return source, job.work(config, source.data)


def _scratch_folder(config: JobConfig, output: Location) -> str:
    if config.output.work_location is not None:
        return folder_address(config.output.work_location)
    if not output.is_path:
        raise ConfigError(
            "output.location is a catalog schema, so the job needs a folder for its scratch files.",
            "Set output.work_location to a folder, a volume or a URL that driver and workers share.",
        )
    return output.table("_work").address


def _remove(folder: str, used: Sequence[str]) -> None:
    """Remove what the attempt packed and staged; what another attempt at the same run is using stays."""
    if ":" in folder:
        log.info("scratch files of this run stay below %s", folder)
        return
    for path in used:
        shutil.rmtree(path, ignore_errors=True)
    below = sorted((inner for inner in Path(folder).rglob("*") if inner.is_dir()), reverse=True)
    for inner in [*below, Path(folder)]:
        # A folder that is not empty stays.
        with suppress(OSError):
            inner.rmdir()


def _sizes(data: DataFrame, work: Work, measures: Mapping[str, Column]) -> list[GroupSize]:
    names = [column.name for column in work.columns.groups]
    counted = (
        select_spark(data, work.columns)
        .groupBy(*names)
        .agg(F.count("*").alias("_rows"), *(column.alias(f"_{name}") for name, column in measures.items()))
    )
    sizes = []
    for row in counted.collect():
        key = {name: row[name] for name in names}
        counts = {name: row[f"_{name}"] for name in work.measures}
        sizes.append(GroupSize(group_id(key, work.columns.group_types), key, row["_rows"], counts))
    return sorted(sizes, key=lambda size: size.group_id)


def describe(spark: SparkSession, job: Job[AnyConfig], config: AnyConfig) -> str:
    """What a run would do: groups, sizes, estimators, cost and target tables. Estimates nothing, writes no result."""
    output = output_location(config.output.location)
    config = job.resolve(spark, config)
    source, work = _prepare(spark, job, config, output)
    sizes = _sizes(source.data, work, job.measures())
    needs = [work.memory(size) for size in sizes]
    work = work.within(memory_limit(spark, work.memory_limit, needs, partial(most_parts, sizes, work)))
    refused = {size.group_id for size in sizes if work.refusal(size) is not None}
    plan = make_plan([size for size in sizes if size.group_id not in refused], work)
    rows = [
        {
            **{name: str(value) for name, value in size.key.items()},
            "rows": size.n_rows,
            **job.sizes(work, size),
            "estimators": " ".join(costs),
            "core_seconds": round(sum(costs.values()), 2),
            "memory": in_gib(memory.peak),
            "too_large": " ".join(name for name in memory.estimators if name not in costs),
            "split": plan.splits.get(size.group_id, ""),
        }
        for size, memory, costs in (
            (size, work.memory(size), {} if size.group_id in refused else work.cost(size)) for size in sizes
        )
    ]
    table = pd.DataFrame(rows)
    table = table.drop(columns=[name for name in ("too_large", "split") if not table[name].any()])
    if work.memory_limit is None:
        memory = f"No group needs more than {in_gib(SAFE_BYTES)} of memory: fits any worker."
    else:
        memory = f"A task may use {in_gib(work.memory_limit)}; what takes more (too_large) ends in failures."
    notes = "".join(f"{line}\n" for line in job.notes(config))
    tables = "\n".join(f"  {output.table(name).address}" for name in ("runs", "failures", *work.tables))
    return (
        f"Input {without_secrets(source.location)} ({source.version or 'no version: the content will be hashed'})\n"
        f"{shown(table)}\n"
        f"{len(sizes)} groups in {len(plan.waves)} waves and {plan.n_tasks} tasks, "
        f"about {plan.seconds:.0f} core seconds\n"
        f"{memory}\n"
        f"{notes}"
        f"Would append to\n{tables}\nDry run: nothing was estimated or written.\n"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.2g}"


def shown(table: pd.DataFrame) -> str:
    """The first rows of a table, for people."""
    head = table.head(SHOWN).to_string(index=False, na_rep="-", float_format=_short)
    more = len(table) - SHOWN
    return head if more <= 0 else f"{head}\n... and {more} more rows"


def report(spark: SparkSession, job: Job[AnyConfig], written: Written) -> str:
    """What a person wants to see after a run: results, where the tables lie, how to query them."""
    output = output_location(written.location)

    def mine(name: str) -> DataFrame:
        return output.table(name).load(spark.read).where(F.col("run_id") == written.run_id)

    lines = [job.report(mine)]
    failures = mine(FAILURES.name)
    reasons = failures.where("kind <> 'warned'").select("group_id", "estimator", "stage", "kind", "message")
    missing = reasons.orderBy("group_id", "estimator", "stage").limit(SHOWN + 1).toPandas()
    if len(missing):
        lines.append("\nDeclined or failed (table failures has the hints):\n" + shown(missing))
    # Many groups are warned of the same thing, and each has its estimate: one line says it for all.
    warnings = failures.where("kind = 'warned'").groupBy(F.col("error_class").alias("warning"), "estimator")
    one = F.min(F.struct("group_id", "message"))
    known = warnings.agg(
        F.countDistinct("group_id").alias("groups"), one["group_id"].alias("first_group"), one["message"].alias("says")
    )
    warned = known.orderBy("warning", "estimator").limit(SHOWN + 1).toPandas()
    if len(warned):
        lines.append("\nEstimated, but to be read with this in mind (table failures, kind warned):\n" + shown(warned))
    state = (
        "written by this run" if written.new else "already there: this run key succeeded before (--force runs again)"
    )
    lines.append(f"\nRun {written.run_id}, {state}.")
    lines.append(f"Delta tables: {output.address}{'/' if output.is_path else ''}")
    lines.append("Query them, in spark-sql or a notebook:")
    if output.is_path:
        table = output.table(job.shown).sql
        lines.append(f"  SELECT * FROM {table} WHERE run_id = '{written.run_id}'")  # noqa: S608 - shown, not run
        lines.append("docs/tables.md has the query that always finds the newest run. Or look, without Spark:")
        lines.append(f"  causal-spark show {output.address}")
    else:
        lines.append(f"  SELECT * FROM {output.table(job.shown + SUFFIX).sql}")  # noqa: S608 - shown, not run
        lines.append("Views whose names end so always show the newest run; docs/tables.md says more.")
    return "\n".join(lines) + "\n"
