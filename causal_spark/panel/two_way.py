"""Weighted two-way effects on any set of cells, solved exactly.

    min over alpha, beta of  sum_it w_it (Y_it - alpha_i - beta_t)^2,   w >= 0, w = 0 where a cell is not used.

The longer side is eliminated; what is left is the Laplacian of a weighted graph, built without subtraction, grounded at
its heaviest node and scaled to a unit diagonal, so weights may span many orders of magnitude. A cell is identified
exactly when its unit and its period lie in one connected component of the bipartite graph of used cells (Abowd, Creecy,
Kramarz 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from causal_spark.errors import SolverError
from causal_spark.panel.types import Bools, Floats, Ints

# A direction of the covariates counts as collinear with the effects below this share of its own size.
_COLLINEAR = 1e-9
# Sweeps from unit to period and back that are tried before a graph is built.
_SWEEPS = 3


def components(used: Bools) -> tuple[Ints, Ints]:
    """Label the connected components of the bipartite graph whose edges are the used cells.

    used: (n_units, n_periods). Returns labels of units (n_units,) and of periods (n_periods,).
    """
    n_units, n_periods = used.shape
    if _connected(used):
        return np.zeros(n_units, dtype=np.intp), np.zeros(n_periods, dtype=np.intp)
    rows, columns = np.nonzero(used)
    size = n_units + n_periods
    graph = coo_array((np.ones(rows.size, dtype=np.int8), (rows, columns + n_units)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].astype(np.intp)
    return labels[:n_units], labels[n_units:]


def _connected(used: Bools) -> bool:
    """Whether a few sweeps show that all cells are linked, as on most panels; False means not known."""
    if not used.size:
        return False
    rows: Bools = np.zeros(used.shape[0], dtype=np.bool_)
    rows[used.sum(axis=1).argmax()] = True
    for _ in range(_SWEEPS):
        columns = used[rows].any(axis=0)
        rows = np.asarray(used[:, columns].any(axis=1))
        if rows.all():
            return bool(used.any(axis=0).all())
    return False


def identified_cells(used: Bools) -> Bools:
    """(n_units, n_periods): cells whose unit and period share a component of the used cells."""
    units, periods = components(used)
    return np.asarray(units[:, None] == periods[None, :])


def row_groups(used: Bools) -> tuple[Ints, Ints]:
    """Rows of a mask (n_rows, n_columns) that are alike: the group of each row, and each group's first row."""
    packed = np.ascontiguousarray(np.packbits(used, axis=1))
    # As one value per row these sort many times faster than as rows of a matrix.
    _, first, group = np.unique(packed.view(f"V{packed.shape[1]}").ravel(), return_index=True, return_inverse=True)
    return np.asarray(group.reshape(-1), dtype=np.intp), np.asarray(first, dtype=np.intp)


def two_way_fit(outcomes: Floats, weights: Floats) -> Floats:
    """Fitted values alpha_i + beta_t of every identified cell, NaN elsewhere.

    outcomes: (..., n_units, n_periods), several outcomes sharing one set of weights; read where weights > 0 only.
    weights: (n_units, n_periods), finite and >= 0.
    Raises SolverError when the weights span more than double precision can resolve, or outcomes are so large that their
    sums overflow.
    """
    stack = outcomes.reshape(-1, *outcomes.shape[-2:])
    if weights.shape[0] < weights.shape[1]:
        fitted = np.swapaxes(_fit_tall(np.swapaxes(stack, 1, 2), np.ascontiguousarray(weights.T)), 1, 2)
    else:
        fitted = _fit_tall(stack, weights)
    return fitted.reshape(outcomes.shape)


def equal_two_way_fit(outcome: Floats, used: Bools) -> Floats:
    """`two_way_fit` of one outcome with equal weights, in closed form where there is one.

    outcome: (n_units, n_periods), read where used only; used: (n_units, n_periods).
    """
    fitted = _block_fit(outcome, used)
    return two_way_fit(outcome, used.astype(np.float64)) if fitted is None else fitted


