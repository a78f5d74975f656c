"""The half step of the low-rank solver: all rows' ridge regressions on the columns' factors, and the common effects.

Weights are products, w_js = row_j column_s used_js, so rows with the same used cells share one eigendecomposition,
which serves any ridge; rows with used cells of their own are solved one by one, but all at once in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.two_way import row_groups, scaled_laplacian, unsolvable
from causal_spark.panel.types import Bools, Floats, Ints

# exp(-325) squared is 1e-282, which a float still holds, so no unit or period is ever lost to underflow.
_LARGEST_DECAY = 325.0
# Rows with used cells of their own are gathered so that their designs hold no more numbers than this at once.
_NUMBERS_AT_ONCE = 2_000_000


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


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows that are solved together: one group with common used cells, or k rows with used cells of their own.

    index: (k,) positions, or (n, 1), one row per problem. All other arrays begin with the problem.
    share, root: column weights over their sum, and their square roots, (n, n_columns), or (n, k, n_columns) without
    common used cells. weight, counted: (n, k) row weights, the latter zero for a row that another `_Rows` solves.
    centred: (n, 1 + n_covariates, k, n_columns), outcome and covariates less their weighted row means, times ``root``;
    means: (n, 1 + n_covariates, k). equal: whether all rows of a group have weight 1.
    """

    index: Ints
    common: bool
    equal: bool
    share: Floats
    root: Floats
    weight: Floats
    counted: Floats
    centred: Floats
    means: Floats

    def take(self, kept: Ints) -> _Rows:
        arrays = {name: getattr(self, name)[kept] for name in _SLICED}
        return replace(self, index=self.index[kept] if self.index.ndim == 2 else self.index, **arrays)


_SLICED = ("share", "root", "weight", "counted", "centred", "means")


def _make_rows(
    stack: Floats, weights: ProductWeights, index: Ints, common: bool, counted: Floats, cells: Bools
) -> _Rows:
    """cells: used ones, (1 or n, 1 or k, n_columns)."""
    each = np.arange(stack.shape[0])[:, None]
    if index.ndim == 2:
        mine, weight = np.swapaxes(stack[each, :, index], 1, 2), weights.unit[each, index]
    else:
        mine, weight = stack[:, :, index], weights.unit[:, index]
    column = weights.period[:, None, :] * cells
    total = column.sum(axis=2, keepdims=True)
    share = column / np.where(total > 0, total, 1.0)
    root = np.sqrt(column)
    means = (mine * share[:, None]).sum(axis=3)
    centred = (mine - means[:, :, :, None]) * root[:, None]
    if common:
        share, root = share[:, 0], root[:, 0]
    return _Rows(index, common, common and bool((weight == 1.0).all()), share, root, weight, counted, centred, means)


@dataclass(frozen=True, slots=True, eq=False)
class _Reduced:
    """Rows eliminated: what they leave to the common effects' equations, and how to get the rows' unknowns back.

    centre: weighted mean of the factors, (n, width) or (n, k, width). basis: what rows regress on, (n, n_columns,
    width), rotated where there is an eigendecomposition, or (n, k, n_columns, width). loadings: (n, 1 + n_covariates,
    k, width), of outcome and covariates on it. ridge: row weight over ridge system, as (n, width, width), (n, k, width)
    in the basis of ``rotation``, or (n, k, width, width).
    """

    rows: _Rows
    centre: Floats
    basis: Floats
    loadings: Floats
    ridge: Floats
    rotation: Floats | None = None


def _eliminate(rows: _Rows, factors: Floats, lambda_nn: Floats) -> _Reduced:
    half = lambda_nn / 2.0
    if not rows.common:
        centre = rows.share @ factors
        design = rows.root[:, :, :, None] * (factors[:, None] - centre[:, :, None, :])
        weight = rows.weight[:, :, None, None]
        ridge = weight * _inverse(weight * (np.swapaxes(design, 2, 3) @ design), half[:, None, None])
        loadings = np.swapaxes(np.swapaxes(rows.centred, 1, 2) @ design, 1, 2)
        return _Reduced(rows, centre, design, loadings, ridge)
    centre = (rows.share[:, None, :] @ factors)[:, 0]
    design = rows.root[:, :, None] * (factors - centre[:, None, :])
    gram = np.swapaxes(design, 1, 2) @ design
    if rows.equal:
        return _Reduced(rows, centre, design, rows.centred @ design[:, None], _inverse(gram, half[:, None]))
    values, rotation = np.linalg.eigh(gram)
    design = design @ rotation
    weight = rows.weight[:, :, None]
    ridge = weight / (weight * np.maximum(values, 0.0)[:, None, :] + half[:, None, None])
    return _Reduced(rows, centre, design, rows.centred @ design[:, None], ridge, rotation)


