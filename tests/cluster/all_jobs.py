"""Run every job, on a cluster with things dying or on Spark Connect, and compare with what one process gives.

Run by the tests beside it with a folder all processes share. Says what it saw as JSON on its last line.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession

from causal_spark.engine import plan
from causal_spark.engine.run import run_in_process
from causal_spark.job import run_job
from tests.cluster.dying import HANGS, Dying
from tests.job_cases import CASES, JobCase, comparable, read, save, seen_by_spark

#: What happens to the first attempt, by job; the panel job has them all.
HOWS = {name: ("worker", "executor", "slow") if name == "panel_effects" else ("worker",) for name in CASES}


def where(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Where executors have the package from."""
    import causal_spark

    for batch in batches:
        yield pa.RecordBatch.from_pydict({"file": [causal_spark.__file__] * batch.num_rows})


def run_and_compare(spark: SparkSession, case: JobCase, home: Path, how: str | None) -> list[int]:
    """Run one job, something happening to it, and compare its tables with what one process gives.

    Returns the number of runs, and of groups: in all, succeeded, failed.
    """
    frames = [case.frame(f"region {k}", k) for k in range(4 if how else 2)]
    save(spark, pd.concat([*frames, case.bad()], ignore_index=True), home)
    config, job, marker = case.config(home, **case.slim), case.job, home / "marker"
    if how is not None:
        job = dataclasses.replace(job, work=lambda config, rows: Dying(case.job.work(config, rows), how, str(marker)))
    began = time.monotonic()
    run_job(spark, job, config)
    seconds = time.monotonic() - began
    assert how is None or marker.exists(), "nothing died"
    assert how != "slow" or seconds < HANGS, "nothing overtook the task that hangs"
    rows = case.job.rows(config, spark.read.format("delta").load(str(home / "input")))
    alone = run_in_process(rows.toPandas(), case.job.work(config, rows))
    for table in ("failures", *case.job_tables):
        found, wanted = seen_by_spark(spark, home, table), comparable(alone.frame(table))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=False, obj=table)
    run = read(spark, home, "runs").collect()
    return [len(run), run[0]["n_groups"], run[0]["n_succeeded"], run[0]["n_failed"]]


def main(folder: Path, *, remote: bool) -> None:
    """See the module."""
    told: dict[str, object] = {}
    if remote:
        spark = SparkSession.builder.remote("local[2]").getOrCreate()
        for name, case in CASES.items():
            told[name] = run_and_compare(spark, case, folder / name, None)
    else:
        spark = SparkSession.builder.appName("all jobs").getOrCreate()
        files = spark.range(0, 20, 1, 4).mapInArrow(where, "file string").distinct().collect()
        told["package"] = sorted(row["file"] for row in files)
        # Many short tasks: some run while another dies.
        plan.TASK_SECONDS = 1e-3
        for name, case in CASES.items():
            for how in HOWS[name]:
                told[f"{name} {how}"] = run_and_compare(spark, case, folder / f"{name}_{how}", how)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), remote=sys.argv[2:] == ["remote"])
