"""How far the representations of arms lie apart, of many models at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SMALLEST = 1e-8
#: Entropic penalty of transport plans, in units of the cost, whose mean is about one; rounds that find them; and cost
#: beyond which nothing is transported, so that kernels are no zeros.
_BLUR, _ROUNDS, _MOST_COST = 0.1, 20, 6.0


def squared_mmd(representation: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Squared maximum mean discrepancies (Gretton et al. 2012) between arms, and of each arm from all rows.

    representation: (n_models, n_rows, n_features), of about unit scale. shares: (n_models, n_rows, n_arms), the weights
    of each arm's rows, which sum to its share of all; all of them sum to one. Arms without rows have discrepancies of
    zero. Returns (n_models, n_arms, n_arms) and (n_models, n_arms), never below zero.
    The kernel is the mean of three Gaussian ones, the squares of whose widths are one, half and a quarter of what
    separates two rows of independent features of variance one. Every discrepancy is a quadratic in its Gram matrix.
    """
    of_arms = shares.sum(1)
    there = of_arms > 0
    members = shares / torch.where(there, of_arms, 1.0)[:, None, :]
    inner: Tensor = _InnerProducts.apply(representation / representation.shape[2] ** 0.5, members)
    own = torch.diagonal(inner, dim1=1, dim2=2)
    pairs = own[:, :, None] + own[:, None, :] - 2 * inner
    both = there[:, :, None] & there[:, None, :]
    with_all = (inner * of_arms[:, None, :]).sum(2)
    of_all = (with_all * of_arms).sum(1, keepdim=True)
    against_all = torch.where(there, own - 2 * with_all + of_all, 0.0)
    return torch.where(both, pairs, 0.0).clamp(min=0), against_all.clamp(min=0)


class _InnerProducts(torch.autograd.Function):
    """(n_models, n_arms, n_arms) products of the arms' means in the kernel's space, for weights of their members.

    Rows by rows arrays are most of the time of training, and few of them are enough when the gradient is written down.
    """

    @staticmethod
    def forward(context: Any, features: Tensor, members: Tensor) -> Tensor:
        squares = features.square().sum(2)
        distances = torch.baddbmm(
            squares[:, :, None] + squares[:, None, :], features, features.transpose(1, 2), alpha=-2
        )
        # Kernels of half and a quarter of the width are powers of the widest.
        widest = distances.clamp_(min=0).mul_(-0.5).exp_()
        context.save_for_backward(features, members, widest)
        half = widest.square()
        gram = half.square().add_(half).add_(widest).div_(3.0)
        return members.transpose(1, 2) @ gram @ members

    @staticmethod
    def backward(context: Any, upstream: Tensor) -> tuple[Tensor, None]:
        features, members, widest = context.saved_tensors
        half = widest.square()
        # Of the sum of kernels by the squared distance, times two as each pair is there twice.
        slope = half.square().mul_(4.0).add_(half, alpha=2.0).add_(widest).div_(-3.0)
        pull = (members @ ((upstream + upstream.transpose(1, 2)) / 2) @ members.transpose(1, 2)).mul_(slope)
        return 2 * (pull.sum(2, keepdim=True) * features - pull @ features), None


def sinkhorn_divergence(representation: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Sinkhorn divergences between arms, and of each arm from all rows; as `squared_mmd` in all that goes in and out.

    Feydy et al. (2019), eq. 3: the cost of entropic optimal transport less half of what transports to themselves cost,
    half the squared distance per feature. All transports of a model share one kernel, and plans are held when gradients
    are taken (envelope theorem).
    """
    n_models, _, n_arms = shares.shape
    squares = representation.square().sum(2)
    distances = squares[:, :, None] + squares[:, None, :] - 2 * representation @ representation.transpose(1, 2)
    cost = (distances / (2 * representation.shape[2])).clamp(0.0, _MOST_COST)
    of_arms = shares.sum(1)
    members = shares / torch.where(of_arms > 0, of_arms, 1.0)[:, None, :]
    every = torch.cat([members, shares.sum(2, keepdim=True)], dim=2)
    first, second = torch.triu_indices(n_arms + 1, n_arms + 1, device=cost.device)
    costs = _transport(cost, every[:, :, first], every[:, :, second])
    square = torch.zeros(n_models, n_arms + 1, n_arms + 1, dtype=cost.dtype, device=cost.device)
    square = square.index_put((torch.arange(n_models, device=cost.device)[:, None], first, second), costs)
    own = torch.diagonal(square, dim1=1, dim2=2)
    upper = torch.triu(square - (own[:, :, None] + own[:, None, :]) / 2, diagonal=1)
    there = torch.cat([of_arms > 0, (of_arms > 0).any(1, keepdim=True)], dim=1)
    upper = torch.where(there[:, :, None] & there[:, None, :], upper, 0.0).clamp(min=0)
    found = upper + upper.transpose(1, 2)
    return found[:, :n_arms, :n_arms], found[:, :n_arms, n_arms]


def _transport(cost: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """(n_models, n_pairs) costs of entropic transport between weights of the rows, each (n_models, n_rows, n_pairs)."""
    with torch.no_grad():
        kernel = torch.exp(-cost / _BLUR)
        tiny = torch.finfo(cost.dtype).tiny
        # Rows of no weight, such as padding, have no part in where it starts either.
        from_source = (source > 0).to(cost.dtype)
        for _ in range(_ROUNDS):
            to_target = target / (kernel @ from_source).clamp(min=tiny)
            from_source = source / (kernel @ to_target).clamp(min=tiny)
        # Less the entropies of both weights, which a divergence does not depend on.
        value = _BLUR * (torch.xlogy(source, from_source) + torch.xlogy(target, to_target)).sum(1)
    moved = (from_source * ((cost * kernel) @ to_target)).sum(1)
    return value + moved - moved.detach()


def matching_terms(
    representation: Tensor,
    shares: Tensor,
    divergence: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = squared_mmd,
) -> Tensor:
    """(n_models, 3) bounds on what is lost by predicting for one arm from the rows of another, up to a constant.

    To the control arm (Shalit, Johansson, Sontag 2017), between all pairs, and of each arm to the population:
    sum over k of (pi_0 + pi_k) d(k, 0); sum over j < k of (pi_j + pi_k) d(j, k); sum over k of d(k, all); with d the
    root of the divergence and pi the arms' shares.
    """
    pairs, against_all = divergence(representation, shares)
    of_arms = shares.sum(1)
    distance = (pairs + _SMALLEST).sqrt()
    weights = of_arms[:, :, None] + of_arms[:, None, :]
    there = of_arms > 0
    weights = weights * (there[:, :, None] & there[:, None, :])
    upper = torch.triu(torch.ones_like(distance[0]), diagonal=1)
    pairwise = (weights * distance * upper).sum((1, 2))
    control = (weights * distance)[:, 0, 1:].sum(1)
    population = ((against_all + _SMALLEST).sqrt() * there).sum(1)
    return torch.stack([control, pairwise, population], dim=1)
