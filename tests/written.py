"""What must hold of the tables that any job has written, groups told apart by column ``region``."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from causal_spark.lake.contract import Column
from causal_spark.lake.schemas import TABLES, group_columns

KEYS = (
    *("group_id", "estimator", "event_time", "unit", "time", "kind", "label", "stage", "dose", "covariate", "moment"),
    *("row_id", "treatment", "reference", "policy"),
)


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
    """Spark and deltalake see the same rows, and there are some."""
    for name in names:
        ours = spark.read.format("delta").load(str(output / name)).toPandas()
        theirs = DeltaTable(str(output / name)).to_pandas()[list(ours.columns)]
        by = [column for column in ours if column in KEYS]
        if by:
            ours, theirs = (frame.sort_values(by, ignore_index=True) for frame in (ours, theirs))
        for column in ours.select_dtypes("datetime"):
            theirs[column] = theirs[column].dt.tz_localize(None).astype(ours[column].dtype)
        assert len(theirs) > 0 or name in may_be_empty
        pd.testing.assert_frame_equal(theirs, ours, check_exact=True, check_dtype=False, obj=name)
