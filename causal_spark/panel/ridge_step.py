"""The half step of the low-rank solver: all rows' ridge regressions on the columns' factors, and the common effects.

Weights are products, w_js = row_j column_s used_js, so rows with the same used cells share one eigendecomposition,
which serves any ridge; rows with used cells of their own are solved one by one, but all at once in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import row_groups, scaled_laplacian, unsolvable
from causal_spark.panel.types import Bools, Floats, Ints

# Beyond so many columns their effects are not solved together with the rows unless that takes a thin system.
_JOINT_COLUMNS = 600
# A system is kept thin while what is taken from it is no wider than this share of the columns.
_THIN = 0.8
# Down to this tie a thin system keeps about ten digits.
_TIED = 1e-6
# Added to diagonals of scaled systems: rounding level.
_RIDGE = 1e-13
# Rows with used cells of their own are gathered so that their designs hold no more numbers than this at once.
_NUMBERS_AT_ONCE = 2_000_000


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
    """The equations of column effects and coefficients of covariates, and what in them never changes.

    A row leaves a Laplacian of as many columns, less one dense matrix of its factors' width for each group of rows with
    common used cells. The system is either put together (``laplacian``), or, where the columns are many and the groups
    few, kept as identity - V V' with V as wide as all groups together.
    """

    __slots__ = ("cross", "laplacian", "products", "scale", "unit")

    def __init__(self, rows: list[_Rows], weights: ProductWeights, thin: bool) -> None:
        self.laplacian: Floats | None
        if thin:
            self.laplacian, self.scale = None, _grounded_scale(weights.cells().sum(axis=1))
        else:
            self.laplacian, self.scale = scaled_laplacian(weights.cells())
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
            value = getattr(self, name)
            setattr(other, name, None if value is None else value[kept])
        return other

    def solve(self, reduced: list[_Reduced]) -> tuple[Floats, Floats]:
        """Column effects (n, n_columns) and coefficients (n, n_covariates)."""
        cross, products = self.cross.copy(), self.products.copy()
        for part in reduced:
            _subtract(part, cross, products)
        cross *= self.scale[:, :, None]
        right = products[:, :, 0] * self.unit
        own = products[:, :, 1:] * self.unit[:, :, None] * self.unit[:, None, :]
        cross[:, :, 1:] *= self.unit[:, None, :]
        try:
            if self.laplacian is None:
                effects, coefficients = _solve_thin(_spanned(reduced, self.scale), cross, right, own, self.unit)
            else:
                effects, coefficients = self._solve_whole(reduced, cross, right, own)
        except np.linalg.LinAlgError:
            raise unsolvable() from None
        return effects * self.scale, coefficients * self.unit

    def _solve_whole(self, reduced: list[_Reduced], cross: Floats, right: Floats, own: Floats) -> tuple[Floats, Floats]:
        assert self.laplacian is not None  # noqa: S101 - `solve` asks before
        n, n_columns = self.scale.shape
        size = n_columns + self.unit.shape[1]
        system = np.empty((n, size, size))
        block = system[:, :n_columns, :n_columns]
        block[...] = self.laplacian
        for part in reduced:
            _subtract_block(part, self.scale, block)
        scale, wanted = self.scale, cross[:, :, 0]
        if size > n_columns:
            scale = np.concatenate([self.scale, self.unit], axis=1)
            wanted = np.concatenate([wanted, right], axis=1)
            beside = cross[:, :, 1:]
            system[:, :n_columns, n_columns:] = beside
            system[:, n_columns:, :n_columns] = np.swapaxes(beside, 1, 2)
            system[:, n_columns:, n_columns:] = own
        diagonal = np.arange(size)
        # A ridge at rounding level, and one for grounded columns and covariates that do not vary.
        system[:, diagonal, diagonal] += np.where(scale > 0, _RIDGE, 1.0)
        found = np.linalg.solve(system, wanted[:, :, None])[:, :, 0]
        return np.asarray(found[:, :n_columns]), np.asarray(found[:, n_columns:])


def _grounded_scale(degree: Floats) -> Floats:
    """(n, n_columns): one over the root of a column's weight (n, n_columns), 0 for the heaviest, the ground."""
    scale = np.where(degree > 0, 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0)
    scale[np.arange(degree.shape[0]), degree.argmax(axis=1)] = 0.0
    return np.asarray(scale)


def _spanned(reduced: list[_Reduced], scale: Floats) -> Floats:
    """V (n, n_columns, ...) whose V V' is what rows' effects and factors take from the columns' scaled equations."""
    n, n_columns = scale.shape
    found = []
    for part in reduced:
        rows = part.rows
        if rows.common:
            root = (rows.root * scale)[:, :, None]
            total = rows.counted.sum(axis=1)
            found.append(root * np.sqrt(rows.share * total[:, None])[:, :, None])
            if part.rotation is None:
                spread = part.basis @ _root(part.ridge * total[:, None, None])
            else:
                spread = part.basis * np.sqrt((rows.counted[:, :, None] * part.ridge).sum(axis=1))[:, None, :]
            found.append(root * spread)
        else:
            root = rows.root * scale[:, None, :]
            weight = np.sqrt(rows.counted)[:, :, None]
            found.append(np.swapaxes(root * np.sqrt(rows.share) * weight, 1, 2))
            spread = root[:, :, :, None] * (part.basis @ _root(part.ridge)) * weight[:, :, :, None]
            found.append(np.swapaxes(spread, 1, 2).reshape(n, n_columns, -1))
    return np.concatenate(found, axis=2)


