"""`EstimatorStudy` and its job: settings, tables, the same bits from pandas and from Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import EstimatorStudy
from causal_spark.config import load_config, parse_config
from causal_spark.engine.studies import StudyWork
from causal_spark.errors import ConfigError, InputError
from causal_spark.estimator_study_job import ESTIMATOR_STUDY, EstimatorStudyConfig
from causal_spark.job import describe, report, run_job
from tests.frames import ROLES, grouped, long_panel
from tests.written import assert_declared, assert_read_alike

SHIPPED = Path(__file__).parent.parent / "conf" / "estimator_study.yaml"
FRAME = grouped(
    north=long_panel(n_units=14, n_periods=12, n_treated=2, seed=1),
    south=long_panel(n_units=16, n_periods=11, n_treated=3, seed=2),
    bad=long_panel().assign(w=2),
)
QUICK: dict[str, Any] = {
    "estimators": ["did", "sdid"],
    "variances": [{"name": "placebo", "replicates": 10}],
    "replicates": 8,
    "variance_replicates": 6,
    "seed": 4,
}
KEYS = ["group_id", "design", "effect_shape", "estimator", "variance_estimator", "noise_quartile"]


def test_a_study_says_what_to_use_in_every_group() -> None:
    found = EstimatorStudy(**QUICK).fit(FRAME, groups=["region"], **ROLES)
    assert (found.summary.n_succeeded, found.summary.n_failed) == (2, 1)
    assert found.recommendations["region"].tolist() == ["north", "south"]
    assert found.recommendations["estimator"].isin(["did", "sdid"]).all()
    assert found.recommendations["reason"].str.contains("RMSE").all()
    table = found.estimators
    assert table.groupby(["region", "design", "effect_shape"])["place"].apply(lambda one: sorted(one) == [1, 2]).all()
    best = table[table["place"] == 1]
    assert (best["normalised_rmse"] == 1).all()
    assert table["n_replicates"].eq(8).all()
    assert found.variances["coverage"].between(0, 1).all()
    assert found.failures["group_id"].str.contains("bad").tolist() == [True]


def test_the_seed_decides_and_draws_are_those_of_the_number() -> None:
    one, same, other = (
        EstimatorStudy(**QUICK | {"seed": seed, "variances": []}).fit(FRAME, groups=["region"], **ROLES).estimators
        for seed in (4, 4, 5)
    )
    pd.testing.assert_frame_equal(one, same)
    assert not np.allclose(one["rmse"], other["rmse"])


def test_effect_by_which_power_is_judged() -> None:
    small, large = (
        EstimatorStudy(**QUICK, effect=effect).fit(FRAME, groups=["region"], **ROLES).variances
        for effect in (1e-6, 1e6)
    )
    assert large["power"].eq(1).all()
    assert (small["power"] == 1 - small["coverage"]).all()
    assert small["power_effect"].eq(1e-6).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"simulation": {"assignments": "uniform"}}, "Did you mean 'assignment'"),
        ({"simulation": {"assignment": "random"}}, "simulation.assignment"),
        ({"simulation": {"rank": 0}}, "rank must be at least 1"),
        ({"designs": ["calibratd"]}, "designs"),
        ({"effects": ["ramp"]}, "must start with constant"),
        ({"effect": 0.0}, "effect is 0"),
        ({"replicates": 1}, "replicates"),
        ({"variance_replicates": 9}, "no more than that"),
        ({"without_variances": ["sidd"]}, "without_variances names 'sidd'"),
        ({"estimators": ["ddi"]}, "Unknown estimator"),
        ({"variances": ["plasebo"]}, "Unknown variance"),
    ],
)
def test_mistakes_are_told_before_anything_runs(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EstimatorStudy(**QUICK | settings).fit(FRAME, groups=["region"], **ROLES)
    tree = {
        "input": {"location": "./x"},
        "columns": ROLES | {"groups": ["region"]},
        "output": {"location": "./out"},
        **QUICK,
    }
    with pytest.raises(ConfigError, match=f"{says}|replicates|greater"):
        parse_config(EstimatorStudyConfig, tree | settings)


def test_a_policy_goes_with_factors_only() -> None:
    frame = FRAME.assign(p=1)
    with pytest.raises(ConfigError, match="assignment is uniform"):
        EstimatorStudy(**QUICK).fit(frame, groups=["region"], policy="p", **ROLES)
    with pytest.raises(InputError, match="'q' \\(policy\\)"):
        EstimatorStudy(**QUICK, simulation={"assignment": "factors"}).fit(frame, groups=["region"], policy="q", **ROLES)
    with pytest.raises(ConfigError, match="without covariates"):
        load_config(EstimatorStudyConfig, str(SHIPPED), ["columns.covariates=[x]"])


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    config = load_config(EstimatorStudyConfig, str(SHIPPED))
    assert set(type(config).model_fields) == config.model_fields_set
    assert set(type(config.columns).model_fields) == config.columns.model_fields_set
    assert set(type(config.input).model_fields) == config.input.model_fields_set


def config_for(folder: Path, **changes: Any) -> EstimatorStudyConfig:
    tree: dict[str, Any] = {
        "input": {"location": str(folder / "input"), "where": "region <> 'other'"},
        "columns": ROLES | {"groups": ["region"]},
        **QUICK,
        "output": {"location": str(folder / "out")},
    }
    return parse_config(EstimatorStudyConfig, tree | changes)


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    rows = pd.concat([FRAME, long_panel().assign(region="other")]).sample(frac=1, random_state=6)
    spark.createDataFrame(rows).repartition(3).write.format("delta").save(str(folder / "input"))
    assert run_job(spark, ESTIMATOR_STUDY, config_for(folder)).new
    return folder


@pytest.mark.spark
def test_tables_are_as_the_contract_says_and_hold_the_bits_that_pandas_gives(
    spark: SparkSession, finished: Path
) -> None:
    names = ("runs", "failures", *StudyWork.tables)
    assert_declared(spark, finished / "out", names)
    assert_read_alike(spark, finished / "out", names)
    result = EstimatorStudy(**QUICK).fit(FRAME, groups=["region"], **ROLES)
    for name, wanted in zip(
        StudyWork.tables, (result.estimators, result.variances, result.recommendations), strict=True
    ):
        found = spark.read.format("delta").load(str(finished / "out" / name)).toPandas().drop(columns="run_id")
        keys = [key for key in KEYS if key in wanted]
        found, wanted = (frame.sort_values(keys, ignore_index=True) for frame in (found, wanted))
        assert len(wanted) > 0
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True, check_dtype=False, obj=name)


@pytest.mark.spark
def test_a_second_run_is_none_and_people_are_told_what_to_use(spark: SparkSession, finished: Path) -> None:
    again = run_job(spark, ESTIMATOR_STUDY, config_for(finished))
    assert not again.new
    said = report(spark, ESTIMATOR_STUDY, again)
    for expected in ("already there", "What to use, and why", "north: ", "Who errs least", "neither 0 nor 1"):
        assert expected in said
    planned = describe(spark, ESTIMATOR_STUDY, config_for(finished))
    assert "3 groups" in planned
    assert "8 draws of each, 6 of them with variances (placebo)" in planned
    with pytest.raises(InputError, match=r"input\.where is not valid"):
        describe(
            spark, ESTIMATOR_STUDY, config_for(finished, input={"location": str(finished / "input"), "where": "x ="})
        )
