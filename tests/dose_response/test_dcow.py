import numpy as np
import pytest
from scipy.optimize import minimize

from causal_spark.dose_response.dcow import DcowOptions, dcow
from causal_spark.errors import GroupTooLargeError
from tests.dose_response.segments import problem_of, random_segment, segment_of


def distances(columns):
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return np.sqrt(((scaled[:, None] - scaled[None, :]) ** 2).sum(axis=2))


def doubly_centred(found):
    return found - found.mean(axis=0) - found.mean(axis=1)[:, None] + found.mean()


def energy_distance(between, w):
    """Of weighted rows from the same rows, each counted once: 2 E|X - Y| - E|X - X'| - E|Y - Y'|."""
    return 2 * w @ between.mean(axis=1) - w @ between @ w - between.mean()


def dependence(segment, w):
    """The distance covariance of weighted rows plus the margins' energy distances; the covariates' counts sqrt(p)
    times as much as the treatment's, as in the R packages independenceWeights and WeightIt.
    """
    of_covariates, of_treatment = distances(segment.covariates), distances(segment.treatment[:, None])
    covariance = w @ (doubly_centred(of_covariates) * doubly_centred(of_treatment)) @ w
    root = np.sqrt(segment.n_covariates)
    margins = root * energy_distance(of_covariates, w) + energy_distance(of_treatment, w)
    return float(covariance + margins / (1 + root))


@pytest.mark.parametrize("n_covariates", [1, 2, 4])
def test_weights_minimise_the_objective(n_covariates):
    segment = random_segment(25, n_covariates, strength=1.0, seed=n_covariates)
    weights = dcow(problem_of(segment), DcowOptions(), 0).weights
    # Scaled, as its differences would otherwise be too small for the solver to see.
    peer = minimize(
        lambda w: 1e3 * dependence(segment, w),
        np.full(25, 1 / 25),
        bounds=[(0, 1)] * 25,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(25)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 2000},
    )
    assert dependence(segment, weights) <= peer.fun / 1e3 + 1e-8
    np.testing.assert_allclose(weights, peer.x, atol=2e-4)
    assert np.abs(weights - 1 / 25).max() > 0.01


def test_dependence_is_less_than_that_of_any_other_weights():
    segment = random_segment(60, 2, strength=1.0, seed=5)
    least = dependence(segment, dcow(problem_of(segment), DcowOptions(), 0).weights)
    assert least < 0.8 * dependence(segment, np.full(60, 1 / 60))
    rng = np.random.default_rng(5)
    weights = dcow(problem_of(segment), DcowOptions(), 0).weights
    for _ in range(50):
        other = weights + 0.05 * (rng.dirichlet(np.ones(60)) - weights)
        assert dependence(segment, other) > least


def test_sample_weights_are_repeated_rows():
    """Whose objective the weights, spread over the copies, minimise: no way to move some raises it."""
    segment = random_segment(25, 2, strength=1.0, seed=6)
    counts = np.random.default_rng(6).integers(1, 4, 25)
    weighted = segment_of(segment.covariates, segment.treatment, counts)
    again = segment_of(np.repeat(segment.covariates, counts, axis=0), np.repeat(segment.treatment, counts))
    weights = dcow(problem_of(weighted), DcowOptions(), 0).weights

    def repeated(w):
        return dependence(again, np.repeat(w / counts, counts))

    peer = minimize(
        lambda w: 1e3 * repeated(w),
        np.full(25, 1 / 25),
        bounds=[(0, 1)] * 25,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(25)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 2000},
    )
    assert repeated(weights) <= peer.fun / 1e3 + 1e-8
    np.testing.assert_allclose(weights, peer.x, atol=5e-4)


def test_the_bootstrap_keeps_the_weights():
    weighting = dcow(problem_of(random_segment(40, 2)), DcowOptions(), 0)
    multipliers = np.random.default_rng(7).exponential(size=(2, 40))
    wanted = weighting.weights * multipliers
    np.testing.assert_allclose(weighting.resolve(multipliers), wanted / wanted.sum(axis=1, keepdims=True))


def test_segments_with_too_many_rows_are_refused():
    problem = problem_of(random_segment(41, 2))
    with pytest.raises(GroupTooLargeError, match="max_rows is 40") as raised:
        dcow(problem, DcowOptions(max_rows=40), 0)
    assert "max_rows" in raised.value.hint
    dcow(problem, DcowOptions(max_rows=41), 0)


def test_rows_that_are_alike_share_their_weight():
    rng = np.random.default_rng(0)
    x = (rng.random((100, 1)) < 0.4).astype(float)
    segment = segment_of(x, rng.poisson(3 + x[:, 0]).astype(float))
    weights = dcow(problem_of(segment, grid=np.linspace(1, 4, 4)), DcowOptions(), 0).weights
    assert np.isfinite(weights).all()


def test_one_row_given_twice_does_no_harm():
    for seed in range(20):
        segment = random_segment(100, 2, seed=seed)
        twice = np.r_[0, np.arange(100)]
        dcow(problem_of(segment_of(segment.covariates[twice], segment.treatment[twice])), DcowOptions(), 0)
