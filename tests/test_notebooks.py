"""The notebooks: in Databricks' format, one per job, and they run and hold what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from causal_spark.jobs import JOB_NAMES
from tests.notebook_runs import NOTEBOOKS, RUNS, check_notebook


def cells(name: str) -> list[str]:
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    head, _, rest = text.partition("\n")
    assert head == "# Databricks notebook source"
    return [cell.strip() for cell in rest.split("# COMMAND ----------")]


@pytest.mark.parametrize("name", JOB_NAMES)
def test_every_job_has_one_in_the_format_of_databricks_that_leads_to_a_decision(name: str) -> None:
    found = cells(name)
    told = [cell for cell in found if cell.startswith("# MAGIC %md")]
    assert all(line.startswith("# MAGIC") for cell in told for line in cell.splitlines())
    # A cell is text or code: a line of text inside code would be run as code there.
    assert all("# MAGIC" not in cell for cell in found if cell not in told)
    title = told[0].splitlines()[1]
    assert title.startswith("# MAGIC # ")
    assert title.endswith("?")
    assert "# MAGIC ## What to decide" in told[-1].splitlines()


def test_there_are_no_others() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(JOB_NAMES) == set(RUNS)


@pytest.mark.spark
def test_one_of_them_runs_on_classic_spark(spark: SparkSession, tmp_path: Path) -> None:
    # All of them run on Spark Connect, in tests/cluster.
    check_notebook("root_causes", tmp_path)
