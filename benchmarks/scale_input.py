"""Make the input of `benchmarks.scale` where the job will read it: ``spark-submit benchmarks/scale_input.py N FOLDER``.

N panels of 20 units and 20 periods, 2 units treated in the last 5; unit effects, time effects and noise are normal.
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

UNITS, PERIODS, TREATED, POST = 20, 20, 2, 5
PANELS_PER_FILE = 2_500


def main(n_panels: int, folder: str) -> None:
    """Write the table as Parquet."""
    spark = SparkSession.builder.appName("input").getOrCreate()
    cells = UNITS * PERIODS
    rows = spark.range(0, n_panels * cells, 1, -(-n_panels // PANELS_PER_FILE)).select(
        F.expr(f"id div {cells}").alias("panel"),
        F.expr(f"(id % {cells}) div {PERIODS}").alias("unit"),
        F.expr(f"id % {PERIODS}").alias("period"),
        F.randn(1).alias("noise"),
    )
    effect = F.expr("xxhash64(panel, unit) / 9.2e18") + F.expr("xxhash64(panel, period, 1) / 9.2e18")
    treated = (F.col("unit") >= UNITS - TREATED) & (F.col("period") >= PERIODS - POST)
    table = rows.withColumn("outcome", effect + F.col("noise") + treated.cast("double"))
    table.withColumn("treated", treated.cast("int")).drop("noise").write.parquet(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
