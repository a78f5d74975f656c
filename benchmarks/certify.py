"""Is it the optimum? Every library's answer put into the same objective, with a bound on what is left to gain.

The bounds are duality gaps, so they need no solver and trust none, ours included. Gaps and objectives are divided by
the objective at equal weights (mc: at L = 0), which makes them comparable across sizes and outcomes' units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.cases import Case, Floats, Solution
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.two_way import two_way_fit
from causal_spark.panel.types import Panel, Penalties

#: Libraries whose ridge level divides the sum of squared differences by their number, as the paper's equation 2.2 does;
#: the others, like the authors' package, by one less.
_DIVIDE_BY_NUMBER = ("causaltensor", "trop")
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Verdict:
    """None where a library does not show what the number needs.

    unit_objective, unit_gap: of the unit weights, over the objective at equal weights; time_gap: of the time weights;
    infeasible: largest violation of the simplex by either; nn_objective, nn_gap: of mc at its own penalty, over the
    objective at L = 0; penalty: mc's penalty, squares summed without 1/2; att_off: absolute difference of the ATT from
    that of the optimum, in standard deviations of the control cells; path_rmse: of the treated units' average
    untreated path against the noise-free truth, in the same unit.
    """

    unit_objective: float | None = None
    unit_gap: float | None = None
    time_gap: float | None = None
    infeasible: float | None = None
    nn_objective: float | None = None
    nn_gap: float | None = None
    penalty: float | None = None
    att_off: float | None = None
    path_rmse: float | None = None


def judge(library: str, estimator: str, case: Case, untreated: Floats, found: Solution) -> Verdict:
    """Compare an answer with the optimum of the problem its library states."""
    deviation = float(case.outcome[~case.treated].std())
    path_rmse = None
    if found.path is not None:
        truth = untreated[case.n_controls :, case.n_pre :].mean(axis=0)
        path_rmse = float(np.sqrt(np.mean((found.path - truth) ** 2))) / deviation
    if estimator == "did":
        return Verdict(att_off=abs(found.att - _difference(case)) / deviation, path_rmse=path_rmse)
    if estimator == "mc":
        return _judge_completion(case, found, deviation, path_rmse)
    controls = case.outcome[: case.n_controls]
    noise = float(np.diff(controls[:, : case.n_pre], axis=1).std(ddof=0 if library in _DIVIDE_BY_NUMBER else 1))
    zeta = (case.n_treated * case.n_post) ** 0.25 * noise if estimator == "sdid" else _RIDGE * noise
    penalties = Penalties(zeta_unit=(zeta,), zeta_time=(_RIDGE * noise,) if estimator == "sdid" else None)
    unit_objective = unit_gap = time_gap = None
    violations = []
    if found.unit is not None:
        target = case.outcome[case.n_controls :, : case.n_pre].mean(axis=0)
        unit_objective, unit_gap = simplex_gap(
            controls[:, : case.n_pre].T, target, case.n_pre * zeta**2, estimator != "sc", found.unit
        )
        violations.append(simplex_violation(found.unit))
    if found.time is not None:
        target = controls[:, case.n_pre :].mean(axis=1)
        ridge = case.n_controls * (_RIDGE * noise) ** 2
        _, time_gap = simplex_gap(controls[:, : case.n_pre], target, ridge, True, found.time)
        violations.append(simplex_violation(found.time))
    return Verdict(
        unit_objective=unit_objective,
        unit_gap=unit_gap,
        time_gap=time_gap,
        infeasible=max(violations, default=None),
        att_off=abs(found.att - _our_att(case, estimator, penalties)) / deviation,
        path_rmse=path_rmse,
    )


def simplex_violation(weights: Floats) -> float:
    """How far weights are from non-negative with sum 1."""
    return max(0.0, -float(weights.min()), abs(float(weights.sum()) - 1.0))


def simplex_gap(A: Floats, b: Floats, ridge: float, intercept: bool, weights: Floats) -> tuple[float, float]:
    """||A w - b||^2 + ridge ||w||^2 and a bound on its excess over the optimum, both over the value at equal weights.

    A: (m, n); b: (m,); weights: (n,), negative ones cut off and the sum set to 1 first. The bound is the Frank-Wolfe
    gap g'w - min(g), g the gradient, which a convex function's excess over the simplex never exceeds.
    """
    if intercept:
        A, b = A - A.mean(axis=0), b - b.mean()
    weights = np.maximum(weights, 0.0)
    weights = weights / weights.sum()
    residual = A @ weights - b
    gradient = 2.0 * (A.T @ residual + ridge * weights)
    equal = np.full(weights.size, 1.0 / weights.size)
    scale = float(np.sum((A @ equal - b) ** 2) + ridge * equal @ equal)
    objective = float(residual @ residual + ridge * weights @ weights)
    return objective / scale, max(0.0, float(gradient @ weights - gradient.min())) / scale


def completion_gap(outcome: Floats, control: Floats, predicted: Floats, penalty: float) -> tuple[float, float]:
    """The penalised objective of predictions and a bound on its excess, both over the objective at L = 0.

    outcome, predicted: (n_units, n_periods); control: 1.0 at control cells, else 0.0. Of all splits of a prediction
    into effects and L, L without row and column means has the least nuclear norm. Twice the residuals, scaled to
    spectral norm at most the penalty, are feasible in the dual once effects are fitted anew.
    """
    low_rank = predicted - predicted.mean(axis=0) - predicted.mean(axis=1, keepdims=True) + predicted.mean()
    residual = control * (outcome - low_rank - two_way_fit(outcome - low_rank, control))
    squares = float(np.sum(residual**2))
    objective = squares + penalty * float(np.linalg.norm(low_rank, "nuc"))
    shrink = min(1.0, penalty / (2.0 * float(np.linalg.norm(residual, 2))))
    lower = 2.0 * shrink * float(np.sum(residual * outcome)) - shrink**2 * squares
    scale = float(np.sum((control * (outcome - two_way_fit(outcome, control))) ** 2))
    return objective / scale, max(0.0, objective - lower) / scale


def _difference(case: Case) -> float:
    """The textbook difference in differences, which two-way effects give on a complete block."""
    treated, controls = case.outcome[case.n_controls :], case.outcome[: case.n_controls]
    change = [float(one[:, case.n_pre :].mean() - one[:, : case.n_pre].mean()) for one in (treated, controls)]
    return change[0] - change[1]


def _judge_completion(case: Case, found: Solution, deviation: float, path_rmse: float | None) -> Verdict:
    """mc: libraries choose other penalties, so each is judged at its own; of several candidates the likeliest is."""
    if found.penalties is None or found.penalties.size == 0:
        return Verdict(path_rmse=path_rmse)
    control = (~case.treated).astype(float)
    penalty, objective, gap = float(found.penalties[0]), None, None
    if found.predicted is not None:
        tried = [(*completion_gap(case.outcome, control, found.predicted, each), each) for each in found.penalties]
        objective, gap, penalty = min(tried, key=lambda one: one[1])
    if not np.isfinite(penalty):
        return Verdict(penalty=penalty, path_rmse=path_rmse)
    optimum = _our_att(case, "mc", Penalties(lambda_nn=penalty / deviation))
    return Verdict(
        nn_objective=objective,
        nn_gap=gap,
        penalty=penalty,
        att_off=abs(found.att - optimum) / deviation,
        path_rmse=path_rmse,
    )


def _our_att(case: Case, estimator: str, penalties: Penalties) -> float:
    """Ours at given penalties; its own row in the table shows by its gaps that it is the optimum."""
    n_units, n_periods = case.outcome.shape
    definition = ESTIMATORS[estimator]
    observed = np.ones(case.outcome.shape, dtype=bool)
    panel = Panel(case.outcome, case.treated, observed, np.arange(n_units), np.arange(n_periods))
    fit = definition.fit(panel, definition.options(), penalties, 0)
    return float((case.outcome - fit.counterfactual)[case.treated].mean())
