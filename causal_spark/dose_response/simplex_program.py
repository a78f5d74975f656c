"""Convex quadratic programmes over weights that are not negative and sum to one."""

from __future__ import annotations

import numpy as np

from causal_spark.dose_response.types import Floats, normalised
from causal_spark.errors import SolverError

#: Added to the diagonal, per unit of the programme's scale: rows that are alike share their weight evenly.
_RIDGE = 1e-10
#: Conditions are met within this share of that scale, or of the mean weight.
_TOLERANCE = 1e-10
#: Rounds that may pass without fewer violations before rows are exchanged one at a time.
_PATIENCE = 10
_ROUNDS_PER_ROW = 20


def minimise_on_simplex(quadratic: Floats, linear: Floats) -> Floats:
    """(n_rows,) weights that minimise ``w' quadratic w + linear' w`` with w >= 0 and sum one.

    quadratic: (n_rows, n_rows), positive semidefinite on vectors that sum to zero; where it is singular there, weights
    are as even as the minimum allows. Block principal pivoting (Judice, Pires 1994): rows with negative weights leave
    and rows with too low a gradient enter, all at once as long as there are ever fewer of them, then one at a time.
    Raises `SolverError` when that does not end.
    """
    n_rows = len(linear)
    scale = float(np.abs(quadratic).mean()) or float(np.ptp(linear)) or 1.0
    curved = quadratic + _RIDGE * scale * np.eye(n_rows)
    free = np.ones(n_rows, dtype=bool)
    fewest, patience = n_rows + 1, _PATIENCE
    for _ in range(_ROUNDS_PER_ROW * n_rows):
        rows = np.flatnonzero(free)
        weights = np.zeros(n_rows)
        weights[rows], price = _equality_solution(curved[np.ix_(rows, rows)], linear[rows])
        gradient = 2 * curved @ weights + linear - price
        leaves = free & (weights < -_TOLERANCE / n_rows)
        enters = ~free & (gradient < -_TOLERANCE * scale)
        violated = np.flatnonzero(leaves | enters)
        if not len(violated):
            return normalised(np.maximum(weights, 0))
        if len(violated) < fewest:
            fewest, patience = len(violated), _PATIENCE
        else:
            patience -= 1
        exchanged = violated if patience > 0 else violated[-1:]
        free[exchanged] = ~free[exchanged]
        if not free.any():
            free[np.argmin(linear + np.diag(curved))] = True
    raise SolverError("The quadratic programme of the weights did not end.", "Report it with the segment's data.")


def _equality_solution(quadratic: Floats, linear: Floats) -> tuple[Floats, float]:
    n = len(linear)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = 2 * quadratic
    system[:n, n] = system[n, :n] = 1
    solution = np.linalg.solve(system, np.append(-linear, 1.0))
    return solution[:n], -float(solution[n])
