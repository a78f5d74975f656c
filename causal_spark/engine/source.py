"""Read the input at a version that can be named: a Delta version, a file listing, or the content itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal_spark.engine.keys import digest_of
from causal_spark.errors import InputError
from causal_spark.lake.locations import Location, Place, input_place

Format = Literal["delta", "parquet", "csv"]
EXAMPLE = "example:"


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to read. version: None when only the content itself can tell whether it changed."""

    data: DataFrame
    location: str
    version: str | None


def read_source(spark: SparkSession, location: str, file_format: Format, rename: Mapping[str, str]) -> Source:
    """Open an input table: a path in the given format, or a two- or three-part table name.

    Raises `LocationError` for anything else, `InputError` when it cannot be read or a renamed column is not there.
    """
    place = input_place(location)
    try:
        source = _open(spark, place, file_format)
        # On Connect what is missing shows only when something is asked for.
        columns = source.data.columns
    except AnalysisException as error:
        raise InputError(
            f"Input {location!r} cannot be read as {file_format}: {str(error).splitlines()[0]}",
            "Check input.location and input.format.",
        ) from error
    missing = [name for name in rename if name not in columns]
    if missing:
        raise InputError(
            f"columns.rename names {missing[0]!r}, which is not in the input.",
            f"It has: {', '.join(columns)}.",
        )
    return Source(source.data.withColumnsRenamed(dict(rename)), place.address, source.version)


def rows_where(source: Source, condition: str | None) -> Source:
    """Rows that meet a SQL condition on the input's columns, all without one. Raises `InputError` for what is none."""
    if condition is None:
        return source
    try:
        data = source.data.where(condition)
        # On Connect what is wrong shows only when something is asked for.
        _ = data.columns
    except (AnalysisException, ParseException) as error:
        raise InputError(
            f"input.where is not valid: {str(error).splitlines()[0]}", "Write a SQL condition on the input's columns."
        ) from error
    return replace(source, data=data)


def _open(spark: SparkSession, place: Place, file_format: Format) -> Source:
    if place.is_path and file_format != "delta":
        reader = (
            spark.read.option("header", "true").option("inferSchema", "true") if file_format == "csv" else spark.read
        )
        return Source(
            reader.format(file_format).load(place.address), place.address, _listing_version(spark, place.address)
        )
    version = _delta_version(spark, place)
    if version is None:
        if place.is_path:
            raise InputError(f"{place.address} is not a Delta table.", "Set input.format to parquet or csv.")
        return Source(spark.read.table(place.address), place.address, None)
    table_id, number = version
    data = place.load(spark.read.option("versionAsOf", number))
    return Source(data, place.address, f"delta:{table_id}@{number}")


def _delta_version(spark: SparkSession, place: Place) -> tuple[str, int] | None:
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {place.sql}").select("format", "id").collect()[0]
        if detail["format"] != "delta":
            return None
        newest = spark.sql(f"DESCRIBE HISTORY {place.sql} LIMIT 1").collect()[0]
    except AnalysisException:
        return None
    return str(detail["id"]), int(newest["version"])


def _listing_version(spark: SparkSession, path: str) -> str:
    # binaryFile lists without reading, as long as the content column is not asked for.
    files = (
        spark.read.format("binaryFile")
        .option("recursiveFileLookup", "true")
        .load(path)
        .select("path", "length", F.col("modificationTime").cast("double").alias("modified"))
        .collect()
    )
    return "files:" + digest_of(f"{row['path']}|{row['length']}|{row['modified']!r}" for row in sorted(files))


def write_example(spark: SparkSession, output: Location, name: str, rows: pd.DataFrame) -> Place:
    """Keep an example as a Delta table beside the results, and write it again only when its content changed."""
    place = output.table(f"_examples/{name}" if output.is_path else f"example_{name}")
    digest = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:32]
    metadata = json.dumps({"example": name, "digest": digest})
    if place.exists(spark):
        newest = spark.sql(f"DESCRIBE HISTORY {place.sql} LIMIT 1").select("userMetadata").collect()[0]
        if newest["userMetadata"] == metadata:
            return place
    writer = spark.createDataFrame(rows).write.mode("overwrite")
    place.save(writer.option("overwriteSchema", "true").option("userMetadata", metadata))
    return place
