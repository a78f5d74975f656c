"""The job from configuration to Delta tables: once, whole, visible at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal_spark import PanelEffects
from causal_spark.engine.panels import PanelWork
from causal_spark.errors import InputError
from causal_spark.job import describe, report, run_job
from causal_spark.panel_effects_job import PANEL_EFFECTS
from tests.frames import ROLES, grouped, long_panel, messy_panels
from tests.panel_jobs import FRAME, config_for, read, save
from tests.written import assert_declared, assert_read_alike

pytestmark = pytest.mark.spark
ROOT = Path(__file__).parent.parent
WRITTEN = ("runs", "failures", *PanelWork.tables)


@pytest.fixture(scope="module")
def kept(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input, not to be written to."""
    folder = tmp_path_factory.mktemp("kept")
    save(spark, FRAME, folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the job has run over good and bad panels."""
    folder = tmp_path_factory.mktemp("finished")
    save(spark, messy_panels(), folder)
    assert run_job(spark, PANEL_EFFECTS, config_for(folder)).new
    return folder


def test_tables_hold_what_the_python_face_says_and_leave_no_scratch(spark: SparkSession, finished: Path) -> None:
    result = PanelEffects(["did", "sdid"]).fit(messy_panels(), groups=["region"], **ROLES)
    keys = ["group_id", "estimator"]
    found = read(spark, finished, "panel_effects").toPandas().sort_values(keys, ignore_index=True)
    wanted = result.effects.sort_values(keys, ignore_index=True)
    timeless = [column for column in wanted if column != "seconds"]
    pd.testing.assert_frame_equal(found[timeless], wanted[timeless], check_exact=True, check_dtype=False)
    run = read(spark, finished, "runs").collect()
    assert len(run) == 1
    assert set(found["run_id"]) == {run[0]["run_id"]}
    assert run[0]["status"] == "succeeded"
    for name in ("n_groups", "n_succeeded", "n_declined", "n_failed", "rows_read"):
        assert run[0][name] == getattr(result.summary, name)
    tables = ("effects", "variances", "event_study", "cells", "weights", "tuning_path", "failures")
    assert run[0]["rows_written"] == sum(len(getattr(result, name)) for name in tables)
    assert set(json.loads(run[0]["seconds_by_estimator"])) == {"did", "sdid"}
    assert not list((finished / "out" / "_work").glob("*"))


def test_every_table_is_declared_as_the_contract_says(spark: SparkSession, finished: Path) -> None:
    assert_declared(spark, finished / "out", WRITTEN)


@pytest.mark.parametrize(
    ("column", "value"), [("estimate", "double('NaN')"), ("pre_rmse", "-1D"), ("pre_rmse", "double('Infinity')")]
)
def test_impossible_numbers_cannot_be_written(spark: SparkSession, finished: Path, column: str, value: str) -> None:
    row = read(spark, finished, "panel_effects").limit(1).withColumn(column, F.expr(value))
    with pytest.raises(Exception, match=f"DELTA_VIOLATE_CONSTRAINT.*{column}"):
        row.write.format("delta").mode("append").save(str(finished / "out" / "panel_effects"))


def test_deltalake_reads_every_table_with_sparks_values(spark: SparkSession, finished: Path) -> None:
    assert_read_alike(spark, finished / "out", WRITTEN, may_be_empty={"tuning_path"})


def test_warnings_are_told_from_failures_in_the_report(spark: SparkSession, folder: Path) -> None:
    gap = long_panel().assign(year=lambda frame: frame["year"].replace({2009: 2030}))
    save(spark, grouped(gap=gap, other=gap, declined=long_panel().assign(w=0)), folder)
    said = report(spark, PANEL_EFFECTS, run_job(spark, PANEL_EFFECTS, config_for(folder)))
    missing, _, warned = said.partition("Declined or failed")[2].partition("to be read with this in mind")
    assert missing.count("NoTreatedCells") == missing.count("warned") == 0
    assert missing.count("declined") > warned.count("declined") == 0
    assert warned.count("UnevenPeriods") == 1
    assert "from 2008 to 2030" in warned
    run = read(spark, folder, "runs").collect()[0]
    assert (run["n_succeeded"], run["n_declined"], run["n_failed"]) == (2, 1, 0)


def test_columns_are_renamed_on_reading(spark: SparkSession, folder: Path) -> None:
    save(spark, FRAME.rename(columns={"region": "estimate"}), folder)
    columns = ROLES | {"groups": ["region"], "rename": {"estimate": "region"}}
    assert run_job(spark, PANEL_EFFECTS, config_for(folder, columns=columns)).new
    with pytest.raises(InputError, match="rename names 'nope'"):
        run_job(spark, PANEL_EFFECTS, config_for(folder, columns=columns | {"rename": {"nope": "region"}}))


def test_a_dry_run_tells_what_would_happen_and_writes_no_result(spark: SparkSession, folder: Path) -> None:
    text = describe(spark, PANEL_EFFECTS, config_for(folder))
    for word in ("north", "south", "did sdid", "120", "panel_effects", "core seconds", "placebo", "GiB", "any worker"):
        assert word in text
    assert "too_large" not in text
    assert not (folder / "out").exists()


def test_a_dry_run_says_what_would_not_fit_into_memory(spark: SparkSession, folder: Path) -> None:
    config = config_for(folder, estimators=["did", "mc"], worker_memory=5e-5)
    line = next(line for line in describe(spark, PANEL_EFFECTS, config).splitlines() if " north " in line)
    assert line.split()[-1] == "mc"
    assert " did " in line
    text = describe(spark, PANEL_EFFECTS, config_for(folder, worker_memory=1e-6))
    assert "0 waves" in text
    assert "A task may use" in text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"estimators": ["nope"]}, 2),
        ({"output": {"location": "nowhere"}}, 2),
        ({"columns": ROLES | {"groups": ["nope"]}}, 3),
        ({"input": {"location": "/nowhere/at/all"}}, 3),
        ({"input": {"location": "example:polices"}}, 2),
        ({"max_failed_fraction": 0.0, "columns": ROLES | {"groups": []}}, 4),
    ],
)
def test_exit_codes(spark: SparkSession, folder: Path, changes: dict[str, Any], code: int) -> None:
    tree = json.loads(config_for(folder).model_dump_json()) | changes
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert PANEL_EFFECTS.main(["--config", str(path)]) == code


@pytest.mark.cluster
def test_spark_submit_runs_the_example_into_delta(tmp_path: Path) -> None:
    spark_submit = Path(sys.executable).parent / "spark-submit"
    settings = ["estimators=[did, sdid]", f"output.location={tmp_path}/out"]
    command = [str(spark_submit), "jobs/panel_effects.py", "--config", "conf/panel_effects.yaml"]
    done = subprocess.run(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "wave 1/1: 7 groups done, 0 declined, 0 failed" in done.stdout
    effects = DeltaTable(str(tmp_path / "out" / "panel_effects")).to_pandas()
    sdid = effects[(effects["source"] == "prop99") & (effects["estimator"] == "sdid")]["estimate"].item()
    assert sdid == pytest.approx(-15.6054, abs=0.005)
    assert f"{tmp_path}/out" in done.stdout
    assert "-15.605" in done.stdout
