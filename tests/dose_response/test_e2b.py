from functools import cache

import numpy as np
import pytest
import torch

from causal_spark.dose_response.e2b import _weighting, device_of, e2b, e2b_stacked
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.e2b_training import (
    LESS_WHERE_WORTH,
    Program,
    _of_some,
    free_weights,
    least_effective,
    network,
    network_inputs,
    train_weights,
)
from causal_spark.dose_response.ebct import EbctOptions, ebct1
from causal_spark.dose_response.expected_loss import expected_losses
from causal_spark.dose_response.gps import GpsOptions, gps
from causal_spark.dose_response.responses import ResponseOptions, make_responses
from causal_spark.dose_response.sampled_loss import draw_responses
from causal_spark.errors import ShapeError
from tests.dose_response.segments import losses_of, problem_of, random_segment, segment_of

SMALL = E2bOptions(hidden=8, n_waves=16, max_steps=100)


@pytest.fixture
def brief(monkeypatch):
    """Little training, for what does not depend on how much there is."""
    monkeypatch.setattr("causal_spark.dose_response.e2b_training._LEVEL_STEPS", 8)


@cache
def curved(seed):
    """A problem whose treatment and outcome both depend on squares; the outcome; and the true curve on the grid."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(400, 3))
    shared = (covariates[:, 0] ** 2 + covariates[:, 1] ** 2) / 2
    treatment = shared + 0.8 * rng.normal(size=400)
    outcome = treatment + 3 * shared + 0.5 * rng.normal(size=400)
    problem = problem_of(segment_of(covariates, treatment))
    return problem, outcome, problem.grid + 3


@cache
def learned(seed, weights="network"):
    return e2b(curved(seed)[0], E2bOptions(weights=weights), seed)


def others(problem):
    return {
        "unweighted": problem.segment.sample_weights,
        "gps": gps(problem, GpsOptions(), 0).weights,
        "ebct1": ebct1(problem, EbctOptions(), 0).weights,
    }


@pytest.mark.parametrize("weights", ["network", "free"])
def test_the_expected_loss_is_lower_than_that_of_other_weights(weights):
    problem, _, _ = curved(0)
    responses = make_responses(problem.segment, problem.grid, problem.is_line, ResponseOptions(), 0)

    def loss(of):
        bias, variance = losses_of(problem, responses, of)
        return bias + responses.noise * variance

    mine = loss(learned(0, weights).weights)
    for name, of in others(problem).items():
        assert mine < 0.8 * loss(of), name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_curve_is_nearer_the_truth_where_others_are_misspecified(seed):
    problem, outcome, truth = curved(seed)

    def error(of):
        return np.sqrt(np.mean((problem.stage.curves(of[None, :], outcome)[0][0] - truth) ** 2))

    mine = error(learned(seed).weights)
    for name, of in others(problem).items():
        assert mine < 0.6 * error(of), name


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_rows_stay_effective(share):
    """Noise is halved as long as they do; the last stretch of training may cost a few more."""
    problem, _, _ = curved(0)
    options = E2bOptions(hidden=8, n_waves=16, max_steps=200, least_effective=share)
    least = LESS_WHERE_WORTH * least_effective(problem.segment, options)
    assert e2b(problem, options, 0).effective_sample_size > 0.9 * least


def test_the_more_rows_are_to_stay_the_more_do():
    problem, _, _ = curved(0)
    strict = e2b(problem, E2bOptions(hidden=8, n_waves=16, max_steps=150, least_effective=1.0), 0)
    assert strict.effective_sample_size > 1.2 * learned(0).effective_sample_size


def test_the_least_effective_rows_are_a_share_that_falls_with_many_rows():
    def least(n_rows, sample_weights=None):
        covariates = np.arange(n_rows, dtype=float)[:, None]
        return least_effective(
            segment_of(covariates, covariates[:, 0], sample_weights), E2bOptions(least_effective=0.4)
        )

    assert least(100) == pytest.approx(40)
    assert least(500) == pytest.approx(200)
    assert least(16_000) == pytest.approx(0.4 * 16_000 / 2)
    # Rows that hardly count are no rows.
    assert least(100, np.r_[np.ones(50), np.full(50, 1e-9)]) == pytest.approx(20)


@pytest.mark.parametrize("weights", ["network", "free"])
def test_segments_trained_side_by_side_get_the_weights_they_get_alone(brief, weights):
    options = E2bOptions(weights=weights, hidden=8, n_waves=16, max_steps=30)
    problems = [
        problem_of(random_segment(n_rows, 2, seed=n_rows, weighted=weighted), "spline", np.linspace(-1.2, 1.2, 7))
        for n_rows, weighted in ((60, False), (110, True), (85, False))
    ]
    stacked = e2b_stacked(problems, options, [3, 4, 5])
    for seed, problem, together in zip((3, 4, 5), problems, stacked, strict=True):
        alone = e2b(problem, options, seed)
        assert together.weights.shape == (problem.segment.n_rows,)
        np.testing.assert_allclose(together.weights, alone.weights, rtol=1e-4, atol=1e-9)
        assert together.notices == alone.notices
        multipliers = np.ones((1, problem.segment.n_rows))
        np.testing.assert_allclose(together.resolve(multipliers)[0], together.weights, atol=1e-8)


@pytest.mark.parametrize("link", ["identity", "logistic"])
def test_drawn_responses_are_those_of_a_segment_alone(brief, link):
    options = E2bOptions(loss="sampled", link=link, n_draws=8, hidden=8, n_waves=8, max_steps=15)
    problems = [problem_of(random_segment(n, 2, seed=n), "spline", np.linspace(-1.2, 1.2, 7)) for n in (60, 85)]
    stacked = e2b_stacked(problems, options, [3, 4])
    for seed, problem, together in zip((3, 4), problems, stacked, strict=True):
        np.testing.assert_allclose(together.weights, e2b(problem, options, seed).weights, rtol=1e-4, atol=1e-9)
        assert together.weights.std() * len(together.weights) > 0.05


def test_weights_by_sampled_losses_are_nearly_as_good_as_by_exact_ones():
    problem = curved(0)[0]
    responses = make_responses(problem.segment, problem.grid, problem.is_line, ResponseOptions(), 0)
    sampled = e2b(problem, E2bOptions(loss="sampled"), 0)
    exact, drawn, none = (
        sum(losses_of(problem, responses, of) * np.array([1, responses.noise]))
        for of in (learned(0).weights, sampled.weights, problem.segment.sample_weights)
    )
    assert drawn < 1.25 * exact < 0.3 * none


def test_training_and_judging_use_draws_of_their_own(brief, monkeypatch):
    """Every step has its own; those that judge are the same in all of them."""
    seen = []
    monkeypatch.setattr(
        "causal_spark.dose_response.e2b_training.draw_responses",
        lambda *given: seen.append((given[3], given[4][0])) or draw_responses(*given),
    )
    options = E2bOptions(loss="sampled", n_draws=8, hidden=4, n_waves=4, max_steps=12)
    e2b(problem_of(random_segment(40, 1)), options, 5)
    (judging,) = [seed for n_draws, seed in seen if n_draws != 8]
    assert {seed for n_draws, seed in seen if n_draws == 8} == {(5, 1, step) for step in range(12)}
    assert judging == (5, 2)


def test_a_logistic_link_needs_sampled_losses():
    with pytest.raises(ValueError, match="sampled"):
        E2bOptions(link="logistic")


def test_binary_outcomes_have_their_curve():
    problem, _, _ = curved(0)
    segment = problem.segment
    shared = (segment.covariates[:, 0] ** 2 + segment.covariates[:, 1] ** 2) / 2

    def chance(dose):
        return 1 / (1 + np.exp(-(dose / 2 + 1.5 * (shared - 1))))

    truth = np.array([chance(dose).mean() for dose in problem.grid])
    problem = problem_of(segment, "spline", problem.grid)
    weights = e2b(problem, E2bOptions(loss="sampled", link="logistic"), 0).weights

    def error(of):
        return np.sqrt(np.mean((problem.stage.curves(of[None, :], chance(segment.treatment))[0][0] - truth) ** 2))

    for name, of in others(problem).items():
        assert error(weights) < 0.7 * error(of), name


@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_every_second_stage_and_either_kind_of_weights_will_do(brief, stage):
    problem = problem_of(random_segment(70, 2, seed=6), stage)
    for weights in ("network", "free"):
        options = E2bOptions(weights=weights, hidden=4, n_waves=8, max_steps=30)
        weighting = e2b(problem, options, 0)
        assert weighting.weights.min() >= 0
        assert weighting.weights.sum() == pytest.approx(1)
        assert weighting.weights.std() * 70 > 0.05


def test_single_precision_is_near_double(brief):
    problem, _, _ = curved(0)
    (single,) = e2b_stacked([problem], SMALL, [0], dtype=torch.float32)
    double = e2b(problem, SMALL, 0)
    assert single.weights.dtype == np.float64
    assert single.weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.corrcoef(single.weights, double.weights)[0, 1] > 0.95


@pytest.mark.parametrize("weights", ["network", "free"])
def test_training_starts_at_the_sample_weights(monkeypatch, weights):
    """A single step looks at where it starts, and there is nothing better that it has seen."""
    monkeypatch.setattr("causal_spark.dose_response.e2b_training._LEVEL_STEPS", 1)
    segment = random_segment(80, 2, seed=7, weighted=True)
    found = e2b(problem_of(segment), E2bOptions(weights=weights, hidden=4, n_waves=8, max_steps=1), 0).weights
    np.testing.assert_allclose(found, segment.sample_weights, atol=1e-12)


def test_where_noise_is_all_ordinary_least_squares_is_best():
    segment = random_segment(80, 2, seed=7, weighted=True)
    weights = e2b(problem_of(segment), E2bOptions(weights="free", n_waves=8, noise=1e6), 0).weights
    assert 1 / np.sum(segment.sample_weights**2) < 75
    assert 1 / np.sum(weights**2) > 79


def test_resolved_weights_keep_the_imbalances_there_are():
    """Means under them move as those of the multiplied sample do, no more, up to what the ridge leaves."""
    problem, _, _ = curved(0)
    segment, weighting = problem.segment, learned(0)
    multipliers = np.random.default_rng(8).exponential(size=(4, 400))
    resolved = weighting.resolve(multipliers)
    rows = segment.sample_weights * multipliers
    rows /= rows.sum(axis=1, keepdims=True)
    for columns in (segment.standardised_covariates(), segment.standardised_treatment()[:, None]):
        np.testing.assert_allclose(resolved @ columns, rows @ columns + weighting.weights @ columns, atol=0.02)
    products = segment.standardised_treatment()[:, None] * segment.standardised_covariates()
    means = rows @ segment.standardised_treatment()
    wanted = weighting.weights @ products + means[:, None] * (rows @ segment.standardised_covariates())
    np.testing.assert_allclose(resolved @ products, wanted, atol=0.02)


def test_training_that_was_cut_short_is_told_and_training_that_was_not_is_not(brief):
    problem = problem_of(random_segment(60, 2, seed=9))
    (notice,) = e2b(problem, E2bOptions(hidden=4, n_waves=8, max_steps=1), 0).notices
    assert notice.name == "TrainingNotConverged"
    assert "1 step" in notice.message
    assert "max_steps" in notice.hint
    assert learned(0).notices == ()


@pytest.mark.parametrize("differs", ["stage", "line or spline", "grid", "covariates"])
def test_problems_that_cannot_be_stacked_are_refused(differs):
    segment, grid = random_segment(50, 2), np.linspace(-1, 1, 5)
    other = {
        "stage": lambda: problem_of(segment, "local_linear", grid),
        "line or spline": lambda: problem_of(segment, "line", grid),
        "grid": lambda: problem_of(segment, "spline", np.linspace(-1, 1, 6)),
        "covariates": lambda: problem_of(random_segment(50, 3), "spline", grid),
    }[differs]()
    with pytest.raises(ShapeError):
        e2b_stacked([problem_of(segment, "spline", grid), other], SMALL, [0, 1])


def test_a_seed_is_needed_for_every_problem():
    problem = problem_of(random_segment(50, 2))
    with pytest.raises(ValueError, match="shorter"):
        e2b_stacked([problem, problem], SMALL, [0])


def test_the_global_state_of_torch_does_not_matter(brief):
    problem = problem_of(random_segment(50, 2))
    options = E2bOptions(hidden=4, n_waves=8, max_steps=5)
    torch.manual_seed(0)
    first = e2b(problem, options, 0).weights
    torch.manual_seed(1)
    np.testing.assert_array_equal(e2b(problem, options, 0).weights, first)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_nearly_linear_assignment_leaves_replicates_that_can_be_balanced(seed):
    segment = random_segment(120, 3, seed=seed)
    assignment = make_responses(segment, np.linspace(-1, 1, 5), True, ResponseOptions(), 0).assignment
    multipliers = np.random.default_rng(1).exponential(size=(100, 120))
    resolved = _weighting(segment, assignment, segment.sample_weights, True, E2bOptions()).resolve(multipliers)
    assert np.isnan(resolved).any(axis=1).mean() < 0.1


@pytest.mark.parametrize("stage", ["line", "local_linear"])
def test_a_long_segment_is_trained_on_pieces_and_the_network_applied_to_all_rows(monkeypatch, stage):
    problem, outcome, truth = curved(2)
    problem, options = problem_of(problem.segment, stage, problem.grid), E2bOptions(max_steps=100)
    monkeypatch.setattr("causal_spark.dose_response.e2b._PIECE_ROWS", 100)
    monkeypatch.setattr("causal_spark.dose_response.e2b._N_PIECES", 3)
    trained_on = []
    monkeypatch.setattr(
        "causal_spark.dose_response.e2b.make_responses",
        lambda segment, *rest: trained_on.append(segment.n_rows) or make_responses(segment, *rest),
    )
    found = e2b(problem, options, 2)
    assert trained_on == [100, 100, 100]
    assert found.weights.shape == (400,)
    assert found.weights.min() > 0
    assert found.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.resolve(np.ones((1, 400)))[0], found.weights, rtol=1e-9)
    least = LESS_WHERE_WORTH * least_effective(problem.segment, E2bOptions())
    assert found.effective_sample_size > 0.85 * least

    def error(of):
        return np.sqrt(np.mean((problem.stage.curves(of[None, :], outcome)[0][0] - truth) ** 2))

    for name, of in others(problem).items():
        assert error(found.weights) < 0.8 * error(of), name


def test_pieces_have_draws_of_their_own(brief, monkeypatch):
    monkeypatch.setattr("causal_spark.dose_response.e2b._PIECE_ROWS", 50)
    monkeypatch.setattr("causal_spark.dose_response.e2b._N_PIECES", 2)
    seen = set()
    monkeypatch.setattr(
        "causal_spark.dose_response.e2b_training.draw_responses",
        lambda *given: seen.update(given[4]) or draw_responses(*given),
    )
    options = E2bOptions(loss="sampled", n_draws=8, hidden=4, n_waves=4, max_steps=3)
    found = e2b(problem_of(random_segment(110, 1)), options, 5)
    assert found.weights.sum() == pytest.approx(1)
    assert {seed[:2] for seed in seen} == {(5, 0), (5, 1)}
    assert {seed for seed in seen if seed[2] == 2} == {(5, 0, 2), (5, 1, 2)}


def test_pieces_of_one_network_are_one_model_whose_loss_is_their_mean():
    problem = curved(0)[0]
    options = E2bOptions(hidden=4, n_waves=8, max_steps=2)
    twice = [make_responses(problem.segment, problem.grid, True, options.responses(problem), 0)] * 2
    seen, floor = network_inputs(problem.segment), least_effective(problem.segment, options)
    program = Program.of(
        [problem, problem], twice, [seen] * 2, [floor] * 2, [(0,)] * 2, torch.float64, torch.device("cpu")
    )
    owners = torch.zeros(2, dtype=torch.long)
    shared = network(program, options, [5], owners)
    together = train_weights(program, shared, owners, options)
    alone = Program.of([problem], twice[:1], [seen], [floor], [(0,)], torch.float64, torch.device("cpu"))
    own = network(alone, options, [5])
    single = train_weights(alone, own, torch.zeros(1, dtype=torch.long), options)
    torch.testing.assert_close(together.losses, single.losses)
    both = shared.weights_in(program, together.parameters)
    torch.testing.assert_close(both, own.weights_in(alone, single.parameters).expand(2, -1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("noise", [0.005, 50.0])
def test_a_noise_that_is_wrong_by_a_factor_of_a_hundred_does_little_harm(noise):
    problem, outcome, truth = curved(0)

    def error(of):
        return np.sqrt(np.mean((problem.stage.curves(of[None, :], outcome)[0][0] - truth) ** 2))

    found = e2b(problem, E2bOptions(noise=noise), 0)
    assert error(found.weights) < 1.3 * error(learned(0).weights)
    least = LESS_WHERE_WORTH * least_effective(problem.segment, E2bOptions())
    assert found.effective_sample_size > 0.9 * least


def test_a_gpu_is_taken_where_there_is_one_and_asked_for(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of(E2bOptions()).type == "cpu"
        assert device_of(E2bOptions(device="auto")).type == ("cuda" if there else "cpu")


@pytest.mark.parametrize("weights", ["network", "free"])
@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_losses_of_some_models_are_theirs_among_all(stage, weights):
    problems = [problem_of(random_segment(n, 2, seed=n), stage, np.linspace(-1, 1, 4)) for n in (40, 60, 50)]
    options = E2bOptions(hidden=3, n_waves=2, weights=weights)
    responses = [make_responses(one.segment, one.grid, one.is_line, options.responses(one), 0) for one in problems]
    inputs = [network_inputs(one.segment) for one in problems]
    program = Program.of(problems, responses, inputs, [1.0] * 3, [(0,)] * 3, torch.float64, torch.device("cpu"))
    model = free_weights(program) if weights == "free" else network(program, options, [0, 1, 2])
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in model.parameters]
    noise, places = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([2, 0])
    bias, variance = expected_losses(model.weights_in(program, drawn), program.stacked)
    losses, _ = _of_some(program, model, noise, places)
    found = losses([one[places] for one in drawn])
    torch.testing.assert_close(found, torch.log(bias + noise * variance)[places])
