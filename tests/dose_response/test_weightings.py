"""What holds for every weighting."""

from functools import cache

import numpy as np
import pytest

from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.permutation import PermutationOptions
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.second_stage import StageOptions
from causal_spark.dose_response.types import Weighting, effective_sample_size, kept, normalised
from tests.dose_response.segments import problem_of, random_segment, segment_of

ALL = pytest.mark.parametrize("name", WEIGHTINGS)
#: Small enough to be quick; how long it is trained is not what is looked at here.
OPTIONS = {"e2b": E2bOptions(hidden=6, n_waves=16, max_steps=60)}
GRID = np.linspace(-1.5, 1.5, 9)
SEGMENT = random_segment(weighted=True, seed=2)


@pytest.fixture(autouse=True, scope="module")
def brief():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causal_spark.dose_response.e2b_training._LEVEL_STEPS", 20)
        yield


def fit(name, problem, seed=0):
    definition = WEIGHTINGS[name]
    return definition.fit(problem, OPTIONS.get(name, definition.options()), seed)


@cache
def base(name):
    return fit(name, problem_of(SEGMENT, "spline", GRID))


def close(name, found, wanted):
    """Training follows rounding a little way, so that e2b may differ by a thousandth of the largest weight."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * wanted.max() if name == "e2b" else 1e-6)


def test_the_registry_knows_every_weighting_by_its_name():
    assert list(WEIGHTINGS) == ["unweighted", "gps", "ebct1", "ebct2", "permutation", "dcow", "e2b"]
    assert all(name == one.name and one.description.endswith(".") for name, one in WEIGHTINGS.items())


@ALL
def test_weights_are_not_negative_and_sum_to_one(name):
    weights = base(name).weights
    assert weights.shape == (120,)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert base(name).effective_sample_size == pytest.approx(1 / np.sum(weights**2))


@ALL
def test_weights_resolved_with_every_row_once_are_the_weights(name):
    for times in (1.0, 3.0):
        resolved = base(name).resolve(np.full((2, 120), times))
        assert resolved.shape == (2, 120)
        np.testing.assert_allclose(resolved, np.tile(base(name).weights, (2, 1)), atol=1e-8)


@ALL
def test_resolved_weights_are_weights_and_replicates_do_not_disturb_each_other(name):
    multipliers = np.random.default_rng(1).exponential(size=(5, 120))
    resolved = base(name).resolve(multipliers)
    assert resolved.min() >= 0
    np.testing.assert_allclose(resolved.sum(axis=1), 1, atol=1e-12)
    for r in range(5):
        np.testing.assert_allclose(base(name).resolve(multipliers[r : r + 1])[0], resolved[r], atol=1e-9)
    assert np.abs(resolved[0] - resolved[1]).max() > 1e-3


@ALL
def test_rows_with_multiplier_zero_get_no_weight(name):
    multipliers = np.ones((1, 120))
    multipliers[0, :4] = 0
    resolved = base(name).resolve(multipliers)
    assert (resolved[0, :4] == 0).all()
    assert resolved[0, 4:].sum() == pytest.approx(1)


@pytest.mark.parametrize("name", [one for one in WEIGHTINGS if one != "permutation"])
def test_order_of_rows_does_not_matter(name):
    """Not so for permutation, whose shuffles are drawn by position: there rows are exchangeable in law only."""
    order = np.random.default_rng(2).permutation(120)
    moved = segment_of(SEGMENT.covariates[order], SEGMENT.treatment[order], SEGMENT.sample_weights[order])
    close(name, fit(name, problem_of(moved, "spline", GRID)).weights, base(name).weights[order])


@ALL
def test_origin_and_unit_of_covariates_and_treatment_do_not_matter(name):
    covariates = SEGMENT.covariates * [10.0, 0.01, 3.0] + [5.0, -2.0, 100.0]
    moved = segment_of(covariates, 2 + 5 * SEGMENT.treatment, SEGMENT.sample_weights)
    close(name, fit(name, problem_of(moved, "spline", 2 + 5 * GRID)).weights, base(name).weights)


@pytest.mark.parametrize("name", ["unweighted", "gps", "ebct1", "ebct2", "dcow"])
def test_direction_of_covariates_and_treatment_does_not_matter(name):
    """To e2b's network and random waves, and to a classifier's trees, it does: they are not symmetric."""
    moved = segment_of(SEGMENT.covariates * [1, -1, -1], -SEGMENT.treatment, SEGMENT.sample_weights)
    close(name, fit(name, problem_of(moved, "spline", GRID)).weights, base(name).weights)


@pytest.mark.parametrize("name", ["unweighted", "gps", "ebct1", "ebct2"])
def test_linear_combinations_of_covariates_do_not_matter(name):
    mixed = SEGMENT.covariates @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.2], [-1.0, 0.0, 1.0]])
    moved = segment_of(mixed, SEGMENT.treatment, SEGMENT.sample_weights)
    close(name, fit(name, problem_of(moved, "spline", GRID)).weights, base(name).weights)


@pytest.mark.parametrize("name", ["unweighted", "gps", "ebct1", "ebct2"])
def test_a_covariate_given_twice_does_not_matter(name):
    twice = np.column_stack([SEGMENT.covariates, 1 - 2 * SEGMENT.covariates[:, 0]])
    moved = segment_of(twice, SEGMENT.treatment, SEGMENT.sample_weights)
    close(name, fit(name, problem_of(moved, "spline", GRID)).weights, base(name).weights)


@pytest.mark.parametrize("name", ["permutation", "e2b"])
def test_a_covariate_given_twice_does_no_harm(name):
    segment = random_segment(80)
    twice = np.column_stack([segment.covariates, 1 - 2 * segment.covariates[:, 0]])
    weighting = fit(name, problem_of(segment_of(twice, segment.treatment), "line", GRID))
    assert np.isfinite(weighting.resolve(np.random.default_rng(0).exponential(size=(3, 80)))).all()


@ALL
def test_the_same_seed_gives_the_same_weights_and_another_matters_only_where_something_is_drawn(name):
    problem = problem_of(SEGMENT, "spline", GRID)
    np.testing.assert_array_equal(fit(name, problem).weights, base(name).weights)
    other = fit(name, problem, seed=1).weights
    if name in ("permutation", "e2b"):
        assert 0.5 < np.corrcoef(other, base(name).weights)[0, 1] < 1 - 1e-6
    else:
        np.testing.assert_array_equal(other, base(name).weights)


@ALL
def test_weighting_lowers_the_correlation_of_treatment_and_covariates(name):
    """Which is strong in this segment: .7."""
    segment = random_segment(200, 2, strength=1.0, seed=3)
    weights = fit(name, problem_of(segment, "line")).weights
    pair = np.stack([segment.covariates[:, 0], segment.treatment])
    assert np.corrcoef(pair)[0, 1] > 0.6
    covariance = np.cov(pair, aweights=weights)
    correlation = abs(covariance[0, 1]) / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert correlation > 0.6 if name == "unweighted" else correlation < 0.35


@ALL
def test_weights_stay_near_the_sample_weights_where_the_treatment_is_random(name):
    segment = random_segment(600, 2, strength=0.0, seed=4)
    assert fit(name, problem_of(segment, "line")).effective_sample_size > 0.6 * 600


@ALL
@pytest.mark.parametrize("stage", ["line", "local_linear"])
def test_a_single_covariate_and_any_second_stage_will_do(name, stage):
    segment = random_segment(60, 1, seed=5)
    weights = fit(name, problem_of(segment, stage)).weights
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


def test_sample_weights_are_what_unweighted_gives():
    np.testing.assert_array_equal(base("unweighted").weights, SEGMENT.sample_weights)


def test_kept_weights_are_multiplied_and_nothing_else():
    weights = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(kept(weights)(np.array([[1.0, 1, 1], [0, 1, 2]])), [weights, [0, 3 / 7, 4 / 7]])


def test_effective_rows_are_all_where_weights_are_equal_and_one_where_one_has_all():
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert Weighting(np.eye(8)[2], kept(np.eye(8)[2])).effective_sample_size == 1
    np.testing.assert_allclose(normalised(np.array([[1.0, 3], [2, 2]])), [[0.25, 0.75], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("gps", "trim", value) for value in (0.0, 0.5, 1.01, -1.0, np.nan)),
        *(("permutation", "n_permutations", value) for value in (0, -3)),
        *(("dcow", "max_rows", value) for value in (0, -1)),
        *(("e2b", option, value) for option in ("hidden", "n_draws", "n_waves", "max_steps") for value in (0, -1)),
        *(("e2b", option, v) for option in ("least_effective", "by_treatment") for v in (-0.01, 1.01, np.nan)),
        *(("e2b", option, v) for option in ("spread", "curvature") for v in (-1.0, np.inf, np.nan)),
        *(("e2b", option, v) for option in ("noise", "learning_rate") for v in (0.0, -1.0, np.inf, np.nan)),
    ],
)
def test_options_without_sense_are_refused_by_name(name, option, value):
    with pytest.raises(ValueError, match=option):
        WEIGHTINGS[name].options(**{option: value})


def test_options_at_the_ends_of_their_ranges_are_allowed():
    WEIGHTINGS["gps"].options(trim=0.51)
    WEIGHTINGS["permutation"].options(n_permutations=1)
    WEIGHTINGS["dcow"].options(max_rows=1)
    WEIGHTINGS["e2b"].options(least_effective=1, by_treatment=0, spread=0, curvature=0, hidden=1, n_waves=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: E2bOptions(weights="none"),
        lambda: E2bOptions(loss="none"),
        lambda: E2bOptions(loss="sampled", link="none"),
        lambda: PermutationOptions(classifier="none"),
        lambda: StageOptions(n_knots=2),
        lambda: StageOptions(bandwidth=0.0),
        lambda: StageOptions(bandwidth=-1.0),
    ],
)
def test_options_without_sense_are_refused(make):
    with pytest.raises(ValueError, match=r"."):
        make()
