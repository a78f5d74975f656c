"""Least squares over the simplex with a ridge, solved to the optimum.

    minimise ||A x - b||^2 + eta ||x||^2   subject to   x >= 0, sum(x) = 1

On the simplex A x - b = (A - b 1') x =: M x, and adding mu 11' to the quadratic form adds a constant. So the problem is
that of K = M'M + eta I + mu 11', whose solution is z / sum(z) with z the solution of the linear complementarity problem
z >= 0, K z - 1 >= 0, z'(K z - 1) = 0 (its Karush-Kuhn-Tucker conditions divided by their multiplier). It is solved by
block principal pivoting (Judice and Pires 1994; Kim and Park 2011, "Fast nonnegative matrix factorization", Algorithm
2), which exchanges many variables at a time and ends in a handful of solves; if it should cycle, the active-set method
of Lawson and Hanson (1974, chapter 23) finishes from the point reached, each step lowering the objective.

With more supported columns than rows, K restricted to the support S is a ridge away from singular. There the identity
(B'B + eta I)^-1 B' = B'(B B' + eta I)^-1, B = M_S with the row sqrt(mu) 1' below, gives z and the multipliers without
cancellation from a matrix of the size of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dposv, dpotrs

from causal_spark.errors import SolverError
from causal_spark.panel.types import Bools, Floats, Ints

#: The least ridge, relative to the median column's squared norm: makes the optimum unique (of least norm) when columns
#: are collinear or fit perfectly, so that it does not depend on the columns' order.
RIDGE_FLOOR = 1e-12

#: A solve whose KKT residual exceeds this is reported as not converged.
KKT_TOLERANCE = 1e-8

_EPS = float(np.finfo(np.float64).eps)
_FULL_EXCHANGES = 3

#: When a Cholesky factor shows a row or column explained by the others to all but this share, a singular value
#: decomposition replaces it; singular values below _NULL of the largest are rounding.
_COLLINEAR = 1e-6
_NULL = 1e-10

#: A median column no larger than this share of the largest squared entry is taken as equal to b up to rounding.
_ROUNDING_ONLY = 1e-16

#: So many times larger than B'y may y be before the digits lost in that product count.
_CANCELLATION = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class SimplexFit:
    """Weights and their certificate.

    x: (n,) weights, non-negative, summing to one; exactly zero off the support.
    kkt_residual: the largest x'g - g_j, g the half gradient at x, over sqrt(s_j s), with s the median squared norm of
        the columns of A - b 1' plus eta, and s_j column j's plus s. Zero at the optimum and free of units.
    """

    x: Floats
    kkt_residual: float

    @property
    def converged(self) -> bool:
        """Whether the certificate holds to `KKT_TOLERANCE`."""
        return self.kkt_residual <= KKT_TOLERANCE


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The complementarity problem of K = B'B + eta I, with K itself when it is the smaller of the two.

    rounding: (n,) what rounding can make of a slack of zero, for a solution with sum of magnitudes 1.
    """

    B: Floats
    eta: float
    rounding: Floats
    gram: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """The solution of K_SS z = 1 on one support.

    slack: (n,) of K z - 1, meaningful off the support; tolerance: (n,) what rounding can make of a slack of zero.
    """

    support: Ints
    z: Floats
    slack: Floats
    tolerance: Floats


