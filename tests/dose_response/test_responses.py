from dataclasses import fields

import numpy as np
import pytest

from causal_spark.dose_response.responses import ResponseOptions, make_responses
from tests.dose_response.segments import random_segment, segment_of

GRID = np.linspace(-1.5, 1.5, 9)
KINDS = pytest.mark.parametrize("is_line", [True, False])


def made(segment, is_line=False, seed=0, grid=GRID, **options):
    return make_responses(segment, grid, is_line, ResponseOptions(**options), seed)


def assigned(n_rows, coefficients, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(n_rows, len(coefficients)))
    mean = covariates @ coefficients
    return segment_of(covariates, mean + noise * rng.normal(size=n_rows)), mean


@KINDS
@pytest.mark.parametrize("weighted", [False, True])
def test_confounding_functions_have_mean_zero_under_the_sample_weights(is_line, weighted):
    segment = random_segment(150, 3, weighted=weighted)
    found = made(segment, is_line)
    np.testing.assert_allclose(segment.sample_weights @ found.confounding, 0, atol=1e-12)
    assert np.abs(found.confounding).max() > 0.1


@KINDS
def test_variances_are_those_of_the_options(is_line):
    segment = random_segment(200, 3, weighted=True)
    found = made(segment, is_line, spread=2.0, by_treatment=0.3, noise=0.7)
    rows = segment.sample_weights
    # All but the assignment, which comes last, have twice its variance; together they have two.
    assert np.sum(rows @ found.confounding[:, :-1] ** 2) == pytest.approx(4 / 3)
    np.testing.assert_allclose(found.confounding[:, -1], np.sqrt(2 / 3) * found.assignment)
    np.testing.assert_allclose(found.modulation[:, 0] ** 2, 0.7)
    # Cosines of ranks have variance one up to how evenly sample weights cover ranks.
    assert np.sum(rows @ found.modulation[:, 1:] ** 2) == pytest.approx(0.3, rel=1e-9 if is_line else 0.02)
    assert found.noise == 0.7


def test_average_curves_have_the_variance_asked_for():
    segment = random_segment(500, 2)
    found = made(segment, curvature=3.0)
    assert np.sum(segment.sample_weights @ found.average**2) == pytest.approx(3.0, rel=0.02)
    variances = segment.sample_weights @ found.average**2
    assert (np.diff(variances) < 0).all()
    np.testing.assert_allclose(segment.sample_weights @ found.average, 0, atol=0.02)


def test_average_curves_on_the_grid_are_those_of_rows_with_that_treatment():
    segment = random_segment(60, 2, weighted=True)
    found = made(segment, grid=np.sort(segment.treatment))
    np.testing.assert_allclose(found.average_at_grid, found.average[np.argsort(segment.treatment)], atol=1e-12)


@KINDS
def test_modulations_on_the_grid_are_those_of_rows_with_that_treatment(is_line):
    segment = random_segment(60, 2, weighted=True)
    found = made(segment, is_line, grid=np.sort(segment.treatment))
    np.testing.assert_allclose(found.modulation_at_grid, found.modulation[np.argsort(segment.treatment)], atol=1e-12)


@KINDS
def test_a_logistic_link_adds_a_level_and_bends_a_line(is_line):
    segment = random_segment(60, 2, weighted=True)
    plain = made(segment, is_line, curvature=2.0)
    found = made(segment, is_line, curvature=2.0, link="logistic")
    for average, was in ((found.average, plain.average), (found.average_at_grid, plain.average_at_grid)):
        np.testing.assert_array_equal(average[:, -1], 1)
        assert average.shape[1] == was.shape[1] + 1 + is_line
    if is_line:
        np.testing.assert_allclose(found.average[:, 0], np.sqrt(2) * segment.standardised_treatment())
    np.testing.assert_array_equal(found.confounding, plain.confounding)


