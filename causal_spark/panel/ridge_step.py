"""The half step of the low-rank solver: rows' factors and effects and the common effects, given columns' factors."""

from __future__ import annotations

import numpy as np

from causal_spark.panel.common_effects import CommonEffects, tied_to_ground
from causal_spark.panel.eliminated_rows import Rows, eliminate, make_rows, put_back
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import row_groups
from causal_spark.panel.types import Bools, Floats, Ints

# Beyond so many columns their effects are not solved together with the rows unless that takes a thin system.
_JOINT_COLUMNS = 600
# A system is kept thin while what is taken from it is no wider than this share of the columns.
_THIN = 0.8
# Rows with used cells of their own are gathered so that their designs hold no more numbers than this at once.
_NUMBERS_AT_ONCE = 2_000_000


class HalfStep:
    """Rows' factors and effects given the columns' factors, for a batch of problems.

    stack: (n, 1 + n_covariates, n_rows, n_columns), outcomes first, then covariates; read where used. width: of the
    factors. The column effects and the coefficients of covariates are solved together with the rows (``common``) unless
    columns are many and their system cannot be kept thin: it is as wide as the columns otherwise.
    """

    def __init__(self, stack: Floats, weights: ProductWeights, lambda_nn: Floats, width: int) -> None:
        self.lambda_nn = lambda_nn
        self.shape = weights.unit.shape
        each = np.arange(self.shape[0])
        counted = weights.unit.copy()
        self.rows: list[Rows] = []
        if weights.left_out is not None:
            here, there = weights.left_out
            counted[each, here] = 0.0
        for index, common, used in _gathered(weights.used, stack.shape[1]):
            self.rows.append(make_rows(stack, weights, index, common, counted[:, index], used))
        if weights.left_out is not None:
            used = weights.used[each if weights.used.shape[0] > 1 else 0, here].copy()
            used[each, there] = False
            own = weights.unit[each, here][:, None]
            self.rows.append(make_rows(stack, weights, here[:, None], False, own, used[:, None, :]))
        n_columns = stack.shape[3]
        spanned = (1 + width) * sum(1 if part.common else part.index.shape[-1] for part in self.rows)
        cells = weights.cells()
        thin = spanned <= _THIN * n_columns and tied_to_ground(cells)
        self.common = CommonEffects(self.rows, cells, thin) if thin or n_columns <= _JOINT_COLUMNS else None

    def take(self, kept: Ints) -> HalfStep:
        """The half step of some of the problems."""
        other = object.__new__(HalfStep)
        other.lambda_nn, other.shape = self.lambda_nn[kept], (kept.size, self.shape[1])
        other.rows = [part.take(kept) for part in self.rows]
        other.common = None if self.common is None else self.common.take(kept)
        return other

    def __call__(self, factors: Floats, effects: Floats, coefficients: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Row factors (n, n_rows, width), row effects (n, n_rows), column effects and coefficients: the exact minimum.

        factors: (n, n_columns, width). effects (n, n_columns) and coefficients (n, n_covariates) are kept where they
        are not solved jointly.
        """
        reduced = [eliminate(part, factors, self.lambda_nn) for part in self.rows]
        if self.common is not None:
            effects, coefficients = self.common.solve(reduced)
        found = np.empty((*self.shape, factors.shape[2]))
        own = np.empty(self.shape)
        for part in reduced:
            index = part.rows.index
            where = (np.arange(self.shape[0])[:, None], index) if index.ndim == 2 else (slice(None), index)
            found[where], own[where] = put_back(part, effects, coefficients)
        return found, own, effects, coefficients


def _gathered(used: Bools, n_stack: int) -> list[tuple[Ints, bool, Bools]]:
    """Rows with common used cells together, the others in chunks: positions, whether common, used cells."""
    n, n_rows, n_columns = used.shape
    single = np.arange(n_rows)
    found: list[tuple[Ints, bool, Bools]] = []
    if n == 1:
        member, first = row_groups(used[0])
        count = np.bincount(member)
        for k in np.flatnonzero(count > 1):
            found.append((np.flatnonzero(member == k), True, used[0, first[k]][None, None, :]))
        single = np.flatnonzero(count[member] == 1)
    step = max(1, _NUMBERS_AT_ONCE // (n_columns * n_columns * max(n_stack, 1)))
    found += [
        (single[begin : begin + step], False, used[:, single[begin : begin + step]])
        for begin in range(0, single.size, step)
    ]
    return found
