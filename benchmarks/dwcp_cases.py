"""Panels and tasks of the DWCP benchmark, and the problem of one target cell as the paper states it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Floats

Bools = NDArray[np.bool_]
#: (lambda_time, lambda_unit, lambda_nn), on outcomes in standard deviations of the control cells.
Triple = tuple[float, float, float]
#: A unit's and a period's position.
Cell = tuple[int, int]


@dataclass(frozen=True)
class DwcpCase:
    """outcome, treated: (n_units, n_periods); outcomes less the control cells' mean, over their standard deviation."""

    outcome: Floats
    treated: Bools

    @property
    def controls(self) -> Bools:
        """(n_units, n_periods): cells that are not treated."""
        return ~self.treated

    @property
    def block(self) -> tuple[list[int], int]:
        """Treated units, and how many periods at the end are treated."""
        units = np.flatnonzero(self.treated.any(axis=1)).tolist()
        return units, int(self.treated.any(axis=0).sum())

    def judged_cells(self) -> list[Cell]:
        """Target cells whose fits are judged: of the first treated unit, two pre-period cells and the first treated."""
        unit = self.block[0][0]
        start = int(np.flatnonzero(self.treated[unit])[0])
        return [(unit, start // 2), (unit, start - 1), (unit, start)]

    def corner(self, size: int = 9) -> DwcpCase:
        """A small panel to warm up with: some never treated units and one that is, treated in the last two periods."""
        treated = np.zeros((size, size), dtype=bool)
        treated[-1, -2:] = True
        rows = [*np.flatnonzero(~self.treated.any(axis=1))[: size - 1], self.block[0][0]]
        return DwcpCase(np.ascontiguousarray(self.outcome[rows, :size]), treated)


def formula_parts(case: DwcpCase, cell: Cell, triple: Triple) -> tuple[Floats, Floats]:
    """Omega (n_units,) and theta (n_periods,) of one target cell.

    Athey, Imbens, Qu, Viviano (arXiv 2508.21536), equation (3).
    """
    (unit, period), (time, apart, _) = cell, triple
    others = np.arange(case.outcome.shape[1]) != period
    distance = np.zeros(case.outcome.shape[0])
    for j in range(distance.size):
        both = case.controls[unit] & case.controls[j] & others
        distance[j] = np.sqrt(np.mean((case.outcome[unit, both] - case.outcome[j, both]) ** 2))
    return np.exp(-apart * distance), np.exp(-time * np.abs(np.arange(others.size) - period))


def formula_weights(case: DwcpCase, cell: Cell, triple: Triple) -> Floats:
    """(n_units, n_periods): theta_s omega_j (1 - W_js) for one target cell, which is left out itself (equation (2))."""
    omega, theta = formula_parts(case, cell, triple)
    weights = omega[:, None] * theta * case.controls
    weights[cell] = 0.0
    return np.asarray(weights)
