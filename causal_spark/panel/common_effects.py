"""What all rows of a low-rank fit share: the equations of column effects and coefficients of covariates."""

from __future__ import annotations

import numpy as np

from causal_spark.panel.eliminated_rows import Reduced, Rows, flat
from causal_spark.panel.two_way import scaled_laplacian, unsolvable
from causal_spark.panel.types import Floats, Ints

# Down to this tie a thin system keeps about ten digits.
_TIED = 1e-6
# Added to diagonals of scaled systems: rounding level.
_RIDGE = 1e-13


class CommonEffects:
    """The equations of column effects and coefficients of covariates, and what in them never changes.

    A row leaves a Laplacian of as many columns, less one dense matrix of its factors' width for each group of rows with
    common used cells. The system is either put together (``laplacian``), or, where the columns are many and the groups
    few, kept as identity - V V' with V as wide as all groups together.
    """

    __slots__ = ("cross", "laplacian", "products", "scale", "unit")

    def __init__(self, rows: list[Rows], cells: Floats, thin: bool) -> None:
        self.laplacian: Floats | None
        if thin:
            self.laplacian, self.scale = None, _grounded_scale(cells.sum(axis=1))
        else:
            self.laplacian, self.scale = scaled_laplacian(cells)
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
            self.products += flat(counted[:, 1:]) @ np.swapaxes(flat(part.centred), 1, 2)
        own = np.maximum(self.products[:, np.arange(n_stack - 1), np.arange(1, n_stack)], 0.0)
        self.unit = np.where(own > 0, 1.0 / np.sqrt(np.where(own > 0, own, 1.0)), 0.0)

    def take(self, kept: Ints) -> CommonEffects:
        """The equations of some of the problems."""
        other = object.__new__(CommonEffects)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, None if value is None else value[kept])
        return other

    def solve(self, reduced: list[Reduced]) -> tuple[Floats, Floats]:
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

    def _solve_whole(self, reduced: list[Reduced], cross: Floats, right: Floats, own: Floats) -> tuple[Floats, Floats]:
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


def _spanned(reduced: list[Reduced], scale: Floats) -> Floats:
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


def _subtract_block(part: Reduced, scale: Floats, block: Floats) -> None:
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


def _subtract(part: Reduced, cross: Floats, products: Floats) -> None:
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
        products -= flat(shrunk) @ np.swapaxes(flat(part.loadings), 1, 2)


def tied_to_ground(cells: Floats) -> bool:
    """Whether every column of every problem is tied to the heaviest one, the ground, by rows that have both.

    cells: (n, n_rows, n_columns), their weights. The tie is the ground's share of those rows, averaged over a column's
    weight: by so much, at least, the diagonal of the scaled system dominates, so it is well conditioned.
    """
    degree = cells.sum(axis=1)
    ground = degree.argmax(axis=1)
    total = cells.sum(axis=2)
    share = cells[np.arange(ground.size), :, ground] / np.where(total > 0, total, 1.0)
    return bool((np.einsum("njt,nj->nt", cells, share) >= _TIED * degree).all())
