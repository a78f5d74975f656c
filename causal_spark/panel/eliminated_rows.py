"""Rows of a low-rank fit eliminated: their ridge regressions on the columns' factors, and the way back.

Weights are products, w_js = row_j column_s used_js, so rows with the same used cells share one eigendecomposition,
which serves any ridge; rows with used cells of their own are solved one by one, but all at once in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import unsolvable
from causal_spark.panel.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows that are solved together: one group with common used cells, or k rows with used cells of their own.

    index: (k,) positions, or (n, 1), one row per problem. All other arrays begin with the problem.
    share, root: column weights over their sum, and their square roots, (n, n_columns), or (n, k, n_columns) without
    common used cells. weight, counted: (n, k) row weights, the latter zero for a row that another `Rows` solves.
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

    def take(self, kept: Ints) -> Rows:
        """The rows of some of the problems."""
        arrays = {name: getattr(self, name)[kept] for name in _SLICED}
        return replace(self, index=self.index[kept] if self.index.ndim == 2 else self.index, **arrays)


_SLICED = ("share", "root", "weight", "counted", "centred", "means")


def make_rows(stack: Floats, weights: ProductWeights, index: Ints, common: bool, counted: Floats, cells: Bools) -> Rows:
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
    return Rows(index, common, common and bool((weight == 1.0).all()), share, root, weight, counted, centred, means)


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """Rows eliminated: what they leave to the common effects' equations, and how to get the rows' unknowns back.

    centre: weighted mean of the factors, (n, width) or (n, k, width). basis: what rows regress on, (n, n_columns,
    width), rotated where there is an eigendecomposition, or (n, k, n_columns, width). loadings: (n, 1 + n_covariates,
    k, width), of outcome and covariates on it. ridge: row weight over ridge system, as (n, width, width), (n, k, width)
    in the basis of ``rotation``, or (n, k, width, width).
    """

    rows: Rows
    centre: Floats
    basis: Floats
    loadings: Floats
    ridge: Floats
    rotation: Floats | None = None


def eliminate(rows: Rows, factors: Floats, lambda_nn: Floats) -> Reduced:
    """Rows regressed on the columns' factors (n, n_columns, width), by ridges of lambda_nn / 2, (n,)."""
    half = lambda_nn / 2.0
    if not rows.common:
        centre = rows.share @ factors
        design = rows.root[:, :, :, None] * (factors[:, None] - centre[:, :, None, :])
        weight = rows.weight[:, :, None, None]
        ridge = weight * _inverse(weight * (np.swapaxes(design, 2, 3) @ design), half[:, None, None])
        loadings = np.swapaxes(np.swapaxes(rows.centred, 1, 2) @ design, 1, 2)
        return Reduced(rows, centre, design, loadings, ridge)
    centre = (rows.share[:, None, :] @ factors)[:, 0]
    design = rows.root[:, :, None] * (factors - centre[:, None, :])
    gram = np.swapaxes(design, 1, 2) @ design
    if rows.equal:
        return Reduced(rows, centre, design, rows.centred @ design[:, None], _inverse(gram, half[:, None]))
    values, rotation = np.linalg.eigh(gram)
    design = design @ rotation
    weight = rows.weight[:, :, None]
    ridge = weight / (weight * np.maximum(values, 0.0)[:, None, :] + half[:, None, None])
    return Reduced(rows, centre, design, rows.centred @ design[:, None], ridge, rotation)


def _inverse(gram: Floats, half: Floats) -> Floats:
    diagonal = np.arange(gram.shape[-1])
    gram[..., diagonal, diagonal] += half
    try:
        return np.asarray(np.linalg.inv(gram))
    except np.linalg.LinAlgError:
        raise unsolvable() from None


def flat(stack: Floats) -> Floats:
    """(n, n_stack, k size) from (n, n_stack, k, size)."""
    n, n_stack, k, size = stack.shape
    return stack.reshape(n, n_stack, k * size)


def put_back(part: Reduced, effects: Floats, coefficients: Floats) -> tuple[Floats, Floats]:
    """Factors (n, k, width) and effects (n, k) of rows, given the common effects (n, n_columns) and coefficients."""
    rows = part.rows
    means, loading = rows.means[:, 0], part.loadings[:, 0]
    if coefficients.shape[1]:
        means = means - (coefficients[:, None, :] @ rows.means[:, 1:])[:, 0]
        loading = loading - (coefficients[:, None, :] @ flat(part.loadings[:, 1:])).reshape(loading.shape)
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
