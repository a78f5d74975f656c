"""Predictions of single cells of a panel, each from a weighted low-rank fit that leaves it out."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from causal_spark.panel.additive_cells import AdditiveCells
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.product_weights import ProductWeights, decayed
from causal_spark.panel.soft_impute import SoftImpute
from causal_spark.panel.tuning import Triple
from causal_spark.panel.two_way import CovariateBasis, TwoWayOperator, row_groups, two_way_fit
from causal_spark.panel.types import Bools, Floats, Ints

# Cells x weights that are in memory at once, and the most problems.
_NUMBERS_AT_ONCE = 2_000_000
_CELLS_AT_ONCE = 400
# Below this e / (1 - h) loses digits, and the cell is left out by solving again.
_CLOSED_FORM_MARGIN = 1e-3
# Up to so many different masks of units a fit with L = 0 takes a system of their number.
_MOST_MASKS = 40
# Standard deviations by which rounding may have moved a prediction in closed form.
_ROUNDING = 1e-8
# Proximal steps are short, so to be as precise they have to become smaller than the sweeps of the factored solver.
_SOFT_SHARE = 0.3


class SingleCells:
    """Fits for single target cells (i, t) of one panel, theta_s = exp(-lambda_time |t - s|), omega_j = exp(-lambda_unit
    d(j, i)) at the control cells other than the target.

    d(j, i) is the root mean square of Y_iu - Y_ju over the periods u != t in which both are control cells; a unit
    without such a period is placed at the largest distance found for that target.
    outcome: (n_units, n_periods), read at control cells; controls: (n_units, n_periods); covariates: directions that
    the control cells identify, or None.
    """

    def __init__(self, outcome: Floats, controls: Bools, covariates: CovariateBasis | None = None) -> None:
        self.outcome, self.controls, self.covariates = outcome, controls, covariates
        self.mask = controls.astype(np.float64)
        layers = 1 + (0 if covariates is None else covariates.directions.shape[0])
        self.chunk = max(1, min(_CELLS_AT_ONCE, _NUMBERS_AT_ONCE // (outcome.size * layers)))

    def predict(self, rows: Ints, columns: Ints, triple: Triple, tolerance: float) -> tuple[Floats, int, bool]:
        """Predictions (k,) of the cells (rows, columns), the largest rank, and whether every solve converged."""
        predicted = np.zeros(rows.size)
        if not rows.size:
            return predicted, 0, True
        remaining, resolved = np.arange(rows.size), True
        if math.isinf(triple[2]) and self.covariates is None:
            if not any(triple[:2]):
                predicted, remaining = self._one_fit(rows, columns)
            elif triple[1] == 0.0:
                predicted, remaining = self._closed_form(rows, columns, triple[0])
            if remaining.size and self._few_masks:
                predicted[remaining], safe = self._grouped(rows[remaining], columns[remaining], triple)
                remaining, resolved = remaining[~safe], bool(safe.all())
        own = self.controls[rows[remaining], columns[remaining]]
        if not any(triple[:2]) and math.isfinite(triple[2]) and self.covariates is None and own.any():
            return self._equal_weights(rows, columns, triple[2], tolerance)
        # What rounding spoils in closed form the solver does not resolve for certain either.
        rank, converged = 0, resolved
        for part, left_out in ((remaining[own], True), (remaining[~own], False)):
            found = self._solved(rows[part], columns[part], triple, tolerance, left_out)
            predicted[part], rank, converged = found[0], max(rank, found[1]), converged and found[2]
        return predicted, rank, converged

    def chunks(self, rows: Ints, columns: Ints, triple: Triple) -> list[tuple[Ints, Ints]]:
        """Cells in portions that can be predicted apart; cells that share a fit are in one."""
        parts = []
        own = self.controls[rows, columns]
        for chosen, left_out in ((np.flatnonzero(~own), False), (np.flatnonzero(own), True)):
            group = _groups(rows[chosen], columns[chosen], triple, apart=left_out)
            for begin in range(0, len(group), self.chunk):
                part = chosen[np.unique(group[begin : begin + self.chunk])]
                parts.append((rows[part], columns[part]))
        return parts

    def _equal_weights(self, rows: Ints, columns: Ints, lambda_nn: float, tolerance: float) -> tuple[Floats, int, bool]:
        """Problems that differ in one cell only, by proximal steps from the solution that they are all close to."""
        penalty = np.array([lambda_nn])
        whole = SoftImpute(self.outcome, self.controls[None]).solve(penalty, None, tolerance * _SOFT_SHARE)
        predicted, rank, converged = np.zeros(rows.size), 0, bool(whole.converged.all())
        for begin in range(0, rows.size, self.chunk):
            part = slice(begin, min(begin + self.chunk, rows.size))
            each = np.arange(part.stop - part.start)
            used = np.repeat(self.controls[None], each.size, axis=0)
            used[each, rows[part], columns[part]] = False
            start = np.repeat(whole.predictions, each.size, axis=0)
            fits = SoftImpute(self.outcome, used).solve(np.repeat(penalty, each.size), start, tolerance * _SOFT_SHARE)
            predicted[part] = fits.predictions[each, rows[part], columns[part]]
            rank, converged = max(rank, int(fits.rank.max())), converged and bool(fits.converged.all())
        return predicted, rank, converged

    def _solved(
        self, rows: Ints, columns: Ints, triple: Triple, tolerance: float, left_out: bool
    ) -> tuple[Floats, int, bool]:
        group = _groups(rows, columns, triple, apart=left_out)
        predicted = np.zeros(rows.size)
        rank, converged = 0, True
        for begin in range(0, group.shape[0], self.chunk):
            part = group[begin : begin + self.chunk]
            cells = rows[part], columns[part]
            weights = self.weights(cells[0][:, 0], cells[1][:, 0], triple, left_out)
            fits = low_rank_fit(
                self.outcome,
                weights,
                np.full(part.shape[0], triple[2]),
                covariates=None if self.covariates is None else self.covariates.directions,
                targets=cells,
                tolerance=tolerance,
            )
            predicted[part] = fits.predictions_at(*cells)
            rank = max(rank, int(fits.rank.max()))
            converged = converged and bool(fits.converged.all())
        return predicted, rank, converged

    def weights(self, rows: Ints, columns: Ints, triple: Triple, left_out: bool) -> ProductWeights:
        """Weights for each target cell (rows (k,), columns (k,)), itself left out where it is a control cell."""
        time, unit, _ = triple
        periods = np.arange(self.outcome.shape[1])
        decay = time * np.abs(periods - columns[:, None])
        apart = unit * self._distances(rows, columns) if unit > 0 else np.zeros((rows.size, self.outcome.shape[0]))
        return ProductWeights(
            decayed(apart),
            decayed(decay),
            self.controls[None],
            (rows, columns) if left_out else None,
        )

    def _distances(self, rows: Ints, columns: Ints) -> Floats:
        """(k, n_units): d(j, i) with the target's own period left out."""
        each = np.arange(rows.size)
        count, squares = self._pairs(rows)
        at = self.outcome[:, columns].T
        both = (self.mask[:, columns] * self.mask[rows, columns]).T
        count = count - both
        # What is left of a difference is rounding where units are alike in all other periods.
        left = squares - both * (self.outcome[rows, columns][:, None] - at) ** 2
        distance = np.sqrt(np.maximum(left, 0.0) / np.maximum(count, 1.0))
        distance = np.where(count > 0, distance, distance.max(axis=1, keepdims=True))
        distance[each, rows] = 0.0
        return np.asarray(distance)

    def _pairs(self, rows: Ints) -> tuple[Floats, Floats]:
        """(k, n_units): periods in which units (k,) and all others are control cells, and squared differences there."""
        count, squares, known = self._known_pairs
        for i in np.unique(rows[~known[rows]]):
            count[i] = self.mask @ self.mask[i]
            squares[i] = ((self.outcome - self.outcome[i]) ** 2 * self.mask) @ self.mask[i]
            known[i] = True
        return count[rows], squares[rows]

    @cached_property
    def _known_pairs(self) -> tuple[Floats, Floats, Bools]:
        """Room for `_pairs` of all units, which takes memory only where it is filled, and which of them are."""
        n_units = self.outcome.shape[0]
        return np.empty((n_units, n_units)), np.empty((n_units, n_units)), np.zeros(n_units, dtype=np.bool_)

    def _one_fit(self, rows: Ints, columns: Ints) -> tuple[Floats, Ints]:
        """L = 0 and equal weights: `_closed_form` with one fit for all periods."""
        fitted = two_way_fit(self.outcome, self.mask)[rows, columns]
        predicted, again = self._left_out(rows, columns, fitted, _leverages(self.mask)[rows, columns])
        return predicted, np.flatnonzero(again)

    def _left_out(self, rows: Ints, columns: Ints, fitted: Floats, leverage: Floats) -> tuple[Floats, Bools]:
        """Predictions (k,) of cells without themselves where they are control cells; which of them lose digits so."""
        own, observed = self.controls[rows, columns], self.outcome[rows, columns]
        margin = np.where(own, 1.0 - leverage, 1.0)
        predicted = np.where(own, observed - (observed - fitted) / np.where(margin > 0, margin, 1.0), fitted)
        return predicted, margin < _CLOSED_FORM_MARGIN

    def _closed_form(self, rows: Ints, columns: Ints, time: float) -> tuple[Floats, Ints]:
        """L = 0 and equal unit weights: one fit per period serves all its cells, the left-out residual is e / (1 - h).

        Returns predictions (k,) and the positions of those that still have to be left out by solving again.
        """
        periods = np.arange(self.outcome.shape[1])
        predicted = np.zeros(rows.size)
        again = np.zeros(rows.size, dtype=bool)
        for column in np.unique(columns):
            here = np.flatnonzero(columns == column)
            theta = decayed(time * np.abs(periods - column))
            fitted, leverage = _fit_and_leverage(self.outcome, self.mask * theta, rows[here], int(column))
            predicted[here], again[here] = self._left_out(rows[here], columns[here], fitted, leverage)
        return predicted, np.flatnonzero(again)

    def _grouped(self, rows: Ints, columns: Ints, triple: Triple) -> tuple[Floats, Bools]:
        """L = 0 and few masks: no cell needs a fit of its own. Predictions (k,), and which keep their digits."""
        predicted, error, step = np.zeros(rows.size), np.zeros(rows.size), self._additive.batch
        for begin in range(0, rows.size, step):
            part = slice(begin, min(begin + step, rows.size))
            weights = self.weights(rows[part], columns[part], triple, left_out=False)
            predicted[part], error[part] = self._additive.predict(rows[part], columns[part], weights)
        return predicted, np.asarray(error <= _ROUNDING)

    @cached_property
    def _few_masks(self) -> bool:
        return row_groups(self.controls)[1].size <= _MOST_MASKS

    @cached_property
    def _additive(self) -> AdditiveCells:
        return AdditiveCells(self.outcome, self.controls)

    def identified_when_left_out(self) -> Bools:
        """(n_units, n_periods): control cells whose unit and period stay linked without them.

        Those whose leverage in the equally weighted fit is below 1; on a cycle it is at least 1 / (its length) below.
        Covariates that only one cell tells apart have leverage 1 there.
        """
        leverage = _leverages(self.mask)
        if self.covariates is not None:
            leverage = leverage + self.covariates.leverage
        return np.asarray(self.controls & (leverage < 1.0 - 0.25 / sum(self.controls.shape)))


