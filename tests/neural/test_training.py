from itertools import pairwise

import pytest
import torch

from causal_spark.neural.training import TrainingOptions, train


def quadratics(n_models=4, size=3, seed=0):
    """A loss with a minimum of its own for every model: (loss, start, minimisers, least losses)."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(n_models, size, generator=generator, dtype=torch.float64)
    steep = torch.rand(n_models, size, generator=generator, dtype=torch.float64) * 5 + 0.5
    least = torch.rand(n_models, generator=generator, dtype=torch.float64)

    def loss(parameters, models=slice(None)):
        return (steep[models] * (parameters[0] - target[models]).square()).sum(1) + least[models]

    return loss, torch.zeros(n_models, size, dtype=torch.float64), target, least


PATIENT = TrainingOptions(learning_rate=0.1, tolerance=1e-9, n_falls=8)


def test_quadratics_are_minimised():
    loss, start, target, least = quadratics()
    trained = train(loss, [start], PATIENT)
    assert trained.converged.all()
    torch.testing.assert_close(trained.parameters[0], target, atol=1e-3, rtol=0)
    torch.testing.assert_close(trained.losses, least, atol=1e-5, rtol=0)
    assert not start.any()


def test_a_model_ends_up_the_same_whoever_shares_the_stack():
    loss, start, *_ = quadratics()
    together = train(loss, [start], PATIENT)
    assert len(set(together.n_steps.tolist())) > 1
    for model in range(4):
        one = slice(model, model + 1)
        alone = train(lambda parameters, one=one: loss(parameters, one), [start[one]], PATIENT)
        torch.testing.assert_close(alone.parameters[0][0], together.parameters[0][model], rtol=1e-12, atol=1e-12)
        assert alone.n_steps[0] == together.n_steps[model]
        assert alone.converged[0] == together.converged[model]
        assert alone.losses[0].item() == pytest.approx(together.losses[model].item(), abs=1e-12)


def test_steps_are_those_of_adam():
    loss, start, *_ = quadratics(n_models=2)
    n_steps = 25
    mine = train(loss, [start], TrainingOptions(learning_rate=0.01, max_steps=n_steps)).parameters[0]
    theirs = start.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    # The loss falls with every step, so that the best is the last that was looked at, one step before the last.
    for _ in range(n_steps - 1):
        adam.zero_grad()
        loss([theirs]).sum().backward()
        adam.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-9, atol=1e-9)


def test_too_few_steps_are_told():
    loss, start, *_ = quadratics()
    trained = train(loss, [start], TrainingOptions(learning_rate=0.01, max_steps=5))
    assert not trained.converged.any()
    assert trained.n_steps.tolist() == [5] * 4


def test_each_model_tells_for_itself_whether_it_converged():
    loss, start, target, _ = quadratics(n_models=2)
    start[0] = target[0]
    trained = train(loss, [start], TrainingOptions(learning_rate=1e-3, patience=10, max_steps=100))
    assert trained.converged.tolist() == [True, False]
    assert trained.n_steps[0] < trained.n_steps[1] == 100


def test_the_best_parameters_are_returned_and_not_the_last():
    """Steps so long that the loss goes up and down."""
    loss, start, *_ = quadratics(n_models=3)
    seen = []

    def recorded(parameters):
        found = loss(parameters)
        seen.append(found.detach().clone())
        return found

    trained = train(recorded, [start], TrainingOptions(learning_rate=0.9, max_steps=12))
    losses = torch.stack(seen)
    assert torch.equal(trained.losses, losses.min(0).values)
    assert (losses[-1] > trained.losses).all()
    assert torch.equal(loss(trained.parameters), trained.losses)


def test_where_nothing_improves_training_ends_after_its_patience():
    start = torch.ones(2, 3, dtype=torch.float64)
    options = TrainingOptions(patience=7, n_falls=2, max_steps=500)
    trained = train(lambda parameters: 0 * parameters[0].sum(1) + 4, [start], options)
    assert trained.converged.all()
    # The first step sets what there is to improve on.
    assert trained.n_steps.tolist() == [1 + 7 * 2] * 2
    assert torch.equal(trained.parameters[0], start)


def test_slow_progress_is_progress():
    """No step lowers this loss by the tolerance, a tenth, but eleven steps do, and that is within the patience."""
    start = torch.zeros(1, 1, dtype=torch.float64)
    options = TrainingOptions(learning_rate=0.01, patience=15, max_steps=100)
    trained = train(lambda parameters: 100 + parameters[0][:, 0], [start], options)
    assert trained.n_steps.item() == 100
    assert not trained.converged[0]
    assert trained.losses.item() == pytest.approx(100 - 0.99, abs=1e-6)


def test_a_loss_below_zero_is_minimised_like_any_other():
    loss, start, target, _ = quadratics()
    trained = train(lambda parameters: loss(parameters) - 50, [start], PATIENT)
    torch.testing.assert_close(trained.parameters[0], target, atol=1e-2, rtol=0)


def test_models_whose_loss_is_not_a_number_do_not_spoil_others():
    loss, start, target, _ = quadratics(n_models=2)
    spoil = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    trained = train(lambda parameters: loss(parameters) * spoil, [start], PATIENT)
    assert trained.converged[0]
    torch.testing.assert_close(trained.parameters[0][0], target[0], atol=1e-3, rtol=0)
    assert torch.equal(trained.parameters[0][1], start[1])


def test_parameters_of_several_shapes_are_trained_at_once():
    generator = torch.Generator().manual_seed(3)
    target = [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (1, 4), ())]

    def loss(parameters):
        parts = [(one - goal).square().reshape(2, -1).sum(1) for one, goal in zip(parameters, target, strict=True)]
        return torch.stack(parts).sum(0)

    trained = train(loss, [torch.zeros_like(one) for one in target], PATIENT)
    for found, wanted in zip(trained.parameters, target, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_a_loss_that_is_not_a_number_has_not_converged():
    start = torch.ones(1, 2, dtype=torch.float64)
    trained = train(lambda parameters: parameters[0].sum(1) * torch.nan, [start], TrainingOptions())
    assert not trained.converged[0]


def test_drawn_losses_are_followed_and_the_given_ones_judge():
    """The draws pull to one, the judge prefers a half: training passes it, and keeps it."""
    start = torch.zeros(2, 1, dtype=torch.float64)
    steps = []

    def drawn(parameters, step):
        steps.append(step)
        return (parameters[0][:, 0] - 1).square()

    def judge(parameters):
        assert not torch.is_grad_enabled()
        return (parameters[0][:, 0] - 0.5).square()

    options = TrainingOptions(learning_rate=0.02, max_steps=300, patience=30)
    trained = train(judge, [start], options, drawn)
    torch.testing.assert_close(trained.parameters[0], torch.full_like(start, 0.5), atol=0.02, rtol=0)
    assert trained.converged.all()
    assert steps == list(range(len(steps)))


@pytest.mark.parametrize("is_drawn", [False, True])
def test_models_that_have_ended_are_dropped_and_all_end_as_they_would_alone(is_drawn):
    generator = torch.Generator().manual_seed(3)
    # Of quadratics with curvatures far apart some end long after others.
    curvature = torch.logspace(-3, 1, 9, dtype=torch.float64)
    start = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    seen = []

    def losses_of(places):
        seen.append(len(places))

        def losses(current):
            return 1 + curvature[places] * (current[0] ** 2).sum(1)

        return losses, (lambda current, step: (1 + step % 2) * losses(current)) if is_drawn else None

    options = TrainingOptions(learning_rate=0.05, patience=10, max_steps=2000, check_every=3 if is_drawn else 1)
    losses, drawn = losses_of(torch.arange(9))
    whole = train(losses, [start], options, drawn)
    dropped = train(losses, [start], options, drawn, losses_of)
    assert len(seen) >= 4
    assert all(after <= 0.75 * before for before, after in pairwise(seen))
    assert whole.n_steps.unique().numel() > 4
    torch.testing.assert_close(dropped.n_steps, whole.n_steps)
    torch.testing.assert_close(dropped.losses, whole.losses, rtol=0, atol=0)
    torch.testing.assert_close(dropped.parameters[0], whole.parameters[0], rtol=0, atol=0)
    torch.testing.assert_close(dropped.converged, whole.converged)