def _inverse(gram: Floats, half: Floats) -> Floats:
    diagonal = np.arange(gram.shape[-1])
    gram[..., diagonal, diagonal] += half
    try:
        return np.asarray(np.linalg.inv(gram))
    except np.linalg.LinAlgError:
        raise unsolvable() from None


class _Common:
    """The equations of column effects and coefficients of covariates, and what in them never changes."""

    __slots__ = ("cross", "laplacian", "products", "scale", "unit")

    def __init__(self, rows: list[_Rows], weights: Floats) -> None:
        self.laplacian, self.scale = scaled_laplacian(weights)
        n, n_columns = self.scale.shape
        n_stack = rows[0].centred.shape[1]
        self.cross = np.zeros((n, n_columns, n_stack))
        self.products = np.zeros((n, n_stack - 1, n_stack))
        for part in rows:
            counted = part.counted[:, None, :, None] * part.centred
            if part.common:
                self.cross += np.swapaxes(counted.sum(axis=2), 1, 2) * part.root[:, :, None]
            else:
                self.cross += np.swapaxes((counted * part.root[:, None]).sum(axis=2), 1, 2)
            self.products += _flat(counted[:, 1:]) @ np.swapaxes(_flat(part.centred), 1, 2)
        own = np.maximum(self.products[:, np.arange(n_stack - 1), np.arange(1, n_stack)], 0.0)
        self.unit = np.where(own > 0, 1.0 / np.sqrt(np.where(own > 0, own, 1.0)), 0.0)

    def take(self, kept: Ints) -> _Common:
        other = object.__new__(_Common)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name)[kept])
        return other

    def solve(self, reduced: list[_Reduced]) -> tuple[Floats, Floats]:
        """Column effects (n, n_columns) and coefficients (n, n_covariates)."""
        n, n_columns = self.scale.shape
        size = n_columns + self.unit.shape[1]
        system = np.empty((n, size, size))
        block = system[:, :n_columns, :n_columns]
        block[...] = self.laplacian
        cross, products = self.cross.copy(), self.products.copy()
        for part in reduced:
            _subtract(part, self.scale, block, cross, products)
        cross *= self.scale[:, :, None]
        scale, right = self.scale, cross[:, :, 0]
        if size > n_columns:
            scale = np.concatenate([self.scale, self.unit], axis=1)
            right = np.concatenate([right, products[:, :, 0] * self.unit], axis=1)
            beside = cross[:, :, 1:] * self.unit[:, None, :]
            system[:, :n_columns, n_columns:] = beside
            system[:, n_columns:, :n_columns] = np.swapaxes(beside, 1, 2)
            system[:, n_columns:, n_columns:] = products[:, :, 1:] * self.unit[:, :, None] * self.unit[:, None, :]
        diagonal = np.arange(size)
        # A ridge at rounding level, and one for grounded columns and covariates that do not vary.
        system[:, diagonal, diagonal] += np.where(scale > 0, 1e-13, 1.0)
        try:
            found = np.linalg.solve(system, right[:, :, None])[:, :, 0] * scale
        except np.linalg.LinAlgError:
            raise unsolvable() from None
        return found[:, :n_columns], found[:, n_columns:]


def _flat(stack: Floats) -> Floats:
    n, n_stack, k, size = stack.shape
    return stack.reshape(n, n_stack, k * size)


