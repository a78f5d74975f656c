"""Run records: the one row whose commit makes an attempt visible."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import or_

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
    series: str | None
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


#: What tells visible runs apart: the newest succeeded attempt of each.
VISIBLE = ("job", "run_key")
#: What tells latest runs apart. Runs of older contracts have no series.
LATEST = ("job", "coalesce(series, run_key)")


def succeeded_run(
    spark: SparkSession, location: Location, job: str, run_key: str, series: str | None = None
) -> str | None:
    """The run_id of the newest succeeded attempt of that job and key, or None.

    series: when given, the attempt must be the latest of it: an older one's rows are not what readers see.
    """
    mine = (F.col("status") == "succeeded") & (F.col("job") == job)
    wanted = [F.col("run_key") == run_key]
    if series is not None:
        wanted.append(F.col("series") == series)
    try:
        runs = location.table(RUNS.name).load(spark.read).where(mine & reduce(or_, wanted))
        newest = runs.orderBy(F.col("finished_at").desc(), F.col("run_id").desc()).select("run_id", "run_key").limit(1)
        # On Connect a missing table shows only when rows are asked for.
        found = newest.collect()
    except AnalysisException:
        return None
    return str(found[0]["run_id"]) if found and found[0]["run_key"] == run_key else None


def newest_runs(spark: SparkSession, location: Location, keys: Sequence[str]) -> DataFrame:
    """One column ``run_id``: the newest succeeded attempt by `VISIBLE` or `LATEST` keys."""
    newest = Window.partitionBy(*map(F.expr, keys)).orderBy(F.col("finished_at").desc(), F.col("run_id").desc())
    runs = location.table(RUNS.name).load(spark.read).where(F.col("status") == "succeeded")
    return runs.withColumn("place", F.row_number().over(newest)).where(F.col("place") == 1).select("run_id")