def _root(matrix: Floats) -> Floats:
    """R with R R' = matrix, (..., k, k) and positive semidefinite: zero where a row has no weight."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def _solve_thin(spanned: Floats, cross: Floats, right: Floats, own: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """Solve with identity - V V' bordered by covariates: (identity - V V')^-1 = identity + V (identity - V'V)^-1 V'.

    spanned: V (n, n_columns, k); cross: (n, n_columns, 1 + n_covariates); right: (n, n_covariates); own: (n,
    n_covariates, n_covariates).
    """
    inner = -(np.swapaxes(spanned, 1, 2) @ spanned)
    diagonal = np.arange(inner.shape[1])
    inner[:, diagonal, diagonal] += 1.0 + _RIDGE
    found = cross + spanned @ np.linalg.solve(inner, np.swapaxes(spanned, 1, 2) @ cross)
    if not right.shape[1]:
        return found[:, :, 0], right
    beside = np.swapaxes(cross[:, :, 1:], 1, 2)
    left = own - beside @ found[:, :, 1:]
    diagonal = np.arange(left.shape[1])
    left[:, diagonal, diagonal] += np.where(unit > 0, _RIDGE, 1.0)
    coefficients = np.linalg.solve(left, (right - (beside @ found[:, :, :1])[:, :, 0])[:, :, None])
    effects = found[:, :, 0] - (found[:, :, 1:] @ coefficients)[:, :, 0]
    return np.asarray(effects), np.asarray(coefficients[:, :, 0])


def _flat(stack: Floats) -> Floats:
    n, n_stack, k, size = stack.shape
    return stack.reshape(n, n_stack, k * size)


def _subtract_block(part: _Reduced, scale: Floats, block: Floats) -> None:
    """Take what the rows' factors explain out of the columns' scaled equations, in place."""
    rows = part.rows
    n, _, k, width = part.loadings.shape
    if not rows.common:
        # ``ridge`` holds one row weight; the quadratic form of a row carries another.
        ridge = part.ridge * rows.counted[:, :, None, None]
        scaled = part.basis * rows.root[:, :, :, None] * scale[:, None, :, None]
        wide = [np.moveaxis(each, 1, 2).reshape(n, -1, k * width) for each in (scaled @ ridge, scaled)]
        block -= wide[0] @ np.swapaxes(wide[1], 1, 2)
        return
    scaled = part.basis * rows.root[:, :, None] * scale[:, :, None]
    if part.rotation is None:
        block -= (scaled @ (part.ridge * rows.counted.sum(axis=1)[:, None, None])) @ np.swapaxes(scaled, 1, 2)
    else:
        counted = (rows.counted[:, :, None] * part.ridge).sum(axis=1)
        block -= (scaled * counted[:, None, :]) @ np.swapaxes(scaled, 1, 2)


def _subtract(part: _Reduced, cross: Floats, products: Floats) -> None:
    """Take what the rows' factors explain out of the other common equations, in place."""
    rows = part.rows
    n_stack = part.loadings.shape[1]
    if not rows.common:
        shrunk = np.swapaxes(part.loadings, 1, 2) @ (part.ridge * rows.counted[:, :, None, None])
        cross -= ((part.basis * rows.root[:, :, :, None]) @ np.swapaxes(shrunk, 2, 3)).sum(axis=1)
        shrunk = np.swapaxes(shrunk, 1, 2)[:, 1:]
    else:
        if part.rotation is None:
            summed = (rows.counted[:, None, None, :] @ part.loadings)[:, :, 0] @ part.ridge
            shrunk = part.loadings[:, 1:]
            if n_stack > 1:
                shrunk = (shrunk @ part.ridge[:, None]) * rows.counted[:, None, :, None]
        else:
            shrunk = (rows.counted[:, :, None] * part.ridge)[:, None] * part.loadings
            summed = shrunk.sum(axis=2)
            shrunk = shrunk[:, 1:]
        cross -= (part.basis * rows.root[:, :, None]) @ np.swapaxes(summed, 1, 2)
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

    stack: (n, 1 + n_covariates, n_rows, n_columns), outcomes first, then covariates; read where used. width: of the
    factors. The column effects and the coefficients of covariates are solved together with the rows (``common``) unless
    columns are many and their system cannot be kept thin: it is as wide as the columns otherwise.
    """

    def __init__(self, stack: Floats, weights: ProductWeights, lambda_nn: Floats, width: int) -> None:
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
        n_columns = stack.shape[3]
        spanned = (1 + width) * sum(1 if part.common else part.index.shape[-1] for part in self.rows)
        thin = spanned <= _THIN * n_columns and _thin_is_safe(weights)
        self.common = _Common(self.rows, weights, thin) if thin or n_columns <= _JOINT_COLUMNS else None

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


def _thin_is_safe(weights: ProductWeights) -> bool:
    """Whether every column of every problem is tied to the heaviest one, the ground, by rows that have both.

    The tie is the ground's share of those rows, averaged over a column's weight: by so much, at least, the diagonal of
    the scaled system dominates, so it is well conditioned.
    """
    cells = weights.cells()
    degree = cells.sum(axis=1)
    ground = degree.argmax(axis=1)
    total = cells.sum(axis=2)
    share = cells[np.arange(ground.size), :, ground] / np.where(total > 0, total, 1.0)
    return bool((np.einsum("njt,nj->nt", cells, share) >= _TIED * degree).all())


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
