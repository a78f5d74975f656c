from dataclasses import replace

import numpy as np
import pytest

from causal_spark.dose_response.ebct import EbctOptions, ebct1
from causal_spark.dose_response.inference import enlarged, estimate_curve
from causal_spark.dose_response.registry import WEIGHTINGS
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
    enlarged = residual / (1 - np.einsum("ni,ij,nj->n", design, bread, design))
    robust = bread @ (design.T * enlarged**2) @ design @ bread
    at_grid = np.stack([np.ones(5), GRID], axis=1)
    wanted = np.sqrt(np.einsum("gi,ij,gj->g", at_grid, robust, at_grid))
    np.testing.assert_allclose(curve.std_error, wanted, rtol=0.06)
    np.testing.assert_allclose(curve.slope_std_error, np.sqrt(robust[1, 1]), rtol=0.06)


def test_residuals_are_enlarged_by_the_leverage_on_all_that_is_fitted():
    segment, outcome = sample(6, n_rows=60)
    problem = problem_of(segment, "spline", GRID)
    weighting = ebct1(problem, EbctOptions(), 0)
    root = np.sqrt(weighting.weights)[:, None]
    design = root * np.concatenate([problem.stage.basis, weighting.balanced], axis=1)
    hat = design @ np.linalg.pinv(design)
    residual = (root[:, 0] * outcome - hat @ (root[:, 0] * outcome)) / root[:, 0]
    wanted = outcome - residual + residual / np.maximum(1 - np.diag(hat), 0.2)
    np.testing.assert_allclose(enlarged(problem, weighting, outcome), wanted, atol=1e-9)
    assert np.diag(hat).max() > 0.3


def test_an_outcome_that_is_fitted_stays_as_it_is_and_balanced_confounding_gives_no_error():
    segment, _ = sample(7)
    problem = problem_of(segment, "line", GRID)
    weighting = ebct1(problem, EbctOptions(), 0)
    outcome = 1 + segment.treatment + segment.covariates @ [3.0, -2.0] * (1 + segment.treatment)
    np.testing.assert_allclose(enlarged(problem, weighting, outcome), outcome, atol=1e-9)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_what_a_weighting_says_it_balances_is_a_column_for_each_row(name):
    segment, _ = sample(8, n_rows=90)
    options = {"hidden": 2, "n_waves": 2, "max_steps": 3} if name == "e2b" else {}
    found = WEIGHTINGS[name].fit(problem_of(segment), WEIGHTINGS[name].options(**options), 0)
    if name in ("unweighted", "permutation", "dcow"):
        assert found.balanced is None
        return
    multipliers = np.random.default_rng(0).exponential(size=(1, 90))
    rows = segment.sample_weights * multipliers[0] / (segment.sample_weights @ multipliers[0])
    assert found.balanced.shape[0] == 90
    if name != "gps":
        # Margins stay those of the rows; products are left with what the weights had of them.
        left = found.resolve(multipliers)[0] @ found.balanced
        before = rows @ found.balanced
        assert np.abs(left).max() < max(0.2 * np.abs(before).max(), 0.3)


def test_weights_that_make_the_regression_singular_are_told_as_such():
    segment, outcome = sample(9)
    treatment = np.where(np.arange(200) < 100, 0.0, segment.treatment)
    problem = problem_of(replace(segment, treatment=treatment), "line", GRID)
    stage = replace(problem.stage, basis=np.stack([np.ones(200), treatment], axis=1))
    problem = replace(problem, stage=stage)
    weights = np.where(treatment == 0, 0.01, 0.0)
    weighting = Weighting(weights, kept(weights))
    with pytest.raises(SolverError, match="do not bear the second stage") as raised:
        estimate_curve(problem, weighting, outcome, 0, 10, 0)
    assert raised.value.hint


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
