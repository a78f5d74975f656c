"""Root mean squared errors, their ratios draw by draw, and Monte Carlo errors against repeated samples."""

from __future__ import annotations

import numpy as np
import pytest

from causal_spark.panel.comparison import compare, is_tied, log_ratio, ratio, rmse


def test_rmse_and_its_error_against_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    values = [rmse(0.3 * rng.standard_normal(200)) for _ in range(3000)]
    spread = np.std([value for value, _ in values])
    assert np.mean([value for value, _ in values]) == pytest.approx(0.3, rel=0.01)
    assert np.mean([error for _, error in values]) == pytest.approx(spread, rel=0.05)
    # For normal errors RMSE / sqrt(2 n).
    assert spread == pytest.approx(0.3 / np.sqrt(400), rel=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_paired_ratios_and_their_error_against_repeated_samples(correlation: float) -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(3000):
        shared, own, other = rng.standard_normal((3, 200))
        mixed = correlation * shared
        rest = np.sqrt(1 - correlation**2)
        found.append(log_ratio(2.0 * (mixed + rest * own), mixed + rest * other))
    logs, errors = np.array(found).T
    assert logs.mean() == pytest.approx(np.log(2.0), abs=0.01)
    assert errors.mean() == pytest.approx(logs.std(), rel=0.06)


def test_estimators_are_ranked_and_compared_on_draws_that_both_have() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(400)
    half = 0.5 * base
    half[300:] = np.nan
    found = compare({"b": base, "a": half, "near": 0.505 * base + 0.1 * rng.standard_normal(400)})
    assert list(found) == ["a", "near", "b"]
    assert [one.place for one in found.values()] == [1, 2, 3]
    assert (found["a"].n, found["b"].n) == (300, 400)
    # Of the 300 draws that both have the ratio is exactly two, without error.
    assert found["b"].normalised_rmse == pytest.approx(2.0)
    assert found["b"].normalised_rmse_mc_error == pytest.approx(0.0, abs=1e-9)
    assert (found["a"].normalised_rmse, found["a"].tied) == (1.0, True)
    assert found["b"].bias == pytest.approx(base.mean())
    assert not found["b"].tied


def test_who_is_within_two_errors_of_the_best_is_as_good() -> None:
    rng = np.random.default_rng(4)
    one, other = rng.standard_normal((2, 50))
    assert all(each.tied for each in compare({"one": one, "other": 1.05 * other}).values())
    assert not compare({"one": one, "other": 2.0 * other})["other"].tied
    assert is_tied(1.02, 0.011)
    assert not is_tied(1.03, 0.011)
    assert not is_tied(np.nan, np.nan)


def test_too_few_draws_say_nothing() -> None:
    nothing = np.full(3, np.nan)
    assert list(compare({"a": nothing, "b": np.array([1.0, np.nan, 2.0])})) == ["b"]
    assert np.isnan(ratio(np.array([1.0, np.nan, 2.0]), np.array([1.0, 2.0, np.nan]))).all()
    exact = compare({"a": np.zeros(4), "b": np.ones(4)})
    assert (exact["a"].rmse, exact["a"].place) == (0.0, 1)
    assert np.isnan(exact["b"].normalised_rmse)
