"""Many small networks of one shape, their parameters stacked: one batched product does a layer of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def stacked_layers(
    widths: Sequence[int], seeds: Sequence[int], dtype: torch.dtype, device: torch.device, zero_last: bool = True
) -> list[Tensor]:
    """Weights (n_models, n_in, n_out) and biases (n_models, 1, n_out) of every layer, in turn.

    widths: n_in of the first layer, then n_out of each. seeds: one per model, from which its own parameters are drawn,
    whoever shares the stack. zero_last: whether the last layer starts at zero, so that every model starts as zero.
    """
    layers: list[Tensor] = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for depth, (n_in, n_out) in enumerate(pairwise(widths)):
        last = depth == len(widths) - 2
        bound = 0.0 if last and zero_last else math.sqrt(3.0 / n_in)
        layers.append(draw_weights((n_in, n_out), bound, generators).to(dtype=dtype, device=device))
        layers.append(torch.zeros(len(seeds), 1, n_out, dtype=dtype, device=device))
    return layers


def draw_weights(shape: tuple[int, int], bound: float, generators: Sequence[torch.Generator]) -> Tensor:
    """(n_models, *shape) uniform between minus and plus the bound, each model's from its own generator."""
    drawn = torch.stack([torch.rand(*shape, generator=one, dtype=torch.float64) for one in generators])
    return (2 * drawn - 1) * bound


def apply_stacked(layers: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """(n_models, n_rows, n_out) outputs for inputs (n_models, n_rows, n_in); SiLU between layers."""
    hidden = inputs
    for depth in range(0, len(layers), 2):
        hidden = torch.baddbmm(layers[depth + 1], hidden, layers[depth])
        if depth < len(layers) - 2:
            hidden = functional.silu(hidden)
    return hidden
