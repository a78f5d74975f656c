from typing import Any

import numpy as np
import pytest

from causal_spark.dose_response.covariates import FEWEST_ROWS, MOST_LEVELS, encode_covariates
from causal_spark.errors import CovariateValueError, NoCovariatesError


def labels(*values: str | None) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


def equal(n: int) -> np.ndarray[Any, Any]:
    return np.full(n, 1 / n)


def test_a_gap_becomes_the_weighted_mean_and_a_column_that_tells() -> None:
    weights = np.array([0.5, 0.25, 0.25])
    found = encode_covariates({"age": np.array([10.0, np.nan, 40.0])}, weights)
    assert found.names == ("age", "age=(missing)")
    np.testing.assert_allclose(found.columns, [[10, 0], [20, 1], [40, 0]])


def test_a_category_has_a_column_per_level_but_the_commonest() -> None:
    found = encode_covariates({"sex": labels(*"mmmmmmfffff")}, equal(11))
    assert found.names == ("sex=f",)
    np.testing.assert_array_equal(found.columns[:, 0], [0] * 6 + [1] * 5)


def test_equally_common_levels_go_by_name_whatever_the_order_of_rows() -> None:
    for rows in ("aaaaabbbbb", "bbbbbaaaaa"):
        assert encode_covariates({"x": labels(*rows)}, equal(10)).names == ("x=b",)


def test_a_missing_category_is_a_level() -> None:
    found = encode_covariates({"sex": labels(*"mmmmmm", *[None] * FEWEST_ROWS)}, equal(6 + FEWEST_ROWS))
    assert found.names == ("sex=(missing)",)


def test_rare_levels_are_one() -> None:
    rows = [*"aaaaaaaa", *"bbbbbb", "c", "d", "d"]
    found = encode_covariates({"x": labels(*rows)}, equal(len(rows)))
    assert found.names == ("x=b", "x=(rest)")
    np.testing.assert_array_equal(found.columns.sum(axis=0), [6, 3])


def test_levels_beyond_the_most_are_one_and_the_rest_of_them_are_kept() -> None:
    rows = [f"level{k:02d}" for k in range(MOST_LEVELS + 5) for _ in range(FEWEST_ROWS + MOST_LEVELS + 5 - k)]
    found = encode_covariates({"x": labels(*rows)}, equal(len(rows)))
    assert len(found.names) == MOST_LEVELS
    assert found.names[-1] == "x=(rest)"
    assert found.columns[:, -1].sum() == sum(row >= f"level{MOST_LEVELS:02d}" for row in rows)


def test_what_does_not_vary_is_left_out() -> None:
    raw = {"x": np.ones(10), "y": np.arange(10.0), "z": labels(*"aaaaaaaaaa"), "nothing": np.full(10, np.nan)}
    assert encode_covariates(raw, equal(10)).names == ("y",)


def test_numbers_pass_unchanged() -> None:
    values = np.random.default_rng(0).normal(size=20)
    np.testing.assert_array_equal(encode_covariates({"x": values}, equal(20)).columns[:, 0], values)


def test_no_column_that_varies_is_declined_and_an_infinite_number_fails() -> None:
    with pytest.raises(NoCovariatesError, match="No covariate varies"):
        encode_covariates({"x": np.ones(5)}, equal(5))
    with pytest.raises(CovariateValueError, match="'x' is infinite in 1 rows"):
        encode_covariates({"x": np.array([1.0, np.inf, 2.0])}, equal(3))
    with pytest.raises(NoCovariatesError):
        encode_covariates({"rare": labels(*"abcd")}, equal(4))
