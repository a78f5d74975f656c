"""Upkeep takes what nobody sees, and nothing else."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from causal_spark.config import load_config
from causal_spark.errors import InputError, WriteError
from causal_spark.job import run_job
from causal_spark.lake.locations import output_location
from causal_spark.lake.upkeep import UpkeepOptions, commit, upkeep
from causal_spark.upkeep_job import UpkeepConfig, main, run_upkeep
from tests.job_cases import CASES, read, save, seen, visible

SHIPPED = Path(__file__).parents[2] / "conf" / "upkeep.yaml"
CASE = CASES["response_curves"]


def ids(spark: SparkSession, folder: Path, name: str) -> set[str]:
    return {row["run_id"] for row in read(spark, folder, name).select("run_id").distinct().collect()}


@pytest.mark.spark
@pytest.mark.reruns
def test_upkeep_removes_what_nobody_sees_and_nothing_else(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(spark, CASE.good(), tmp_path)
    older, repeated, forced = (
        run_job(spark, CASE.job, CASE.config(tmp_path, seed=seed), force=force).run_id
        for seed, force in ((5, False), (6, False), (6, True))
    )
    location = output_location(str(tmp_path / "out"))
    first = CASE.job_tables[0]
    before, history = ({name: told(tmp_path, name) for name in CASE.job_tables} for told in (seen, visible))
    # What was committed within the retention may be about to become visible.
    assert not any(one.run_ids for one in upkeep(spark, location, UpkeepOptions()))
    hasty = UpkeepOptions(retention=dt.timedelta(0), vacuum=False)
    told = upkeep(spark, location, hasty, dry_run=True)
    assert [(one.table, one.run_ids) for one in told if one.run_ids] == [
        (name, (repeated,)) for name in CASE.job_tables
    ]
    assert ids(spark, tmp_path, first) == {older, repeated, forced}
    assert upkeep(spark, location, hasty) == told
    assert ids(spark, tmp_path, first) == {older, forced}
    for name in CASE.job_tables:
        assert seen(tmp_path, name).equals(before[name])
        assert visible(tmp_path, name).equals(history[name])
    superseding = UpkeepOptions(dt.timedelta(0), superseded=dt.timedelta(0), optimize=False, vacuum=False)
    assert upkeep(spark, location, superseding)[0].run_ids == (older, repeated)
    assert ids(spark, tmp_path, first) == ids(spark, tmp_path, "runs") == {forced}
    assert seen(tmp_path, first).equals(before[first])
    # A run that upkeep has removed is made again, whoever asks for it.
    assert run_job(spark, CASE.job, CASE.config(tmp_path, seed=5)).new
    with pytest.raises(WriteError, match="VACUUM"):
        commit(spark, f"VACUUM {location.table(first).sql} RETAIN x HOURS")
    command = ["--config", str(SHIPPED), "--set", f"location={tmp_path}/out"]
    assert main([*command, "--dry-run"]) == 0
    assert "Dry run" in capsys.readouterr().out
    assert main(command) == 0
    assert "No row that nobody sees" in capsys.readouterr().out


@pytest.mark.spark
def test_where_there_are_no_tables_there_is_nothing_to_keep(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table runs"):
        run_upkeep(spark, UpkeepConfig(location=str(tmp_path / "nowhere")))


def test_old_scratch_goes_and_that_of_a_run_in_progress_stays(tmp_path: Path) -> None:
    from causal_spark.upkeep_job import old_scratch

    week_ago = time.time() - 8 * 86400
    for name in ("dead", "alive"):
        (tmp_path / name / "packed").mkdir(parents=True)
        file = tmp_path / name / "packed" / "part-0.parquet"
        file.write_bytes(b"")
        if name == "dead":
            for path in (file, file.parent, file.parents[1]):
                os.utime(path, (week_ago, week_ago))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=7)
    assert [path.name for path in old_scratch(str(tmp_path), before)] == ["dead"]
    assert old_scratch("s3://bucket/work", before) == []


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    assert load_config(UpkeepConfig, str(SHIPPED)).model_fields_set == set(UpkeepConfig.model_fields)