def _block_fit(outcome: Floats, used: Bools) -> Floats | None:
    """The fit when some rows are complete and all others lack the same columns, else None.

    Complete rows alone tell how the common columns C and the others differ on average; within C all rows tell, within
    the others the complete rows. These contrasts are orthogonal, so each column effect, less the mean over C, is a mean
    of what row means over C leave.
    """
    n_rows, n_columns = used.shape
    complete: Bools = np.logical_and.reduce(used, axis=1)
    n_complete = np.count_nonzero(complete)
    common = used[complete.argmin()]
    n_common = np.count_nonzero(common)
    if not (n_complete and n_common) or np.count_nonzero(used[~complete] != common):
        return None
    over, by = np.empty((n_columns, 2)), np.empty((2, n_rows))
    over[:, 0], over[:, 1] = common, 1.0
    by[0], by[1] = 1.0, complete
    # Unused cells enter with weight 0, which does no harm unless they are NaN or overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = outcome @ over
        level, overall = sums[:, 0] / n_common, sums[:, 1] / n_columns
        means = by @ outcome
        means -= (by @ level)[:, None]
        columns = np.where(common, means[0] / n_rows, means[1] / n_complete)
        rows = level + complete * (overall - level - np.add.reduce(columns) / n_columns)
    if np.count_nonzero(np.isfinite(rows)) < n_rows or np.count_nonzero(np.isfinite(columns)) < n_columns:
        return None
    return np.asarray(rows[:, None] + columns)


def _fit_tall(outcomes: Floats, weights: Floats) -> Floats:
    used = weights > 0
    row_labels, column_labels = components(used)
    filled = np.where(used, outcomes, 0.0)
    # Rows are centred first: a large common level would otherwise cost digits of every difference.
    row_weight = weights.sum(axis=1)
    safe_row_weight = np.where(row_weight > 0, row_weight, 1.0)
    share = weights / safe_row_weight[:, None]
    solve = _ColumnSolver(weights, share, column_labels)
    row_effects = np.einsum("kit,it->ki", filled, share)
    column_effects = np.zeros((filled.shape[0], weights.shape[1]))
    for _ in range(2):  # the second pass is one step of iterative refinement
        residual = np.where(used, filled - row_effects[:, :, None] - column_effects[:, None, :], 0.0)
        centred = np.where(used, residual - np.einsum("kit,it->ki", residual, share)[:, :, None], 0.0)
        right = np.einsum("kit,it->kt", centred, weights)
        if not np.isfinite(right).all():
            raise SolverError("Sums of outcomes overflow.", "Rescale the outcome: it is near the largest double.")
        step = solve(right)
        column_effects += step
        row_effects += np.einsum("kit,it->ki", residual - step[:, None, :], share)
    fitted = row_effects[:, :, None] + column_effects[:, None, :]
    return np.where(row_labels[:, None] == column_labels[None, :], fitted, np.nan)


class _ColumnSolver:
    """The column effects' normal equations after the row effects are eliminated, factored once."""

    __slots__ = ("_factor", "_keep", "_scale")

    def __init__(self, weights: Floats, share: Floats, labels: Ints) -> None:
        conductance = weights.T @ share
        np.fill_diagonal(conductance, 0.0)
        degree = conductance.sum(axis=1)
        keep = degree > 0
        order = np.lexsort((-degree, labels))
        first_of_component = np.r_[True, labels[order][1:] != labels[order][:-1]]
        keep[order[first_of_component]] = False
        self._keep = np.flatnonzero(keep)
        self._scale = 1.0 / np.sqrt(degree[self._keep])
        laplacian = -conductance[np.ix_(self._keep, self._keep)] * self._scale[:, None] * self._scale[None, :]
        np.fill_diagonal(laplacian, 1.0)
        try:
            self._factor = cho_factor(laplacian) if self._keep.size else None
        except np.linalg.LinAlgError:
            raise unsolvable() from None

    def __call__(self, right: Floats) -> Floats:
        """Column effects (k, n_columns), zero at each component's ground, for right-hand sides of that shape."""
        solution = np.zeros_like(right)
        if self._factor is not None:
            scaled = (right[:, self._keep] * self._scale).T
            solution[:, self._keep] = cho_solve(self._factor, scaled).T * self._scale
        return solution


