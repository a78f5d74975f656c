"""Models that were fitted once, applied to new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import IndividualEffects, score, scoring
from causal_spark.engine import scoring as batches
from causal_spark.engine.scoring import bundles
from causal_spark.errors import ConfigError, InputError
from tests.arm_frames import ROLES, S_LEARNER, X_LEARNER, customers

BY = ["group_id", "estimator", "row_id", "treatment"]


def both() -> pd.DataFrame:
    return pd.concat([customers(120, 0, "north"), customers(140, 1, "south")], ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> Any:
    job = IndividualEffects([X_LEARNER, S_LEARNER], control="none")
    return job.fit(both(), costs={"mail": 0.5}, **ROLES)


def ordered(frame: pd.DataFrame, by: Any = BY) -> pd.DataFrame:
    return frame.sort_values(by, ignore_index=True)


def test_rows_of_the_fit_get_the_effects_of_the_fit(fitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_ROWS", 50)
    found = score(fitted.models, both(), row_id="id", estimator="x_learner")
    wanted = fitted.individual_effects.query("estimator == 'x_learner'")
    # Propensities of the fit are cross-fitted, those of new rows are the model's.
    shared = [name for name in wanted if name not in ("propensity", "in_support")]
    pd.testing.assert_frame_equal(ordered(found)[shared], ordered(wanted)[shared], check_dtype=False)
    assert list(found) == list(wanted)
    np.testing.assert_allclose(found.groupby(["group_id", "row_id"])["propensity"].sum(), 1)


def test_arms_are_chosen_for_new_rows(fitted: Any) -> None:
    fresh = customers(60, 9, "south").drop(columns=["offer", "y"])
    effects = score(fitted.models, fresh, row_id="id", estimator="x_learner")
    for abstain in (True, False):
        found = score(
            fitted.models, fresh, row_id="id", estimator="x_learner", what="policies", abstain=abstain
        ).set_index("row_id")
        assert len(found) == 60
        assert found["abstained"].any() == abstain
        usable = effects[effects["in_support"] | (effects["treatment"] == "none")]
        net = usable.assign(gain=usable["effect"] - 0.5 * (usable["treatment"] == "mail"))
        best = net.loc[net.groupby("row_id")["gain"].idxmax()].set_index("row_id")
        firm = ~found["abstained"]
        assert (found.loc[firm, "recommended_treatment"] == best.loc[found.index[firm], "treatment"]).all()
        assert (found.loc[~firm, "recommended_treatment"] == "none").all()


def test_costs_of_new_rows_stand_in_for_those_of_the_fit(fitted: Any) -> None:
    fresh = customers(60, 9, "south")
    settings: Any = {"row_id": "id", "estimator": "x_learner", "what": "policies", "abstain": False}
    dear = score(fitted.models, fresh, costs={"mail": 99, "call": 99.0}, **settings)
    assert set(dear["recommended_treatment"]) == {"none"}
    by_row = score(fitted.models, fresh.assign(fee=[0.0, 99.0] * 30), costs={"mail": 99, "call": "fee"}, **settings)
    called = by_row.astype({"row_id": int}).query("recommended_treatment == 'call'")["row_id"]
    assert len(called) > 0
    assert (called % 2 == 0).all()


def test_costs_that_differed_by_row_have_to_be_given() -> None:
    # The first group has no calls.
    frame = pd.concat([customers(90, 3, "a").query("offer != 'call'"), customers()], ignore_index=True)
    result = IndividualEffects([S_LEARNER], control="none").fit(frame, costs={"call": "price"}, **ROLES)
    with pytest.raises(ConfigError, match="'call' cost every row something else"):
        score(result.models, customers(), row_id="id", what="policies")
    found = score(result.models, customers(), row_id="id", what="policies", costs={"call": "price"})
    wanted = result.policies
    # Propensities of the fit are cross-fitted, so that a row may be in support here and not there.
    same = found.merge(wanted, on=["group_id", "row_id"])
    assert len(same) == 150
    assert (same["recommended_treatment_x"] == same["recommended_treatment_y"]).mean() > 0.95
    assert len(score(result.models, customers(), row_id="id")) == 450


def test_levels_never_seen_and_gaps_are_no_trouble_and_groups_without_a_model_have_no_rows(fitted: Any) -> None:
    fresh = pd.concat([customers(20, 9, "south").assign(kind="new", x=np.nan), customers(5, 1, "west")])
    found = score(fitted.models, fresh, row_id="id", estimator="s_learner")
    assert set(found["region"]) == {"south"}
    assert len(found) == 60
    assert found[["effect", "outcome_estimate"]].notna().all(axis=None)
    nobody = score(fitted.models, customers(5, 1, "west"), row_id="id", estimator="s_learner")
    assert list(nobody) == list(found)
    assert nobody.empty


def test_models_without_groups_need_none() -> None:
    roles = {**ROLES, "groups": []}
    result = IndividualEffects([S_LEARNER], control="none").fit(customers(), **roles)
    found = score(result.models, customers(30, 2), row_id="id")
    assert len(found) == 90
    assert set(found["group_id"]) == {"{}"}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"what": "effects"}, ConfigError, "what is 'effects'"),
        ({"estimator": None}, ConfigError, "models of s_learner, x_learner"),
        ({"estimator": "memento"}, ConfigError, "estimator is 'memento'"),
        ({"confidence_level": 95}, ConfigError, "confidence_level is 95"),
        ({"rows": both().drop(columns="z")}, InputError, "'z'"),
        ({"rows": both().drop(columns="region")}, InputError, "'region'"),
        ({"row_id": "customer"}, InputError, "'customer'"),
        ({"costs": {"mail": "fee"}}, InputError, r"'fee' \(cost\)"),
        ({"costs": {"mail": np.inf}}, ConfigError, "cost of arm 'mail'"),
    ],
)
def test_what_cannot_be_scored_is_said(fitted: Any, change: Any, error: Any, says: str) -> None:
    arguments = {"models": fitted.models, "rows": both(), "row_id": "id", "estimator": "x_learner"} | change
    with pytest.raises(error, match=says):
        score(**arguments)


def test_models_that_are_none_or_of_two_runs_are_refused(fitted: Any) -> None:
    models = fitted.models
    with pytest.raises(InputError, match="no column 'tensors'"):
        score(models.drop(columns="tensors"), both(), row_id="id", estimator="x_learner")
    with pytest.raises(InputError, match="There are no models"):
        score(models.iloc[:0], both(), row_id="id")
    with pytest.raises(InputError, match="several models"):
        score(pd.concat([models, models]), both(), row_id="id", estimator="x_learner")
    for broken in ("{", "{}", "[]"):
        with pytest.raises(InputError, match="cannot be read"):
            score(models.assign(schema_json=broken), both(), row_id="id", estimator="x_learner")


def test_bundles_hold_so_many_bytes_at_most() -> None:
    sizes = [("a", 40), ("b", 50), ("c", 200), ("d", 10), ("e", 90)]
    assert bundles(sizes, 100) == [["a", "b"], ["c"], ["d", "e"]]
    assert bundles(sizes[2:3], 100) == [["c"]]


@pytest.mark.spark
@pytest.mark.parametrize("limit", [2**26, 1])
def test_spark_gives_what_pandas_gives_in_one_pass_or_several(
    spark: SparkSession, fitted: Any, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BUNDLE_BYTES", limit)
    rows = pd.concat([both(), customers(7, 3, "west")], ignore_index=True)
    models = spark.createDataFrame(fitted.models)
    for what, by in (("individual_effects", BY), ("policies", BY[:3])):
        arguments: Any = {"row_id": "id", "estimator": "x_learner", "what": what}
        wanted = score(fitted.models, rows, **arguments)
        found = score(models, spark.createDataFrame(rows).repartition(3), **arguments)
        plan = found._jdf.queryExecution().executedPlan().toString()  # type: ignore[operator]
        assert "MapInArrow" in plan
        # What is repartitioned in the plan is the test's own; the join of several passes is a broadcast.
        assert plan.count("Exchange hashpartitioning") == 0
        pd.testing.assert_frame_equal(
            ordered(found.toPandas(), by), ordered(wanted, by), check_dtype=False, check_exact=True
        )
    with pytest.raises(ConfigError, match="two kinds"):
        score(models, rows, row_id="id", estimator="x_learner")


@pytest.mark.spark
def test_missing_group_keys_find_their_model_in_several_passes(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BUNDLE_BYTES", 1)
    frame = both().assign(region=lambda f: f["region"].where(f["region"] == "north", None))
    result = IndividualEffects([S_LEARNER], control="none").fit(frame, **ROLES)
    found = score(spark.createDataFrame(result.models), spark.createDataFrame(frame), row_id="id").toPandas()
    assert len(found) == 3 * len(frame)
