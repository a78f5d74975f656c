"""The squared error of curves over drawn responses, for links under which its expectation has no closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causal_spark.dose_response.expected_loss import StackedResponses, smoothers
from causal_spark.dose_response.responses import Link


@dataclass(frozen=True, slots=True, eq=False)
class DrawnResponses:
    """Responses of several segments, without noise.

    responses: (n_segments, n_rows, n_draws). curves: (n_segments, n_grid, n_draws), the mean over all rows of what each
    would have at each dose. spread: (n_segments, n_rows) variances of an outcome around its response, per unit of
    noise, in the draws' mean.
    """

    responses: Tensor
    curves: Tensor
    spread: Tensor


def draw_responses(
    given: StackedResponses, shares: Tensor, link: Link, n_draws: int, seeds: Sequence[Sequence[int]]
) -> DrawnResponses:
    """Random responses of every segment. shares: (n_segments, n_rows) sample weights, zero in the padding.

    seeds: of each segment, from which its own are drawn, whoever shares the stack.
    """
    n_segments, n_rows, n_functions = given.confounding.shape
    n_modulations, n_curves = given.modulation.shape[2], given.average.shape[2]
    size = (n_functions * n_modulations + n_curves, n_draws)
    drawn = torch.tensor(
        np.stack([np.random.default_rng(one).normal(size=size) for one in seeds]),
        dtype=given.confounding.dtype,
        device=given.confounding.device,
    )
    of_curves, of_confounding = drawn[:, :n_curves], drawn[:, n_curves:].reshape(n_segments, n_functions, -1)
    parts = (given.confounding @ of_confounding).reshape(n_segments, n_rows, n_modulations, n_draws)
    functions = _modulated(parts, given.modulation) + given.average @ of_curves
    curves = given.average_at_grid @ of_curves
    if link == "identity":
        # Confounding has mean zero over the rows, so that these are all there is in the mean.
        return DrawnResponses(functions, curves, torch.ones_like(shares))
    responses = torch.sigmoid(functions)
    means = [
        torch.einsum("sr,srd->sd", shares, torch.sigmoid(_modulated(parts, at[:, None]) + level[:, None]))
        for at, level in zip(given.modulation_at_grid.unbind(1), curves.unbind(1), strict=True)
    ]
    return DrawnResponses(responses, torch.stack(means, 1), (responses * (1 - responses)).mean(2))


def _modulated(parts: Tensor, modulation: Tensor) -> Tensor:
    """(n_segments, n_rows, n_draws) sums of parts (n_segments, n_rows, n_modulations, n_draws)."""
    return (parts * modulation[:, :, :, None]).sum(2)


def sampled_losses(weights: Tensor, given: StackedResponses, drawn: DrawnResponses) -> tuple[Tensor, Tensor]:
    """(n_segments,) mean squared errors but for noise, and what noise of variance one adds, as `expected_losses`."""
    smoother, curves_of = smoothers(weights, given)
    missed = curves_of(drawn.responses) - drawn.curves
    return missed.square().mean((1, 2)), (smoother.square() * drawn.spread[:, None, :]).sum((1, 2))
