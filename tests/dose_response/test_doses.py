import numpy as np
import pytest

from causal_spark.dose_response.doses import choose_doses
from causal_spark.dose_response.ebct import EbctOptions, ebct1
from causal_spark.dose_response.imbalance import imbalances, notice_of
from causal_spark.dose_response.types import Weighting, kept
from causal_spark.errors import TreatmentSupportError
from tests.dose_response.segments import problem_of, random_segment, segment_of


def weighted(treatment, weights):
    return segment_of(np.zeros((len(treatment), 1)), np.asarray(treatment, dtype=float), weights)


def test_a_number_of_doses_is_spread_over_the_middle_of_those_that_rows_stand_for():
    doses, told = choose_doses(weighted(np.arange(101), np.ones(101)), 3)
    np.testing.assert_allclose(doses, [4.55, 50, 95.45])
    assert told == ()
    doubled, _ = choose_doses(weighted(np.arange(101), np.r_[np.full(50, 9.0), np.ones(51)]), 3)
    assert doubled[1] < 50


def test_named_doses_are_sorted_and_each_is_there_once():
    doses, told = choose_doses(weighted(np.arange(11), np.ones(11)), (7, 0, 10, 7, 0.5))
    np.testing.assert_array_equal(doses, [0, 0.5, 7, 10])
    assert told == ()


def test_where_nine_of_ten_have_one_treatment_doses_are_to_be_named():
    segment = weighted(np.r_[np.zeros(97), 1, 2, 3], np.ones(100))
    with pytest.raises(TreatmentSupportError, match="Nine rows of ten have the treatment 0") as raised:
        choose_doses(segment, 5)
    assert "grid" in raised.value.hint
    assert choose_doses(segment, (0, 1, 2))[0].tolist() == [0, 1, 2]


def test_imbalances_are_weighted_correlations_with_covariates_and_their_squares():
    segment = random_segment(80, 2, weighted=True)
    weights = np.random.default_rng(0).dirichlet(np.ones(80))
    mean, square = imbalances(segment, Weighting(weights, kept(weights)))

    def correlation(column, w):
        covariance = np.cov(column, segment.treatment, aweights=w)
        return covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])

    centred = segment.covariates - segment.sample_weights @ segment.covariates
    for j in range(2):
        assert mean.before[j] == pytest.approx(correlation(segment.covariates[:, j], segment.sample_weights))
        assert mean.after[j] == pytest.approx(correlation(segment.covariates[:, j], weights))
        assert square.after[j] == pytest.approx(correlation(centred[:, j] ** 2, weights))
    assert (mean.moment, square.moment) == ("mean", "square")


def test_the_square_of_a_binary_covariate_says_nothing_more():
    segment = segment_of(np.repeat([0.0, 1.0], [20, 40])[:, None], np.arange(60.0))
    mean, square = imbalances(segment, Weighting(segment.sample_weights, kept(segment.sample_weights)))
    assert mean.before[0] > 0.5
    assert np.isnan(square.before[0])


def test_a_correlation_beyond_chance_is_told_of_and_one_that_is_balanced_is_not():
    segment = random_segment(300, 2, strength=1.0)
    raw = Weighting(segment.sample_weights, kept(segment.sample_weights))
    told = notice_of(segment, raw, imbalances(segment, raw)[0])
    assert told.name == "ImbalanceLeft"
    assert "'x0'" in told.message
    balanced = ebct1(problem_of(segment), EbctOptions(), 0)
    assert notice_of(segment, balanced, imbalances(segment, balanced)[0]) is None


def test_a_correlation_that_chance_may_do_in_a_small_group_is_not_told_of():
    segment = segment_of(np.tile([-1.0, 1.0], 15)[:, None], np.arange(30.0))
    raw = Weighting(segment.sample_weights, kept(segment.sample_weights))
    mean, _ = imbalances(segment, raw)
    pushed = type(mean)("mean", mean.before, np.array([0.3]))
    assert notice_of(segment, raw, pushed) is None
    assert notice_of(segment, raw, type(mean)("mean", mean.before, np.array([0.4]))) is not None
