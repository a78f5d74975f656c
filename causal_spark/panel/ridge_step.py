"""The half step of the low-rank solver: many small ridge regressions at once, tied together by common effects."""

from __future__ import annotations

import numpy as np

from causal_spark.panel.two_way import unsolvable
from causal_spark.panel.types import Floats


def half_step(
    weights: Floats, weighted: Floats, factors: Floats, base: Floats, lambda_nn: Floats, scale: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Rows' factors and both effects given the columns' factors, jointly: the exact minimum.

    weights, weighted (times outcome): (n, n_rows, n_columns); factors: (n, n_columns, width); base: (n, n_columns)
    column effects to start from. Each row's factors and effect are eliminated first (all rows of all problems at once,
    problems along the last axis), then the column effects solve what is left, n_columns wide.
    scale: (n, n_columns) of the columns' `TwoWayOperator`; None keeps the column effects at ``base``.
    Returns row factors (n, n_rows, width), row effects (n, n_rows), column effects (n, n_columns).
    """
    n, n_rows, n_columns = weights.shape
    width = factors.shape[2]
    size = width + 1
    design = np.concatenate([np.ones((n, n_columns, 1)), factors], axis=2)
    upper = np.triu_indices(size)
    sums = weights @ (design[:, :, upper[0]] * design[:, :, upper[1]])
    residual = weighted - weights * base[:, None, :]
    system = np.empty((size, size + 1 + (n_columns if scale is not None else 0), n, n_rows))
    system[upper[0], upper[1]] = sums.transpose(2, 0, 1)
    system[:, size] = (residual @ design).transpose(2, 0, 1)
    if scale is not None:
        np.multiply(
            design.transpose(2, 1, 0)[:, :, :, None], weights.transpose(2, 0, 1)[None], out=system[:, size + 1 :]
        )
    for k in range(1, size):
        system[k, k] += lambda_nn[:, None] / 2.0
    np.copyto(system[0, 0], 1.0, where=system[0, 0] <= 0)
    for k in range(size - 1):
        pivot_row = system[k, k + 1 :]
        ratio = system[k, k + 1 : size] / system[k, k]
        for i in range(size - 1 - k):
            system[k + 1 + i, k + 1 + i :] -= ratio[i] * pivot_row[i:]
    pivots = system[np.arange(size), np.arange(size)]
    inverse_pivots = 1.0 / pivots
    solution, step = system[:, size], np.zeros((n, n_columns))
    if scale is not None:
        step = _column_step(system, inverse_pivots, weights.sum(axis=1), residual.sum(axis=1), scale)
        solution = solution - np.einsum("kcnr,nc->knr", system[:, size + 1 :], step)
    for k in range(size - 1, -1, -1):
        for i in range(k + 1, size):
            solution[k] -= system[k, i] * solution[i]
        solution[k] *= inverse_pivots[k]
    return np.ascontiguousarray(solution[1:].transpose(1, 2, 0)), solution[0], base + step


def _column_step(
    system: Floats, inverse_pivots: Floats, column_weight: Floats, column_sum: Floats, scale: Floats
) -> Floats:
    """Change of the column effects (n, n_columns) once each row's unknowns are eliminated."""
    size, _, n, n_rows = system.shape
    n_columns = column_weight.shape[1]
    reduced = np.ascontiguousarray(system[:, size:].transpose(2, 3, 0, 1)).reshape(n, n_rows * size, n_columns + 1)
    divided = reduced * inverse_pivots.transpose(1, 2, 0).reshape(n, n_rows * size, 1)
    product = np.swapaxes(reduced[:, :, 1:], 1, 2) @ divided
    schur = -product[:, :, 1:]
    diagonal = np.arange(n_columns)
    schur[:, diagonal, diagonal] += column_weight
    right = (column_sum - product[:, :, 0]) * scale
    schur *= scale[:, :, None]
    schur *= scale[:, None, :]
    # A ridge at rounding level, and one for grounded columns; it acts on the change from base only.
    schur[:, diagonal, diagonal] += np.where(scale > 0, 1e-13, 1.0)
    try:
        step = np.linalg.solve(schur, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        raise unsolvable() from None
    return np.asarray(step * scale)
