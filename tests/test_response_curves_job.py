"""The response curves job from configuration to Delta tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import ResponseCurves
from causal_spark.config import load_config, parse_config
from causal_spark.engine.curves import CurveWork
from causal_spark.job import describe, report, run_job
from causal_spark.response_curves_job import RESPONSE_CURVES, ResponseCurvesConfig
from tests.written import assert_declared, assert_read_alike

pytestmark = pytest.mark.spark
SHIPPED = Path(__file__).parent.parent / "conf" / "response_curves.yaml"
ESTIMATORS = ["unweighted", "ebct1", {"name": "e2b", "max_steps": 30, "n_waves": 8}]
ROLES = {"treatment": "dose", "outcome": "y", "covariates": ["x", "kind"], "groups": ["region"]}


def individuals() -> pd.DataFrame:
    """Two good regions, with gaps and a category, and one in which everybody has the same dose."""
    parts = []
    for number, region in enumerate(("north", "south", "same")):
        rng = np.random.default_rng(number)
        x = rng.normal(size=120)
        dose = x + rng.normal(size=120) if region != "same" else np.ones(120)
        parts.append(
            pd.DataFrame(
                {
                    "region": region,
                    "x": np.where(rng.random(120) < 0.1, np.nan, x),
                    "kind": rng.choice(["a", "b", None], size=120),
                    "dose": dose,
                    "y": 2 * dose + x + rng.normal(size=120),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def config_for(folder: Path) -> ResponseCurvesConfig:
    tree: dict[str, Any] = {
        "input": {"location": str(folder / "input")},
        "columns": ROLES,
        "estimators": ESTIMATORS,
        "grid": 5,
        "replicates": 20,
        "output": {"location": str(folder / "out")},
    }
    return parse_config(ResponseCurvesConfig, tree)


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    spark.createDataFrame(individuals()).write.format("delta").save(str(folder / "input"))
    assert run_job(spark, RESPONSE_CURVES, config_for(folder)).new
    return folder


def test_tables_are_as_the_contract_says_and_every_reader_sees_them(spark: SparkSession, finished: Path) -> None:
    names = ("runs", "failures", *CurveWork.tables)
    assert_declared(spark, finished / "out", names)
    assert_read_alike(spark, finished / "out", names)


def test_tables_hold_the_bits_that_pandas_gives(spark: SparkSession, finished: Path) -> None:
    result = ResponseCurves(ESTIMATORS, replicates=20).fit(individuals(), grid=5, **ROLES)
    for name, wanted, keys in (
        ("response_curves", result.curves, ["group_id", "estimator", "dose"]),
        ("balance", result.balance, ["group_id", "estimator", "covariate", "moment"]),
        ("failures", result.failures, ["group_id", "stage", "error_class"]),
    ):
        found = spark.read.format("delta").load(str(finished / "out" / name)).toPandas().drop(columns="run_id")
        found, wanted = (frame.sort_values(keys, ignore_index=True) for frame in (found, wanted))
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True, check_dtype=False, obj=name)
    assert set(result.curves["region"]) == {"north", "south"}
    assert result.failures.query("kind != 'warned'")["error_class"].tolist() == ["TreatmentSupportError"]


def test_a_second_run_is_none_and_people_are_told_the_curves(spark: SparkSession, finished: Path) -> None:
    again = run_job(spark, RESPONSE_CURVES, config_for(finished))
    assert not again.new
    said = report(spark, RESPONSE_CURVES, again)
    assert "already there" in said
    for expected in ("north", "south", "e2b", "dose_1", "All rows have the treatment 1"):
        assert expected in said
    planned = describe(spark, RESPONSE_CURVES, config_for(finished))
    assert "3 groups" in planned
    assert "nothing was estimated" in planned


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    config = load_config(ResponseCurvesConfig, str(SHIPPED))
    assert set(type(config).model_fields) == config.model_fields_set
    assert set(type(config.columns).model_fields) == config.columns.model_fields_set
