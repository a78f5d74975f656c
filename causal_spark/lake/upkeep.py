"""Upkeep of result tables: remove rows that no reader sees, compact small files, delete what time travel needs no more.

Only SQL, so it works on catalogs and on Spark Connect.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal_spark.errors import InputError, WriteError
from causal_spark.lake.locations import Location, Place, text_literal
from causal_spark.lake.runs import LATEST, VISIBLE, newest_runs
from causal_spark.lake.schemas import TABLES
from causal_spark.lake.schemas.runs import RUNS
from causal_spark.lake.tables import retrying

log = logging.getLogger("causal_spark")


@dataclass(frozen=True, slots=True)
class UpkeepOptions:
    """How to keep tables.

    retention: rows that were committed more recently stay, as their run may be about to become visible. superseded:
    runs that a later one of their series replaced so long ago are removed as well; None keeps them.
    """

    retention: dt.timedelta = dt.timedelta(days=7)
    superseded: dt.timedelta | None = None
    optimize: bool = True
    vacuum: bool = True


@dataclass(frozen=True, slots=True)
class TableUpkeep:
    """What there was to remove from one table: runs whose rows nobody sees, and how many rows those are."""

    table: str
    run_ids: tuple[str, ...]
    n_rows: int


def superseded_runs(spark: SparkSession, location: Location, before: dt.datetime) -> list[str]:
    """Succeeded runs that finished before then and are not the latest of their series."""
    runs = location.table(RUNS.name).load(spark.read).where("status = 'succeeded'")
    old = runs.where(F.col("finished_at") < F.lit(before))
    found = old.join(newest_runs(spark, location, LATEST), "run_id", "left_anti").select("run_id").collect()
    return sorted(row["run_id"] for row in found)


def _appended_since(spark: SparkSession, place: Place, since: dt.datetime) -> set[str]:
    """Runs that committed to the table since then: one of them may be about to become visible."""
    history = spark.sql(f"DESCRIBE HISTORY {place.sql}").where(F.col("timestamp") >= F.lit(since))
    found = set()
    for row in history.select("userMetadata").where("userMetadata IS NOT NULL").collect():
        try:
            told = json.loads(row["userMetadata"])
        except json.JSONDecodeError:
            continue
        if isinstance(told, dict) and "run_id" in told:
            found.add(str(told["run_id"]))
    return found


def unseen_rows(
    spark: SparkSession, location: Location, name: str, visible: Set[str], since: dt.datetime
) -> TableUpkeep:
    """Rows of a result table whose run is not one of the visible ones and did not commit since then.

    Runs are named here, once: what another writer appends meanwhile is none of them.
    """
    place = location.table(name)
    kept = visible | _appended_since(spark, place, since)
    counts = place.load(spark.read).groupBy("run_id").count().collect()
    unseen = {row["run_id"]: row["count"] for row in counts if row["run_id"] not in kept}
    return TableUpkeep(name, tuple(sorted(unseen)), sum(unseen.values()))


def _delete(spark: SparkSession, place: Place, run_ids: Sequence[str]) -> None:
    listed = ", ".join(map(text_literal, run_ids))
    commit(spark, f"DELETE FROM {place.sql} WHERE run_id IN ({listed})")  # noqa: S608 - quoted


def commit(spark: SparkSession, statement: str) -> None:
    """Run a statement, again where another writer came first. Raises `WriteError` when Delta refuses it."""
    try:
        retrying(partial(_collect, spark, statement))
    except PySparkException as error:
        raise WriteError(
            f"{statement[:100]}: {str(error).splitlines()[0]}", "Everything before it is done; run again."
        ) from error


def _collect(spark: SparkSession, statement: str) -> None:
    spark.sql(statement).collect()


def tables_at(spark: SparkSession, location: Location) -> list[str]:
    """Result tables there. Raises `InputError` when ``runs`` is not."""
    if not location.table(RUNS.name).exists(spark):
        raise InputError(f"{location.address} has no table runs.", "Check location: where a job wrote its results.")
    return [name for name in TABLES if name != RUNS.name and location.table(name).exists(spark)]


def upkeep(
    spark: SparkSession, location: Location, options: UpkeepOptions, *, dry_run: bool = False
) -> list[TableUpkeep]:
    """Do what the options say to every result table at the location, and tell what was removed from each.

    Raises `InputError` where there are no tables, `WriteError` when Delta refuses a step.
    """
    now = dt.datetime.now(dt.UTC)
    names = tables_at(spark, location)
    gone: list[str] = []
    if options.superseded is not None:
        gone = superseded_runs(spark, location, now - options.superseded)
    visible = {row["run_id"] for row in newest_runs(spark, location, VISIBLE).collect()} - set(gone)
    done = [unseen_rows(spark, location, name, visible, now - options.retention) for name in names]
    if dry_run:
        return [*([TableUpkeep(RUNS.name, tuple(gone), len(gone))] if gone else []), *done]
    if gone:
        # First what makes them visible: killed in between, rows are left that nobody sees, for the next upkeep.
        _delete(spark, location.table(RUNS.name), gone)
        done.insert(0, TableUpkeep(RUNS.name, tuple(gone), len(gone)))
    for one in done:
        place = location.table(one.table)
        if one.run_ids and one.table != RUNS.name:
            _delete(spark, place, one.run_ids)
        told = {"event": "upkeep", "table": one.table, "rows_removed": one.n_rows, "runs_removed": len(one.run_ids)}
        log.info("%s: %d rows of %d runs removed", one.table, one.n_rows, len(one.run_ids), extra=told)
    for name in (RUNS.name, *names):
        place = location.table(name)
        if options.optimize:
            commit(spark, f"OPTIMIZE {place.sql}")
        if options.vacuum:
            # How long files stay is the table's own property: Delta ignores what a statement says of it.
            commit(spark, f"VACUUM {place.sql}")
    return done
