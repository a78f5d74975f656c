"""What must hold of the tables that any job has written, groups told apart by column ``region``."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import pandas as pd
import polars
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from causal_spark.lake.contract import Column
from causal_spark.lake.schemas import TABLES, group_columns


def assert_declared(spark: SparkSession, output: Path, names: Sequence[str]) -> None:
    """Columns, comments, constraints and nullability are those of the contract."""
    groups = group_columns((("region", "STRING"),))
    for name in names:
        table = TABLES[name]
        fields = spark.read.format("delta").load(str(output / name)).schema.fields
        found = [
            Column(field.name, field.dataType.simpleString().upper(), field.metadata["comment"]) for field in fields
        ]
        wanted = [Column(c.name, c.type, c.comment) for c in table.with_groups(groups).all_columns]
        assert found == wanted
        detail = spark.sql(f"DESCRIBE DETAIL delta.`{output}/{name}`").collect()[0]
        assert detail["minReaderVersion"] == 1
        constraints = {key for key in detail["properties"] if key.startswith("delta.constraints.")}
        assert constraints == {f"delta.constraints.{c.name}" for c in table.all_columns if c.check}
        created = (output / name / "_delta_log" / f"{0:020d}.json").read_text(encoding="utf-8")
        metadata = next(json.loads(line)["metaData"] for line in created.splitlines() if '"metaData"' in line)
        nullable = {f["name"]: f["nullable"] for f in json.loads(metadata["schemaString"])["fields"]}
        assert nullable == {c.name: not c.required for c in table.with_groups(groups).all_columns}


def assert_read_alike(
    spark: SparkSession, output: Path, names: Sequence[str], may_be_empty: Collection[str] = ()
) -> None:
    """Spark, deltalake, polars and DuckDB see the same rows, and there are some."""
    database = duckdb.connect()
    database.execute(f"LOAD '{delta_reader()}'")
    database.execute("SET TimeZone = 'UTC'")
    for name in names:
        path = str(output / name)
        ours = spark.read.format("delta").load(path).toPandas()
        assert len(ours) > 0 or name in may_be_empty
        others = {
            "deltalake": DeltaTable(path).to_pandas(),
            "polars": polars.read_delta(path).to_pandas(),
            "duckdb": database.execute("SELECT * FROM delta_scan(?)", [path]).arrow().read_all().to_pandas(),
        }
        for reader, theirs in others.items():
            found, wanted = (_in_order(frame[list(ours.columns)]) for frame in (theirs, ours))
            pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=False, obj=f"{name}, {reader}")


def delta_reader() -> Path:
    """DuckDB's extension, as its package brings it."""
    (found,) = (Path(duckdb_extension_delta.__file__).parent / "extensions").glob("*/delta.duckdb_extension")
    return found


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, NULL, time zones and bytes told in one way."""
    told = frame.copy()
    for column in told:
        if isinstance(told[column].dtype, pd.DatetimeTZDtype):
            told[column] = told[column].dt.tz_convert("UTC").dt.tz_localize(None)
        if pd.api.types.is_datetime64_dtype(told[column].dtype):
            told[column] = told[column].astype("datetime64[us]")
        elif told[column].dtype == object:
            told[column] = told[column].map(_plain)
    return told.sort_values(list(told.columns), ignore_index=True, key=lambda one: one.astype(str))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return None if value is None or value != value else value