def scaled_laplacian(weights: Floats) -> tuple[Floats, Floats]:
    """Period effects' normal equations after unit effects are eliminated, and the scale of each period.

    weights: (n, n_units, n_periods). Returns scale L scale (n, n_periods, n_periods), with a unit diagonal but for a
    zero row and column at each component's heaviest period, its ground, and scale (n, n_periods), zero there.
    """
    row_weight = weights.sum(axis=2)
    laplacian = np.swapaxes(weights, 1, 2) @ (weights / np.where(row_weight > 0, row_weight, 1.0)[:, :, None])
    diagonal = np.arange(weights.shape[2])
    laplacian[:, diagonal, diagonal] = 0.0
    degree = laplacian.sum(axis=2)
    grounded = _grounds(laplacian, degree)
    scale = np.where(grounded, 0.0, 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)))
    laplacian *= -scale[:, :, None]
    laplacian *= scale[:, None, :]
    laplacian[:, diagonal, diagonal] = scale > 0
    return laplacian, scale


class TwoWayOperator:
    """alpha and beta given L for a batch of weights, the column Laplacians inverted once.

    weights: (n, n_units, n_periods). Each component of the used cells is grounded at its heaviest period.
    """

    __slots__ = ("inverse", "row_weight", "weights")

    def __init__(self, weights: Floats) -> None:
        row_weight = weights.sum(axis=2)
        self.row_weight = np.where(row_weight > 0, row_weight, 1.0)
        self.weights = weights
        laplacian, scale = scaled_laplacian(weights)
        diagonal = np.arange(weights.shape[2])
        laplacian[:, diagonal, diagonal] = 1.0
        try:
            inverse = np.linalg.inv(laplacian)
        except np.linalg.LinAlgError:
            raise unsolvable() from None
        inverse *= scale[:, :, None]
        inverse *= scale[:, None, :]
        if not np.isfinite(inverse).all():
            raise unsolvable()
        self.inverse = inverse

    def take(self, kept: Ints) -> TwoWayOperator:
        """The operator of some of the problems."""
        other = object.__new__(TwoWayOperator)
        other.weights, other.inverse = self.weights[kept], self.inverse[kept]
        other.row_weight = self.row_weight[kept]
        return other

    def effects(self, weighted: Floats) -> tuple[Floats, Floats]:
        """Alpha (n, n_units) and beta (n, n_periods) from weights times what they are to explain."""
        row_means = weighted.sum(axis=2) / self.row_weight
        right = weighted.sum(axis=1) - np.einsum("nit,ni->nt", self.weights, row_means)
        beta = (self.inverse @ right[:, :, None])[:, :, 0]
        alpha = row_means - (self.weights @ beta[:, :, None])[:, :, 0] / self.row_weight
        return alpha, beta


def unsolvable() -> SolverError:
    """The error for weights that double precision cannot resolve."""
    return SolverError(
        "The weights of the cells that link units and periods are too small to resolve.",
        "Use smaller decay rates lambda_time and lambda_unit.",
    )


def _grounds(conductance: Floats, degree: Floats) -> Bools:
    """(n, n_periods): the heaviest period of each connected component, and every period without links."""
    n, n_periods = degree.shape
    linked = conductance > 0
    grounds = degree <= 0
    reached = grounds.copy()
    each = np.arange(n)
    while not reached.all():
        heaviest = np.where(reached, -1.0, degree).argmax(axis=1)
        front = np.zeros((n, n_periods), dtype=bool)
        front[each, heaviest] = ~reached[each, heaviest]
        grounds |= front
        while front.any():
            reached |= front
            front = (front[:, None, :] @ linked)[:, 0, :] & ~reached
    return grounds


@dataclass(frozen=True, slots=True, eq=False)
class CovariateFit:
    """Two-way effects plus X b.

    fitted: (n_units, n_periods), NaN where not identified; coefficients: (n_covariates,), the least-norm solution in
    units of each covariate's own spread when covariates are collinear; rank: how many directions are identified.
    """

    fitted: Floats
    coefficients: Floats
    rank: int


