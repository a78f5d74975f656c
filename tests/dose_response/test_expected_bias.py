from dataclasses import replace

import numpy as np
import pytest

from causal_spark.dose_response.ebct import EbctOptions, ebct1
from causal_spark.dose_response.expected_bias import expected_bias, fit_outcome
from causal_spark.dose_response.types import Segment
from causal_spark.errors import SolverError
from tests.dose_response.segments import problem_of, random_segment

GRID = np.linspace(-1.5, 1.5, 7)


def told(problem, outcome, weights=None, seed=0):
    weights = problem.segment.sample_weights if weights is None else weights
    return expected_bias(fit_outcome(problem, outcome, seed), problem, weights)


def confounded(n_rows=400, seed=0, strength=1.0):
    segment = random_segment(n_rows, 3, strength=strength, seed=seed)
    noise = np.random.default_rng(500 + seed).normal(size=n_rows)
    return segment, segment.treatment + 2 * segment.covariates[:, 0] + noise


@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_confounding_that_nothing_was_done_about_is_told(stage):
    segment, outcome = confounded()
    problem = problem_of(segment, stage, GRID)
    curve = problem.stage.curves(segment.sample_weights[None, :], outcome)[0][0]
    true_bias = np.abs(curve - GRID - curve.mean())
    found = told(problem, outcome)
    far = true_bias > 0.5
    assert far.sum() >= 4
    np.testing.assert_allclose(found[far], true_bias[far], rtol=0.35)


def test_confounding_that_is_balanced_is_not_expected():
    segment, outcome = confounded()
    problem = problem_of(segment, "line", GRID)
    weights = ebct1(problem, EbctOptions(), 0).weights
    assert told(problem, outcome, weights).max() < 0.1 * told(problem, outcome).max()


def test_without_confounding_little_is_expected():
    segment = random_segment(1000, 3, strength=0.0)
    outcome = segment.treatment + np.random.default_rng(1).normal(size=1000)
    assert told(problem_of(segment, "spline", GRID), outcome).max() < 0.1


def test_what_a_spline_cannot_follow_is_told_and_a_line_is_taken_for_what_was_asked():
    segment = random_segment(800, 2, strength=0.0)
    outcome = np.sin(4 * segment.treatment) + 0.1 * np.random.default_rng(1).normal(size=800)
    coarse, fine = (told(problem_of(segment, "spline", GRID, n_knots=k), outcome) for k in (3, 15))
    stage = problem_of(segment, "spline", GRID, n_knots=3).stage
    missed = np.abs(stage.curves(segment.sample_weights[None, :], outcome)[0][0] - np.sin(4 * GRID))
    assert np.sqrt(np.mean(coarse**2)) == pytest.approx(np.sqrt(np.mean(missed**2)), rel=0.25)
    assert fine.max() < 0.4 * coarse.max()
    assert told(problem_of(segment, "line", GRID), outcome).max() < 0.05


def test_a_line_far_into_a_long_tail_is_no_bend():
    rng = np.random.default_rng(3)
    treatment = np.exp(1.5 * rng.normal(size=500))
    segment = Segment(rng.normal(size=(500, 2)), treatment, np.full(500, 1 / 500), ("x0", "x1"))
    outcome = 3 * treatment + 0.1 * rng.normal(size=500)
    assert told(problem_of(segment, "spline"), outcome).max() < 0.05


def test_units_of_the_outcome_are_those_of_the_bias_and_its_level_does_not_matter():
    segment, outcome = confounded(150)
    problem = problem_of(segment, "spline", GRID)
    np.testing.assert_allclose(told(problem, 5 - 1e3 * outcome), 1e3 * told(problem, outcome), rtol=1e-4)


def test_rows_that_stand_for_two_are_as_two_rows():
    segment, outcome = confounded(120)
    weights = np.where(np.arange(120) < 40, 2.0, 1.0) / 160
    twice = np.r_[np.arange(120), np.arange(40)]
    whole = problem_of(replace(segment, sample_weights=weights), "line", GRID)
    repeated = problem_of(
        Segment(segment.covariates[twice], segment.treatment[twice], np.full(160, 1 / 160), segment.names), "line", GRID
    )
    # The model counts rows, of which the first has fewer.
    np.testing.assert_allclose(told(whole, outcome), told(repeated, outcome[twice]), rtol=0.1)


def test_long_segments_are_judged_by_some_of_their_rows_and_smoothed_over_all(monkeypatch):
    segment, outcome = confounded(3000)
    problem = problem_of(segment, "spline", GRID)
    all_rows = told(problem, outcome)
    monkeypatch.setattr("causal_spark.dose_response.expected_bias._CHUNK_NUMBERS", 10_000)
    np.testing.assert_allclose(told(problem, outcome), all_rows, rtol=1e-9)
    monkeypatch.setattr("causal_spark.dose_response.expected_bias.MODEL_ROWS", 1000)
    found = told(problem, outcome)
    assert (found != all_rows).all()
    np.testing.assert_allclose(found, all_rows, rtol=0.3)
    np.testing.assert_array_equal(told(problem, outcome), found)


@pytest.mark.parametrize("n_covariates", [0, 1])
def test_no_covariates_and_one_that_is_binary_are_no_trouble(n_covariates):
    rng = np.random.default_rng(4)
    covariates = np.repeat([-1.0, 1.0], 50)[:, None][:, :n_covariates]
    treatment = rng.normal(size=100)
    segment = Segment(covariates, treatment, np.full(100, 0.01), tuple("x"[:n_covariates]))
    found = told(problem_of(segment, "spline", GRID), treatment + rng.normal(size=100))
    assert np.isfinite(found).all()


def test_an_outcome_that_does_not_vary_has_no_bias():
    segment, _ = confounded(100)
    np.testing.assert_allclose(told(problem_of(segment, "spline", GRID), np.full(100, 7.0)), 0, atol=1e-12)


def test_an_outcome_beyond_doubles_is_refused():
    segment, outcome = confounded(100)
    with pytest.raises(SolverError, match="variance of the outcome is not finite") as raised:
        told(problem_of(segment, "line", GRID), outcome * 1e300)
    assert "Rescale" in raised.value.hint
