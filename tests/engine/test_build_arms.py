"""From rows of individuals and their arms to samples."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark.engine.build_arms import build_arms
from causal_spark.engine.columns import ArmRoles, arm_columns, new_row_columns, select_pandas
from causal_spark.errors import (
    ConstantOutcomeError,
    CostValueError,
    CovariateValueError,
    DuplicateRowError,
    GroupError,
    InputError,
    KeyValueError,
    NoControlRowsError,
    NoCovariatesError,
    NoRowsError,
    OutcomeValueError,
    TreatmentSupportError,
)

FRAME = pd.DataFrame(
    {
        "id": np.arange(24),
        "arm": ["none", "mail", "call"] * 8,
        "y": np.arange(24.0),
        "x": np.r_[np.nan, np.arange(23.0)],
        "kind": ["a"] * 12 + ["b"] * 12,
        "price": np.linspace(0, 1, 24),
    }
)
ROLES: dict[str, Any] = {"row_id": "id", "treatment": "arm", "outcome": "y", "covariates": ["x", "kind"]}


def rows_of(frame: pd.DataFrame, **roles: Any) -> pa.Table:
    return select_pandas(frame, arm_columns(frame, ArmRoles(**(ROLES | roles))))


def built(frame: pd.DataFrame, control: str = "none", costs: Any = None, least: int = 2, **roles: Any) -> Any:
    return build_arms(rows_of(frame, **roles), control, costs or {}, least)


def changed(column: str, values: Any, rows: Any = slice(0, 1)) -> pd.DataFrame:
    frame = FRAME.astype({"arm": object, "y": float})
    frame.loc[frame.index[rows], column] = values
    return frame


def test_the_control_arm_comes_first_and_rows_are_ordered_by_id() -> None:
    found = built(FRAME)
    assert found.arms == ("none", "call", "mail")
    assert found.sample.counts.tolist() == [8, 8, 8]
    # Ids are text.
    ordered = FRAME.assign(id=FRAME["id"].astype(str)).sort_values("id")
    assert found.row_ids.to_pylist() == ordered["id"].tolist()
    np.testing.assert_array_equal(found.sample.outcome, ordered["y"])
    assert [found.arms[k] for k in found.sample.arm] == ordered["arm"].tolist()
    assert found.encoding.names == ("x", "x=(missing)", "kind=b")
    assert not found.sample.is_binary
    assert not found.costs.any()
    assert found.notices == ()


@pytest.mark.parametrize(
    ("values", "control", "arms"),
    [([0, 1, 2], "0", ("0", "1", "2")), ([False, True], "false", ("false", "true")), ([7, -1], "7", ("7", "-1"))],
)
def test_arms_may_be_integers_and_booleans(values: Any, control: str, arms: Any) -> None:
    frame = FRAME.assign(arm=np.resize(values, 24))
    assert built(frame, control).arms == arms


def test_outcomes_of_zero_and_one_are_binary() -> None:
    assert built(FRAME.assign(y=np.resize([0, 1, 1, 0], 24))).sample.is_binary
    assert built(FRAME.assign(y=np.resize([False, True], 24))).sample.is_binary
    assert not built(FRAME.assign(y=np.resize([0, 1, 2], 24))).sample.is_binary


@pytest.mark.parametrize(("column", "value"), [("arm", None), ("y", np.nan), ("y", None)])
def test_rows_without_treatment_or_outcome_are_left_out_and_told_of(column: str, value: Any) -> None:
    found = built(changed(column, value, slice(0, 3)))
    assert found.sample.n_rows == 21
    assert [one.name for one in found.notices] == ["RowsLeftOut"]
    assert "3 of 24 rows" in found.notices[0].message


def test_arms_with_few_rows_are_left_out_and_told_of() -> None:
    frame = changed("arm", "visit", slice(1, 4))
    found = built(frame, least=4)
    assert found.arms == ("none", "call", "mail")
    assert found.sample.n_rows == 21
    assert "visit (3 rows)" in found.notices[0].message
    assert built(frame, least=3).arms == ("none", "call", "mail", "visit")


def test_costs_are_numbers_or_columns_and_others_are_none() -> None:
    found = built(FRAME, costs={"mail": 2.5, "visit": 9.0})
    assert found.costs[:, 2].tolist() == [2.5] * 24
    assert not found.costs[:, :2].any()


def test_costs_of_rows_come_from_columns() -> None:
    rows = rows_of(FRAME, costs={"call": "price"})
    found = build_arms(rows, "none", {"mail": 1.0}, 2)
    ordered = FRAME.assign(id=FRAME["id"].astype(str)).sort_values("id")
    np.testing.assert_array_equal(found.costs[:, 1], ordered["price"])
    with pytest.raises(CostValueError, match="'call' is missing or infinite in 2 rows"):
        build_arms(rows_of(changed("price", np.nan, slice(0, 2)), costs={"call": "price"}), "none", {}, 2)


BAD: list[tuple[pd.DataFrame, type[GroupError], str]] = [
    (changed("id", 1), DuplicateRowError, "such as '1'"),
    (FRAME.astype({"id": "Int64"}).assign(id=lambda f: f["id"].where(f["id"] > 0)), KeyValueError, "missing in 1 rows"),
    (changed("y", np.inf), OutcomeValueError, "infinite in 1 of 24"),
    (FRAME.assign(y=2.0), ConstantOutcomeError, "All outcomes are 2"),
    (FRAME.assign(y=np.nan), NoRowsError, "None of 24 rows"),
    (FRAME.assign(arm="mail"), NoControlRowsError, "'none' has 0 rows"),
    (FRAME.assign(arm="none"), TreatmentSupportError, "No arm but the control arm"),
    (changed("x", np.inf), CovariateValueError, "'x' is infinite"),
    (FRAME.assign(x=1.0, kind="a"), NoCovariatesError, "No covariate varies"),
]


@pytest.mark.parametrize(("frame", "error", "says"), BAD, ids=[one[1].__name__ for one in BAD])
def test_what_cannot_be_estimated_is_said_with_a_remedy(frame: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        built(frame)
    assert caught.value.hint


def test_a_dose_is_no_treatment_with_arms() -> None:
    frame = pd.concat([FRAME] * 10, ignore_index=True).assign(id=np.arange(240), arm=np.arange(240) // 4)
    with pytest.raises(TreatmentSupportError, match="60 values, more than 50"):
        built(frame, "0")


@pytest.mark.parametrize(
    ("frame", "roles", "says"),
    [
        (FRAME.assign(arm=1.5), {}, r"'arm' \(treatment\) has type double"),
        (FRAME.assign(id=1.5), {}, r"'id' \(row id\) has type double"),
        (FRAME, {"covariates": []}, "no covariates"),
        (FRAME, {"costs": {"call": "kind"}}, r"'kind'"),
        (FRAME, {"costs": {"call": "fee"}}, r"'fee' \(cost\) is not in the input"),
        (FRAME, {"outcome": "kind", "covariates": ["x"]}, r"'kind' \(outcome\) has type string"),
        (FRAME, {"covariates": ["x", "y"]}, "two roles"),
    ],
)
def test_columns_that_cannot_serve_are_refused(frame: Any, roles: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        rows_of(frame, **roles)


def test_two_arms_may_share_a_column_of_costs() -> None:
    rows = rows_of(FRAME, costs={"call": "price", "mail": "price"})
    found = build_arms(rows, "none", {}, 2)
    np.testing.assert_array_equal(found.costs[:, 1], found.costs[:, 2])


def test_new_rows_need_the_columns_of_the_fit_with_their_types() -> None:
    types = {"x": "DOUBLE", "kind": "STRING"}
    found = new_row_columns(FRAME, "id", types, {"arm": "STRING"}, {"mail": "price"})
    assert [column.name for column in found.all] == ["arm", "_row_id", "_cost_mail", "_covariate_x", "_covariate_kind"]
    for frame, groups, says in (
        (FRAME.drop(columns="x"), {}, "'x'"),
        (FRAME.assign(x="a"), {}, r"'x' \(covariate\) has type string"),
        (FRAME.assign(kind=1.0), {}, r"'kind' \(covariate\) has type double"),
        (FRAME, {"id": "STRING"}, "two roles"),
        (FRAME.assign(arm=1), {"arm": "STRING"}, "Cast it to string"),
    ):
        with pytest.raises(InputError, match=says):
            new_row_columns(frame, "id", types, groups, {})
