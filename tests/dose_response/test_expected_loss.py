from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_spark.dose_response.expected_loss import expected_losses, stack_responses
from causal_spark.dose_response.responses import ResponseOptions, Responses, make_responses
from causal_spark.dose_response.second_stage import SECOND_STAGES
from tests.dose_response.segments import losses_of, problem_of, random_segment

CPU = torch.device("cpu")
STAGES = pytest.mark.parametrize("stage", SECOND_STAGES)


def random_weights(n_rows, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(n_rows, 2.0))


def made(stage, n_rows=40, seed=0, n_covariates=2):
    problem = problem_of(random_segment(n_rows, n_covariates, seed=seed), stage)
    options = ResponseOptions(n_waves=5)
    return problem, make_responses(problem.segment, problem.grid, problem.is_line, options, seed)


def smoother(problem, weights):
    """(n_grid, n_rows): the curves of outcomes that are one in one row and zero in all others."""
    rows = np.eye(problem.segment.n_rows)
    return np.stack([problem.stage.curves(weights[None, :], one)[0][0] for one in rows], axis=1)


def brute_force(problem, responses, weights):
    """The mean over the grid of the diagonal of E (S y - m)(S y - m)', from dense covariances over rows and grid."""
    s = smoother(problem, weights)
    confounded = (responses.confounding @ responses.confounding.T) * (responses.modulation @ responses.modulation.T)
    of_rows = responses.average @ responses.average.T
    across = responses.average @ responses.average_at_grid.T
    of_grid = responses.average_at_grid @ responses.average_at_grid.T
    error = s @ (confounded + of_rows) @ s.T - s @ across - (s @ across).T + of_grid
    return np.mean(np.diag(error)), np.mean(np.diag(s @ s.T))


@STAGES
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_those_of_dense_covariances(stage, seed):
    problem, responses = made(stage, seed=seed)
    weights = random_weights(40, seed)
    found = losses_of(problem, responses, weights)
    np.testing.assert_allclose(found, brute_force(problem, responses, weights), rtol=1e-9)


@pytest.mark.parametrize("stage", ["spline", "local_linear"])
def test_losses_are_the_mean_error_of_drawn_responses(stage):
    problem, responses = made(stage)
    weights, noise = random_weights(40), 0.3
    rng = np.random.default_rng(1)
    n_draws = 4000
    parts = rng.normal(size=(n_draws, responses.confounding.shape[1], responses.modulation.shape[1]))
    curve = rng.normal(size=(n_draws, responses.average.shape[1]))
    outcomes = np.einsum("nk,dkm,nm->dn", responses.confounding, parts, responses.modulation)
    outcomes += curve @ responses.average.T + np.sqrt(noise) * rng.normal(size=(n_draws, 40))
    missed = outcomes @ smoother(problem, weights).T - curve @ responses.average_at_grid.T
    bias, variance = losses_of(problem, responses, weights)
    assert np.mean(missed**2) == pytest.approx(bias + noise * variance, rel=0.06)
    assert bias > noise * variance / 10


def test_a_response_that_the_stage_can_take_costs_nothing_but_noise():
    problem = problem_of(random_segment(40, 2), "line")
    treatment, grid = problem.segment.treatment, problem.grid
    responses = Responses(
        np.zeros((40, 1)),
        np.ones((40, 1)),
        np.ones((15, 1)),
        treatment[:, None] + 2,
        grid[:, None] + 2,
        np.zeros(40),
        1.0,
    )
    bias, variance = losses_of(problem, responses, random_weights(40))
    assert bias < 1e-20
    assert variance > 1 / 40


@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_segments_side_by_side_padded_have_the_losses_they_have_alone(stage):
    pairs = [made(stage, n_rows, seed) for n_rows, seed in ((40, 0), (25, 1), (33, 2))]
    weights = [random_weights(problem.segment.n_rows, seed) for seed, (problem, _) in enumerate(pairs)]
    padded = np.stack([np.pad(one, (0, 50 - len(one))) for one in weights])
    stacked = stack_responses([p.stage for p, _ in pairs], [r for _, r in pairs], 50, torch.float64, CPU)
    bias, variance = expected_losses(torch.tensor(padded), stacked)
    alone = [losses_of(problem, responses, one) for (problem, responses), one in zip(pairs, weights, strict=True)]
    np.testing.assert_allclose(np.stack([bias, variance], axis=1), alone, rtol=1e-10)


@STAGES
def test_gradients_are_those_of_differences(stage):
    problem, responses = made(stage, n_rows=14, n_covariates=1)
    stacked = stack_responses([problem.stage], [responses], 16, torch.float64, CPU)
    mask = torch.tensor([[0.0] * 14 + [-torch.inf] * 2], dtype=torch.float64)

    def losses(logits):
        return expected_losses(torch.softmax(torch.cat([logits, logits[:, :2]], 1) + mask, 1), stacked)

    logits = torch.tensor(np.random.default_rng(0).normal(size=(1, 14)), requires_grad=True)
    assert torch.autograd.gradcheck(losses, (logits,))


def test_single_precision_is_near_double():
    problem, responses = made("spline")
    stacked = stack_responses([problem.stage], [responses], 40, torch.float32, CPU)
    weights = random_weights(40)
    found = expected_losses(torch.tensor(weights, dtype=torch.float32)[None, :], stacked)
    assert found[0].dtype == torch.float32
    np.testing.assert_allclose([float(one[0]) for one in found], losses_of(problem, responses, weights), rtol=1e-4)


def test_segments_may_differ_in_noise():
    pairs = [made("line"), made("line", seed=1)]
    responses = [replace(r, noise=noise) for (_, r), noise in zip(pairs, (0.5, 2.0), strict=True)]
    stacked = stack_responses([p.stage for p, _ in pairs], responses, 40, torch.float64, CPU)
    assert stacked.noise.tolist() == [0.5, 2.0]
