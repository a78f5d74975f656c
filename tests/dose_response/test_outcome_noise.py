import numpy as np
import pytest

from causal_spark.dose_response.e2b import e2b
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.outcome_noise import outcome_noise, with_outcome_noise
from tests.dose_response.segments import problem_of, random_segment


def outcome_of(segment, deviation, seed=0):
    """Confounding of variance one."""
    rng = np.random.default_rng(100 + seed)
    return segment.treatment + segment.covariates[:, 1] + deviation * rng.normal(size=segment.n_rows)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_noise_is_told_in_units_in_which_confounding_has_a_variance_of_two(deviation):
    segment = random_segment(800, 3)
    found = outcome_noise(problem_of(segment, "spline"), outcome_of(segment, deviation), E2bOptions(), 0)
    assert found == pytest.approx(2 * deviation**2, rel=0.35)


def test_units_of_the_outcome_do_not_matter():
    segment = random_segment(200, 3)
    problem, outcome = problem_of(segment), outcome_of(segment, 1.0)
    found = outcome_noise(problem, outcome, E2bOptions(), 0)
    assert outcome_noise(problem, 7 - 1e4 * outcome, E2bOptions(), 0) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize(("outcome", "wanted"), [(lambda s: s.covariates[:, 0], 0.05), (lambda s: s.treatment * 0, 64)])
def test_no_noise_and_nothing_but_noise_are_bounded(outcome, wanted):
    segment = random_segment(200, 3, strength=0.0)
    noise = 1e-6 * np.random.default_rng(0).normal(size=200)
    assert outcome_noise(problem_of(segment), outcome(segment) + noise, E2bOptions(), 0) == pytest.approx(wanted, rel=2)


def test_a_problem_that_nobody_looked_at_is_refused_where_the_option_asks_for_it():
    segment = random_segment(60)
    problem = problem_of(segment)
    options = E2bOptions(noise="outcome", hidden=2, n_waves=2, max_steps=3)
    with pytest.raises(ValueError, match="with_outcome_noise"):
        e2b(problem, options, 0)
    seen = with_outcome_noise(problem, outcome_of(segment, 1.0), options, 0)
    assert e2b(seen, options, 0).weights.sum() == pytest.approx(1)
    assert with_outcome_noise(problem, outcome_of(segment, 1.0), E2bOptions(), 0) is problem
