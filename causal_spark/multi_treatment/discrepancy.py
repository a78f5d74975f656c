"""How far the representations of arms lie apart, of many models at once."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-8


def squared_mmd(representation: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Squared maximum mean discrepancies (Gretton et al. 2012) between arms, and of each arm from all rows.

    representation: (n_models, n_rows, n_features), of about unit scale. shares: (n_models, n_rows, n_arms), the weights
    of each arm's rows, which sum to its share of all; all of them sum to one. Arms without rows have discrepancies of
    zero. Returns (n_models, n_arms, n_arms) and (n_models, n_arms), never below zero.
    The kernel is the mean of three Gaussian ones, the squares of whose widths are one, half and a quarter of what
    separates two rows of independent features of variance one. Every discrepancy is a quadratic in its Gram matrix.
    """
    n_features = representation.shape[2]
    squares = representation.square().sum(2)
    distances = squares[:, :, None] + squares[:, None, :] - 2 * representation @ representation.transpose(1, 2)
    # Kernels of half and a quarter of the width are powers of the widest.
    widest = torch.exp(distances.clamp(min=0) / (-2.0 * n_features))
    half = widest.square()
    gram = (widest + half + half.square()) / 3.0
    of_arms = shares.sum(1)
    there = of_arms > 0
    members = shares / torch.where(there, of_arms, 1.0)[:, None, :]
    inner = members.transpose(1, 2) @ gram @ members
    own = torch.diagonal(inner, dim1=1, dim2=2)
    pairs = own[:, :, None] + own[:, None, :] - 2 * inner
    both = there[:, :, None] & there[:, None, :]
    with_all = (inner * of_arms[:, None, :]).sum(2)
    of_all = (with_all * of_arms).sum(1, keepdim=True)
    against_all = torch.where(there, own - 2 * with_all + of_all, 0.0)
    return torch.where(both, pairs, 0.0).clamp(min=0), against_all.clamp(min=0)


def matching_terms(representation: Tensor, shares: Tensor) -> Tensor:
    """(n_models, 3) bounds on what is lost by predicting for one arm from the rows of another, up to a constant.

    To the control arm (Shalit, Johansson, Sontag 2017), between all pairs, and of each arm to the population:
    sum over k of (pi_0 + pi_k) d(k, 0); sum over j < k of (pi_j + pi_k) d(j, k); sum over k of d(k, all); with d the
    root of `squared_mmd` and pi the arms' shares.
    """
    pairs, against_all = squared_mmd(representation, shares)
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
