"""The individual effects job from configuration to Delta tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from causal_spark import IndividualEffects, score
from causal_spark.config import load_config, parse_config
from causal_spark.engine.arms import ArmWork
from causal_spark.errors import ConfigError
from causal_spark.individual_effects_job import INDIVIDUAL_EFFECTS, IndividualEffectsConfig
from causal_spark.job import describe, report, run_job
from tests.arm_frames import MEMENTO, ROLES, X_LEARNER, customers
from tests.written import assert_declared, assert_read_alike

SHIPPED = Path(__file__).parent.parent / "conf" / "individual_effects.yaml"
ESTIMATORS = [MEMENTO, X_LEARNER]
COSTS: dict[Any, Any] = {"mail": 0.5, "call": "price"}
KEYS = {
    "individual_effects": ["group_id", "estimator", "row_id", "treatment"],
    "arm_effects": ["group_id", "estimator", "treatment", "reference"],
    "policies": ["group_id", "estimator", "row_id"],
    "policy_values": ["group_id", "estimator", "policy"],
    "overlap": ["group_id", "treatment", "covariate"],
    "models": ["group_id", "estimator"],
    "failures": ["group_id", "stage", "error_class"],
}


def people() -> pd.DataFrame:
    """Two good regions, one of them without calls, and one in which nobody is left alone."""
    south = customers(110, 1, "south")
    same = customers(50, 2, "same").assign(offer="mail")
    return pd.concat([customers(120, 0, "north"), south[south["offer"] != "call"], same], ignore_index=True)


def config_for(folder: Path) -> IndividualEffectsConfig:
    tree: dict[str, Any] = {
        "input": {"location": str(folder / "input")},
        "columns": ROLES,
        "control": "none",
        "costs": COSTS,
        "estimators": ESTIMATORS,
        "output": {"location": str(folder / "out")},
    }
    return parse_config(IndividualEffectsConfig, tree)


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("effects")
    shuffled = people().sample(frac=1, random_state=3)
    spark.createDataFrame(shuffled).repartition(5).write.format("delta").save(str(folder / "input"))
    assert run_job(spark, INDIVIDUAL_EFFECTS, config_for(folder)).new
    return folder


@pytest.mark.spark
def test_tables_are_as_the_contract_says_and_every_reader_sees_them(spark: SparkSession, finished: Path) -> None:
    names = ("runs", "failures", *ArmWork.tables)
    assert_declared(spark, finished / "out", names)
    assert_read_alike(spark, finished / "out", names)


@pytest.mark.spark
def test_tables_hold_the_bits_that_pandas_gives(spark: SparkSession, finished: Path) -> None:
    result = IndividualEffects(ESTIMATORS, control="none").fit(people(), costs=COSTS, **ROLES)
    for name, keys in KEYS.items():
        found = spark.read.format("delta").load(str(finished / "out" / name)).toPandas().drop(columns="run_id")
        found, wanted = (frame.sort_values(keys, ignore_index=True) for frame in (found, getattr(result, name)))
        if name == "models":
            found, wanted = (frame.assign(tensors=frame["tensors"].map(bytes)) for frame in (found, wanted))
        assert len(wanted) > 0
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True, check_dtype=False, obj=name)
    told = result.failures.query("kind != 'warned'")
    assert told["error_class"].tolist() == ["NoControlRowsError"]
    effects = result.individual_effects
    assert set(effects.loc[effects["region"] == "south", "treatment"]) == {"none", "mail"}


@pytest.mark.spark
def test_models_in_the_lake_score_new_rows_without_spark(finished: Path) -> None:
    models = DeltaTable(str(finished / "out" / "models")).to_pandas()
    fresh = customers(40, 7, "north").drop(columns=["offer", "y"])
    found = score(models, fresh, row_id="id", estimator="memento")
    assert len(found) == 120
    assert np.isfinite(found["effect"]).all()


@pytest.mark.spark
def test_a_second_run_is_none_and_people_are_told_effects_policies_and_overlap(
    spark: SparkSession, finished: Path
) -> None:
    again = run_job(spark, INDIVIDUAL_EFFECTS, config_for(finished))
    assert not again.new
    said = report(spark, INDIVIDUAL_EFFECTS, again)
    for expected in ("already there", "difference_in_means", "all:mail", "mean_gain", "share_in_support", "north"):
        assert expected in said
    assert "The control arm 'none' has 0 rows" in said
    planned = describe(spark, INDIVIDUAL_EFFECTS, config_for(finished))
    assert "3 groups" in planned
    assert "Control arm: none; costs of mail, call" in planned
    assert "nothing was estimated" in planned


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    config = load_config(IndividualEffectsConfig, str(SHIPPED))
    assert set(type(config).model_fields) == config.model_fields_set
    assert set(type(config.columns).model_fields) == config.columns.model_fields_set


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("estimators=[mementoo]", "memento"),
        ("estimators=[{name: memento, learner: {clip: 2}}]", "clip"),
        ("costs={mail: .inf}", "cost of arm 'mail'"),
        ("min_arm_rows=1", "min_arm_rows"),
        ("min_propensity=0.5", "min_propensity"),
        ("columns.covariates=[]", "covariates"),
    ],
)
def test_configurations_that_cannot_be_are_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(IndividualEffectsConfig, str(SHIPPED), [setting])


def test_arms_of_a_configuration_may_be_numbers() -> None:
    config = load_config(IndividualEffectsConfig, str(SHIPPED), ["control=0", "costs={2: 0.5, x: price}"])
    assert config.control == 0
    assert config.costs == {2: 0.5, "x": "price"}