def test_for_a_line_nothing_bends():
    """No average curve, as the second stage takes every line as it is; confounding differs by the treatment's line."""
    segment = random_segment(60, 2, weighted=True)
    found = made(segment, is_line=True)
    assert found.average.shape == (60, 0)
    assert found.average_at_grid.shape == (9, 0)
    assert found.modulation.shape == (60, 2)
    assert np.ptp(found.modulation[:, 0]) == 0
    assert np.corrcoef(found.modulation[:, 1], segment.treatment)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_the_assignment_is_near_the_true_one(seed):
    segment, mean = assigned(1000, np.array([0.6, -0.4, 0.0, 0.2]), seed)
    assert np.corrcoef(made(segment).assignment, mean)[0, 1] > 0.97


def test_an_assignment_by_squares_is_found():
    rng = np.random.default_rng(3)
    covariates = rng.normal(size=(1000, 3))
    mean = covariates[:, 0] ** 2 / 2 + covariates[:, 1] * covariates[:, 2] / 2
    segment = segment_of(covariates, mean + 0.7 * rng.normal(size=1000))
    assert np.corrcoef(made(segment).assignment, mean)[0, 1] > 0.9


def test_general_confounding_follows_what_the_treatment_depends_on():
    """Blocks are linear functions, squares and products, and waves; linear ones have most of the variance here."""
    segment, _ = assigned(1000, np.array([1.0, -0.5]))
    found = made(segment, n_waves=7)
    variances = segment.sample_weights @ found.confounding**2
    assert len(variances) == 2 + 3 + 7 + 1
    assert variances[:2].sum() > 0.8
    assert variances[2:-1].min() > 0


def test_two_tails_are_no_response():
    """A covariate moved far out changes no function by more than one moved to three standard deviations would."""
    segment = random_segment(300, 2)
    covariates = segment.covariates.copy()
    covariates[0] = 1e3
    found = made(segment_of(covariates, segment.treatment))
    assert np.isfinite(found.confounding).all()
    assert np.abs(found.confounding[0]).max() < 20


@KINDS
def test_responses_are_deterministic_in_the_seed_which_draws_the_waves_only(is_line):
    segment = random_segment(80, 2)
    first, again, other = made(segment, is_line), made(segment, is_line), made(segment, is_line, seed=1)
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    np.testing.assert_array_equal(first.modulation, other.modulation)
    np.testing.assert_array_equal(first.average, other.average)
    directions = [one.confounding[:, :2] / one.confounding[:, :2].std(axis=0) for one in (first, other)]
    np.testing.assert_allclose(*directions, atol=1e-9)
    assert np.abs(first.confounding - other.confounding).max() > 1e-3


def test_neither_the_assignment_nor_other_functions_are_ever_left_out():
    segment = random_segment(80, 2)
    for spread, share in ((0.0, 0.1), (1e9, 0.9)):
        variances = segment.sample_weights @ made(segment, spread=spread).confounding ** 2
        assert variances[:-1].sum() == pytest.approx(2 * share)
        assert variances[-1] == pytest.approx(2 * (1 - share))


def test_nor_are_average_curves_and_what_does_not_differ_by_treatment():
    segment = random_segment(500, 2)
    found = made(segment, curvature=0.0, by_treatment=1.0)
    assert np.sum(segment.sample_weights @ found.average**2) == pytest.approx(0.1, rel=0.02)
    np.testing.assert_allclose(found.modulation[:, 0] ** 2, 0.3)
    assert not made(segment, by_treatment=0.0).modulation[:, 1:].any()


def test_more_covariates_than_the_rows_can_tell_apart_do_no_harm():
    found = made(random_segment(30, 9))
    assert np.isfinite(found.confounding).all()


@pytest.mark.parametrize("seed", range(4))
def test_there_is_no_assignment_where_nothing_explains_the_treatment(seed):
    segment = random_segment(10_000, 4, strength=0.0, seed=seed)
    assert not make_responses(segment, np.linspace(-1, 1, 5), False, ResponseOptions(), 0).assignment.any()
