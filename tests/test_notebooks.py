"""The notebooks: in Databricks' format, one per job, and they run and hold what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from causal_spark.jobs import JOB_NAMES
from causal_spark.show import latest
from tests.notebook_runs import NOTEBOOKS, run_notebook

#: Pictures of each, and the table that others will read.
RUNS = {
    "panel_effects": (3, "panel_effects"),
    "estimator_study": (2, "recommendations"),
    "response_curves": (2, "response_curves"),
    "individual_effects": (2, "policy_values"),
    "root_causes": (2, "root_causes"),
}


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
@pytest.mark.parametrize("name", RUNS)
def test_they_run_draw_and_write(spark: SparkSession, name: str, tmp_path: Path) -> None:
    names, shown = run_notebook(name, tmp_path)
    n_pictures, table = RUNS[name]
    assert sum(isinstance(one, Figure) for one in shown) == n_pictures
    assert all(len(one) > 0 for one in shown if isinstance(one, pd.DataFrame))
    assert names["written"].new
    assert len(latest(names["tables"], table)) > 0
    CLAIMS[name](names)


def claims_of_panel_effects(names: dict[str, Any]) -> None:
    answer = names["answer"]
    effects = answer.drop_duplicates("estimator").set_index("estimator")["estimate"]
    assert len(effects) == 6
    assert -27.5 < effects.min() < effects.max() < -10.5
    assert effects.drop("did").min() > -20.5
    placebo = answer[answer["variance_estimator"] == "placebo"]
    assert (placebo["conf_high"] > 0).sum() >= 4


def claims_of_estimator_study(names: dict[str, Any]) -> None:
    places = names["places"].toPandas()
    assert places.groupby("design")["rmse"].idxmin().map(places["estimator"]).ne("did").all()
    assert names["recommended"]["estimator"] in names["recommended"]["reason"]


def claims_of_response_curves(names: dict[str, Any]) -> None:
    curves = names["curves"].curves.toPandas()
    assert set(curves["sex"]) == {"female", "male"}
    balance = names["curves"].balance.toPandas()
    apart = balance[balance["estimator"] == "e2b"][["correlation_before", "correlation_after"]].abs().mean()
    assert apart["correlation_after"] < 0.5 * apart["correlation_before"]


def claims_of_individual_effects(names: dict[str, Any]) -> None:
    means = names["means"].toPandas()
    assert (means["conf_low"] > 0).all()


def claims_of_root_causes(names: dict[str, Any]) -> None:
    worst = names["worst"].toPandas()
    shares = worst.set_index("node")["contribution"] / worst["contribution"].sum()
    assert shares.drop(["departure_delay", "earlier_delay"]).abs().max() < 0.1


CLAIMS = {
    "panel_effects": claims_of_panel_effects,
    "estimator_study": claims_of_estimator_study,
    "response_curves": claims_of_response_curves,
    "individual_effects": claims_of_individual_effects,
    "root_causes": claims_of_root_causes,
}
