"""Runs of the panel job: each once, whole, visible at its end, whatever happens in between."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal_spark import PanelEffects
from causal_spark.engine import run as running
from causal_spark.engine.panels import PanelWork
from causal_spark.errors import TableShapeError, TooManyFailuresError, WriteError
from causal_spark.job import report, run_job
from causal_spark.lake import tables as lake_tables
from causal_spark.lake import views
from causal_spark.lake.locations import Place, output_location
from causal_spark.lake.schemas import TABLES, group_columns
from causal_spark.panel_effects_job import PANEL_EFFECTS, PanelEffectsConfig
from tests import panel_jobs
from tests.frames import ROLES, grouped, long_panel
from tests.panel_jobs import FRAME, read, save, visible

pytestmark = [pytest.mark.spark, pytest.mark.reruns]
TABLES_PAGE = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")


def config_for(folder: Path, **changes: Any) -> PanelEffectsConfig:
    """A configuration whose runs append to few tables, each of which takes a second."""
    few = {"variances": [], "output": {"location": str(folder / "out"), "cells": "none"}}
    return panel_jobs.config_for(folder, **few | changes)


@pytest.fixture(scope="module")
def bare(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input, not to be written to."""
    folder = tmp_path_factory.mktemp("bare")
    save(spark, FRAME, folder)
    return folder


