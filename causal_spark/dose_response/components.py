"""Variance components: how much of a variable each block of functions explains, by marginal likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from causal_spark.dose_response.types import Floats

_LOG_BOUNDS = (-9.0, 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """variances: (n_blocks,) of each block's part, noise: of what no block explains. coefficients: of each block."""

    variances: Floats
    noise: float
    coefficients: tuple[Floats, ...]


def fit_components(blocks: Sequence[Floats], values: Floats, weights: Floats) -> Components:
    """Ridge regression on blocks of functions, each block's penalty chosen by marginal likelihood.

    values (n_rows,) with mean zero and variance one are modelled as the sum of ``block @ b`` with b normal with a
    variance of its own per block, and noise. blocks: (n_rows, n_functions) each, whose functions' variances add up to
    one. weights: (n_rows,), summing to one. Only products of functions enter, so that rows cost little.
    """
    functions = np.concatenate(blocks, axis=1)
    block_of = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
    n_rows = len(values)
    scaled = weights[:, None] * functions * n_rows
    gram, moments = scaled.T @ functions, scaled.T @ values
    total = float(n_rows * weights @ values**2)

    def system_of(logs: Floats) -> tuple[Floats, Floats, float]:
        scale, noise = np.exp(logs[:-1] / 2)[block_of], float(np.exp(logs[-1]))
        return np.eye(len(scale)) + scale[:, None] * gram * scale / noise, scale, noise

    def objective(logs: Floats) -> tuple[float, Floats]:
        system, scale, noise = system_of(logs)
        inverse = np.linalg.inv(system)
        standardised = inverse @ (scale * moments) / noise
        fit = float(scale * moments @ standardised)
        _, log_determinant = np.linalg.slogdet(system)
        value = (n_rows * logs[-1] + log_determinant + (total - fit) / noise) / 2
        freedom = 1 - np.diag(inverse)
        coefficients = scale * standardised
        residual = total - 2 * fit + coefficients @ gram @ coefficients
        by_block = np.bincount(block_of, weights=freedom - standardised**2, minlength=len(blocks)) / 2
        return value, np.append(by_block, (n_rows - freedom.sum() - residual / noise) / 2)

    start = np.full(len(blocks) + 1, np.log(1 / (len(blocks) + 1)))
    bounds = [_LOG_BOUNDS] * len(start)
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    system, scale, noise = system_of(found.x)
    coefficients = scale * np.linalg.solve(system, scale * moments) / noise
    return Components(
        np.exp(found.x[:-1]), noise, tuple(coefficients[block_of == place] for place in range(len(blocks)))
    )
