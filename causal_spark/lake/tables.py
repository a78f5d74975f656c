"""Create result tables, append to them once, make a run visible."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.errors import TableShapeError, WriteError
from causal_spark.lake.contract import Column, TableSchema
from causal_spark.lake.locations import Location, Place, quoted, text_literal
from causal_spark.lake.schemas import TABLES

_PROPERTIES = {
    # Deletion vectors would raise the reader version beyond 1 and shut out simple readers.
    "delta.enableDeletionVectors": "false",
}
#: Columns with statistics besides the group columns, run_id and group_id: what readers choose rows by. Those of every
#: column would cost each commit more than its rows.
_INDEXED = 2
#: The last of them is what a table looks like while another writer is creating it.
_CONFLICTS = (
    *("DELTA_CONCURRENT", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED", "ALREADY_EXISTS", "Concurrent"),
    "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION",
)
_ATTEMPTS = 4
#: Commits of other writers that may come between an append and its check.
_HISTORY = 50

_ROWS_PER_FILE = 250_000
#: Rows above which compiled plans are worth their compilation.
_FEW_ROWS = 500_000
_INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}

Answer = TypeVar("Answer")


@contextmanager
def few_rows(spark: SparkSession, n_rows: int) -> Iterator[None]:
    """Run plans over few rows without compiling them, which takes about half of a small Delta commit.

    The session's settings are put back afterwards; a session that refuses them goes on as it is.
    """
    before: dict[str, str | None] = {}
    if n_rows <= _FEW_ROWS:
        with suppress(PySparkException):
            for key, value in _INTERPRETED.items():
                found = spark.conf.get(key, None)
                spark.conf.set(key, value)
                before[key] = found
    try:
        yield
    finally:
        for key, found in before.items():
            if found is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, found)


def create_statement(schema: TableSchema, place: Place) -> str:
    """DDL of one table, constraints included, in a single commit."""
    columns = ",\n  ".join(
        f"{quoted(column.name)} {column.type}{' NOT NULL' if column.required else ''} "
        f"COMMENT {text_literal(column.comment)}"
        for column in schema.all_columns
    )
    indexed = {"delta.dataSkippingNumIndexedCols": str(_INDEXED + len(schema.group_columns))}
    checks = {f"delta.constraints.{column.name}": column.check for column in schema.all_columns if column.check}
    properties = ", ".join(
        f"{text_literal(key)} = {text_literal(value)}" for key, value in (_PROPERTIES | indexed | checks).items()
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {place.sql} (\n  {columns}\n) USING DELTA\n"
        f"COMMENT {text_literal('One row per ' + schema.row + '.')}\nTBLPROPERTIES ({properties})"
    )


def _shape(columns: tuple[Column, ...]) -> list[tuple[str, str]]:
    return [(column.name, column.type.lower()) for column in columns]


def ensure_table(spark: SparkSession, place: Place, schema: TableSchema) -> None:
    """Create the table, or check that it has just these columns; those that a newer contract put last are added.

    Raises `TableShapeError` naming the columns that differ.
    """
    try:
        fields = place.load(spark.read).schema.fields
    except AnalysisException:
        try:
            retrying(lambda: spark.sql(create_statement(schema, place)).collect())
            fields = place.load(spark.read).schema.fields
        except PySparkException as error:
            raise WriteError(
                f"Table {place.address} cannot be created: {str(error).splitlines()[0]}",
                "Check that output.location exists, as a schema or a folder, and may be written to.",
            ) from error
    found = [(field.name, field.dataType.simpleString()) for field in fields]
    wanted = _shape(schema.all_columns)
    if found != wanted:
        later = schema.all_columns[len(found) :]
        if found == wanted[: len(found)] and not any(column.required for column in later):
            _add_columns(spark, place, later)
            return
        missing = [f"{name} {type_}" for name, type_ in wanted if (name, type_) not in found]
        extra = [f"{name} {type_}" for name, type_ in found if (name, type_) not in wanted]
        differs = f"it lacks [{', '.join(missing)}] and has [{', '.join(extra)}] instead."
        if not missing and not extra:
            differs = f"its columns come as {', '.join(name for name, _ in found)}."
        raise TableShapeError(
            f"Table {place.address} has another shape than this run writes: {differs}",
            "Write to another output.location, or list and name group columns as before (columns.rename).",
        )


def _add_columns(spark: SparkSession, place: Place, columns: tuple[Column, ...]) -> None:
    """Add columns behind the others, NULL in the rows that are there. Raises `WriteError` when that is refused."""
    added = ", ".join(
        f"{quoted(column.name)} {column.type} COMMENT {text_literal(column.comment)}" for column in columns
    )
    checks = [f"ADD CONSTRAINT {quoted(column.name)} CHECK ({column.check})" for column in columns if column.check]
    try:
        for change in (f"ADD COLUMNS ({added})", *checks):
            retrying(partial(_commit_statement, spark, f"ALTER TABLE {place.sql} {change}"))
    except PySparkException as error:
        raise WriteError(
            f"Table {place.address} lacks {columns[0].name}, which cannot be added: {str(error).splitlines()[0]}",
            "Let one run finish before others write to the same tables, or write to another output.location.",
        ) from error


def _commit_statement(spark: SparkSession, statement: str) -> None:
    spark.sql(statement).collect()


def retrying(commit: Callable[[], Answer]) -> Answer:
    """Commit again, after a pause, when another writer came first. Raises what the last attempt raises."""
    # Only the commit is repeated: what it writes is already materialised. Classic Spark has no class of its own for
    # Delta's conflicts and lets the JVM's error through, so they are told by their words.
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return commit()
        except Exception as error:
            if attempt == _ATTEMPTS or not any(word in str(error) for word in _CONFLICTS):
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class Commit:
    """What every commit of an attempt says of itself in the table's history."""

    run_id: str
    run_key: str
    package_version: str

    def metadata(self) -> str:
        """JSON for Delta's user metadata."""
        return json.dumps(
            {"run_id": self.run_id, "run_key": self.run_key, "package_version": self.package_version}, sort_keys=True
        )


