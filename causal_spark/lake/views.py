"""Views of a catalog that show the latest results only."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from causal_spark.lake.contract import Column, TableSchema
from causal_spark.lake.locations import Location, quoted, text_literal
from causal_spark.lake.runs import LATEST
from causal_spark.lake.schemas import TABLES
from causal_spark.lake.schemas.runs import RUNS

log = logging.getLogger("causal_spark")

SUFFIX = "_latest"


def newest_sql(runs: str, keys: tuple[str, ...]) -> str:
    """SQL of the run ids that `causal_spark.lake.runs.newest_runs` gives. runs: how SQL names the table."""
    return (
        "SELECT run_id FROM (SELECT run_id, row_number() OVER "  # noqa: S608 - names are quoted by the caller
        f"(PARTITION BY {', '.join(keys)} ORDER BY finished_at DESC, run_id DESC) AS place "
        f"FROM {runs} WHERE status = 'succeeded') WHERE place = 1"
    )


def view_statement(schema: TableSchema, location: Location) -> str:
    """DDL of one table's view, comments included."""
    columns = ", ".join(f"{quoted(one.name)} COMMENT {text_literal(one.comment)}" for one in schema.all_columns)
    names = ", ".join(quoted(one.name) for one in schema.all_columns)
    table, runs = location.table(schema.name).sql, location.table(RUNS.name).sql
    return (
        f"CREATE OR REPLACE VIEW {location.table(schema.name + SUFFIX).sql} ({columns})\n"  # noqa: S608 - quoted
        f"COMMENT {text_literal(f'Of the latest runs, one row per {schema.row}.')}\n"
        f"AS SELECT {names} FROM {table} WHERE run_id IN ({newest_sql(runs, LATEST)})"
    )


def ensure_views(spark: SparkSession, location: Location, names: Iterable[str], groups: tuple[Column, ...]) -> None:
    """Create the views of tables in a catalog, anew where the table has got more columns. Folders have none.

    A catalog that refuses is told of in the log: tables are what a run needs.
    """
    for name in () if location.is_path else names:
        _ensure_view(spark, location, TABLES[name].with_groups(groups))


def _ensure_view(spark: SparkSession, location: Location, schema: TableSchema) -> None:
    wanted = [column.name for column in schema.all_columns]
    try:
        if location.table(schema.name + SUFFIX).load(spark.read).columns == wanted:
            return
    except AnalysisException:
        pass
    try:
        spark.sql(view_statement(schema, location)).collect()
    except PySparkException as error:
        log.warning("view %s%s could not be created: %s", schema.name, SUFFIX, str(error).splitlines()[0])
