"""Run records: the one row whose commit makes an attempt visible."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from causal_spark.lake.locations import Location
from causal_spark.lake.schemas import CONTRACT_VERSION
from causal_spark.lake.schemas.runs import RUNS
from causal_spark.lake.tables import Commit, append_frames

_SPARK_TYPES = {
    "STRING": T.StringType(),
    "BIGINT": T.LongType(),
    "INT": T.IntegerType(),
    "TIMESTAMP": T.TimestampType(),
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of ``runs``; see the table's comments for the meaning of each field."""

    run_id: str
    run_key: str
    job: str
    status: str
    started_at: dt.datetime
    finished_at: dt.datetime
    config_json: str
    input: str
    input_version: str
    package_version: str
    n_groups: int
    n_succeeded: int
    n_declined: int
    n_failed: int
    rows_read: int
    rows_written: int
    seconds_by_estimator: str
    seed: int
    contract_version: int = CONTRACT_VERSION


def append_run(spark: SparkSession, location: Location, record: RunRecord) -> None:
    """Append one attempt to ``runs``. With status ``succeeded`` this is the commit that shows its rows.

    Raises `WriteError` when the row did not land.
    """
    schema = T.StructType([T.StructField(c.name, _SPARK_TYPES[c.type], not c.required) for c in RUNS.all_columns])
    values = asdict(record)
    rows = spark.createDataFrame([tuple(values[name] for name in schema.fieldNames())], schema)
    commit = Commit(record.run_id, record.run_key, record.package_version)
    append_frames(spark, location, {RUNS: rows}, {RUNS.name: 1}, commit)


def succeeded_run(spark: SparkSession, location: Location, job: str, run_key: str) -> str | None:
    """The run_id of the newest succeeded attempt of that job and key, or None."""
    mine = (F.col("status") == "succeeded") & (F.col("job") == job) & (F.col("run_key") == run_key)
    try:
        runs = location.table(RUNS.name).load(spark.read).where(mine)
        newest = runs.orderBy(F.col("finished_at").desc(), F.col("run_id").desc()).select("run_id").limit(1)
        # On Connect a missing table shows only when rows are asked for.
        found = newest.collect()
    except AnalysisException:
        return None
    return str(found[0]["run_id"]) if found else None


def visible_run_ids(spark: SparkSession, location: Location) -> DataFrame:
    """One column ``run_id``: the newest succeeded attempt of every job and run_key."""
    newest = Window.partitionBy("job", "run_key").orderBy(F.col("finished_at").desc(), F.col("run_id").desc())
    runs = location.table(RUNS.name).load(spark.read).where(F.col("status") == "succeeded")
    return runs.withColumn("place", F.row_number().over(newest)).where(F.col("place") == 1).select("run_id")
