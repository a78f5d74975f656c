"""Scores made-up rows by stored models and throws the results away: spark-submit score_job.py MODELS ROWS."""

from __future__ import annotations

import sys

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

COVARIATES = [f"x{k}" for k in range(25)]


def main(models: str, n_rows: int) -> None:
    """Rows come from their numbers and are never in one place."""
    from causal_spark import score

    spark = SparkSession.builder.getOrCreate()
    values = [F.randn(seed).alias(name) for seed, name in enumerate(COVARIATES)]
    rows = spark.range(0, n_rows, 1, 64).select(F.col("id").alias("person"), *values)
    found = score(spark.createDataFrame(pd.read_parquet(models)), rows, row_id="person")
    found.write.format("noop").mode("overwrite").save()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