def _groups(rows: Ints, columns: Ints, triple: Triple, apart: bool) -> Ints:
    """(n, k): positions of the cells that one fit serves, the first repeated where there are fewer than k.

    Cells that are in no fit share one when their weights are the same: without lambda_unit those of a period, without
    lambda_time those of a unit, because only periods in which both units are control cells make distances.
    """
    if apart or (triple[0] > 0 and triple[1] > 0):
        return np.arange(rows.size)[:, None]
    key = columns if triple[0] > 0 else rows if triple[1] > 0 else np.zeros_like(rows)
    _, member = np.unique(key, return_inverse=True)
    order = np.argsort(member, kind="stable")
    count = np.bincount(member)
    begin = np.cumsum(count) - count
    within = np.minimum(np.arange(count.max(initial=1)), count[:, None] - 1)
    return np.asarray(order[begin[:, None] + within])


def _fit_and_leverage(outcome: Floats, weights: Floats, rows: Ints, column: int) -> tuple[Floats, Floats]:
    """Fitted values and leverages (k,) of the cells (rows, column) in one weighted two-way fit."""
    operator = TwoWayOperator(weights[None])
    alpha, beta = operator.effects((weights * outcome)[None])
    contrast = -weights[rows] / operator.row_weight[0, rows, None]
    contrast[:, column] += 1.0
    spread = np.einsum("kt,ts,ks->k", contrast, operator.inverse[0], contrast, optimize=True)
    own_weight = weights[rows, column]
    return alpha[0, rows] + beta[0, column], own_weight * (1.0 / operator.row_weight[0, rows] + spread)


def _leverages(weights: Floats) -> Floats:
    """(n_units, n_periods): leverage of every cell in one weighted two-way fit."""
    if weights.shape[0] < weights.shape[1]:
        return _leverages(np.ascontiguousarray(weights.T)).T
    operator = TwoWayOperator(weights[None])
    share, inverse = weights / operator.row_weight[0, :, None], operator.inverse[0]
    crossed = share @ inverse
    own = 1.0 / operator.row_weight[0] + np.einsum("it,it->i", crossed, share)
    return np.asarray(weights * (own[:, None] + np.diag(inverse) - 2.0 * crossed))
