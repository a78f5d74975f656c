"""Weighted two-way effects plus covariates and a low-rank part, many problems at once, solved to a certificate.

    min over alpha, beta, b, L of  sum_it w_it (Y_it - alpha_i - beta_t - X_it'b - L_it)^2 + lambda ||L||_*,   w >= 0

Method: L = A B' turns the penalty into lambda/2 (|A|^2 + |B|^2), exactly so once A and B are wide enough (Srebro,
Rennie, Jaakkola 2004). A sweep solves for A, both effects and b given B, then for B, both effects and b given A, in
closed form and for all problems of the batch together; Anderson acceleration (type II) drives the sweeps. The width
starts near the number of singular values of the dual point at L = 0 that exceed lambda; it doubles where the
certificate fails. Every problem starts cold: a low-rank warm start cannot rotate its range and sticks.

Certificate: with effects and b profiled out, the weighted residuals S = 2 w r have zero row and column sums and are
orthogonal to X; scaled to spectral norm at most lambda they are feasible in the dual, max <S, Y> - sum S^2 / (4 w), so
the gap between the two objectives bounds the distance from the optimum whatever route led there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from causal_spark.panel.anderson import Anderson
from causal_spark.panel.effects_profile import EffectsProfile, explained
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.ridge_step import HalfStep
from causal_spark.panel.two_way import unsolvable
from causal_spark.panel.types import Bools, Floats, Ints

_SPARE_WIDTH = 2
# Numbers in the working arrays of a half step: enough to drown the interpreter's overhead, a few MB at most.
_BLOCK = 400_000
# The duality gap is of first order in the error of the dual, that of a prediction far smaller.
_GAP_PER_TOLERANCE = 10.0
_PATIENCE = 20
# Sweeps that leave effects out of a half step move less than they err, so less movement is asked for.
_APART = 0.1
# Singular values below this share of the largest do not count towards the rank of L.
_RANK_SHARE = 1e-3


#: What has to be precise: one cell per problem (rows (n,), columns (n,)) or several (n, k), the coefficients of
#: covariates, or, if None, the predictions of all cells with weight.
Watched = tuple[Ints, Ints] | Literal["coefficients"] | None


@dataclass(frozen=True, slots=True, eq=False)
class LowRankFits:
    """The solutions of a batch.

    unit_effects: (n, n_units); period_effects: (n, n_periods); coefficients: (n, n_covariates); unit_factors:
    (n, n_units, width); period_factors: (n, n_periods, width), L = unit_factors period_factors'; gap: (n,) duality gap
    over the primal objective; converged: (n,) whether gap and last change are within tolerance; rank: (n,) numerical
    rank of L; sweeps: (n,); covariates: those fitted, (1 or n, n_covariates, n_units, n_periods), or None.
    """

    unit_effects: Floats
    period_effects: Floats
    coefficients: Floats
    unit_factors: Floats
    period_factors: Floats
    gap: Floats
    converged: Bools
    rank: Ints
    sweeps: Ints
    covariates: Floats | None = None

    def predictions(self) -> Floats:
        """(n, n_units, n_periods): alpha_i + beta_t + X_it'b + L_it at every cell, identified or not."""
        low_rank = self.unit_factors @ np.swapaxes(self.period_factors, 1, 2)
        both = self.unit_effects[:, :, None] + self.period_effects[:, None, :] + low_rank
        return np.asarray(both if self.covariates is None else both + explained(self.coefficients, self.covariates))

    def predictions_at(self, rows: Ints, columns: Ints) -> Floats:
        """(n,) or (n, k): the prediction of one cell per problem, or of several; rows and columns in that shape."""
        each = np.arange(rows.shape[0]).reshape(-1, *(1,) * (rows.ndim - 1))
        low_rank = (self.unit_factors[each, rows] * self.period_factors[each, columns]).sum(axis=-1)
        found = self.unit_effects[each, rows] + self.period_effects[each, columns] + low_rank
        if self.covariates is not None:
            found = found + _explained_at(self.coefficients, self.covariates, rows, columns)
        return np.asarray(found)


