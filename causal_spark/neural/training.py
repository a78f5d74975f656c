"""Training of stacked models: each with its own steps, its own patience and its own end, whoever shares the stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BETAS = (0.9, 0.99)
_EPSILON = 1e-8

#: Parameters -> (n_models,) losses, and the same for the number of a step.
Losses = Callable[[Sequence[Tensor]], Tensor]
DrawnLosses = Callable[[Sequence[Tensor], int], Tensor]


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """learning_rate: of Adam at first; it falls by `decay` whenever the loss has not improved by `tolerance`
    (relative) for `patience` steps, and training ends at the fall number `n_falls`, or after `max_steps`. check_every:
    steps between looks at the loss, which `patience` then counts; where it is not the loss whose gradient is followed.
    """

    learning_rate: float = 0.02
    decay: float = 0.3
    tolerance: float = 1e-3
    patience: int = 40
    n_falls: int = 3
    max_steps: int = 3000
    check_every: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """parameters: of every model at its lowest loss. losses: (n_models,) those. converged: (n_models,) whether training
    ended because nothing improved any more. n_steps: (n_models,) steps until then.
    """

    parameters: list[Tensor]
    losses: Tensor
    converged: Tensor
    n_steps: Tensor


def train(
    losses_of: Losses,
    parameters: Sequence[Tensor],
    options: TrainingOptions,
    drawn_losses_of: DrawnLosses | None = None,
    losses_of_some: Callable[[Tensor], tuple[Losses, DrawnLosses | None]] | None = None,
) -> Trained:
    """Minimise the loss of every model by Adam (Kingma, Ba 2015).

    losses_of: parameters -> (n_models,) losses, where a model's loss depends on its own parameters only.
    parameters: tensors whose first axis is the model. drawn_losses_of: (parameters, number of the step) -> losses
    whose gradients are followed; those of ``losses_of`` then only tell which parameters are best and when to end.
    losses_of_some: positions (n_some,) of models -> ``losses_of`` and ``drawn_losses_of`` for these alone. With it,
    models that have ended are dropped whenever a quarter of those trained have.
    """
    current = [one.clone().requires_grad_() for one in parameters]
    n_models, device = current[0].shape[0], current[0].device
    first = [torch.zeros_like(one) for one in current]
    second = [torch.zeros_like(one) for one in current]
    best = [one.detach().clone() for one in current]
    lowest = torch.full((n_models,), torch.inf, dtype=current[0].dtype, device=device)
    steps_of = torch.zeros(n_models, dtype=torch.long, device=device)
    # What follows has an entry per model that is still trained: those at these positions.
    active = torch.arange(n_models, device=device)
    reference = lowest.clone()
    rate = torch.full((n_models,), options.learning_rate, dtype=current[0].dtype, device=device)
    waited = torch.zeros(n_models, dtype=torch.long, device=device)
    falls = torch.zeros_like(waited)
    running = torch.ones(n_models, dtype=torch.bool, device=device)
    for step in range(options.max_steps):
        is_looking = step % options.check_every == 0
        if is_looking or drawn_losses_of is None:
            with torch.set_grad_enabled(drawn_losses_of is None):
                losses = losses_of(current)
        followed = losses if drawn_losses_of is None else drawn_losses_of(current, step)
        gradients = torch.autograd.grad(followed.sum(), current)
        with torch.no_grad():
            if is_looking:
                found = losses.detach()
                better = running & (found < lowest[active])
                lowest[active[better]] = found[better]
                for kept, one in zip(best, current, strict=True):
                    kept[active[better]] = one.detach()[better]
                improved = running & (found < reference - options.tolerance * reference.abs().nan_to_num(posinf=0.0))
                improved |= running & torch.isinf(reference)
                reference = torch.where(improved, found, reference)
                waited = torch.where(improved, 0, waited + 1)
                tired = running & (waited >= options.patience)
                rate = torch.where(tired, rate * options.decay, rate)
                falls += tired
                waited = torch.where(tired, 0, waited)
            steps_of[active] += running
            running &= falls < options.n_falls
            if not running.any():
                break
            if losses_of_some is not None and 4 * int(running.sum()) <= 3 * len(running):
                active, reference, rate, waited, falls = (
                    one[running] for one in (active, reference, rate, waited, falls)
                )
                first, second = ([one[running] for one in each] for each in (first, second))
                gradients = tuple(one[running] for one in gradients)
                current = [one.detach()[running].requires_grad_() for one in current]
                running = running[running]
                losses_of, drawn_losses_of = losses_of_some(active)
            scale = rate * running
            for one, gradient, mean, square in zip(current, gradients, first, second, strict=True):
                mean.lerp_(gradient, 1 - _BETAS[0])
                square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                corrected = mean / (1 - _BETAS[0] ** (step + 1))
                size = (square / (1 - _BETAS[1] ** (step + 1))).sqrt_().add_(_EPSILON)
                one -= scale.view(-1, *[1] * (one.dim() - 1)) * corrected / size
    ended = torch.ones(n_models, dtype=torch.bool, device=device)
    ended[active] = ~running
    return Trained(best, lowest, ended & torch.isfinite(lowest), steps_of)
