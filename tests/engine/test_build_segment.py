"""From rows of individuals to segments."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark.engine.build_segment import build_segment
from causal_spark.engine.columns import CurveRoles, curve_columns, select_pandas
from causal_spark.errors import (
    CovariateValueError,
    GroupError,
    InputError,
    NoCovariatesError,
    NoRowsError,
    OutcomeValueError,
    SampleWeightError,
    TreatmentSupportError,
    TreatmentValueError,
)

FRAME = pd.DataFrame(
    {
        "dose": np.arange(12.0),
        "y": np.arange(12.0) ** 2,
        "x": np.r_[np.nan, np.arange(11.0)],
        "kind": ["a"] * 6 + [None] + ["b"] * 5,
        "weight": 1.0,
    }
)
ROLES: dict[str, Any] = {"treatment": "dose", "outcome": "y", "covariates": ["x", "kind"]}


def rows_of(frame: pd.DataFrame, **roles: Any) -> pa.Table:
    return select_pandas(frame, curve_columns(frame, CurveRoles(**(ROLES | roles))))


def changed(column: str, values: Any, rows: Any = slice(0, 1)) -> pd.DataFrame:
    frame = FRAME.copy()
    frame.loc[frame.index[rows], column] = values
    return frame


def test_gaps_and_categories_become_columns() -> None:
    built = build_segment(rows_of(FRAME))
    segment = built.segment
    assert segment.names == ("x", "x=(missing)", "kind=b", "kind=(rest)")
    np.testing.assert_allclose(segment.covariates[:, 0], np.r_[5.0, np.arange(11.0)])
    np.testing.assert_array_equal(segment.covariates[:, 1], np.r_[1.0, np.zeros(11)])
    np.testing.assert_array_equal(segment.covariates[:, 2], np.r_[np.zeros(7), np.ones(5)])
    np.testing.assert_array_equal(segment.treatment, FRAME["dose"])
    np.testing.assert_array_equal(built.outcome, FRAME["y"])
    np.testing.assert_allclose(segment.sample_weights, 1 / 12)
    assert built.notices == ()


@pytest.mark.parametrize("missing", [np.nan, None])
@pytest.mark.parametrize("column", ["dose", "y"])
def test_rows_without_treatment_or_outcome_are_left_out_and_told_of(column: str, missing: Any) -> None:
    built = build_segment(rows_of(changed(column, missing, [2, 5])))
    assert built.segment.n_rows == len(built.outcome) == 10
    assert [notice.name for notice in built.notices] == ["RowsLeftOut"]
    assert "2 of 12 rows" in built.notices[0].message


def test_rows_that_stand_for_nobody_are_left_out_in_silence() -> None:
    frame = changed("weight", 0.0, [1, 3]).assign(weight=lambda one: one["weight"] * (1 + one.index))
    built = build_segment(rows_of(frame.assign(y=lambda one: one["y"].where(one.index != 3)), sample_weight="weight"))
    assert built.notices == ()
    kept = np.setdiff1d(np.arange(12), [1, 3])
    np.testing.assert_allclose(built.segment.sample_weights, (1 + kept) / (1 + kept).sum())


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (changed("weight", -1.0), SampleWeightError, "negative or infinite in 1 of 12"),
        (changed("weight", np.nan), SampleWeightError, "missing, negative"),
        (changed("weight", np.inf), SampleWeightError, "1 of 12"),
        (changed("dose", np.inf), TreatmentValueError, "treatment is infinite in 1 of 12"),
        (changed("y", -np.inf), OutcomeValueError, "outcome is infinite in 1 of 12"),
        (changed("x", np.inf), CovariateValueError, "'x'"),
        (FRAME.assign(dose=3.0), TreatmentSupportError, "All rows have the treatment 3"),
        (FRAME.assign(y=np.nan), NoRowsError, "None of 12 rows"),
        (FRAME.assign(weight=0.0), NoRowsError, "positive sample weight"),
        (FRAME.assign(x=1.0, kind="a"), NoCovariatesError, "No covariate varies"),
        (FRAME.assign(x=np.nan, kind="a"), NoCovariatesError, "No covariate varies"),
    ],
)
def test_rows_that_cannot_serve_are_told_with_a_remedy(frame: pd.DataFrame, error: type, says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        build_segment(rows_of(frame, sample_weight="weight"))
    assert isinstance(raised.value, GroupError)
    assert raised.value.hint


def test_a_covariate_that_is_all_null_is_no_trouble_beside_one_that_is_not() -> None:
    assert build_segment(rows_of(FRAME.assign(kind=np.nan))).segment.names == ("x", "x=(missing)")


@pytest.mark.parametrize(
    ("frame", "roles", "says"),
    [
        (FRAME, {"treatment": "doze"}, r"Column 'doze' \(treatment\).*Did you mean 'dose'"),
        (FRAME, {"covariates": ["x", "y"]}, r"'y' is given two roles"),
        (FRAME, {"covariates": []}, r"There are no covariates"),
        (FRAME.assign(dose="high"), {}, r"'dose' \(treatment\) has type string"),
        (FRAME.assign(weight="1"), {"sample_weight": "weight"}, r"'weight' \(sample weight\) has type string"),
        (FRAME.assign(x=pd.Timestamp("2020-01-01")), {}, r"'x' \(covariate\) has type timestamp"),
    ],
)
def test_columns_that_cannot_serve_are_named(frame: pd.DataFrame, roles: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rows_of(frame, **roles)


def test_the_order_of_rows_does_not_matter_and_what_is_missing_comes_first() -> None:
    frame = changed("dose", np.nan, [4, 7]).assign(region=["s", None] * 6)
    shuffled = frame.sample(frac=1.0, random_state=1)
    assert rows_of(shuffled, groups=["region"]).equals(rows_of(frame, groups=["region"]))
    found = rows_of(frame, groups=["region"])
    assert found["region"].to_pylist() == [None] * 6 + ["s"] * 6
    assert found["_treatment"].to_pylist()[:2] == [None, 1.0]
