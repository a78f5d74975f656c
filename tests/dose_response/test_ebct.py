import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import rankdata

from causal_spark.dose_response.ebct import EbctOptions, ebct1, ebct2
from causal_spark.errors import PositivityError
from tests.dose_response.segments import problem_of, random_segment, segment_of

METHODS = pytest.mark.parametrize("method", [ebct1, ebct2], ids=lambda one: one.__name__)


def fit(method, segment):
    return method(problem_of(segment), EbctOptions(), 0)


def advertised(method, segment):
    """(of the treatment, of the covariates, treatment that multiplies them), in the raw."""
    if method is ebct1:
        return segment.treatment[:, None], segment.covariates, segment.treatment
    ranked = rankdata(segment.treatment)
    ranked = ranked - ranked.mean()
    first, second = np.triu_indices(segment.n_covariates)
    squares = segment.covariates[:, first] * segment.covariates[:, second]
    return np.stack([ranked, ranked**2], axis=1) / len(ranked), np.hstack([segment.covariates, squares]), ranked


@METHODS
def test_margins_stay_and_treatment_and_covariates_are_uncorrelated(method):
    segment = random_segment(250, 3, seed=1)
    weights = fit(method, segment).weights
    of_treatment, of_covariates, multiplied = advertised(method, segment)
    for columns in (of_treatment, of_covariates):
        np.testing.assert_allclose(weights @ columns, columns.mean(axis=0), atol=1e-7)
    centred = (multiplied - weights @ multiplied) / multiplied.std()
    np.testing.assert_allclose(weights @ (centred[:, None] * of_covariates), 0, atol=1e-7)
    before = centred @ of_covariates / 250
    assert np.abs(before).max() > 0.3
    assert weights.min() > 0


@METHODS
def test_margins_are_those_under_the_sample_weights(method):
    segment = random_segment(250, 2, seed=2, weighted=True)
    weights = fit(method, segment).weights
    for power in (1, 2) if method is ebct2 else (1,):
        columns = segment.covariates**power
        np.testing.assert_allclose(weights @ columns, segment.sample_weights @ columns, atol=1e-7)
    assert np.abs(weights @ segment.covariates - segment.covariates.mean(axis=0)).max() > 1e-3
    # Weights with nothing to do are the sample weights: these are proportional to them, up to a tilt.
    assert np.corrcoef(np.log(weights), np.log(segment.sample_weights))[0, 1] > 0.5


