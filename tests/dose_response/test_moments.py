import numpy as np
import pytest
from scipy.stats import rankdata

from causal_spark.dose_response.moments import cross_moments, independent, ranks, ranks_at, second_order
from causal_spark.dose_response.types import standardised
from tests.dose_response.segments import random_segment, segment_of


def equal(n):
    return np.full(n, 1 / n)


def zscore(columns):
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_average_ranks_standardised(ties):
    treatment = np.random.default_rng(0).gamma(2, size=50)
    treatment = np.round(treatment) if ties else treatment
    np.testing.assert_allclose(ranks(treatment, equal(50)), zscore(rankdata(treatment)), atol=1e-12)


def test_ranks_under_multiplicities_are_those_of_repeated_rows():
    rng = np.random.default_rng(1)
    treatment, counts = np.round(3 * rng.normal(size=40)), rng.integers(1, 5, 40)
    repeated = ranks(np.repeat(treatment, counts), equal(counts.sum()))
    np.testing.assert_allclose(np.repeat(ranks(treatment, counts / counts.sum()), counts), repeated, atol=1e-12)


def test_ranks_on_the_grid_continue_those_of_the_rows():
    rng = np.random.default_rng(2)
    treatment, weights = rng.normal(size=30), rng.dirichlet(np.ones(30))
    of_rows, of_grid = ranks_at(treatment, weights, np.r_[treatment, treatment.min() - 1, treatment.max() + 1])
    np.testing.assert_allclose(of_grid[:30], of_rows, atol=1e-12)
    assert of_grid[30] == of_rows.min()
    assert of_grid[31] == of_rows.max()
    by_hand = [weights[treatment < one].sum() + weights[treatment == one].sum() / 2 for one in treatment]
    np.testing.assert_allclose(of_rows, by_hand, atol=1e-12)
    _, between = ranks_at(treatment, weights, np.linspace(-3, 3, 50))
    assert (np.diff(between) >= 0).all()
    assert between.min() >= 0
    assert between.max() <= 1


def test_ranks_see_the_order_of_treatments_only():
    treatment = np.random.default_rng(3).normal(size=60)
    np.testing.assert_allclose(ranks(np.exp(3 * treatment), equal(60)), ranks(treatment, equal(60)), atol=1e-14)
    np.testing.assert_allclose(ranks(-treatment, equal(60)), -ranks(treatment, equal(60)), atol=1e-12)


def test_second_order_holds_covariates_squares_and_products():
    covariates = zscore(np.random.default_rng(4).normal(size=(200, 3)))
    found = second_order(covariates, equal(200))
    x, y, z = covariates.T
    wanted = zscore(np.stack([x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], axis=1))
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_second_order_leaves_out_squares_of_binary_covariates():
    rng = np.random.default_rng(5)
    covariates = zscore(np.stack([rng.normal(size=300), rng.random(300) < 0.3, rng.random(300) < 0.5], axis=1))
    found = second_order(covariates, equal(300))
    x, a, b = covariates.T
    np.testing.assert_allclose(found, zscore(np.stack([x, a, b, x * x, x * a, x * b, a * b], axis=1)), atol=1e-10)


def test_second_order_leaves_out_dummies_that_exclude_each_other_multiplied():
    """One of three categories: two dummies, their product and squares being linear in them."""
    kind = np.random.default_rng(6).integers(3, size=300)
    covariates = zscore(np.stack([kind == 0, kind == 1], axis=1).astype(float))
    np.testing.assert_allclose(second_order(covariates, equal(300)), covariates, atol=1e-10)


def test_duplicates_are_left_out_and_what_is_left_spans_the_same():
    rng = np.random.default_rng(7)
    base = rng.normal(size=(100, 3))
    columns = zscore(np.column_stack([base, base[:, 1], base @ [1.0, 2.0, 3.0], 5 - base[:, 0]]))
    np.testing.assert_array_equal(independent(columns, equal(100)), [0, 1, 2])
    covariates = zscore(np.column_stack([base, base[:, 1]]))
    found = second_order(covariates, equal(100))
    wanted = second_order(covariates[:, :3], equal(100))
    assert found.shape == wanted.shape
    residual = found - wanted @ np.linalg.lstsq(wanted, found)[0]
    assert np.abs(residual).max() < 1e-9


def test_second_order_under_multiplicities_is_that_of_repeated_rows():
    rng = np.random.default_rng(8)
    counts = rng.integers(1, 5, 80)
    weights = counts / counts.sum()
    raw = np.column_stack([rng.gamma(2, size=(80, 2)), rng.random(80) < 0.4])
    found = second_order(standardised(raw, weights), weights)
    repeated = np.repeat(raw, counts, axis=0)
    wanted = second_order(zscore(repeated), equal(len(repeated)))
    np.testing.assert_allclose(np.repeat(found, counts, axis=0), wanted, atol=1e-9)


def test_standardised_columns_have_mean_zero_and_variance_one_under_the_weights():
    segment = random_segment(70, weighted=True)
    for columns in (segment.standardised_covariates(), segment.standardised_treatment()[:, None]):
        mean = np.average(columns, axis=0, weights=segment.sample_weights)
        np.testing.assert_allclose(mean, 0, atol=1e-12)
        np.testing.assert_allclose(np.average(columns**2, axis=0, weights=segment.sample_weights), 1)


@pytest.mark.parametrize("degree", [1, 2])
def test_moments_of_the_treatment_begin_with_what_covariates_are_multiplied_with(degree):
    segment = random_segment(90, weighted=True)
    of_treatment, of_covariates, multiplied = cross_moments(segment, degree)
    np.testing.assert_allclose(of_treatment[:, 0], multiplied, atol=1e-12)
    assert of_treatment.shape[1] == degree
    assert of_covariates.shape[1] == {1: 3, 2: 9}[degree]
    for columns in (of_treatment, of_covariates):
        np.testing.assert_allclose(segment.sample_weights @ columns, 0, atol=1e-12)
        np.testing.assert_allclose(segment.sample_weights @ columns**2, 1)


def test_a_binary_treatment_has_one_moment():
    rng = np.random.default_rng(9)
    segment = segment_of(rng.normal(size=(40, 2)), np.repeat([0.0, 1.0], 20))
    assert cross_moments(segment, 2)[0].shape == (40, 1)
