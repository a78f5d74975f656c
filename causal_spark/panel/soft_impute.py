"""Two-way effects plus a low-rank part on equally weighted cells: soft-impute, many problems at once, to a certificate.

    min over alpha, beta, L of  sum over used cells of (Y_it - alpha_i - beta_t - L_it)^2 + lambda ||L||_*

Method: on a complete matrix the solution is exact: subtract row and column means, then take lambda/2 off the singular
values, down to 0. Cells that are not used are filled with the current prediction and the step is repeated: soft-impute
(Mazumder, Hastie, Tibshirani 2010), with the two-way effects of MC-NNM (Athey et al. 2021, section 4). This is gradient
descent, with unit step, on a convex function of the filled cells alone, so any start is legitimate; Anderson
acceleration drives it. Singular values come from the Gram matrix of the shorter side: squaring costs digits only where
lambda is less than about 1e-6 of the largest of them. Between two decompositions a few steps take the spectral function
of the changed matrix to first order around the last one, which costs products only (a solution is always accepted at an
exact step).

A cell whose unit and period are not in one connected component of the used cells is left out. By the pinching
inequality, ||L||_* is at least the sum over components of the norms of their blocks, so L is 0 outside them, the
problem falls apart into its components, and such cells can neither disturb nor slow the others.

Certificate: with the effects fitted anew to Y - L on the used cells, twice the residuals, scaled to spectral norm at
most lambda, are feasible in the dual; see `low_rank`. What does not get there soon (few cells, small lambda) goes to
the solver there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.anderson import Anderson
from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import TwoWayOperator, identified_cells
from causal_spark.panel.types import Bools, Floats, Ints

# The duality gap is of first order in the error of the dual, that of a prediction far smaller.
_GAP_PER_TOLERANCE = 10.0
# Singular values below this share of the largest do not count towards the rank of L.
_RANK_SHARE = 1e-3
# How many past differences the acceleration combines.
_WINDOW = 6
# Numbers held per cell and problem, mostly that history, and the memory that problems solved together may take: small
# problems share the interpreter's overhead, large ones the processor's cache with nobody.
_NUMBERS_PER_CELL = 36
_BYTES = 2**23
# Squared singular values closer than this share of the largest count as equal.
_ALIKE = 1e-9
# Iterations in a row that may rest on the singular vectors of an earlier one.
_REUSED = 4
# What a cold start does not reach is approached by penalties that fall by this factor.
_RUNG = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class SoftImputeFits:
    """The solutions of a batch.

    predictions: (n, n_units, n_periods), alpha_i + beta_t + L_it, without meaning where not identified; gap: (n,) bound
    on the duality gap over the primal objective; converged: (n,) whether gap and last change are within tolerance;
    rank: (n,) numerical rank of L; iterations: (n,) of soft-impute.
    """

    predictions: Floats
    gap: Floats
    converged: Bools
    rank: Ints
    iterations: Ints


class SoftImpute:
    """Problems that share their outcomes, one mask of used cells each, prepared for any number of penalties.

    outcome: (n_units, n_periods), with a spread of about 1, read where used; used: (n, n_units, n_periods).
    """

    def __init__(self, outcome: Floats, used: Bools) -> None:
        self._across = used.shape[1] < used.shape[2]
        if self._across:
            outcome, used = outcome.T.copy(), np.swapaxes(used, 1, 2).copy()
        block = max(1, _BYTES // (8 * _NUMBERS_PER_CELL * max(1, outcome.size)))
        self._blocks = [_Block(outcome, used[begin : begin + block]) for begin in range(0, used.shape[0], block)]

    def additive(self) -> Floats:
        """(n, n_units, n_periods): the predictions of every problem with L = 0."""
        return self._turned(np.concatenate([block.data.additive() for block in self._blocks]))

    def solve(
        self, lambda_nn: Floats, start: Floats | None = None, tolerance: float = 1e-6, max_iterations: int = 200
    ) -> SoftImputeFits:
        """Solve every problem.

        lambda_nn: (n,) > 0, finite; start: (n, n_units, n_periods), predictions to start from; None: the additive fit.
        A problem is solved when predictions move by less than ``tolerance`` twice in a row and the duality gap is below
        ten times ``tolerance`` times the primal objective. Problems that do not get there in ``max_iterations`` are
        solved by `low_rank_fit`, and ``converged`` is False where that fails too. Where a unit or period has very few
        used cells several L can be optimal, equal on the used cells; the start then decides among them.
        Raises ValueError for another lambda_nn, SolverError when numbers break down.
        """
        if not (np.isfinite(lambda_nn) & (lambda_nn > 0)).all():
            raise ValueError(
                "lambda_nn must be positive and finite: at 0 the low-rank part fits the controls perfectly."
            )
        start = None if start is None else self._turned(start)
        parts, begin = [], 0
        for block in self._blocks:
            chosen = slice(begin, begin + block.size)
            begin += block.size
            parts.append(
                block.solve(lambda_nn[chosen], None if start is None else start[chosen], tolerance, max_iterations)
            )
        fits = SoftImputeFits(
            np.concatenate([part.predictions for part in parts]),
            np.concatenate([part.gap for part in parts]),
            np.concatenate([part.converged for part in parts]),
            np.concatenate([part.rank for part in parts]),
            np.concatenate([part.iterations for part in parts]),
        )
        return replace(fits, predictions=self._turned(fits.predictions))

    def _turned(self, array: Floats) -> Floats:
        return np.ascontiguousarray(np.swapaxes(array, -1, -2)) if self._across else array


class _Block:
    """Problems solved together, with at least as many rows as columns."""

    def __init__(self, outcome: Floats, used: Bools) -> None:
        self.outcome, self.size = outcome, used.shape[0]
        self.data = _Masks(outcome, used)

    def solve(self, lambda_nn: Floats, start: Floats | None, tolerance: float, max_iterations: int) -> SoftImputeFits:
        fits = SoftImputeFits(
            self.data.additive() if start is None else start.copy(),
            np.full(self.size, np.inf),
            np.zeros(self.size, dtype=bool),
            np.zeros(self.size, dtype=np.intp),
            np.zeros(self.size, dtype=np.intp),
        )
        self._iterate(fits, np.arange(self.size), lambda_nn, tolerance, max_iterations)
        left = np.flatnonzero(~fits.converged)
        if start is None and left.size:
            self._descend(fits, left, lambda_nn, tolerance, max_iterations)
            left = np.flatnonzero(~fits.converged)
        if left.size:
            weights = ProductWeights.equal(self.data.used[left])
            slow = low_rank_fit(self.outcome, weights, lambda_nn[left], tolerance=tolerance)
            fits.predictions[left], fits.gap[left] = slow.predictions(), slow.gap
            fits.converged[left], fits.rank[left] = slow.converged, slow.rank
        return fits

    def _descend(
        self, fits: SoftImputeFits, chosen: Ints, lambda_nn: Floats, tolerance: float, max_iterations: int
    ) -> None:
        """Start anew from the additive fit and come down to lambda_nn from penalties that are easier."""
        additive = self.data.additive()
        fits.predictions[chosen] = additive[chosen]
        _, singular, _ = _clipped(self.data.demeaned(self.data.fill(additive))[chosen], lambda_nn[chosen])
        excess = np.log(np.maximum(1.0, 2.0 * singular[:, -1] / lambda_nn[chosen])) / np.log(_RUNG)
        for rung in range(int(excess.max()), 0, -1):
            steps = chosen[excess >= rung]
            if not steps.size:
                continue
            self._iterate(fits, steps, lambda_nn * _RUNG**rung, max(tolerance, 1e-3), max_iterations)
            stuck = steps[~fits.converged[steps]]
            chosen, excess = (each[~np.isin(chosen, stuck)] for each in (chosen, excess))
        fits.converged[chosen] = False
        if chosen.size:
            self._iterate(fits, chosen, lambda_nn, tolerance, max_iterations)

    def _iterate(
        self, fits: SoftImputeFits, chosen: Ints, lambda_nn: Floats, tolerance: float, max_iterations: int
    ) -> None:
        """Solve the chosen problems from the predictions in ``fits``, which are replaced."""
        data, active = self.data if chosen.size == self.size else self.data.take(chosen), chosen
        filled = data.fill(fits.predictions[active])
        cells, pinned = data.cells_to_fill()
        accelerator = Anderson(cells.shape, _WINDOW)
        before = filled
        calm = np.zeros(active.size, dtype=np.intp)
        vectors, singular, age = filled, filled, _REUSED
        for iteration in range(1, max_iterations + 1):
            residual = data.demeaned(filled)
            age = age + 1 if age < _REUSED and not calm.any() and iteration < max_iterations else 0
            if age:
                clipped = _nearly_clipped(residual, lambda_nn[active] / 2.0, vectors)
            else:
                clipped, singular, vectors = _clipped(residual, lambda_nn[active] / 2.0)
            predicted = filled - clipped
            moved = np.abs(predicted - before).max(axis=(1, 2))
            calm = np.where((moved <= tolerance) & (iteration > 1), calm + 1, 0)
            before = predicted
            last = iteration == max_iterations
            check = np.arange(active.size) if last else np.flatnonzero((calm >= 2) & (age == 0))
            if check.size:
                found = data.take(check).certify(
                    residual[check], clipped[check], singular[check], lambda_nn[active[check]]
                )
                solved = (found.gap <= _GAP_PER_TOLERANCE * tolerance) & (calm[check] >= 2)
                where = active[check]
                fits.predictions[where], fits.gap[where], fits.rank[where] = found.predictions, found.gap, found.rank
                fits.converged[where] = solved
                fits.iterations[where] += np.where(solved | last, iteration, 0)
                unsolved = np.ones(active.size, dtype=bool)
                unsolved[check[solved]] = False
                kept = np.flatnonzero(unsolved)
                if last or not kept.size:
                    return
                if kept.size < active.size:
                    active, calm, before, filled = active[kept], calm[kept], before[kept], filled[kept]
                    data, accelerator, pinned = data.take(kept), accelerator.take(kept), pinned[kept]
                    cells, vectors = cells[kept], vectors[kept]
            flat = filled.reshape(-1)
            where_flat = cells + filled[0].size * np.arange(active.size)[:, None]
            state = flat[where_flat]
            flat[where_flat] = accelerator.step(state, np.where(pinned, state, before.reshape(-1)[where_flat]))


class _Masks:
    """The used cells of a batch and what follows from them."""

    def __init__(self, outcome: Floats, used: Bools) -> None:
        self.used = used
        self.outcome = np.where(used, outcome, 0.0)
        self.inside = np.stack([identified_cells(one) for one in used])
        self.complete = bool(self.inside.all())
        self.row_counts = np.maximum(1, self.inside.sum(axis=2))
        self.column_counts = np.maximum(1, self.inside.sum(axis=1))
        self.operator = TwoWayOperator(used.astype(np.float64))

    def take(self, kept: Ints) -> _Masks:
        other = object.__new__(_Masks)
        for name in ("used", "outcome", "inside", "row_counts", "column_counts"):
            setattr(other, name, getattr(self, name)[kept])
        other.complete, other.operator = self.complete, self.operator.take(kept)
        return other

    def additive(self) -> Floats:
        """(n, n_rows, n_columns): the fit with L = 0."""
        alpha, beta = self.operator.effects(self.outcome)
        return np.asarray(alpha[:, :, None] + beta[:, None, :])

    def fill(self, predicted: Floats) -> Floats:
        """Outcomes where used, predictions elsewhere, 0 outside the components."""
        filled = np.where(self.used, self.outcome, predicted)
        return filled if self.complete else np.where(self.inside, filled, 0.0)

    def cells_to_fill(self) -> tuple[Ints, Bools]:
        """(n, k) flat positions of the cells filled with predictions, the state of the iteration, and which stay put.

        k is the largest number of any problem; others repeat their first such cell. Without any, a used cell stands in,
        and stays as it is.
        """
        empty = (self.inside & ~self.used).reshape(self.used.shape[0], -1)
        count = empty.sum(axis=1)
        order = np.argsort(~empty, axis=1, kind="stable")[:, : max(1, int(count.max()))]
        cells = np.where(np.arange(order.shape[1]) < count[:, None], order, order[:, :1])
        return np.asarray(cells), np.broadcast_to((count == 0)[:, None], cells.shape)

    def demeaned(self, filled: Floats) -> Floats:
        """What two-way effects leave of filled matrices, component by component."""
        left = filled - (filled.sum(axis=2) / self.row_counts)[:, :, None]
        if not self.complete:
            left *= self.inside
        left -= (left.sum(axis=1) / self.column_counts)[:, None, :]
        return left if self.complete else np.asarray(left * self.inside)

    def certify(self, residual: Floats, clipped: Floats, singular: Floats, lambda_nn: Floats) -> SoftImputeFits:
        """The fits that go with L = residual - clipped, effects fitted anew.

        clipped: the residual with its singular values (n, n_columns) cut off at lambda/2. Its own spectral norm bounds
        that of the residuals on the used cells, up to the Frobenius norm of what sets the two apart.
        """
        low_rank = residual - clipped
        explained = np.where(self.used, self.outcome - low_rank, 0.0)
        alpha, beta = self.operator.effects(explained)
        effects = alpha[:, :, None] + beta[:, None, :]
        left = np.where(self.used, explained - effects, 0.0)
        kept = np.maximum(singular - lambda_nn[:, None] / 2.0, 0.0)
        squares = np.einsum("nit,nit->n", left, left)
        primal = squares + lambda_nn * kept.sum(axis=1)
        apart = left - clipped
        top = 2.0 * np.minimum(singular[:, -1], lambda_nn / 2.0) + 2.0 * np.sqrt(np.einsum("nit,nit->n", apart, apart))
        shrink = lambda_nn / np.maximum(top, lambda_nn)
        within = np.where(self.used, self.outcome - effects, 0.0)
        lower = 2.0 * shrink * np.einsum("nit,nit->n", left, within) - shrink**2 * squares
        rank = (kept > _RANK_SHARE * np.maximum(kept[:, -1:], np.finfo(float).tiny)).sum(axis=1)
        return SoftImputeFits(
            effects + low_rank,
            np.asarray((primal - lower) / np.maximum(primal, np.finfo(float).tiny)),
            np.ones(rank.size, dtype=bool),
            rank,
            np.zeros(rank.size, dtype=np.intp),
        )


def _clipped(residual: Floats, shrink: Floats) -> tuple[Floats, Floats, Floats]:
    """Matrices with their singular values cut off at ``shrink`` (n,), and their right singular vectors.

    Returns (n, n_rows, n_columns), the values before the cut (n, n_columns), ascending, and the vectors as columns.
    """
    values, vectors = np.linalg.eigh(np.swapaxes(residual, 1, 2) @ residual)
    singular = np.sqrt(np.maximum(values, 0.0))
    share = shrink[:, None] / np.maximum(singular, shrink[:, None])
    return residual @ ((vectors * share[:, None, :]) @ np.swapaxes(vectors, 1, 2)), singular, vectors


def _nearly_clipped(residual: Floats, shrink: Floats, vectors: Floats) -> Floats:
    """`_clipped` to first order in what sets a matrix apart from one with the right singular vectors given.

    The derivative of a spectral function (Daleckii and Krein 1965): in the basis of the vectors, off-diagonal entries
    of the Gram matrix are multiplied by divided differences of the function.
    """
    turned = residual @ vectors
    gram = np.swapaxes(turned, 1, 2) @ turned
    values = np.einsum("nkk->nk", gram).copy()
    share = shrink[:, None] / np.maximum(np.sqrt(values), shrink[:, None])
    apart = values[:, :, None] - values[:, None, :]
    apart[np.abs(apart) <= _ALIKE * values.max(axis=1)[:, None, None]] = np.inf
    gram *= (share[:, :, None] - share[:, None, :]) / apart
    diagonal = np.arange(values.shape[1])
    gram[:, diagonal, diagonal] = share
    return np.asarray((turned @ gram) @ np.swapaxes(vectors, 1, 2))