def append_rows(place: Place, rows: DataFrame, commit: Commit) -> None:
    """Append an attempt's rows to one table, once: a commit that landed though its answer was lost is not repeated."""
    # Delta's own txnAppId would see to that as well, but it reads the table's whole state before every append, which
    # took two thirds of the time of a small one, and keeps a mark of every attempt for ever.
    writer = rows.write.mode("append").option("userMetadata", commit.metadata())
    n_tried = 0

    def once() -> None:
        nonlocal n_tried
        n_tried += 1
        if n_tried == 1 or not _landed(rows.sparkSession, place, commit):
            place.save(writer)

    retrying(once)


def _landed(spark: SparkSession, place: Place, commit: Commit) -> int:
    """Rows that the attempt's commits say they wrote."""
    history = spark.sql(f"DESCRIBE HISTORY {place.sql} LIMIT {_HISTORY}")
    mine = history.where(F.col("userMetadata") == commit.metadata()).select("operationMetrics").collect()
    return sum(int(row["operationMetrics"].get("numOutputRows", 0)) for row in mine)


def ensure_tables(spark: SparkSession, location: Location, names: Iterable[str], groups: tuple[Column, ...]) -> None:
    """Create or check result tables for one shape of group columns. Raises as `ensure_table` does."""
    schemas = [TABLES[name].with_groups(groups) for name in names]
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda schema: ensure_table(spark, location.table(schema.name), schema), schemas))


def append_tables(
    spark: SparkSession,
    location: Location,
    frames: Mapping[str, DataFrame],
    expected_rows: Mapping[str, int],
    groups: tuple[Column, ...],
    commit: Commit,
) -> None:
    """Append result tables of one attempt and check that every row landed.

    frames: per table its rows without ``run_id``; expected_rows: per table how many there are. Rows stay invisible
    until `causal_spark.lake.runs.append_run` says the attempt succeeded.
    Raises `TableShapeError` before anything is written, `WriteError` when rows are missing afterwards.
    """
    keyed = {
        TABLES[name].with_groups(groups): frame.withColumn("run_id", F.lit(commit.run_id))
        for name, frame in frames.items()
    }
    append_frames(spark, location, keyed, expected_rows, commit)


def append_frames(
    spark: SparkSession,
    location: Location,
    frames: Mapping[TableSchema, DataFrame],
    expected_rows: Mapping[str, int],
    commit: Commit,
) -> None:
    """Create or check tables, append complete rows, check that they landed. Raises as `append_tables` does."""
    places = {schema: location.table(schema.name) for schema in frames}

    def append(schema: TableSchema) -> None:
        rows = frames[schema].select(*[c.name for c in schema.all_columns])
        # Staged rows come in a file per task: as many small ones in the table would cost writer and readers more.
        n_files = -(-expected_rows[schema.name] // _ROWS_PER_FILE)
        append_rows(places[schema], rows.coalesce(n_files), commit)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda schema: ensure_table(spark, places[schema], schema), frames))
        full = [schema for schema in frames if expected_rows[schema.name]]
        list(pool.map(append, full))
        landed = dict(zip(full, pool.map(lambda schema: _landed(spark, places[schema], commit), full), strict=True))

    wrong = [
        f"{schema.name}: {n_rows} of {expected_rows[schema.name]}"
        for schema, n_rows in landed.items()
        if n_rows != expected_rows[schema.name]
    ]
    if wrong:
        raise WriteError(
            f"Rows of run {commit.run_id} did not land once and all ({'; '.join(wrong)}).",
            "Nothing was made visible; run again.",
        )