def simplex_least_squares(A: Floats, b: Floats, eta: float = 0.0, intercept: bool = False) -> SimplexFit:
    """Minimise ||A x - b||^2 + eta ||x||^2 over the simplex, or ||A x + c - b||^2 + eta ||x||^2 over c as well.

    A: (m, n); b: (m,); eta >= 0, in the units of A squared, raised to `RIDGE_FLOOR` when below; intercept: whether c is
    free. Columns that all equal b (nothing to choose by) give equal weights. Raises SolverError for values that are
    not finite.
    """
    n = A.shape[1]
    M = A - b[:, None]
    if intercept:
        M = _contrasts(M)
    largest = float(np.maximum.reduce(np.abs(M), axis=None, initial=0.0))
    if not (math.isfinite(largest) and math.isfinite(eta)):
        raise SolverError("Weights cannot be fitted to values that are not finite.", "Look for overflow in outcomes.")
    if n == 1 or largest == 0.0:
        return SimplexFit(np.full(n, 1.0 / n), 0.0)
    M /= largest
    norms = np.einsum("ij,ij->j", M, M)
    typical = float(np.sort(norms)[n // 2])
    if typical < _ROUNDING_ONLY:
        typical = float(norms.mean())
    M /= math.sqrt(typical)
    ridge = max(eta / largest / largest / typical, RIDGE_FLOOR)
    B = np.ones((M.shape[0] + 1, n))
    B[:-1] = M
    diagonal = norms / typical + 1.0 + ridge
    gram = None
    if n <= B.shape[0]:
        gram = B.T @ B
        gram.flat[:: n + 1] += ridge
    scale = np.sqrt(diagonal)
    problem = _Problem(B, ridge, 64.0 * _EPS * scale, gram)
    support, z = _pivot(problem)
    x = np.zeros(n)
    x[support] = z
    x /= np.add.reduce(x)
    half_gradient = M.T @ (M @ x) + ridge * x
    excess = float(np.maximum.reduce((x @ half_gradient - half_gradient) / scale))
    if not math.isfinite(excess):
        raise SolverError("The weights' least-squares problem broke down numerically.", "Rescale the outcomes.")
    return SimplexFit(x, max(excess, 0.0) / math.sqrt(1.0 + ridge))


def _contrasts(M: Floats) -> Floats:
    """(m - 1, n) coordinates of the columns, less their means, in an orthonormal basis of the contrasts.

    Unlike centred rows these are not collinear. The basis comes from the Householder reflection of (1, ..., 1) onto the
    last axis.
    """
    m = M.shape[0]
    centred = M - np.add.reduce(M, axis=0) / m
    v = np.full(m, 1.0 / math.sqrt(m))
    v[-1] += 1.0
    return np.asarray(centred - v[:, None] * (v @ centred / v[-1]))[:-1]


def _pivot(problem: _Problem) -> tuple[Ints, Floats]:
    """Block principal pivoting from the full support; (k,) support and (k,) z > 0."""
    n = problem.B.shape[1]
    inside: Bools = np.ones(n, dtype=bool)
    fewest, exchanges = n + 1, _FULL_EXCHANGES
    while True:
        point = _solve(problem, inside.nonzero()[0])
        violated = point.slack < -point.tolerance
        violated[point.support] = point.z <= 0.0
        n_violated = int(np.count_nonzero(violated))
        if n_violated == 0:
            return point.support, point.z
        if n_violated < fewest:
            fewest, exchanges = n_violated, _FULL_EXCHANGES
        elif exchanges > 0:
            exchanges -= 1
        else:
            return _active_set(problem, point)
        inside ^= violated


def _active_set(problem: _Problem, point: _Point) -> tuple[Ints, Floats]:
    """Lawson and Hanson's method from the positive part of a point; (k,) support and (k,) z > 0."""
    n = problem.B.shape[1]
    z = np.zeros(n)
    z[point.support] = np.maximum(point.z, 0.0)
    refused: Bools = np.zeros(n, dtype=bool)
    for _ in range(10 * n + 100):
        z, point = _descend(problem, z)
        short = point.slack + point.tolerance
        short[point.support] = 0.0
        short[refused] = 0.0
        entering = int(np.argmin(short))
        if short[entering] >= 0.0:
            break
        candidate = z.copy()
        candidate[entering] = np.finfo(np.float64).tiny
        trial = _solve(problem, np.flatnonzero(candidate))
        if trial.z[np.searchsorted(trial.support, entering)] <= 0.0:
            # Rounding alone made the slack negative: adding the column would lead straight out again.
            refused[entering] = True
            continue
        refused[:] = False
        z = candidate
    support = np.flatnonzero(z)
    return support, z[support]


def _descend(problem: _Problem, z: Floats) -> tuple[Floats, _Point]:
    """Walk from a feasible z to the optimum of a support within its own, dropping variables that reach zero."""
    while True:
        support = np.flatnonzero(z)
        point = _solve(problem, support)
        falling = point.z <= 0.0
        if not falling.any():
            full = np.zeros_like(z)
            full[support] = point.z
            return full, point
        here = z[support]
        reach = here[falling] / (here[falling] - point.z[falling])
        step = float(reach.min())
        there = here + step * (point.z - here)
        there[np.flatnonzero(falling)[reach <= step]] = 0.0
        z = z.copy()
        z[support] = np.maximum(there, 0.0)


def _solve(problem: _Problem, support: Ints) -> _Point:
    """Solve K_SS z = 1 by the smaller of its primal and dual forms, with the multipliers of all other columns."""
    B, eta = problem.B, problem.eta
    n_rows, n = B.shape
    if support.size > n_rows:
        B_S = B if support.size == n else B[:, support]
        y = _dual_solution(_ridged(B_S @ B_S.T, eta))
        if y is not None:
            q = B.T @ y
            largest = float(np.maximum.reduce(np.abs(q)))
            if np.maximum.reduce(np.abs(y)) < _CANCELLATION * largest:
                return _Point(support, q[support], -eta * q, np.full(n, eta * 1e-12 * largest))
    else:
        if problem.gram is not None:
            K = problem.gram[support[:, None], support]
        else:
            B_S = B[:, support]
            K = _ridged(B_S.T @ B_S, eta)
        z = _primal_solution(problem, support, K)
        if z is not None:
            slack = B.T @ (B @ z) - 1.0
            tolerance = problem.rounding * math.sqrt(max(float(np.add.reduce(np.abs(z))), 1.0))
            return _Point(support, z[support], slack, tolerance)
    z, short = _decomposed_solution(B[:, support], eta)
    return _Point(support, z, -(B.T @ short), problem.rounding)


def _ridged(matrix: Floats, eta: float) -> Floats:
    matrix.flat[:: matrix.shape[0] + 1] += eta
    return matrix


def _primal_solution(problem: _Problem, support: Ints, K: Floats) -> Floats | None:
    """(n,) solution of K_SS z = 1, 0 off the support; None when its columns are close to collinear."""
    # K is symmetric, and its transpose has the order LAPACK reads without a copy.
    factor, solution, info = dposv(K.T, np.ones(support.size))
    if info != 0 or _is_poor(factor, K):
        return None
    z = np.zeros(problem.B.shape[1])
    z[support] = solution
    # The residual through B is better than K's own rounding, so one correction recovers what forming K lost.
    residual = 1.0 - (problem.B.T @ (problem.B @ z) + problem.eta * z)[support]
    z[support] += dpotrs(factor, residual)[0]
    return z


def _dual_solution(K: Floats) -> Floats | None:
    """(m + 1,) solution of K y = e for the last unit vector e; None when rows are close to collinear."""
    last = np.zeros(K.shape[0])
    last[-1] = 1.0
    factor, y, info = dposv(K.T, last)
    return None if info != 0 or _is_poor(factor, K) else np.asarray(y)


def _is_poor(factor: Floats, K: Floats) -> bool:
    pivots = factor.diagonal()
    return bool(np.count_nonzero(pivots * pivots < _COLLINEAR * K.diagonal()))


def _decomposed_solution(B_S: Floats, eta: float) -> tuple[Floats, Floats]:
    """(k,) z of least norm and (m + 1,) e - B_S z, from B_S itself, whose rank may be short."""
    try:
        U, values, Vt = np.linalg.svd(B_S, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise SolverError("The weights' least-squares problem broke down numerically.") from error
    kept = values > _NULL * values[0]
    U, values, Vt = U[:, kept], values[kept], Vt[kept]
    along = U[-1]
    short = -(U @ along)
    short[-1] += 1.0
    return np.asarray((along * values / (np.square(values) + eta)) @ Vt), short + U @ (
        along * (eta / (values**2 + eta))
    )
