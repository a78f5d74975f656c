"""The expected squared error of curves over made-up responses, in closed form and differentiable in the weights.

For a second stage with smoother S(w) (n_grid x n_rows) and responses with covariance K over the rows, the mean over the
grid of E[(S y - m)^2] is a quadratic in S. With K = Phi Phi' for random functions Phi it costs no more than S Phi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch
from torch import Tensor

from causal_spark.dose_response.responses import Responses
from causal_spark.dose_response.second_stage import BasisRegression, LocalLinear
from causal_spark.dose_response.types import Floats, SecondStage


@dataclass(frozen=True, slots=True, eq=False)
class StackedResponses:
    """Second stages and responses of several segments, padded with rows of weight zero to n_rows each.

    Tensors as in `Responses`, with the segment as first axis. basis: (n_segments, n_rows, n_basis), and half:
    (n_segments, n_basis, n_basis) with half' half the mean of at_grid' at_grid over the grid; or, of local lines,
    kernel and distance (n_segments, n_grid, n_rows). The others are empty.
    """

    confounding: Tensor
    modulation: Tensor
    modulation_at_grid: Tensor
    average: Tensor
    average_at_grid: Tensor
    noise: Tensor
    basis: Tensor
    at_grid: Tensor
    half: Tensor
    kernel: Tensor
    distance: Tensor

    def of_segments(self, places: Tensor) -> StackedResponses:
        """Some of the segments."""
        # What a kind of second stage does not have is empty.
        taken = {one.name: getattr(self, one.name) for one in fields(self)}
        return StackedResponses(**{name: one[places] if len(one) else one for name, one in taken.items()})


def stack_responses(
    stages: Sequence[SecondStage], responses: Sequence[Responses], n_rows: int, dtype: torch.dtype, device: torch.device
) -> StackedResponses:
    """Segments side by side, each padded to ``n_rows``. All have the same kind of second stage and the same shapes."""

    def rows(arrays: Sequence[Floats], axis: int = 0) -> Tensor:
        padded = [
            np.pad(one, [(0, n_rows - one.shape[axis]) if k == axis else (0, 0) for k in range(one.ndim)])
            for one in arrays
        ]
        return torch.tensor(np.stack(padded), dtype=dtype, device=device)

    def whole(arrays: Sequence[Floats]) -> Tensor:
        return torch.tensor(np.stack(arrays), dtype=dtype, device=device)

    none = torch.zeros(0, dtype=dtype, device=device)
    is_basis = isinstance(stages[0], BasisRegression)
    bases = cast(Sequence[BasisRegression], stages) if is_basis else ()
    local = () if is_basis else cast(Sequence[LocalLinear], stages)
    return StackedResponses(
        confounding=rows([one.confounding for one in responses]),
        modulation=rows([one.modulation for one in responses]),
        modulation_at_grid=whole([one.modulation_at_grid for one in responses]),
        average=rows([one.average for one in responses]),
        average_at_grid=whole([one.average_at_grid for one in responses]),
        noise=torch.tensor([one.noise for one in responses], dtype=dtype, device=device),
        basis=rows([one.basis for one in bases]) if is_basis else none,
        at_grid=whole([one.at_grid for one in bases]) if is_basis else none,
        half=whole([np.linalg.qr(one.at_grid, mode="r") / np.sqrt(len(one.at_grid)) for one in bases])
        if is_basis
        else none,
        kernel=rows([one.kernel for one in local], 1) if local else none,
        distance=rows([one.distance for one in local], 1) if local else none,
    )


def expected_losses(weights: Tensor, given: StackedResponses) -> tuple[Tensor, Tensor]:
    """(n_segments,) expected squared errors but for noise, and what noise of variance one adds.

    weights: (n_segments, n_rows), each summing to one.
    """
    smoother, curves_of = smoothers(weights, given)
    n_segments, _, n_rows = smoother.shape
    modulated = smoother[:, :, None, :] * given.modulation.transpose(1, 2)[:, None, :, :]
    confounded = modulated.reshape(n_segments, -1, n_rows) @ given.confounding
    missed = curves_of(given.average) - given.average_at_grid
    bias = confounded.square().sum((1, 2)) + missed.square().sum(2).mean(1)
    return bias, smoother.square().sum((1, 2))


def smoothers(weights: Tensor, given: StackedResponses) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The second stages under weights: what takes outcomes to curves, in two forms.

    First (n_segments, n_any, n_rows) whose product with outcomes has the squared length of the curve, averaged over the
    grid; then (n_segments, n_rows, n_outcomes) outcomes -> (n_segments, n_grid, n_outcomes) curves.
    """
    if len(given.basis):
        weighted = given.basis * weights[:, :, None]
        gram = weighted.transpose(1, 2) @ given.basis
        coefficients = torch.linalg.solve(gram, weighted.transpose(1, 2))
        return given.half @ coefficients, lambda outcomes: given.at_grid @ (coefficients @ outcomes)
    local = given.kernel * weights[:, None, :]
    s0, s1 = local.sum(2, keepdim=True), (local * given.distance).sum(2, keepdim=True)
    s2 = (local * given.distance**2).sum(2, keepdim=True)
    rows = local * (s2 - s1 * given.distance) / (s0 * s2 - s1**2)
    return rows / np.sqrt(rows.shape[1]), lambda outcomes: rows @ outcomes