def two_way_covariate_fit(outcome: Floats, weights: Floats, covariates: Floats) -> CovariateFit:
    """Least squares of alpha_i + beta_t + X_it' b, jointly (Frisch, Waugh, Lovell).

    outcome, weights: (n_units, n_periods); covariates: (n_units, n_periods, n_covariates), finite where weights > 0;
    a cell whose covariates are not finite gets no prediction. Directions of X that the effects already span carry no
    coefficient; a cell that would need one (its X moves in a direction that no used cell moves in) is not identified.
    """
    used = weights > 0
    stack = np.concatenate([outcome[None], np.moveaxis(covariates, 2, 0)])
    centre = np.array([layer[used].mean() if used.any() else 0.0 for layer in stack])
    stack = stack - centre[:, None, None]
    effects = two_way_fit(stack, weights)
    # (n_units, n_periods, n_covariates): what the effects do not explain of X, at every cell.
    left = np.moveaxis(stack[1:] - effects[1:], 0, 2)
    root = np.sqrt(weights[used])
    design = left[used] * root[:, None]
    spread = np.sqrt(np.einsum("kit,it->k", np.where(used, stack[1:], 0.0) ** 2, weights))
    design_scale = np.where(spread > 0, spread, 1.0)
    _, values, vectors = np.linalg.svd(design / design_scale, full_matrices=False)
    full = np.zeros((covariates.shape[2], covariates.shape[2]))
    full[: vectors.shape[0]] = vectors
    known = full[: values.size][values > _COLLINEAR]
    projector = known.T @ known
    right = (design / design_scale).T @ ((stack[0] - effects[0])[used] * root)
    inverse_square = values[values > _COLLINEAR] ** -2.0
    coefficients = known.T @ (inverse_square * (known @ right)) / design_scale
    scaled = left / design_scale
    unknown = np.linalg.norm(scaled - scaled @ projector, axis=2)
    # One used cell's typical size in these units is 1/sqrt(total weight).
    tolerance = 1e-6 / np.sqrt(max(float(weights.sum()), np.finfo(float).tiny))
    fitted = effects[0] + left @ coefficients + centre[0]
    identified = np.isfinite(unknown) & (unknown <= tolerance * (1.0 + np.linalg.norm(scaled, axis=2)))
    return CovariateFit(np.where(identified, fitted, np.nan), coefficients, int(known.shape[0]))


@dataclass(frozen=True, slots=True, eq=False)
class CovariateBasis:
    """Directions of covariates that used cells identify beside the two-way effects.

    directions: (k, n_units, n_periods), orthogonal and of unit length over the used cells once effects are taken out;
    leverage: (n_units, n_periods), what they add to the leverage of a used cell with equal weights; identified:
    (n_units, n_periods), cells whose covariates move in no other direction.
    """

    directions: Floats
    leverage: Floats
    identified: Bools


def covariate_basis(used: Bools, covariates: Floats) -> CovariateBasis:
    """Reduce covariates (n_units, n_periods, n_covariates), finite where used, to what used cells identify of them."""
    layers = np.moveaxis(np.where(np.isfinite(covariates), covariates, 0.0), 2, 0)
    finite = np.isfinite(covariates).all(axis=2)
    weights = used.astype(np.float64)
    centred = layers - np.array([layer[used].mean() if used.any() else 0.0 for layer in layers])[:, None, None]
    spread = np.sqrt((np.where(used, centred, 0.0) ** 2).sum(axis=(1, 2)))
    centred = centred / np.where(spread > 0, spread, 1.0)[:, None, None]
    left = np.moveaxis(centred - two_way_fit(centred, weights), 0, 2)
    _, values, vectors = np.linalg.svd(left[used], full_matrices=False)
    known = vectors[values > _COLLINEAR] / values[values > _COLLINEAR][:, None]
    projector = vectors[values > _COLLINEAR].T @ vectors[values > _COLLINEAR]
    unknown = np.linalg.norm(left - left @ projector, axis=2)
    size = np.linalg.norm(left, axis=2)
    tolerance = 1e-6 / np.sqrt(max(float(used.sum()), 1.0))
    identified = finite & np.isfinite(size) & (unknown <= tolerance * (1.0 + size))
    leverage = np.where(used, ((left @ known.T) ** 2).sum(axis=2), 0.0)
    return CovariateBasis(np.einsum("kc,cit->kit", known, centred), leverage, identified)
