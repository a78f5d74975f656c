"""The examples of docs/tables.md: Spark, DuckDB and polars answer readers' questions alike, and rightly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark.job import run_job
from causal_spark.panel_effects_job import PANEL_EFFECTS
from tests.frames import grouped, long_panel
from tests.panel_jobs import config_for, read, save
from tests.written import delta_reader

pytestmark = [pytest.mark.spark, pytest.mark.reruns]
TEXT = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")
FOLDER = TEXT.partition("### In a folder")[2].partition("### With polars")[0]
IN_SPARK, IN_DUCKDB, *QUERIES = re.findall(r"```sql\n(.*?)```", FOLDER, re.DOTALL)
(POLARS,) = re.findall(r"```python\n(.*?)```", TEXT.partition("### With polars")[2], re.DOTALL)
NAMES = ("effects", "reasons", "changes")


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one analysis: north vanishes after the first, south changes, east comes; the last was forced."""
    folder = tmp_path_factory.mktemp("reading")
    config = config_for(folder, variances=["placebo", "unit_time"])
    south = long_panel(seed=2, n_treated=2)
    save(spark, grouped(north=long_panel(seed=1), same=long_panel(seed=5), south=south), folder)
    run_job(spark, PANEL_EFFECTS, config)
    moved = south.assign(y=south["y"] + 3 * south["w"])
    doubled = pd.concat([long_panel()] * 2)
    save(spark, grouped(bad=doubled, east=long_panel(seed=3), same=long_panel(seed=5), south=moved), folder)
    for force in (False, True):
        run_job(spark, PANEL_EFFECTS, config, force=force)
    return folder


@pytest.fixture(scope="module")
def answers(spark: SparkSession, written: Path) -> dict[str, list[pd.DataFrame]]:
    """Per question, what Spark, DuckDB and polars answer."""
    session = spark.newSession()
    for statement in placed(IN_SPARK, written).split(";"):
        if statement.strip():
            session.sql(statement)
    database = duckdb.connect()
    database.execute(f"LOAD '{delta_reader()}'")
    database.execute(placed(IN_DUCKDB, written))
    names: dict[str, Any] = {}
    exec(placed(POLARS, written), names)  # noqa: S102 - it is our own page
    found = {}
    for name, query in zip(NAMES, QUERIES, strict=True):
        every = [session.sql(query).toPandas(), database.execute(query).df(), names[name].to_pandas()]
        columns = list(every[0].columns)
        found[name] = [plain(frame[columns]) for frame in every]
    return found


def placed(text: str, folder: Path) -> str:
    assert "/path/to/output" in text
    return text.replace("/path/to/output", str(folder / "out"))


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    told = frame.astype(object).where(frame.notna(), None)
    return told.sort_values(list(told.columns), ignore_index=True, key=lambda one: one.astype(str))


@pytest.mark.parametrize("name", NAMES)
def test_readers_answer_alike(answers: dict[str, list[pd.DataFrame]], name: str) -> None:
    spark, *others = answers[name]
    assert len(spark) > 0
    for other in others:
        pd.testing.assert_frame_equal(other, spark, check_dtype=False, check_exact=True, obj=name)


def test_latest_effects_have_the_preferred_error_bar(
    spark: SparkSession, written: Path, answers: dict[str, list[pd.DataFrame]]
) -> None:
    effects = answers["effects"][0]
    newest = read(spark, written, "runs").orderBy("finished_at", ascending=False).first()
    assert newest is not None
    assert set(effects["run_id"]) == {newest["run_id"]}
    assert sorted(effects["region"]) == ["east", "east", "same", "same", "south", "south"]
    assert set(effects["variance_estimator"]) == {"unit_time"}
    assert effects["std_error"].gt(0).all()


def test_reasons_name_the_group_that_failed(answers: dict[str, list[pd.DataFrame]]) -> None:
    reasons = answers["reasons"][0]
    failed = reasons[reasons["kind"] == "failed"]
    assert failed[["error_class", "stage", "n_groups"]].to_numpy().tolist() == [["DuplicateCellError", "read", 1]]
    assert failed["hint"].str.len().gt(10).all()


def test_changes_are_those_of_the_input(answers: dict[str, list[pd.DataFrame]]) -> None:
    changes = answers["changes"][0]
    region = changes["group_id"].str.extract(r'"string":"(\w+)"')[0]
    kinds = {
        name: (part["was"].notna().all(), part["now_is"].notna().all(), len(part))
        for name, part in changes.groupby(region)
    }
    assert kinds == {"north": (True, False, 2), "east": (False, True, 2), "south": (True, True, 2)}
    south = changes[region == "south"]
    assert (south["now_is"] - south["was"]).astype(float).to_numpy() == pytest.approx([3.0, 3.0], abs=1e-6)
