import numpy as np
import pytest

from causal_spark.dose_response.ebct import EbctOptions, ebct1
from causal_spark.dose_response.inference import estimate_curve
from causal_spark.dose_response.types import Weighting, kept
from causal_spark.dose_response.unweighted import UnweightedOptions, unweighted
from causal_spark.errors import SolverError, TooFewEffectiveRowsError
from tests.dose_response.segments import problem_of, random_segment

GRID = np.linspace(-1.5, 1.5, 5)


def sample(seed, n_rows=200):
    segment = random_segment(n_rows, 2, strength=0.3, seed=seed)
    noise = np.random.default_rng(1000 + seed).normal(size=n_rows)
    return segment, 1 + segment.treatment + segment.covariates @ [1.0, 0.5] + noise


def balanced(seed, n_replicates=100, bootstrap_seed=0, again=True):
    """The curve by ebct1, which balances again in every replicate or, to see what that is for, does not."""
    segment, outcome = sample(seed)
    problem = problem_of(segment, "line", GRID)
    weighting = ebct1(problem, EbctOptions(), 0)
    if not again:
        weighting = Weighting(weighting.weights, kept(weighting.weights))
    return estimate_curve(problem, weighting, outcome, 10, n_replicates, bootstrap_seed)


def test_standard_errors_agree_with_the_spread_over_samples():
    curves = [balanced(seed, n_replicates=40) for seed in range(150)]
    estimates, slopes = np.stack([one.estimate for one in curves]), np.array([one.slope[0] for one in curves])
    told = np.mean([one.std_error for one in curves], axis=0)
    np.testing.assert_allclose(told, estimates.std(axis=0, ddof=1), rtol=0.2)
    assert np.mean([one.slope_std_error[0] for one in curves]) == pytest.approx(slopes.std(ddof=1), rel=0.2)
    np.testing.assert_allclose(estimates.mean(axis=0), 1 + GRID, atol=0.05)


def test_weights_that_are_not_solved_again_make_errors_too_large():
    """They vary with imbalances that balancing removes."""
    errors = [np.mean([balanced(seed, again=again).slope_std_error for seed in range(5)]) for again in (True, False)]
    assert errors[1] > 1.2 * errors[0]


def test_the_estimate_is_the_second_stage_under_the_weights():
    segment, outcome = sample(1)
    problem = problem_of(segment, "line", GRID)
    weighting = ebct1(problem, EbctOptions(), 0)
    curve = estimate_curve(problem, weighting, outcome, 10, 20, 0)
    b, a = np.polyfit(segment.treatment, outcome, 1, w=np.sqrt(weighting.weights))
    np.testing.assert_allclose(curve.estimate, a + b * GRID, atol=1e-10)
    np.testing.assert_allclose(curve.slope, b, atol=1e-10)
    assert curve.n_replicates == 20
    assert curve.std_error.shape == curve.slope_std_error.shape == (5,)


def test_standard_errors_without_weights_are_those_of_robust_regression():
    segment, outcome = sample(2, n_rows=400)
    problem = problem_of(segment, "line", GRID)
    curve = estimate_curve(problem, unweighted(problem, UnweightedOptions(), 0), outcome, 10, 3000, 0)
    design = np.stack([np.ones(400), segment.treatment], axis=1)
    residual = outcome - design @ np.linalg.lstsq(design, outcome)[0]
    bread = np.linalg.inv(design.T @ design)
    robust = bread @ (design.T * residual**2) @ design @ bread
    at_grid = np.stack([np.ones(5), GRID], axis=1)
    wanted = np.sqrt(np.einsum("gi,ij,gj->g", at_grid, robust, at_grid))
    np.testing.assert_allclose(curve.std_error, wanted, rtol=0.06)
    np.testing.assert_allclose(curve.slope_std_error, np.sqrt(robust[1, 1]), rtol=0.06)


def test_the_bootstrap_is_deterministic_in_its_seed():
    first, again, other = balanced(0), balanced(0), balanced(0, bootstrap_seed=1)
    np.testing.assert_array_equal(first.std_error, again.std_error)
    np.testing.assert_array_equal(first.estimate, other.estimate)
    assert (first.std_error != other.std_error).all()
    np.testing.assert_allclose(first.std_error, other.std_error, rtol=0.5)


def test_an_outcome_in_other_units_has_its_curve_and_errors_in_them():
    segment, outcome = sample(3)
    problem = problem_of(segment, "spline", GRID)
    weighting = ebct1(problem, EbctOptions(), 0)
    base = estimate_curve(problem, weighting, outcome, 10, 30, 0)
    moved = estimate_curve(problem, weighting, 7 - 1e3 * outcome, 10, 30, 0)
    np.testing.assert_allclose(moved.estimate, 7 - 1e3 * base.estimate, rtol=1e-9)
    np.testing.assert_allclose(moved.std_error, 1e3 * base.std_error, rtol=1e-8)
    np.testing.assert_allclose(moved.slope_std_error, 1e3 * base.slope_std_error, rtol=1e-8)


def test_too_few_effective_rows_are_declined():
    segment, outcome = sample(4)
    problem = problem_of(segment, "line", GRID)
    weights = np.r_[np.full(4, 0.25), np.zeros(196)]
    weighting = Weighting(weights, kept(weights))
    with pytest.raises(TooFewEffectiveRowsError, match=r"4\.0 effective rows of 200, fewer than 4\.5") as raised:
        estimate_curve(problem, weighting, outcome, 4.5, 10, 0)
    assert raised.value.hint
    estimate_curve(problem, weighting, outcome, 3.9, 10, 0)


def losing(n_lost, rows):
    def resolve(multipliers):
        found = kept(rows)(multipliers)
        found[:n_lost] = np.nan
        return found

    return Weighting(rows, resolve)


def test_a_tenth_of_the_replicates_may_be_lost_and_no_more():
    segment, outcome = sample(5)
    problem = problem_of(segment, "line", GRID)
    curve = estimate_curve(problem, losing(5, segment.sample_weights), outcome, 10, 50, 0)
    assert curve.n_replicates == 45
    assert np.isfinite(curve.std_error).all()
    without = estimate_curve(problem, losing(6, segment.sample_weights), outcome, 10, 50, 0)
    assert isinstance(without.failure, SolverError)
    assert "6 of 50 bootstrap replicates" in without.failure.message
    assert without.failure.hint
    assert without.n_replicates == 0
    assert np.isnan([without.std_error, without.slope_std_error]).all()
    np.testing.assert_array_equal(without.estimate, curve.estimate)


def test_replicates_a_few_at_a_time_are_replicates_at_once(monkeypatch):
    at_once = balanced(7, n_replicates=31)
    for numbers in (1, 200 * 7):
        monkeypatch.setattr("causal_spark.dose_response.inference.CHUNK_NUMBERS", numbers)
        few = balanced(7, n_replicates=31)
        np.testing.assert_allclose(few.std_error, at_once.std_error, rtol=1e-9)
        np.testing.assert_allclose(few.slope_std_error, at_once.slope_std_error, rtol=1e-9)


def test_replicates_multiply_rows_by_exponential_variables():
    seen = []
    segment, outcome = sample(6)

    def resolve(multipliers):
        seen.append(multipliers)
        return kept(segment.sample_weights)(multipliers)

    estimate_curve(problem_of(segment, "line", GRID), Weighting(segment.sample_weights, resolve), outcome, 10, 200, 0)
    drawn = np.concatenate(seen)
    assert drawn.shape == (200, 200)
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.var() == pytest.approx(1, abs=0.05)
    assert np.median(drawn) == pytest.approx(np.log(2), abs=0.02)
