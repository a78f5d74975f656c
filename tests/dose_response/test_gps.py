import numpy as np
import pandas as pd
import pytest

from causal_spark.dose_response.gps import GpsOptions, gps
from causal_spark.errors import PositivityError
from causal_spark.examples import installed_file
from tests.dose_response.segments import problem_of, random_segment, segment_of


def log_ratio(treatment, mean, variance):
    """Log of the true marginal density of a treatment N(mean, 1) with mean N(0, variance), over the conditional one."""
    marginal = -(treatment**2) / (2 * (1 + variance)) - np.log(1 + variance) / 2
    return marginal + (treatment - mean) ** 2 / 2


def test_weights_are_the_ratio_of_the_true_densities_in_a_large_sample():
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(20_000, 3))
    mean = covariates @ [0.5, -0.3, 0.0]
    treatment = mean + rng.normal(size=20_000)
    weights = gps(problem_of(segment_of(covariates, treatment)), GpsOptions(), 0).weights
    wanted = log_ratio(treatment, mean, 0.34)
    found = np.log(weights * 20_000)
    assert np.corrcoef(found, wanted)[0, 1] > 0.995
    np.testing.assert_allclose(found, wanted, atol=0.4)
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.05


def test_weights_follow_from_a_regression_line_by_line():
    segment = random_segment(60, 2, seed=1)
    design = np.column_stack([np.ones(60), segment.covariates])
    residual = segment.treatment - design @ np.linalg.lstsq(design, segment.treatment)[0]

    def density(error):
        return np.exp(-(error**2) / (2 * np.mean(error**2))) / np.sqrt(np.mean(error**2))

    ratio = density(segment.treatment - segment.treatment.mean()) / density(residual)
    np.testing.assert_allclose(gps(problem_of(segment), GpsOptions(), 0).weights, ratio / ratio.sum(), atol=1e-12)


def test_sample_weights_and_resolving_are_repeated_rows():
    segment = random_segment(80, 3, seed=2)
    counts = np.random.default_rng(2).integers(0, 4, 80)
    again = segment_of(np.repeat(segment.covariates, counts, axis=0), np.repeat(segment.treatment, counts))
    repeated = gps(problem_of(again), GpsOptions(), 0).weights
    wanted = np.bincount(np.repeat(np.arange(80), counts), weights=repeated, minlength=80)
    resolved = gps(problem_of(segment), GpsOptions(), 0).resolve(counts[None, :].astype(float))[0]
    np.testing.assert_allclose(resolved, wanted, atol=1e-10)
    there = counts > 0
    weighted = segment_of(segment.covariates[there], segment.treatment[there], counts[there])
    np.testing.assert_allclose(gps(problem_of(weighted), GpsOptions(), 0).weights, wanted[there], atol=1e-10)


def test_trimming_cuts_the_largest_weights_to_a_quantile_and_leaves_the_others_alike():
    problem = problem_of(random_segment(200, 3, strength=1.0, seed=3))
    whole, cut = gps(problem, GpsOptions(), 0).weights, gps(problem, GpsOptions(trim=0.9), 0).weights
    largest = np.argsort(whole)[-20:]
    np.testing.assert_allclose(cut[largest], cut.max())
    others = np.argsort(whole)[:-20]
    np.testing.assert_allclose(cut[others] / whole[others], (cut / whole)[others[0]])
    assert np.mean(cut >= cut.max() * (1 - 1e-9)) == pytest.approx(0.1, abs=0.006)


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_treatment_made_from_the_covariates_is_declined(noise):
    rng = np.random.default_rng(4)
    covariates = rng.normal(size=(50, 2))
    treatment = covariates @ [1.0, 2.0] + 3 + noise * rng.normal(size=50)
    with pytest.raises(PositivityError, match="determine the treatment") as raised:
        gps(problem_of(segment_of(covariates, treatment)), GpsOptions(), 0)
    assert raised.value.hint


def test_published_effects_of_smoking_more_are_found_again():
    """Hernan, Robins, What If, section 12.4: 2.0 kg gained by 1,162 light smokers who changed nothing, .9 at +20."""
    cohort = pd.read_stata(installed_file("causaldata", "nhefs/nhefs.dta"))
    cohort = cohort[(cohort["smokeintensity"] <= 25) & cohort["wt82"].notna()]
    assert len(cohort) == 1162
    numbers = [cohort[name].to_numpy(dtype=float) for name in ("age", "smokeintensity", "smokeyrs", "wt71")]
    levels = pd.get_dummies(cohort[["education", "exercise", "active"]].astype(str), drop_first=True)
    kinds = [cohort[name].to_numpy(dtype=float) for name in ("sex", "race")]
    covariates = np.column_stack([*numbers, *[one**2 for one in numbers], *kinds, levels.to_numpy(dtype=float)])
    change = cohort["smkintensity82_71"].to_numpy(dtype=float)
    weights = gps(problem_of(segment_of(covariates, change)), GpsOptions(), 0).weights
    assert weights.min() * len(weights) == pytest.approx(0.19, abs=0.01)
    parabola = np.polyfit(change, cohort["wt82_71"], 2, w=np.sqrt(weights))
    assert np.polyval(parabola, 0) == pytest.approx(2.0, abs=0.05)
    assert np.polyval(parabola, 20) == pytest.approx(0.9, abs=0.12)