def low_rank_fit(
    outcome: Floats,
    weights: ProductWeights,
    lambda_nn: Floats,
    *,
    covariates: Floats | None = None,
    targets: Watched = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 500,
) -> LowRankFits:
    """Solve a batch of problems.

    outcome: (n_units, n_periods), or (n, n_units, n_periods) where problems differ, with a spread of about 1:
    ``tolerance`` is in its units; read where weights > 0.
    weights: of n problems; lambda_nn: (n,) > 0, may be infinite.
    covariates: (n_covariates, n_units, n_periods), or with a leading n where problems differ; read where weights > 0,
    and at targets. A covariate that the effects span gets the coefficient 0.
    targets: what matters in each problem, see `Watched`.
    A problem is solved when what matters moves by less than ``tolerance`` twice in a row and the duality gap is
    below ten times ``tolerance`` times the primal objective; it is then right to about ``tolerance``.
    Problems that do not get there in ``max_sweeps`` are returned as they are, with ``converged`` False.
    Raises ValueError for lambda_nn <= 0, SolverError when numbers break down.
    """
    if not (lambda_nn > 0).all():
        raise ValueError("lambda_nn must be positive: at 0 the low-rank part fits the controls perfectly.")
    if outcome.ndim == 2:
        outcome = outcome[None]
    if covariates is None:
        covariates = np.zeros((1, 0, *outcome.shape[1:]))
    elif covariates.ndim == 3:
        covariates = covariates[None]
    if outcome.shape[1] < outcome.shape[2]:
        swapped = (targets[1], targets[0]) if isinstance(targets, tuple) else targets
        across = np.ascontiguousarray(np.swapaxes(outcome, 1, 2)), weights.transposed, np.swapaxes(covariates, 2, 3)
        fits = _Batch(*across, lambda_nn, swapped, tolerance, max_sweeps).solve()
        return replace(
            fits,
            unit_effects=fits.period_effects,
            period_effects=fits.unit_effects,
            unit_factors=fits.period_factors,
            period_factors=fits.unit_factors,
            covariates=covariates if covariates.shape[1] else None,
        )
    fits = _Batch(outcome, weights, covariates, lambda_nn, targets, tolerance, max_sweeps).solve()
    return replace(fits, covariates=covariates if covariates.shape[1] else None)


def _explained_at(coefficients: Floats, covariates: Floats, rows: Ints, columns: Ints) -> Floats:
    """X'b at cells: rows, columns (n,) or (n, k)."""
    each = np.arange(rows.shape[0]) if covariates.shape[0] > 1 else np.zeros(rows.shape[0], dtype=np.intp)
    each = each.reshape(-1, *(1,) * (rows.ndim - 1))
    at = covariates[each, :, rows, columns]
    return np.asarray((at * coefficients.reshape(rows.shape[0], *(1,) * (rows.ndim - 1), -1)).sum(axis=-1))


def _taken(targets: Watched, kept: Ints) -> Watched:
    return (targets[0][kept], targets[1][kept]) if isinstance(targets, tuple) else targets


