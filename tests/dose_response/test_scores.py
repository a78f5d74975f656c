import numpy as np
import pytest

from causal_spark.dose_response.e2b import e2b
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.responses import make_responses
from causal_spark.dose_response.scores import score_weightings
from tests.dose_response.segments import losses_of, problem_of, random_segment


def weightings(n_rows, n_weightings=3):
    rng = np.random.default_rng(0)
    return list(rng.dirichlet(np.full(n_rows, 2.0), n_weightings))


@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_scores_are_expected_losses(stage):
    problem = problem_of(random_segment(60, 2), stage)
    options = E2bOptions(n_waves=8, noise=0.3)
    weights = weightings(60)
    found = score_weightings(problem, weights, options, 4)
    responses = make_responses(problem.segment, problem.grid, problem.is_line, options.responses(problem), 4)
    wanted = np.array([losses_of(problem, responses, one) for one in weights])
    np.testing.assert_allclose(found.bias, wanted[:, 0])
    np.testing.assert_allclose(found.variance, 0.3 * wanted[:, 1])
    np.testing.assert_allclose(found.score, wanted @ [1, 0.3])


def test_sampled_scores_are_near_exact_ones_and_those_of_a_link_rank_alike():
    problem = problem_of(random_segment(60, 2), "spline")
    weights = [problem.segment.sample_weights, *weightings(60)]
    exact = score_weightings(problem, weights, E2bOptions(), 0)
    sampled = score_weightings(problem, weights, E2bOptions(loss="sampled"), 0)
    np.testing.assert_allclose(sampled.bias, exact.bias, rtol=0.15)
    np.testing.assert_allclose(sampled.variance, exact.variance)
    of_chances = score_weightings(problem, weights, E2bOptions(loss="sampled", link="logistic"), 0)
    assert (of_chances.score < 0.2 * exact.score).all()


def test_learned_weights_score_best():
    problem = problem_of(random_segment(150, 2, strength=1.0), "line")
    options = E2bOptions(n_waves=16)
    scores = score_weightings(problem, [problem.segment.sample_weights, e2b(problem, options, 0).weights], options, 0)
    assert scores.score[1] < 0.5 * scores.score[0]
    assert scores.bias[1] < 0.3 * scores.bias[0]
    assert scores.variance[1] > scores.variance[0]
