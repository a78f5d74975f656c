"""Doubly weighted causal panel estimator (DWCP, published as the triply robust panel estimator TROP).

Athey, Imbens, Qu, Viviano, "Triply Robust Panel Estimators", arXiv 2508.21536, equations (2) and (3). For each target
cell (i, t), other treated cells left out:

    min over alpha, beta, L of  sum_js theta_s omega_j (1 - W_js) (Y_js - alpha_j - beta_s - L_js)^2 + lambda_nn ||L||_*
    theta_s = exp(-lambda_time |t - s|),  omega_j = exp(-lambda_unit d(j, i))

with d(j, i) the root mean square of Y_iu - Y_ju over the periods u != t in which both are untreated and observed.
Penalties are chosen by the mean squared error of predicting control cells, each left out in turn.

Outcomes are first divided by the standard deviation of the control cells; lambda_time is per period, lambda_unit per
standard deviation of distance, lambda_nn on the scale of the standardised sum of squares (no 1/2). Weights are not
normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.errors import UnsupportedCovariatesError
from causal_spark.panel.did import require_identified, require_targets
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.ridge_step import ProductWeights
from causal_spark.panel.tuning import Triple, search, standardised
from causal_spark.panel.two_way import TwoWayOperator, identified_cells
from causal_spark.panel.types import Bools, Fit, Floats, Ints, Panel, PanelSize, Penalties, TuningStep

# exp(-325) squared is 1e-282, which a float still holds, so no unit or period is ever lost to underflow.
_LARGEST_DECAY = 325.0
# Cells x weights that are in memory at once, and the most cells between two looks at the best score so far.
_NUMBERS_AT_ONCE = 2_000_000
_CELLS_AT_ONCE = 400
# Below this e / (1 - h) loses digits, and the cell is left out by solving again.
_CLOSED_FORM_MARGIN = 1e-3


@dataclass(frozen=True, slots=True)
class DwcpOptions:
    """How DWCP chooses its penalties.

    lambda_time: candidates for the decay per period, >= 0.
    lambda_unit: candidates for the decay per standard deviation of distance between units, >= 0.
    lambda_nn: candidates for the nuclear-norm penalty, > 0; infinity stands for no low-rank part.
    search: ``cyclic`` (the paper's: one penalty at a time, then coordinate descent) or ``grid`` (every combination).
    cv_tolerance, tolerance: precision of predictions, in standard deviations of the control cells, when control cells
        are left out and at the treated cells.
    """

    lambda_time: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
    lambda_unit: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    lambda_nn: tuple[float, ...] = (math.inf, 10.0, 3.0, 1.0, 0.3, 0.1)
    search: Literal["cyclic", "grid"] = "cyclic"
    cv_tolerance: float = 1e-3
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("lambda_time", "lambda_unit"):
            if not getattr(self, name) or not all(0 <= value < math.inf for value in getattr(self, name)):
                raise ValueError(f"{name} must be a tuple of finite numbers that are not negative.")
        if not self.lambda_nn or not all(value > 0 for value in self.lambda_nn):
            raise ValueError("lambda_nn must be a tuple of positive numbers: at 0 the controls are fitted perfectly.")
        if self.search not in ("cyclic", "grid"):
            raise ValueError(f"search must be cyclic or grid, not {self.search!r}.")
        for name in ("cv_tolerance", "tolerance"):
            if not 1e-10 <= getattr(self, name) <= 1e-2:
                raise ValueError(f"{name} must lie between 1e-10 and 1e-2, not {getattr(self, name)}.")


_DEFAULTS = DwcpOptions()


def dwcp(panel: Panel, options: DwcpOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Predict every identified treated cell by its own weighted low-rank fit.

    Any assignment pattern and missing cells; effects are assumed not to carry over. A unit without a period in common
    with the target's unit is placed at the largest distance found for that target. Penalties that are given but None
    mean no weighting (lambda_time, lambda_unit) and no low-rank part (lambda_nn).
    ``counterfactual`` holds the target cells' predictions and, at control cells of ever-treated units, leave-one-out
    predictions at the chosen penalties; elsewhere, and where not identified, NaN. ``criterion`` and ``path`` hold mean
    squared leave-one-out errors in squared standard deviations of the control cells; a candidate abandoned because its
    errors already exceeded the best's is listed with what it had. ``seed`` sets the order in which control cells are
    visited, which only moves when a candidate is abandoned. ``rank`` is the largest over target cells.
    Raises NoTreatedCellsError, NotIdentifiedError, UnsupportedCovariatesError, ConstantOutcomeError, and ValueError for
    given penalties out of range.
    """
    require_targets(panel)
    if panel.covariates is not None:
        raise UnsupportedCovariatesError("DWCP takes no covariates yet.", "Leave them out, or use did, which does.")
    controls, targets = panel.control_cells, panel.target_cells
    wanted = targets & identified_cells(controls)
    require_identified(panel, np.where(wanted, 0.0, np.nan))
    outcome, centre, scale = standardised(panel)
    cells = _Cells(outcome, controls)
    left_out = cells.identified_when_left_out()
    solved = True
    path: tuple[TuningStep, ...] = ()
    if penalties is None:
        score = _LeaveOneOut(cells, left_out, options.cv_tolerance, seed)
        triple: Triple = (0.0, 0.0, math.inf)
        if left_out.any():
            triple, path = search(score, options.lambda_time, options.lambda_unit, options.lambda_nn, options.search)
        solved = score.converged
    else:
        triple = _given(penalties)
    prediction = np.full(outcome.shape, np.nan)
    rows, columns = np.nonzero(wanted)
    prediction[rows, columns], rank, converged = cells.predict(rows, columns, triple, options.tolerance)
    rows, columns = np.nonzero(left_out & panel.ever_treated[:, None])
    prediction[rows, columns], _, placebos = cells.predict(rows, columns, triple, options.cv_tolerance)
    criterion = next((s.criterion for s in path if (s.lambda_time, s.lambda_unit, s.lambda_nn) == triple), None)
    return Fit(
        counterfactual=prediction * scale + centre,
        penalties=Penalties(*triple),
        tuning="fixed" if penalties is not None else "loocv" if path else "none",
        criterion=criterion,
        path=path,
        rank=rank,
        converged=converged and placebos and solved,
    )


def _given(penalties: Penalties) -> Triple:
    time = 0.0 if penalties.lambda_time is None else float(penalties.lambda_time)
    unit = 0.0 if penalties.lambda_unit is None else float(penalties.lambda_unit)
    nn = math.inf if penalties.lambda_nn is None else float(penalties.lambda_nn)
    if not (0 <= time < math.inf and 0 <= unit < math.inf and nn > 0):
        raise ValueError("lambda_time and lambda_unit must be finite and not negative, lambda_nn positive.")
    return time, unit, nn


class _Cells:
    """Predictions of single cells of one panel, each from a fit that leaves it out."""

    def __init__(self, outcome: Floats, controls: Bools) -> None:
        self.outcome, self.controls = outcome, controls
        self.mask = controls.astype(np.float64)
        self.chunk = max(1, min(_CELLS_AT_ONCE, _NUMBERS_AT_ONCE // outcome.size))

    def predict(self, rows: Ints, columns: Ints, triple: Triple, tolerance: float) -> tuple[Floats, int, bool]:
        """Predictions (k,) of the cells (rows, columns), the largest rank, and whether every solve converged."""
        predicted = np.zeros(rows.size)
        rank, converged = 0, True
        remaining = np.arange(rows.size)
        if math.isinf(triple[2]) and triple[1] == 0.0:
            predicted, remaining = self._closed_form(rows, columns, triple[0])
        for begin in range(0, remaining.size, self.chunk):
            part = remaining[begin : begin + self.chunk]
            cells = rows[part], columns[part]
            weights = self.weights(*cells, triple)
            fits = low_rank_fit(
                self.outcome, weights, np.full(part.size, triple[2]), targets=cells, tolerance=tolerance
            )
            predicted[part] = fits.predictions_at(*cells)
            rank = max(rank, int(fits.rank.max()))
            converged = converged and bool(fits.converged.all())
        return predicted, rank, converged

    def weights(self, rows: Ints, columns: Ints, triple: Triple) -> ProductWeights:
        """Theta omega (1 - W) of each target cell, the target itself left out."""
        time, unit, _ = triple
        periods = np.arange(self.outcome.shape[1])
        decay = time * np.abs(periods - columns[:, None])
        apart = unit * self._distances(rows, columns) if unit > 0 else np.zeros((rows.size, self.outcome.shape[0]))
        return ProductWeights(
            np.exp(-np.minimum(apart, _LARGEST_DECAY)),
            np.exp(-np.minimum(decay, _LARGEST_DECAY)),
            self.controls[None],
            (rows, columns) if self.controls[rows, columns].any() else None,
        )

    def _distances(self, rows: Ints, columns: Ints) -> Floats:
        """(k, n_units): d(j, i) with the target's own period left out."""
        each = np.arange(rows.size)
        both = self.mask[rows][:, None, :] * self.mask
        both[each, :, columns] = 0.0
        count = both.sum(axis=2)
        squares = np.einsum("knt,knt->kn", (self.outcome[rows][:, None, :] - self.outcome) ** 2, both)
        distance = np.sqrt(squares / np.maximum(count, 1.0))
        distance = np.where(count > 0, distance, distance.max(axis=1, keepdims=True))
        distance[each, rows] = 0.0
        return np.asarray(distance)

    def _closed_form(self, rows: Ints, columns: Ints, time: float) -> tuple[Floats, Ints]:
        """L = 0 and equal unit weights: one fit per period serves all its cells, the left-out residual is e / (1 - h).

        Returns predictions (k,) and the positions of those that still have to be left out by solving again.
        """
        periods = np.arange(self.outcome.shape[1])
        predicted = np.zeros(rows.size)
        again = np.zeros(rows.size, dtype=bool)
        for column in np.unique(columns):
            here = np.flatnonzero(columns == column)
            theta = np.exp(-np.minimum(time * np.abs(periods - column), _LARGEST_DECAY))
            fitted, leverage = _fit_and_leverage(self.outcome, self.mask * theta, rows[here], int(column))
            own = self.controls[rows[here], column]
            margin = np.where(own, 1.0 - leverage, 1.0)
            again[here] = margin < _CLOSED_FORM_MARGIN
            observed = self.outcome[rows[here], column]
            leave_one_out = observed - (observed - fitted) / np.where(margin > 0, margin, 1.0)
            predicted[here] = np.where(own, leave_one_out, fitted)
        return predicted, np.flatnonzero(again)

    def identified_when_left_out(self) -> Bools:
        """(n_units, n_periods): control cells whose unit and period stay linked without them.

        Those whose leverage in the equally weighted fit is below 1; on a cycle it is at least 1 / (its length) below.
        """
        leverage = _leverages(self.mask)
        return np.asarray(self.controls & (leverage < 1.0 - 0.25 / sum(self.controls.shape)))


class _LeaveOneOut:
    """The criterion: mean squared error of predicting control cells left out in turn."""

    def __init__(self, cells: _Cells, scored: Bools, tolerance: float, seed: int) -> None:
        rows, columns = np.nonzero(scored)
        order = np.random.default_rng(seed).permutation(rows.size)
        self.cells, self.rows, self.columns = cells, rows[order], columns[order]
        self.tolerance, self.converged = tolerance, True

    def __call__(self, triple: Triple, bound: float) -> tuple[float, bool]:
        observed = self.cells.outcome[self.rows, self.columns]
        step = self.rows.size if math.isinf(triple[2]) else self.cells.chunk
        total = 0.0
        for begin in range(0, self.rows.size, step):
            part = slice(begin, begin + step)
            predicted, _, good = self.cells.predict(self.rows[part], self.columns[part], triple, self.tolerance)
            self.converged = self.converged and good
            total += float(((observed[part] - predicted) ** 2).sum())
            if total / self.rows.size > bound and begin + step < self.rows.size:
                return total / self.rows.size, False
        return total / self.rows.size, True


def _additive(outcome: Floats, weights: Floats, rows: Ints, columns: Ints) -> Floats:
    """(k,): alpha_i + beta_t at each problem's cell. weights: (k, n_units, n_periods)."""
    if weights.shape[1] < weights.shape[2]:
        return _additive(outcome.T, np.ascontiguousarray(np.swapaxes(weights, 1, 2)), columns, rows)
    operator = TwoWayOperator(weights)
    alpha, beta = operator.effects(weights * outcome)
    # One step of iterative refinement.
    more_alpha, more_beta = operator.effects(weights * (outcome - alpha[:, :, None] - beta[:, None, :]))
    each = np.arange(rows.size)
    return np.asarray((alpha + more_alpha)[each, rows] + (beta + more_beta)[each, columns])


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


def dwcp_cost(size: PanelSize, options: DwcpOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit: single-cell fits, with and without a low-rank part, times how many tuning asks for."""
    short, long = sorted((size.n_units, size.n_periods))
    width = 2.0 + short / 4.0
    additive = 2e-5 + 4e-10 * long * short**2 + 2e-9 * short**3 + 2e-8 * long * short
    low_rank = 1e-4 + 12 * (1.5e-9 * long * width**2 * (short + width) + 4e-10 * width * short * long * (short + long))
    finite = [value for value in options.lambda_nn if not math.isinf(value)]
    pre_cells = size.n_treated_units * size.n_periods
    per_cell = low_rank if finite else additive
    total = 2e-3 + (size.n_treated_cells + pre_cells) * per_cell
    if tune:
        grids = (len(options.lambda_time), len(options.lambda_unit), len(finite))
        weights = grids[0] + grids[1] if options.search == "cyclic" else grids[0] * grids[1]
        triples = 2 * sum(grids) if options.search == "cyclic" else grids[0] * grids[1] * grids[2]
        cells = size.n_units * size.n_periods
        total += cells * (weights * additive + (0.5 * triples * low_rank if finite else 0.0))
    return total
