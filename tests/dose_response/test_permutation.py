import numpy as np
import pytest

from causal_spark.dose_response.permutation import PermutationOptions, permutation
from tests.dose_response.segments import problem_of, random_segment, segment_of


def bivariate_normal(n_rows, correlation, seed):
    """A segment, and the true log ratio of the product of the margins to the joint density."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_rows)
    a = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=n_rows)
    joint = -(x**2 - 2 * correlation * x * a + a**2) / (2 * (1 - correlation**2)) - np.log(1 - correlation**2) / 2
    return segment_of(x[:, None], a), -(x**2 + a**2) / 2 - joint


@pytest.mark.parametrize(("classifier", "least"), [("logistic", 0.9), ("boosted", 0.7)])
def test_weights_approach_the_true_ratio_of_densities(classifier, least):
    segment, wanted = bivariate_normal(2000, 0.5, seed=0)
    weights = permutation(problem_of(segment), PermutationOptions(classifier, n_permutations=4), 0).weights
    found = np.log(2000 * weights)
    assert np.corrcoef(found, wanted)[0, 1] > least
    # As large as they should be, too: trees that never split, or odds turned upside down, would not be.
    assert np.polyfit(wanted, found, 1)[0] == pytest.approx(1, abs=0.45)


def test_trees_find_something_in_small_segments_too():
    segment, _ = bivariate_normal(150, 0.5, seed=1)
    weights = permutation(problem_of(segment), PermutationOptions("boosted", n_permutations=2), 0).weights
    assert weights.std() * 150 > 0.1


def test_rows_that_count_more_count_so_in_the_weights():
    """The treatment is random, so the weights are the sample weights but for what the classifier makes of chance."""
    segment = random_segment(400, 1, strength=0.0, seed=2)
    rows = np.where(segment.treatment < 0, 1.0, 4.0)
    weighted = segment_of(segment.covariates, segment.treatment, rows)
    weights = permutation(problem_of(weighted), PermutationOptions(n_permutations=4), 0).weights
    assert np.median(weights[rows == 4]) / np.median(weights[rows == 1]) == pytest.approx(4, rel=0.15)


def test_more_shuffles_leave_less_to_chance():
    segment, _ = bivariate_normal(150, 0.5, seed=3)

    def spread(n_permutations):
        options = PermutationOptions(n_permutations=n_permutations)
        return np.std([permutation(problem_of(segment), options, seed).weights for seed in range(6)], axis=0).mean()

    assert spread(10) < 0.6 * spread(1)


def test_the_bootstrap_keeps_the_classifiers():
    segment = random_segment(80, 2, seed=4)
    weighting = permutation(problem_of(segment), PermutationOptions(n_permutations=2), 0)
    multipliers = np.random.default_rng(4).exponential(size=(2, 80))
    wanted = weighting.weights * multipliers
    np.testing.assert_allclose(weighting.resolve(multipliers), wanted / wanted.sum(axis=1, keepdims=True))
