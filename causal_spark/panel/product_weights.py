"""Weights of cells that are products of a unit's and a period's, for many problems at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.panel.types import Bools, Floats, Ints

# exp(-325) squared is 1e-282, which a float still holds, so no unit or period is ever lost to underflow.
_LARGEST_DECAY = 325.0


def decayed(decay: Floats) -> Floats:
    """exp(-decay), of any shape, small enough to vanish but never zero, nor is the product of two."""
    return np.asarray(np.exp(-np.minimum(decay, _LARGEST_DECAY)))


@dataclass(frozen=True, slots=True, eq=False)
class ProductWeights:
    """Weights unit_j period_s used_js of n problems.

    unit: (n, n_units) >= 0; period: (n, n_periods) >= 0; used: (1, n_units, n_periods), the cells with weight in all
    problems, or (n, n_units, n_periods); left_out: rows (n,) and columns (n,) of one more cell without weight in each
    problem, or None.
    """

    unit: Floats
    period: Floats
    used: Bools
    left_out: tuple[Ints, Ints] | None = None

    @staticmethod
    def equal(used: Bools) -> ProductWeights:
        """Weight 1 at used cells (n, n_units, n_periods)."""
        n, n_units, n_periods = used.shape
        return ProductWeights(np.ones((n, n_units)), np.ones((n, n_periods)), used)

    @property
    def transposed(self) -> ProductWeights:
        """The same with units and periods in each other's place."""
        left_out = None if self.left_out is None else (self.left_out[1], self.left_out[0])
        return ProductWeights(self.period, self.unit, np.swapaxes(self.used, 1, 2), left_out)

    def take(self, kept: Ints) -> ProductWeights:
        """The weights of some of the problems."""
        left_out = None if self.left_out is None else (self.left_out[0][kept], self.left_out[1][kept])
        used = self.used if self.used.shape[0] == 1 else self.used[kept]
        return ProductWeights(self.unit[kept], self.period[kept], used, left_out)

    def cells(self) -> Floats:
        """(n, n_units, n_periods): the weight of every cell."""
        weights = self.unit[:, :, None] * (self.period[:, None, :] * self.used)
        if self.left_out is not None:
            weights[np.arange(self.unit.shape[0]), self.left_out[0], self.left_out[1]] = 0.0
        return np.asarray(weights)