def _subtract(part: _Reduced, scale: Floats, block: Floats, cross: Floats, products: Floats) -> None:
    """Take what the rows' factors explain out of the common equations, in place."""
    rows = part.rows
    n, n_stack, k, width = part.loadings.shape
    if not rows.common:
        # ``ridge`` holds one row weight; the quadratic form of a row carries another.
        ridge = part.ridge * rows.counted[:, :, None, None]
        rooted = part.basis * rows.root[:, :, :, None]
        shrunk = np.swapaxes(part.loadings, 1, 2) @ ridge
        cross -= (rooted @ np.swapaxes(shrunk, 2, 3)).sum(axis=1)
        scaled = rooted * scale[:, None, :, None]
        wide = [np.moveaxis(each, 1, 2).reshape(n, -1, k * width) for each in (scaled @ ridge, scaled)]
        block -= wide[0] @ np.swapaxes(wide[1], 1, 2)
        shrunk = np.swapaxes(shrunk, 1, 2)[:, 1:]
    else:
        rooted = part.basis * rows.root[:, :, None]
        scaled = rooted * scale[:, :, None]
        if part.rotation is None:
            summed = (rows.counted[:, None, None, :] @ part.loadings)[:, :, 0] @ part.ridge
            block -= (scaled @ (part.ridge * rows.counted.sum(axis=1)[:, None, None])) @ np.swapaxes(scaled, 1, 2)
            shrunk = part.loadings[:, 1:]
            if n_stack > 1:
                shrunk = (shrunk @ part.ridge[:, None]) * rows.counted[:, None, :, None]
        else:
            counted = rows.counted[:, :, None] * part.ridge
            block -= (scaled * counted.sum(axis=1)[:, None, :]) @ np.swapaxes(scaled, 1, 2)
            shrunk = counted[:, None] * part.loadings
            summed = shrunk.sum(axis=2)
            shrunk = shrunk[:, 1:]
        cross -= rooted @ np.swapaxes(summed, 1, 2)
    if n_stack > 1:
        products -= _flat(shrunk) @ np.swapaxes(_flat(part.loadings), 1, 2)


def _back(part: _Reduced, effects: Floats, coefficients: Floats) -> tuple[Floats, Floats]:
    """Factors (n, k, width) and effects (n, k) of rows, given the common effects (n, n_columns) and coefficients."""
    rows = part.rows
    means, loading = rows.means[:, 0], part.loadings[:, 0]
    if coefficients.shape[1]:
        means = means - (coefficients[:, None, :] @ rows.means[:, 1:])[:, 0]
        loading = loading - (coefficients[:, None, :] @ _flat(part.loadings[:, 1:])).reshape(loading.shape)
    if not rows.common:
        means = means - (rows.share @ effects[:, :, None])[:, :, 0]
        loading = loading - ((rows.root * effects[:, None, :])[:, :, None, :] @ part.basis)[:, :, 0]
        factors = (loading[:, :, None, :] @ part.ridge)[:, :, 0]
        return factors, means - np.einsum("nkw,nkw->nk", part.centre, factors)
    means = means - (rows.share[:, None, :] @ effects[:, :, None])[:, 0]
    loading = loading - (rows.root * effects)[:, None, :] @ part.basis
    rotated = loading @ part.ridge if part.rotation is None else loading * part.ridge
    factors = rotated if part.rotation is None else rotated @ np.swapaxes(part.rotation, 1, 2)
    return factors, means - (factors @ part.centre[:, :, None])[:, :, 0]


class HalfStep:
    """Rows' factors and effects given the columns' factors, for a batch of problems.

    stack: (n, 1 + n_covariates, n_rows, n_columns), outcomes first, then covariates; read where used.
    joint: whether the column effects and the coefficients of covariates are solved together with the rows, which takes
    a system as wide as the columns.
    """

    def __init__(self, stack: Floats, weights: ProductWeights, lambda_nn: Floats, joint: bool) -> None:
        self.lambda_nn = lambda_nn
        self.shape = weights.unit.shape
        each = np.arange(self.shape[0])
        counted = weights.unit.copy()
        self.rows: list[_Rows] = []
        if weights.left_out is not None:
            here, there = weights.left_out
            counted[each, here] = 0.0
        for index, common, cells in _gathered(weights.used, stack.shape[1]):
            self.rows.append(_make_rows(stack, weights, index, common, counted[:, index], cells))
        if weights.left_out is not None:
            cells = weights.used[each if weights.used.shape[0] > 1 else 0, here].copy()
            cells[each, there] = False
            own = weights.unit[each, here][:, None]
            self.rows.append(_make_rows(stack, weights, here[:, None], False, own, cells[:, None, :]))
        self.common = _Common(self.rows, weights.cells()) if joint else None

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
        reduced = [_eliminate(part, factors, self.lambda_nn) for part in self.rows]
        if self.common is not None:
            effects, coefficients = self.common.solve(reduced)
        found = np.empty((*self.shape, factors.shape[2]))
        own = np.empty(self.shape)
        for part in reduced:
            index = part.rows.index
            where = (np.arange(self.shape[0])[:, None], index) if index.ndim == 2 else (slice(None), index)
            found[where], own[where] = _back(part, effects, coefficients)
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
