"""Weighted two-way effects plus a low-rank part, many problems at once, solved to a certificate.

    min over alpha, beta, L of  sum_it w_it (Y_it - alpha_i - beta_t - L_it)^2 + lambda ||L||_*,   w >= 0

Method: L = A B' turns the penalty into lambda/2 (|A|^2 + |B|^2), exactly so once A and B are wide enough (Srebro,
Rennie, Jaakkola 2004). A sweep solves for A and both effects given B, then for B and both effects given A, in closed
form and for all problems of the batch together; Anderson acceleration (type II) drives the sweeps. With equal weights
it is quicker, and enough, to solve for the effects between half steps instead of within. The width starts near the
number of singular values of the dual point at L = 0 that exceed lambda; it doubles where the certificate fails. Every
problem starts cold: a low-rank warm start cannot rotate its range and sticks.

Certificate: with effects profiled out, the weighted residuals S = 2 w r have zero row and column sums; scaled to
spectral norm at most lambda they are feasible in the dual, max <S, Y> - sum S^2 / (4 w), so the gap between the two
objectives bounds the distance from the optimum whatever route led there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.anderson import Anderson
from causal_spark.panel.ridge_step import half_step
from causal_spark.panel.two_way import TwoWayOperator, unsolvable
from causal_spark.panel.types import Bools, Floats, Ints

_SPARE_WIDTH = 2
# Numbers in the working array of a half step: enough to drown the interpreter's overhead, 12 MB at most.
_BLOCK = 1_500_000
# The duality gap is of first order in the error of the dual, that of a prediction far smaller.
_GAP_PER_TOLERANCE = 10.0
_PATIENCE = 20
_QUICK_SWEEPS = 60
# A longer side's effects are not solved within a half step: that takes a system as wide as the side.
_JOINT_ROWS = 600
# Singular values below this share of the largest do not count towards the rank of L.
_RANK_SHARE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LowRankFits:
    """The solutions of a batch.

    unit_effects: (n, n_units); period_effects: (n, n_periods); unit_factors: (n, n_units, width); period_factors:
    (n, n_periods, width), L = unit_factors period_factors'; gap: (n,) duality gap over the primal objective;
    converged: (n,) whether gap and last change are within tolerance; rank: (n,) numerical rank of L; sweeps: (n,).
    """

    unit_effects: Floats
    period_effects: Floats
    unit_factors: Floats
    period_factors: Floats
    gap: Floats
    converged: Bools
    rank: Ints
    sweeps: Ints

    def predictions(self) -> Floats:
        """(n, n_units, n_periods): alpha_i + beta_t + L_it at every cell, identified or not."""
        low_rank = self.unit_factors @ np.swapaxes(self.period_factors, 1, 2)
        return np.asarray(self.unit_effects[:, :, None] + self.period_effects[:, None, :] + low_rank)

    def predictions_at(self, rows: Ints, columns: Ints) -> Floats:
        """(n,): the prediction of one cell per problem."""
        each = np.arange(rows.size)
        low_rank = np.einsum("nk,nk->n", self.unit_factors[each, rows], self.period_factors[each, columns])
        return np.asarray(self.unit_effects[each, rows] + self.period_effects[each, columns] + low_rank)


def low_rank_fit(
    outcome: Floats,
    weights: Floats,
    lambda_nn: Floats,
    targets: tuple[Ints, Ints] | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 500,
    thorough: bool = True,
) -> LowRankFits:
    """Solve a batch of problems that share their outcomes.

    outcome: (n_units, n_periods), with a spread of about 1: ``tolerance`` is in its units; read where weights > 0.
    weights: (n, n_units, n_periods) >= 0; lambda_nn: (n,) > 0, may be infinite.
    targets: rows and columns (n,) of the cell whose prediction matters in each problem; None: all cells with weight.
    thorough: solve both effects jointly with the factors in every half step. Without it they are solved between half
    steps, which is quicker for equal weights; problems that do not get there soon are then solved thoroughly.
    A problem is solved when those predictions move by less than ``tolerance`` twice in a row and the duality gap is
    below ten times ``tolerance`` times the primal objective; predictions are then right to about ``tolerance``.
    Problems that do not get there in ``max_sweeps`` are returned as they are, with ``converged`` False.
    Raises ValueError for lambda_nn <= 0, SolverError when numbers break down.
    """
    if not (lambda_nn > 0).all():
        raise ValueError("lambda_nn must be positive: at 0 the low-rank part fits the controls perfectly.")
    if weights.shape[1] < weights.shape[2]:
        swapped = None if targets is None else (targets[1], targets[0])
        across = np.ascontiguousarray(np.swapaxes(weights, 1, 2))
        fits = _Batch(
            np.ascontiguousarray(outcome.T), across, lambda_nn, swapped, tolerance, max_sweeps, thorough
        ).solve()
        return replace(
            fits,
            unit_effects=fits.period_effects,
            period_effects=fits.unit_effects,
            unit_factors=fits.period_factors,
            period_factors=fits.unit_factors,
        )
    return _Batch(outcome, weights, lambda_nn, targets, tolerance, max_sweeps, thorough).solve()


class _Batch:
    """One batch with at least as many rows as columns; results are written as problems finish."""

    def __init__(
        self,
        outcome: Floats,
        weights: Floats,
        lambda_nn: Floats,
        targets: tuple[Ints, Ints] | None,
        tolerance: float,
        max_sweeps: int,
        thorough: bool,
    ) -> None:
        n, n_rows, n_columns = weights.shape
        self.weights, self.lambda_nn, self.targets = weights, lambda_nn, targets
        self.tolerance, self.max_sweeps, self.thorough = tolerance, max_sweeps, thorough
        self.outcome = np.where((weights > 0).any(axis=0), outcome, 0.0)
        self.operator = TwoWayOperator(weights)
        self.alpha, self.beta = self.operator.effects(weights * self.outcome)
        self.left = np.zeros((n, n_rows, 0))
        self.right = np.zeros((n, n_columns, 0))
        self.gap = np.zeros(n)
        self.converged = np.ones(n, dtype=bool)
        self.sweeps = np.zeros(n, dtype=np.intp)

    def solve(self) -> LowRankFits:
        residual = self.outcome - self.alpha[:, :, None] - self.beta[:, None, :]
        dual = 2.0 * self.weights * residual
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(np.swapaxes(dual, 1, 2) @ dual), 0.0))
        leading, spread = _leading_directions(np.where(self.weights > 0, residual, 0.0))
        above = (singular > self.lambda_nn[:, None]).sum(axis=1)
        full = self.weights.shape[2]
        width = np.minimum(above + _SPARE_WIDTH, full)
        todo = np.flatnonzero(above > 0)
        self.left = np.zeros((*self.weights.shape[:2], full))
        self.right = np.zeros((self.weights.shape[0], full, full))
        both = self.thorough
        while todo.size:
            # Widths are rounded so that few distinct ones run as separate batches.
            rounded = np.minimum(-(-width[todo] // 3) * 3, full)
            for k in np.unique(rounded):
                chosen = todo[rounded == k]
                columns = k + 2 + (full if both else 0)
                block = max(1, _BLOCK // ((k + 1) * columns * self.weights.shape[1]))
                for begin in range(0, chosen.size, block):
                    part = chosen[begin : begin + block]
                    self._run(part, leading[part][:, :, :k], spread[part][:, :k], both)
            grow = ~self.converged[todo] & ((rounded < full) | (not both))
            if both:
                width[todo] = np.minimum(2 * width[todo], full)
            todo, both = todo[grow], True
        used = max(1, int((np.abs(self.right).max(axis=(0, 1), initial=0.0) > 0).sum()))
        left, right = self.left[:, :, :used], self.right[:, :, :used]
        if not all(np.isfinite(part).all() for part in (left, right, self.alpha, self.beta)):
            raise unsolvable()
        return LowRankFits(
            self.alpha,
            self.beta,
            left,
            right,
            self.gap,
            self.converged,
            _ranks(left, right),
            self.sweeps,
        )

    def _run(self, chosen: Ints, vectors: Floats, singular: Floats, both: bool) -> None:
        width = vectors.shape[2]
        max_sweeps = self.max_sweeps if both else min(_QUICK_SWEEPS, self.max_sweeps)
        active = chosen
        narrow = width < self.weights.shape[2]
        operator = self.operator.take(chosen)
        row_scale = None
        if both and self.weights.shape[1] <= _JOINT_ROWS:
            row_scale = TwoWayOperator(np.ascontiguousarray(np.swapaxes(operator.weights, 1, 2))).scale
        scales = (operator.scale if both else None, row_scale)
        problem = _Sweeper(self.outcome, operator, scales, self.lambda_nn[chosen])
        start = vectors * np.sqrt(singular + 1e-3)[:, None, :]
        state = np.concatenate([start, self.beta[chosen][:, :, None]], axis=2)
        accelerator = Anderson(state.shape)
        before = None
        calm = np.zeros(chosen.size, dtype=np.intp)
        for sweep in range(1, max_sweeps + 1):
            image, left, alpha = problem.sweep(state)
            watched = self._watched(active, image, left, alpha)
            moved = np.full(active.size, np.inf) if before is None else np.abs(watched - before).max(axis=1)
            before = watched
            calm = np.where(moved <= self.tolerance, calm + 1, 0)
            finished = np.zeros(active.size, dtype=bool)
            check = np.flatnonzero((calm >= 2) & (calm % 2 == 0)) if sweep < max_sweeps else np.arange(active.size)
            if check.size:
                gap = problem.take(check).gap(image[check], left[check], alpha[check])
                certified = (gap <= _GAP_PER_TOLERANCE * self.tolerance) & (calm[check] >= 2)
                # Calm for long without a certificate: the width is too small, more sweeps will not help.
                leave = certified | ((calm[check] >= _PATIENCE) & narrow) | (sweep == max_sweeps)
                self._store(active[check], width, image[check], left[check], alpha[check])
                self.gap[active[check]] = gap
                self.converged[active[check]] = certified
                self.sweeps[active[check]] += np.where(leave, sweep, 0)
                finished[check[leave]] = True
            state = accelerator.step(state, image)
            if finished.any():
                kept = np.flatnonzero(~finished)
                if not kept.size:
                    return
                active, state, before, calm = active[kept], state[kept], before[kept], calm[kept]
                problem, accelerator = problem.take(kept), accelerator.take(kept)

    def _watched(self, active: Ints, image: Floats, left: Floats, alpha: Floats) -> Floats:
        """(n, k): the predictions whose movement is watched."""
        right, beta = image[:, :, :-1], image[:, :, -1]
        if self.targets is None:
            every = alpha[:, :, None] + beta[:, None, :] + left @ np.swapaxes(right, 1, 2)
            return every.reshape(active.size, -1)
        rows, columns = self.targets[0][active], self.targets[1][active]
        each = np.arange(active.size)
        low_rank = np.einsum("nk,nk->n", left[each, rows], right[each, columns])
        return np.asarray(alpha[each, rows] + beta[each, columns] + low_rank)[:, None]

    def _store(self, where: Ints, width: int, image: Floats, left: Floats, alpha: Floats) -> None:
        self.left[where, :, :width] = left
        self.right[where, :, :width] = image[:, :, :-1]
        self.alpha[where], self.beta[where] = alpha, image[:, :, -1]


class _Sweeper:
    """The closed-form half steps of a batch. A state is (B, beta): (n, n_columns, width + 1)."""

    def __init__(
        self,
        outcome: Floats,
        operator: TwoWayOperator,
        scales: tuple[Floats | None, Floats | None],
        lambda_nn: Floats,
    ) -> None:
        self.outcome, self.operator, self.lambda_nn = outcome, operator, lambda_nn
        self.scales = scales
        self.weighted = operator.weights * outcome

    def take(self, kept: Ints) -> _Sweeper:
        other = object.__new__(_Sweeper)
        columns, rows = self.scales
        other.scales = (None if columns is None else columns[kept], None if rows is None else rows[kept])
        other.outcome, other.operator = self.outcome, self.operator.take(kept)
        other.lambda_nn, other.weighted = self.lambda_nn[kept], self.weighted[kept]
        return other

    def sweep(self, state: Floats) -> tuple[Floats, Floats, Floats]:
        """One sweep: the next state, and the A (n, n_rows, width) and alpha (n, n_rows) that go with it."""
        weights, weighted = self.operator.weights, self.weighted
        across, weighted_across = np.swapaxes(weights, 1, 2), np.swapaxes(weighted, 1, 2)
        right, beta = state[:, :, :-1], state[:, :, -1]
        left, alpha, beta = half_step(weights, weighted, right, beta, self.lambda_nn, self.scales[0])
        if self.scales[0] is None:
            alpha, beta = self._effects(left, right)
        right, beta, alpha = half_step(across, weighted_across, left, alpha, self.lambda_nn, self.scales[1])
        if self.scales[1] is None:
            alpha, beta = self._effects(left, right)
        return np.concatenate([right, beta[:, :, None]], axis=2), left, alpha

    def _effects(self, left: Floats, right: Floats) -> tuple[Floats, Floats]:
        return self.operator.effects(self.weighted - self.operator.weights * (left @ np.swapaxes(right, 1, 2)))

    def gap(self, image: Floats, left: Floats, alpha: Floats) -> Floats:
        """(n,): duality gap over the primal objective."""
        right, beta = image[:, :, :-1], image[:, :, -1]
        explained = self.outcome - alpha[:, :, None] - beta[:, None, :]
        residual = explained - left @ np.swapaxes(right, 1, 2)
        dual = 2.0 * self.operator.weights * residual
        squares = 0.5 * np.einsum("nit,nit->n", dual, residual)
        nuclear = _singular_values(left, right).sum(axis=1)
        primal = squares + self.lambda_nn * nuclear
        top = np.sqrt(np.maximum(np.linalg.eigvalsh(np.swapaxes(dual, 1, 2) @ dual)[:, -1], 0.0))
        shrink = np.minimum(1.0, self.lambda_nn / np.maximum(top, np.finfo(float).tiny))
        lower = shrink * np.einsum("nit,nit->n", dual, explained) - shrink**2 * squares
        return np.asarray((primal - lower) / np.maximum(primal, np.finfo(float).tiny))


def _leading_directions(residual: Floats) -> tuple[Floats, Floats]:
    """Right singular vectors (n, n_columns, n_columns) and values (n, n_columns), largest first."""
    values, vectors = np.linalg.eigh(np.swapaxes(residual, 1, 2) @ residual)
    return vectors[:, :, ::-1], np.sqrt(np.maximum(values[:, ::-1], 0.0))


def _singular_values(left: Floats, right: Floats) -> Floats:
    """(n, width): singular values of A B', from the small triangular factors."""
    small = np.linalg.qr(left, mode="r") @ np.swapaxes(np.linalg.qr(right, mode="r"), 1, 2)
    return np.asarray(np.linalg.svd(small, compute_uv=False))


def _ranks(left: Floats, right: Floats) -> Ints:
    values = _singular_values(left, right)
    return np.asarray(
        (values > _RANK_SHARE * np.maximum(values[:, :1], np.finfo(float).tiny)).sum(axis=1), dtype=np.intp
    )
