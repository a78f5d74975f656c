import numpy as np
import pytest
import torch

from causal_spark.dose_response.expected_loss import expected_losses, stack_responses
from causal_spark.dose_response.responses import ResponseOptions, make_responses
from causal_spark.dose_response.sampled_loss import draw_responses, sampled_losses
from causal_spark.dose_response.second_stage import SECOND_STAGES
from tests.dose_response.segments import problem_of, random_segment

CPU = torch.device("cpu")
STAGES = pytest.mark.parametrize("stage", SECOND_STAGES)
GRID = np.linspace(-1.2, 1.2, 7)


def stacked(stage, n_rows=(40,), link="identity", padded_to=None):
    """Segments of so many rows side by side: what is given, their sample weights, random weights, the segments."""
    segments = [random_segment(n, 2, seed=seed, weighted=True) for seed, n in enumerate(n_rows)]
    problems = [problem_of(segment, stage, GRID) for segment in segments]
    options = ResponseOptions(n_waves=5, link=link)
    responses = [make_responses(one.segment, GRID, one.is_line, options, 0) for one in problems]
    longest = padded_to or max(n_rows)
    given = stack_responses([one.stage for one in problems], responses, longest, torch.float64, CPU)
    pairs = [
        (one.sample_weights, np.random.default_rng(one.n_rows).dirichlet(np.full(one.n_rows, 2.0))) for one in segments
    ]
    shares, weights = (
        torch.tensor(np.stack([np.pad(pair[k], (0, longest - len(pair[k]))) for pair in pairs])) for k in (0, 1)
    )
    return given, shares, weights, responses


@STAGES
def test_the_mean_over_draws_is_the_expected_loss(stage):
    given, shares, weights, _ = stacked(stage, (40, 25))
    exact = expected_losses(weights, given)
    means = torch.stack(
        [
            torch.stack(sampled_losses(weights, given, draw_responses(given, shares, "identity", 500, seeds)))
            for seeds in ([(k, 0), (k, 1)] for k in range(20))
        ]
    )
    error = means[:, 0].std(0) / np.sqrt(20)
    assert (error < 0.05 * exact[0]).all()
    assert ((means[:, 0].mean(0) - exact[0]).abs() < 3.5 * error).all()
    torch.testing.assert_close(means[:, 1], exact[1].expand(20, -1))


@STAGES
@pytest.mark.parametrize("link", ["identity", "logistic"])
def test_segments_side_by_side_padded_have_the_draws_they_have_alone(stage, link):
    given, shares, weights, _ = stacked(stage, (40, 25), link, padded_to=50)
    together = sampled_losses(weights, given, draw_responses(given, shares, link, 30, [(7,), (8,)]))
    given, shares, weights, _ = stacked(stage, (40,), link)
    alone = sampled_losses(weights, given, draw_responses(given, shares, link, 30, [(7,)]))
    torch.testing.assert_close(torch.stack(together)[:, :1], torch.stack(alone), rtol=1e-10, atol=0)


def test_seeds_tell_draws_apart():
    given, shares, _, _ = stacked("spline")
    first, again, other = (draw_responses(given, shares, "identity", 5, [seed]) for seed in ((1, 0), (1, 0), (1, 1)))
    assert torch.equal(first.responses, again.responses)
    assert (first.responses != other.responses).all()


@pytest.mark.parametrize("stage", ["line", "spline"])
def test_logistic_responses_are_chances_and_their_curve_is_the_mean_over_all_rows(stage):
    """By hand, from the same normal coefficients: every row is given every dose."""
    given, shares, _, (made,) = stacked(stage, link="logistic")
    drawn = draw_responses(given, shares, "logistic", 6, [(3,)])
    n_curves, n_modulations = made.average.shape[1], made.modulation.shape[1]
    n_functions = made.confounding.shape[1]
    normals = np.random.default_rng((3,)).normal(size=(n_functions * n_modulations + n_curves, 6))
    of_curves = normals[:n_curves]
    parts = normals[n_curves:].reshape(n_functions, n_modulations, 6)

    def chances(modulation, average):
        functions = np.einsum("nk,kmd,nm->nd", made.confounding, parts, modulation) + average @ of_curves
        return 1 / (1 + np.exp(-functions))

    responses = chances(made.modulation, made.average)
    np.testing.assert_allclose(drawn.responses[0], responses, atol=1e-12)
    np.testing.assert_allclose(drawn.spread[0], np.mean(responses * (1 - responses), axis=1), atol=1e-12)
    for place in range(len(GRID)):
        given_all = chances(
            np.tile(made.modulation_at_grid[place], (40, 1)), np.tile(made.average_at_grid[place], (40, 1))
        )
        np.testing.assert_allclose(drawn.curves[0, place], shares[0].numpy() @ given_all, atol=1e-12)
    assert 0 < drawn.responses.min() < 0.2
    assert 0.8 < drawn.responses.max() < 1