class _Batch:
    """One call of `low_rank_fit` with at least as many rows as columns; arrays shrink as problems finish."""

    def __init__(
        self,
        outcome: Floats,
        weights: ProductWeights,
        covariates: Floats,
        lambda_nn: Floats,
        targets: Watched,
        tolerance: float,
        max_sweeps: int,
    ) -> None:
        n, n_rows, n_columns = (lambda_nn.size, *outcome.shape[1:])
        self.product, self.lambda_nn = weights, lambda_nn
        self.targets, self.tolerance, self.max_sweeps = targets, tolerance, max_sweeps
        self.weights = weights.cells()
        used = self.weights > 0
        self.profile = EffectsProfile(self.weights, np.where(np.isfinite(covariates), covariates, 0.0))
        outcome = np.where(used, outcome, 0.0)
        self.alpha, self.beta, self.coefficients = self.profile(outcome)
        self.residual = np.where(used, outcome - self._additive(), 0.0)
        # One step of iterative refinement.
        more = self.profile(self.residual)
        self.alpha, self.beta = self.alpha + more[0], self.beta + more[1]
        self.coefficients = self.coefficients + more[2]
        self.residual = np.where(used, outcome - self._additive(), 0.0)
        self.left = np.zeros((n, n_rows, 0))
        self.right = np.zeros((n, n_columns, 0))
        self.gap = np.zeros(n)
        self.converged = np.ones(n, dtype=bool)
        self.sweeps = np.zeros(n, dtype=np.intp)

    def _additive(self) -> Floats:
        both = self.alpha[:, :, None] + self.beta[:, None, :]
        if self.coefficients.shape[1]:
            both = both + explained(self.coefficients, self.profile.covariates)
        return np.asarray(both)

    def solve(self) -> LowRankFits:
        above = np.zeros(self.lambda_nn.size, dtype=np.intp)
        finite = np.flatnonzero(np.isfinite(self.lambda_nn))
        if finite.size:
            dual = 2.0 * self.weights[finite] * self.residual[finite]
            singular = np.sqrt(np.maximum(np.linalg.eigvalsh(np.swapaxes(dual, 1, 2) @ dual), 0.0))
            above[finite] = (singular > self.lambda_nn[finite, None]).sum(axis=1)
        todo = np.flatnonzero(above > 0)
        full = self.weights.shape[2]
        width = np.minimum(above + _SPARE_WIDTH, full)
        self.left = np.zeros((*self.weights.shape[:2], full if todo.size else 1))
        self.right = np.zeros((self.weights.shape[0], full, full if todo.size else 1))
        if todo.size:
            leading, spread = _leading_directions(self.residual)
        while todo.size:
            # Widths are rounded so that few distinct ones run as separate batches.
            rounded = np.minimum(-(-width[todo] // 3) * 3, full)
            for k in np.unique(rounded):
                chosen = todo[rounded == k]
                block = max(1, _BLOCK // (self.weights.shape[1] * (self.weights.shape[2] + 3 * k)))
                for begin in range(0, chosen.size, block):
                    part = chosen[begin : begin + block]
                    self._run(part, leading[part][:, :, :k], spread[part][:, :k])
            grow = ~self.converged[todo] & (rounded < full)
            width[todo] = np.minimum(2 * width[todo], full)
            todo = todo[grow]
        used = max(1, int((np.abs(self.right).max(axis=(0, 1), initial=0.0) > 0).sum()))
        left, right = self.left[:, :, :used], self.right[:, :, :used]
        if not all(np.isfinite(part).all() for part in (left, right, self.alpha, self.beta, self.coefficients)):
            raise unsolvable()
        return LowRankFits(
            self.alpha,
            self.beta,
            self.coefficients,
            left,
            right,
            self.gap,
            self.converged,
            _ranks(left, right),
            self.sweeps,
        )

    def _run(self, chosen: Ints, vectors: Floats, singular: Floats) -> None:
        width = vectors.shape[2]
        narrow = width < self.weights.shape[2]
        active = chosen
        targets = _taken(self.targets, chosen)
        sweeper = _Sweeper(
            self.residual[chosen],
            self.product.take(chosen),
            self.profile.take(chosen),
            self.lambda_nn[chosen],
            targets,
            width,
        )
        tolerance = self.tolerance * (1.0 if sweeper.joint else _APART)
        start = vectors * np.sqrt(singular + 1e-3)[:, None, :]
        state = np.concatenate([start, np.zeros((chosen.size, start.shape[1], 1))], axis=2)
        coefficients = np.zeros((chosen.size, self.coefficients.shape[1]))
        accelerator = Anderson(state.shape)
        before = None
        calm = np.zeros(chosen.size, dtype=np.intp)
        for sweep in range(1, self.max_sweeps + 1):
            found = sweeper.sweep(state, coefficients)
            watched = sweeper.watched(found)
            moved = np.full(active.size, np.inf) if before is None else np.abs(watched - before).max(axis=1)
            before = watched
            calm = np.where(moved <= tolerance, calm + 1, 0)
            finished = np.zeros(active.size, dtype=bool)
            check = np.flatnonzero((calm >= 2) & (calm % 2 == 0))
            if sweep == self.max_sweeps:
                check = np.arange(active.size)
            if check.size:
                gap = sweeper.take(check).gap(found.take(check))
                certified = (gap <= _GAP_PER_TOLERANCE * tolerance) & (calm[check] >= 2)
                # Calm for long without a certificate: the width is too small, more sweeps will not help.
                leave = certified | ((calm[check] >= _PATIENCE) & narrow) | (sweep == self.max_sweeps)
                self._store(active[check[leave]], found.take(check[leave]))
                self.gap[active[check]] = gap
                self.converged[active[check]] = certified
                self.sweeps[active[check]] += np.where(leave, sweep, 0)
                finished[check[leave]] = True
            state = accelerator.step(state, found.state)
            coefficients = found.coefficients
            if finished.any():
                kept = np.flatnonzero(~finished)
                if not kept.size:
                    return
                active, state, before, calm = active[kept], state[kept], before[kept], calm[kept]
                coefficients = coefficients[kept]
                sweeper, accelerator = sweeper.take(kept), accelerator.take(kept)

    def _store(self, where: Ints, found: _Iterate) -> None:
        width = found.left.shape[2]
        self.left[where] = 0.0
        self.right[where] = 0.0
        self.left[where, :, :width] = found.left
        self.right[where, :, :width] = found.state[:, :, :-1]
        # Iterates hold what comes on top of the fit with L = 0.
        self.alpha[where] += found.alpha
        self.beta[where] += found.state[:, :, -1]
        self.coefficients[where] += found.coefficients


@dataclass(frozen=True, slots=True, eq=False)
class _Iterate:
    """state: (n, n_columns, width + 1), B and column effects; left: A (n, n_rows, width); alpha; coefficients."""

    state: Floats
    left: Floats
    alpha: Floats
    coefficients: Floats

    def take(self, kept: Ints) -> _Iterate:
        return _Iterate(self.state[kept], self.left[kept], self.alpha[kept], self.coefficients[kept])


class _Sweeper:
    """The closed-form half steps of a batch of problems, what the fit with L = 0 explains taken out before."""

    def __init__(
        self,
        residual: Floats,
        weights: ProductWeights,
        profile: EffectsProfile,
        lambda_nn: Floats,
        targets: Watched,
        width: int,
    ) -> None:
        self.residual, self.profile, self.lambda_nn, self.targets = residual, profile, lambda_nn, targets
        n = residual.shape[0]
        covariates = np.broadcast_to(profile.covariates, (n, *profile.covariates.shape[1:]))
        stack = np.concatenate([residual[:, None], covariates], axis=1)
        self.rows = HalfStep(stack, weights, lambda_nn, width)
        self.columns = HalfStep(np.swapaxes(stack, 2, 3), weights.transposed, lambda_nn, width)
        self.joint = self.rows.common is not None and self.columns.common is not None

    def take(self, kept: Ints) -> _Sweeper:
        other = object.__new__(_Sweeper)
        other.residual, other.lambda_nn = self.residual[kept], self.lambda_nn[kept]
        other.targets = _taken(self.targets, kept)
        other.profile = self.profile.take(kept)
        other.rows, other.columns, other.joint = self.rows.take(kept), self.columns.take(kept), self.joint
        return other

    def sweep(self, state: Floats, coefficients: Floats) -> _Iterate:
        """One sweep from B and the column effects (n, n_columns, width + 1) and the coefficients."""
        right, beta = state[:, :, :-1], state[:, :, -1]
        left, alpha, beta, coefficients = self.rows(right, beta, coefficients)
        if self.rows.common is None:
            alpha, beta, coefficients = self._effects(left, right)
        right, beta, alpha, coefficients = self.columns(left, alpha, coefficients)
        if self.columns.common is None:
            alpha, beta, coefficients = self._effects(left, right)
        return _Iterate(np.concatenate([right, beta[:, :, None]], axis=2), left, alpha, coefficients)

    def _effects(self, left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
        return self.profile(self.residual - left @ np.swapaxes(right, 1, 2))

    def watched(self, found: _Iterate) -> Floats:
        """(n, k): the numbers whose movement is watched."""
        if self.targets == "coefficients":
            return found.coefficients
        right, beta = found.state[:, :, :-1], found.state[:, :, -1]
        n = right.shape[0]
        covariates = self.profile.covariates
        if not isinstance(self.targets, tuple):
            every = found.alpha[:, :, None] + beta[:, None, :] + found.left @ np.swapaxes(right, 1, 2)
            if covariates.shape[1]:
                every = every + explained(found.coefficients, covariates)
            return np.where(self.profile.weights > 0, every, 0.0).reshape(n, -1)
        rows, columns = (each.reshape(n, -1) for each in self.targets)
        each = np.arange(n)[:, None]
        cells = (found.left[each, rows] * right[each, columns]).sum(axis=2)
        cells += found.alpha[each, rows] + beta[each, columns]
        if covariates.shape[1]:
            cells += _explained_at(found.coefficients, covariates, rows, columns)
        return np.asarray(cells)

    def gap(self, found: _Iterate) -> Floats:
        """(n,): duality gap over the primal objective."""
        right, beta = found.state[:, :, :-1], found.state[:, :, -1]
        remaining = self.residual - found.alpha[:, :, None] - beta[:, None, :]
        if found.coefficients.shape[1]:
            remaining = remaining - explained(found.coefficients, self.profile.covariates)
        residual = remaining - found.left @ np.swapaxes(right, 1, 2)
        dual = 2.0 * self.profile.weights * residual
        squares = 0.5 * np.einsum("nit,nit->n", dual, residual)
        # At least the nuclear norm, and equal to it once A and B are balanced, as they are at the optimum.
        nuclear = 0.5 * (np.einsum("nik,nik->n", found.left, found.left) + np.einsum("ntk,ntk->n", right, right))
        primal = squares + self.lambda_nn * nuclear
        top = np.sqrt(np.maximum(np.linalg.eigvalsh(np.swapaxes(dual, 1, 2) @ dual)[:, -1], 0.0))
        shrink = np.divide(self.lambda_nn, top, out=np.ones_like(top), where=top > self.lambda_nn)
        lower = shrink * np.einsum("nit,nit->n", dual, remaining) - shrink**2 * squares
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