@pytest.fixture(scope="module")
def empty(spark: SparkSession, bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with result tables without rows: making them takes as long as a run."""
    folder = tmp_path_factory.mktemp("empty")
    shutil.copytree(bare, folder, dirs_exist_ok=True)
    groups = group_columns((("region", "STRING"),))
    names = ("runs", "failures", *PanelWork.tables)
    lake_tables.ensure_tables(spark, output_location(str(folder / "out")), names, groups)
    return folder


@pytest.fixture
def folder(empty: Path, tmp_path: Path) -> Path:
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_rerun_is_a_no_op_that_says_so_and_force_makes_a_new_attempt(spark: SparkSession, folder: Path) -> None:
    config = config_for(folder)
    first = run_job(spark, PANEL_EFFECTS, config)
    again = run_job(spark, PANEL_EFFECTS, config)
    assert (again.new, again.run_id) == (False, first.run_id)
    assert "already there" in report(spark, PANEL_EFFECTS, again)
    assert read(spark, folder, "panel_effects").count() == 4
    forced = run_job(spark, PANEL_EFFECTS, config, force=True)
    assert forced.new
    assert read(spark, folder, "panel_effects").count() == 8
    assert set(visible(spark, folder, "panel_effects")["run_id"]) == {forced.run_id}


def test_what_changed_in_input_configuration_or_code_is_run_again(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        run_job(spark, PANEL_EFFECTS, config_for(folder)),
        run_job(spark, PANEL_EFFECTS, config_for(folder, seed=9)),
    ]
    save(spark, FRAME.assign(y=FRAME["y"] * 2), folder)
    runs.append(run_job(spark, PANEL_EFFECTS, config_for(folder)))
    monkeypatch.setattr("causal_spark.engine.publish.code_version", lambda: "corrected")
    runs.append(run_job(spark, PANEL_EFFECTS, config_for(folder)))
    assert all(run.new for run in runs)
    assert len({run.run_key for run in runs}) == 4


def test_the_users_own_run_key_decides_and_is_never_a_path(spark: SparkSession, folder: Path) -> None:
    other = folder / "out" / "kept"
    other.mkdir(parents=True)
    first = run_job(spark, PANEL_EFFECTS, config_for(folder, run_key=".."))
    second = run_job(spark, PANEL_EFFECTS, config_for(folder, run_key="..", seed=9))
    assert (first.run_key, second.new) == ("..", False)
    assert other.exists()


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_files_without_versions_are_known_by_their_listing(
    spark: SparkSession, tmp_path: Path, file_format: str
) -> None:
    save(spark, FRAME, tmp_path, file_format)
    config = config_for(tmp_path, input={"location": str(tmp_path / "input"), "format": file_format})
    assert run_job(spark, PANEL_EFFECTS, config).new
    assert not run_job(spark, PANEL_EFFECTS, config).new
    save(spark, FRAME.assign(y=FRAME["y"] + 1), tmp_path, file_format)
    assert run_job(spark, PANEL_EFFECTS, config).new


def test_views_are_known_by_their_content(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS raw")
    spark.createDataFrame(FRAME).write.mode("overwrite").format("parquet").saveAsTable("raw.panels")
    config = config_for(tmp_path, input={"location": "raw.panels"})
    assert run_job(spark, PANEL_EFFECTS, config).new
    assert not run_job(spark, PANEL_EFFECTS, config).new


def test_a_catalog_schema_takes_the_tables_and_views_show_the_latest(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS effects_out")
    output = {"location": "spark_catalog.effects_out", "work_location": str(folder / "work")}
    placebo = {"output": output, "variances": ["placebo"]}
    run_job(spark, PANEL_EFFECTS, config_for(folder, **placebo))
    written = run_job(spark, PANEL_EFFECTS, config_for(folder, seed=8, **placebo))
    assert spark.table("effects_out.panel_effects").count() == 8
    for name in ("runs", "failures", *PanelWork.tables):
        table, view = spark.table(f"effects_out.{name}"), spark.table(f"effects_out.{name}_latest")
        assert [(one.name, one.metadata["comment"]) for one in view.schema.fields] == [
            (one.name, one.metadata["comment"]) for one in table.schema.fields
        ]
        assert {row["run_id"] for row in view.select("run_id").collect()} <= {written.run_id}
    effects = spark.table("effects_out.panel_effects_latest")
    assert effects.count() == 4
    (example,) = re.findall(
        r"```sql\n(.*?)```", TABLES_PAGE.partition("### In a catalog")[2].partition("###")[0], re.DOTALL
    )
    assert spark.sql(example.replace("spark_catalog.effects.", "effects_out.")).count() == 4
    assert not run_job(spark, PANEL_EFFECTS, config_for(folder, seed=8, **placebo)).new
    said = report(spark, PANEL_EFFECTS, written)
    assert "did" in said
    (shown,) = re.findall(r"^  (SELECT .*)$", said, re.MULTILINE)
    assert spark.sql(shown).count() == 4
    # A view of an older contract is made anew; one that is as it should be is not.
    spark.sql("CREATE OR REPLACE VIEW effects_out.panel_effects_latest AS SELECT run_id FROM effects_out.panel_effects")
    made: list[str] = []
    monkeypatch.setattr(views, "view_statement", spy_on_schema(views.view_statement, made))
    location = output_location("spark_catalog.effects_out")
    views.ensure_views(spark, location, PanelWork.tables, group_columns((("region", "STRING"),)))
    assert made == ["panel_effects"]
    assert spark.table("effects_out.panel_effects_latest").columns == effects.columns


def spy_on_schema(function: Any, seen: list[str]) -> Any:
    def called(schema: Any, location: Any) -> Any:
        seen.append(schema.name)
        return function(schema, location)

    return called


class KilledError(BaseException):
    """Stands for a process that is gone: nothing in the job may catch it."""


def test_a_killed_run_shows_nothing_and_the_next_goes_on_where_it_was(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("causal_spark.engine.plan.WAVE_SECONDS", 1e-3)
    ran: list[int] = []
    original = running._run_wave

    def dies_at_the_second_wave(planned: Any, work: Any, wave: Any, path: str) -> None:
        if wave.number == 1 and not ran.count(-1):
            ran.append(-1)
            raise KilledError
        ran.append(wave.number)
        original(planned, work, wave, path)

    monkeypatch.setattr(running, "_run_wave", dies_at_the_second_wave)
    with pytest.raises(KilledError):
        run_job(spark, PANEL_EFFECTS, config_for(folder))
    assert read(spark, folder, "runs").count() == 0
    with caplog.at_level(logging.INFO, "causal_spark"):
        written = run_job(spark, PANEL_EFFECTS, config_for(folder))
    assert ran == [0, -1, 1]
    assert "wave 1/2: taken over" in caplog.text
    assert written.new
    assert visible(spark, folder, "panel_effects")["region"].value_counts().to_dict() == {"north": 2, "south": 2}


def test_a_commit_whose_answer_was_lost_is_not_repeated(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, saved = Place.save, []

    def saves_and_fails(place: Place, writer: Any) -> None:
        original(place, writer)
        saved.append(place.address)
        if place.address.endswith("/panel_effects"):
            raise RuntimeError("DELTA_CONCURRENT_WRITE, or so it seemed")

    monkeypatch.setattr(Place, "save", saves_and_fails)
    monkeypatch.setattr(lake_tables.time, "sleep", lambda seconds: None)
    assert run_job(spark, PANEL_EFFECTS, config_for(folder)).new
    assert sum(address.endswith("/panel_effects") for address in saved) == 1
    assert read(spark, folder, "panel_effects").count() == 4


@pytest.mark.parametrize("times", [0, 2])
def test_rows_that_did_not_land_once_are_noticed(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    original = lake_tables.append_rows

    def appends(place: Place, rows: Any, commit: Any) -> None:
        for _ in range(times):
            original(place, rows, commit)

    monkeypatch.setattr(lake_tables, "append_rows", appends)
    with pytest.raises(WriteError, match=f"panel_effects: {4 * times} of 4"):
        run_job(spark, PANEL_EFFECTS, config_for(folder))
    assert read(spark, folder, "runs").count() == 0


def test_too_many_failures_show_their_reasons_and_no_results(spark: SparkSession, folder: Path) -> None:
    save(spark, grouped(good=long_panel(), bad=pd.concat([long_panel()] * 2), worse=long_panel().assign(w=2)), folder)
    with pytest.raises(TooManyFailuresError, match="2 of 3 groups failed"):
        run_job(spark, PANEL_EFFECTS, config_for(folder))
    assert read(spark, folder, "runs").collect()[0]["status"] == "failed"
    assert read(spark, folder, "failures").count() == 2
    assert read(spark, folder, "panel_effects").count() == 0
    assert not list((folder / "out").glob("_work/*"))
    assert run_job(spark, PANEL_EFFECTS, config_for(folder, max_failed_fraction=0.7)).new
    assert visible(spark, folder, "panel_effects")["region"].unique().tolist() == ["good"]


def test_another_shape_of_groups_is_refused_and_named(spark: SparkSession, folder: Path) -> None:
    run_job(spark, PANEL_EFFECTS, config_for(folder))
    save(spark, FRAME.rename(columns={"region": "area"}), folder)
    other = config_for(folder, columns=ROLES | {"groups": ["area"]})
    with pytest.raises(TableShapeError, match=r"lacks \[area string\] and has \[region string\]"):
        run_job(spark, PANEL_EFFECTS, other)


def test_results_of_pandas_and_spark_frames_can_be_written_once(spark: SparkSession, tmp_path: Path) -> None:
    fits = [
        PanelEffects(["did"]).fit(frame, groups=["region"], **ROLES) for frame in (FRAME, spark.createDataFrame(FRAME))
    ]
    first = fits[0].write(str(tmp_path / "out"), spark=spark)
    again = fits[0].write(str(tmp_path / "out"), spark=spark)
    assert (first.new, again.new) == (True, False)
    second = fits[1].write(str(tmp_path / "out"), force=True)
    named = fits[1].write(str(tmp_path / "out"), run_key="mine")
    assert second.new
    assert named.new
    assert len({first.run_id, second.run_id, named.run_id}) == 3
    frames = [
        read(spark, tmp_path, "panel_effects").where(f"run_id = '{run.run_id}'").drop("run_id", "seconds").toPandas()
        for run in (first, second)
    ]
    pd.testing.assert_frame_equal(*(frame.sort_values("group_id", ignore_index=True) for frame in frames))


def test_tables_of_an_older_contract_take_the_newer_columns(
    spark: SparkSession, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "older"
    shutil.copytree(bare, folder)
    table = TABLES["panel_effects"]
    older = dataclasses.replace(table, columns=table.columns[:-3])
    groups = group_columns((("region", "STRING"),))
    place = output_location(str(folder / "out")).table(table.name)
    lake_tables.ensure_table(spark, place, older.with_groups(groups))
    seen: list[str] = []
    monkeypatch.setattr(lake_tables, "_commit_statement", spy(lake_tables._commit_statement, seen))
    run_job(spark, PANEL_EFFECTS, config_for(folder, estimators=["did"]))
    assert len(seen) == 4
    found = [(field.name, field.metadata["comment"]) for field in read(spark, folder, table.name).schema.fields]
    assert found == [(column.name, column.comment) for column in table.with_groups(groups).all_columns]
    run_job(spark, PANEL_EFFECTS, config_for(folder, estimators=["did"], seed=9))
    assert len(seen) == 4
    with pytest.raises(TableShapeError, match=r"constancy_weight double"):
        lake_tables.ensure_table(spark, place, older.with_groups(groups))
    row = read(spark, folder, table.name).limit(1).withColumn("constancy_weight", F.lit(1.5))
    with pytest.raises(Exception, match=r"DELTA_VIOLATE_CONSTRAINT.*constancy_weight"):
        row.write.format("delta").mode("append").save(place.address)


def spy(function: Any, seen: list[Any]) -> Any:
    def called(*arguments: Any) -> Any:
        seen.append(arguments[-1])
        return function(*arguments)

    return called
