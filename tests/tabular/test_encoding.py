from typing import Any

import numpy as np
import pytest

from causal_spark.errors import CovariateValueError, NoCovariatesError
from causal_spark.tabular.encoding import FEWEST_ROWS, MOST_LEVELS, learn_encoding


def labels(*values: str | None) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


def equal(n: int) -> np.ndarray[Any, Any]:
    return np.full(n, 1 / n)


def test_a_gap_becomes_the_weighted_mean_and_a_column_that_tells() -> None:
    weights = np.array([0.5, 0.25, 0.25])
    raw = {"age": np.array([10.0, np.nan, 40.0])}
    found = learn_encoding(raw, weights)
    assert found.names == ("age", "age=(missing)")
    np.testing.assert_allclose(found.apply(raw), [[10, 0], [20, 1], [40, 0]])


def test_a_category_has_a_column_per_level_but_the_commonest() -> None:
    raw = {"sex": labels(*"mmmmmmfffff")}
    found = learn_encoding(raw, equal(11))
    assert found.names == ("sex=f",)
    np.testing.assert_array_equal(found.apply(raw)[:, 0], [0] * 6 + [1] * 5)


def test_equally_common_levels_go_by_name_whatever_the_order_of_rows() -> None:
    for rows in ("aaaaabbbbb", "bbbbbaaaaa"):
        assert learn_encoding({"x": labels(*rows)}, equal(10)).names == ("x=b",)


def test_a_missing_category_is_a_level() -> None:
    found = learn_encoding({"sex": labels(*"mmmmmm", *[None] * FEWEST_ROWS)}, equal(6 + FEWEST_ROWS))
    assert found.names == ("sex=(missing)",)


def test_rare_levels_are_one() -> None:
    rows = [*"aaaaaaaa", *"bbbbbb", "c", "d", "d"]
    found = learn_encoding({"x": labels(*rows)}, equal(len(rows)))
    assert found.names == ("x=b", "x=(rest)")
    np.testing.assert_array_equal(found.apply({"x": labels(*rows)}).sum(axis=0), [6, 3])


def test_levels_beyond_the_most_are_one_and_the_rest_of_them_are_kept() -> None:
    rows = [f"level{k:02d}" for k in range(MOST_LEVELS + 5) for _ in range(FEWEST_ROWS + MOST_LEVELS + 5 - k)]
    found = learn_encoding({"x": labels(*rows)}, equal(len(rows)))
    assert len(found.names) == MOST_LEVELS
    assert found.names[-1] == "x=(rest)"
    assert found.apply({"x": labels(*rows)})[:, -1].sum() == sum(row >= f"level{MOST_LEVELS:02d}" for row in rows)


def test_what_does_not_vary_is_left_out() -> None:
    raw = {"x": np.ones(10), "y": np.arange(10.0), "z": labels(*"aaaaaaaaaa"), "nothing": np.full(10, np.nan)}
    assert learn_encoding(raw, equal(10)).names == ("y",)


def test_numbers_pass_unchanged() -> None:
    values = np.random.default_rng(0).normal(size=20)
    np.testing.assert_array_equal(learn_encoding({"x": values}, equal(20)).apply({"x": values})[:, 0], values)


def test_no_column_that_varies_is_declined_and_an_infinite_number_fails() -> None:
    with pytest.raises(NoCovariatesError, match="No covariate varies"):
        learn_encoding({"x": np.ones(5)}, equal(5))
    with pytest.raises(CovariateValueError, match="'x' is infinite in 1 rows"):
        learn_encoding({"x": np.array([1.0, np.inf, 2.0])}, equal(3))
    with pytest.raises(NoCovariatesError):
        learn_encoding({"rare": labels(*"abcd")}, equal(4))


def test_other_rows_are_encoded_as_those_it_was_learned_on() -> None:
    rows = {"age": np.array([10.0, np.nan, 40.0, *[20.0] * 9]), "x": labels(*"aaaaaabbbbb", "c")}
    found = learn_encoding(rows, equal(12))
    assert found.names == ("age", "age=(missing)", "x=b", "x=(rest)")
    mean = (10 + 40 + 9 * 20) / 11
    others = {"age": np.array([np.nan, 7.0, 8.0, 9.0]), "x": labels("b", "never seen", "a", None)}
    wanted = [[mean, 1, 1, 0], [7, 0, 0, 1], [8, 0, 0, 0], [9, 0, 0, 1]]
    np.testing.assert_allclose(found.apply(others), wanted)


def test_what_was_never_missing_or_rare_is_taken_for_what_is_usual() -> None:
    found = learn_encoding({"age": np.arange(10.0), "x": labels(*"aaaaabbbbb")}, equal(10))
    assert found.names == ("age", "x=b")
    np.testing.assert_allclose(found.apply({"age": np.array([np.nan]), "x": labels("new")}), [[4.5, 0]])
    with pytest.raises(CovariateValueError, match="'age' is infinite in 1 rows"):
        found.apply({"age": np.array([-np.inf]), "x": labels("a")})