def test_weights_are_the_nearest_to_the_sample_weights_by_relative_entropy():
    segment = random_segment(25, 1, strength=0.8, seed=3, weighted=True)
    rows, x, a = segment.sample_weights, segment.covariates[:, 0], segment.treatment
    columns = np.stack([np.ones(25), x, a, (a - rows @ a) * (x - rows @ x)], axis=1)
    targets = np.array([1, rows @ x, rows @ a, 0])
    peer = minimize(
        lambda w: float(np.sum(w * np.log(w / rows))),
        rows,
        jac=lambda w: np.log(w / rows) + 1,
        bounds=[(1e-10, 1)] * 25,
        constraints={"type": "eq", "fun": lambda w: columns.T @ w - targets, "jac": lambda w: columns.T},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert peer.success
    np.testing.assert_allclose(fit(ebct1, segment).weights, peer.x, atol=2e-6)


def test_sample_weights_and_resolving_are_repeated_rows():
    segment = random_segment(90, 2, seed=4)
    counts = np.random.default_rng(4).integers(0, 4, 90)
    again = segment_of(np.repeat(segment.covariates, counts, axis=0), np.repeat(segment.treatment, counts))
    wanted = np.bincount(np.repeat(np.arange(90), counts), weights=fit(ebct1, again).weights, minlength=90)
    resolved = fit(ebct1, segment).resolve(counts[None, :].astype(float))[0]
    np.testing.assert_allclose(resolved, wanted, atol=1e-7)
    there = counts > 0
    weighted = segment_of(segment.covariates[there], segment.treatment[there], counts[there])
    np.testing.assert_allclose(fit(ebct1, weighted).weights, wanted[there], atol=1e-7)


def test_second_moments_under_sample_weights_are_those_of_repeated_rows():
    segment = random_segment(120, 2, seed=5)
    counts = np.random.default_rng(5).integers(1, 4, 120)
    again = segment_of(np.repeat(segment.covariates, counts, axis=0), np.repeat(segment.treatment, counts))
    weighted = segment_of(segment.covariates, segment.treatment, counts)
    repeated = np.bincount(np.repeat(np.arange(120), counts), weights=fit(ebct2, again).weights)
    np.testing.assert_allclose(fit(ebct2, weighted).weights, repeated, atol=1e-7)


@METHODS
def test_resolved_weights_balance_the_multiplied_sample(method):
    segment = random_segment(250, 2, seed=6)
    multipliers = np.random.default_rng(6).exponential(size=(3, 250))
    _, of_covariates, multiplied = advertised(method, segment)
    for rows, weights in zip(multipliers, fit(method, segment).resolve(multipliers), strict=True):
        rows = rows / rows.sum()
        np.testing.assert_allclose(weights @ of_covariates, rows @ of_covariates, atol=1e-7)
        assert weights @ multiplied == pytest.approx(rows @ multiplied, abs=1e-5)
        centred = (multiplied - weights @ multiplied) / multiplied.std()
        np.testing.assert_allclose(weights @ (centred[:, None] * of_covariates), 0, atol=1e-7)


def test_second_moments_see_ranks_of_the_treatment_only():
    segment = random_segment(150, 2, seed=7)
    skewed = segment_of(segment.covariates, np.exp(2 * segment.treatment))
    np.testing.assert_allclose(fit(ebct2, skewed).weights, fit(ebct2, segment).weights, atol=1e-8)
    assert np.abs(fit(ebct1, skewed).weights - fit(ebct1, segment).weights).max() > 1e-3


def test_first_moments_are_not_enough_where_second_ones_are_confounded():
    rng = np.random.default_rng(8)
    covariates = rng.normal(size=(500, 2))
    segment = segment_of(covariates, covariates[:, 0] ** 2 / 2 + rng.normal(size=500))
    ranked, square = rankdata(segment.treatment), covariates[:, 0] ** 2

    def correlation(weights):
        covariance = np.cov(ranked, square, aweights=weights)
        return covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])

    assert correlation(fit(ebct1, segment).weights) > 0.25
    assert abs(correlation(fit(ebct2, segment).weights)) < 1e-6


@METHODS
def test_treatments_that_do_not_overlap_are_declined(method):
    rng = np.random.default_rng(9)
    group = np.repeat([0.0, 1.0], 40)
    segment = segment_of(group[:, None], 10 * group + rng.random(80))
    with pytest.raises(PositivityError, match="No positive weights") as raised:
        fit(method, segment)
    assert raised.value.hint


@METHODS
def test_more_moments_than_rows_are_declined(method):
    segment = random_segment(12, 8, seed=10)
    n_moments = {ebct1: 1 + 2 * 8, ebct2: 2 + 2 * 11}[method]
    with pytest.raises(PositivityError, match="moments cannot be balanced with 12 rows") as raised:
        fit(method, segment)
    assert int(raised.value.message.split()[0]) >= n_moments


@METHODS
def test_replicates_that_cannot_be_balanced_are_nan_and_others_are_not(method):
    segment = random_segment(150, 1, strength=1.0, seed=11)
    together = (segment.covariates[:, 0] > 0.3) & (segment.treatment > 0.3)
    together |= (segment.covariates[:, 0] < -0.3) & (segment.treatment < -0.3)
    multipliers = np.ones((3, 150))
    multipliers[1] = together
    resolved = fit(method, segment).resolve(multipliers)
    assert np.isnan(resolved[1]).all()
    assert np.isfinite(resolved[[0, 2]]).all()
