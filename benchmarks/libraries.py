"""The same estimators in each library, behind one face. Runs in our environment and in that of the peers.

A library's entry turns a case into ``fit``, the call that is timed, and ``read``, which takes its answer apart. Arrays
or data frames in the form a library wants are made before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case, Floats, Solution

Prepared = tuple[Callable[[], Any], Callable[[Any], Solution]]


def causal_spark(case: Case, estimator: str) -> Prepared:
    """This package."""
    from causal_spark.panel.registry import ESTIMATORS
    from causal_spark.panel.types import Panel

    definition = ESTIMATORS[estimator]
    options = definition.options()
    n_units, n_periods = case.outcome.shape
    observed = np.ones(case.outcome.shape, dtype=bool)
    panel = Panel(case.outcome, case.treated, observed, np.arange(n_units), np.arange(n_periods))
    deviation = float(case.outcome[panel.control_cells].std())

    def read(fit: Any) -> Solution:
        weights = {"unit": np.zeros(n_units), "time": np.zeros(n_periods)}
        for each in fit.weights:
            weights[each.kind][each.positions] = each.values  # noqa: PD011
        penalty = fit.penalties.lambda_nn
        return Solution(
            att=float((case.outcome - fit.counterfactual)[case.treated].mean()),
            unit=weights["unit"][: case.n_controls] if fit.weights else None,
            time=weights["time"][: case.n_pre] if weights["time"].any() else None,
            predicted=fit.counterfactual if estimator == "mc" else None,
            path=fit.counterfactual[case.n_controls :, case.n_pre :].mean(axis=0),
            penalties=None if penalty is None else np.array([penalty * deviation]),
        )

    return lambda: definition.fit(panel, options, None, 0), read


def panelkit(case: Case, estimator: str) -> Prepared:
    """Weights of units are shown, those of periods, the low-rank part and the chosen penalty are not."""
    import panelkit as library

    treated = list(range(case.n_controls, case.outcome.shape[0]))
    if estimator == "did":
        starts = [-1] * case.n_controls + [case.n_pre] * case.n_treated
        return lambda: library.TWFE().fit(case.outcome, starts), lambda found: Solution(found.att)
    name = {"sc": "SyntheticControl", "difp": "DemeanedSC", "sdid": "SyntheticDiD", "mc": "MCNNM"}[estimator]
    method = getattr(library, name)

    def read(found: Any) -> Solution:
        if estimator == "mc":
            penalty = _panelkit_penalty(case, found.att)
            return Solution(found.att, path=found.counterfactual, penalties=penalty)
        unit = np.zeros(case.outcome.shape[0])
        unit[found.donor_ids] = found.weights
        return Solution(found.att, unit=unit[: case.n_controls], path=found.counterfactual)

    return lambda: method().fit(case.outcome, treated, case.n_pre), read


def _panelkit_penalty(case: Case, att: float) -> Floats:
    """The penalty on its grid (10 from .5 to .01 of the anchor) at which a fit gives the same bits."""
    import panelkit as library

    control = ~case.treated
    unit, time = np.zeros(case.outcome.shape[0]), np.zeros(case.outcome.shape[1])
    for _ in range(3):
        unit = np.where(control, case.outcome - time, 0.0).sum(axis=1) / control.sum(axis=1)
        time = np.where(control, case.outcome - unit[:, None], 0.0).sum(axis=0) / control.sum(axis=0)
    anchor = float(np.linalg.norm(np.where(control, case.outcome - unit[:, None] - time, 0.0), 2))
    treated = list(range(case.n_controls, case.outcome.shape[0]))
    for penalty in 0.5 * anchor * 0.02 ** (np.arange(10) / 9):
        again = library.MCNNM(lambda_=float(penalty)).fit(case.outcome, treated, case.n_pre).att
        if abs(again - att) <= 1e-9 * abs(att):
            return np.array([2.0 * penalty])
    return np.empty(0)


def causaltensor(case: Case, estimator: str) -> Prepared:
    """Its default list of penalties for mc outlives a call, so it gets a new one each time."""
    from causaltensor.cauest import DID, MC_NNM_with_cross_validation
    from causaltensor.cauest.SDID import SDIDPanelSolver

    treatment = case.treated.astype(float)
    if estimator == "did":
        return lambda: DID(case.outcome, treatment), lambda found: Solution(float(np.ravel(found[1])[0]))
    if estimator == "sdid":

        def fit() -> Any:
            solver = SDIDPanelSolver(Z=treatment, O=case.outcome)
            return solver.fit()

        return fit, lambda found: Solution(float(np.ravel(found.tau)[0]))

    def complete() -> Any:
        penalties: list[float] = []
        return MC_NNM_with_cross_validation(case.outcome, 1.0 - treatment, 5, penalties), penalties

    def read(answer: Any) -> Solution:
        (low_rank, unit, time, tau), penalties = answer
        predicted = low_rank + np.reshape(unit, (-1, 1)) + np.reshape(time, (1, -1))
        path = predicted[case.n_controls :, case.n_pre :].mean(axis=0)
        return Solution(float(np.ravel(tau)[0]), predicted=predicted, path=path, penalties=2.0 * np.array(penalties))

    return complete, read


def diff_diff(case: Case, estimator: str) -> Prepared:
    """Computes standard errors with every fit; the cheapest on offer are asked for."""
    import diff_diff as library
    import pandas as pd

    n_units, n_periods = case.outcome.shape
    outcome = case.outcome
    if estimator == "sc":  # It takes one treated unit: their average.
        outcome = np.vstack([outcome[: case.n_controls], outcome[case.n_controls :].mean(axis=0)])
        n_units = case.n_controls + 1
    ever = np.arange(n_units) >= case.n_controls
    unit, period = (axis.ravel() for axis in np.indices((n_units, n_periods)))
    columns = {"outcome": outcome.ravel(), "unit": unit, "period": period, "ever": ever[unit].astype(int)}
    data = pd.DataFrame(columns)
    data["now"] = data["ever"] * (data["period"] >= case.n_pre)
    data["start"] = np.where(data["ever"] == 1, case.n_pre, 0)
    post = list(range(case.n_pre, n_periods))
    if estimator == "did":
        method = library.ImputationDiD()
        return (
            lambda: method.fit(data, "outcome", "unit", "period", "start"),
            lambda found: Solution(float(found.overall_att)),
        )
    if estimator == "sc":
        control = library.SyntheticControl("custom", custom_v=np.ones(case.n_pre), standardize="none")
        return (
            lambda: control.fit(data, "outcome", "now", "unit", "period", pre_period_outcomes="all"),
            lambda found: Solution(
                float(found.att), unit=np.array([found.donor_weights.get(i, 0.0) for i in range(case.n_controls)])
            ),
        )
    synthetic = library.SyntheticDiD(variance_method="jackknife", n_bootstrap=2, seed=0)
    return (
        lambda: synthetic.fit(data, "outcome", "ever", "unit", "period", post_periods=post),
        lambda found: Solution(
            float(found.att),
            unit=np.array([found.unit_weights.get(i, 0.0) for i in range(case.n_controls)]),
            time=np.array([found.time_weights.get(t, 0.0) for t in range(case.n_pre)]),
        ),
    )


def synthdid_py(case: Case, estimator: str) -> Prepared:
    """A port of the authors' R package, early stop included. DIFP is SDID with its ridge of SC and fixed weights."""
    import synthdid as library

    def fit() -> Any:
        sizes = (case.outcome, case.n_controls, case.n_pre)
        if estimator == "did":
            return library.did_estimate(*sizes)
        if estimator == "sc":
            return library.sc_estimate(*sizes)
        if estimator == "difp":
            uniform = {"lambda": np.full(case.n_pre, 1.0 / case.n_pre)}
            return library.synthdid_estimate(*sizes, eta_omega=1e-6, weights=uniform)
        return library.synthdid_estimate(*sizes)

    def read(found: Any) -> Solution:
        weights = found.weights
        weighted = estimator != "did"
        return Solution(
            float(found),
            unit=weights.omega if weighted else None,
            time=weights.lambda_ if estimator == "sdid" else None,
        )

    return fit, read


def trop(case: Case, estimator: str) -> Prepared:
    """Returns estimates only, so its weights are read off the problems it hands to cvxpy."""
    from trop import baselines

    treatment = case.treated.astype(float)
    units = list(range(case.n_controls, case.outcome.shape[0]))
    solved: list[Any] = []
    solve = baselines._solve

    def recorded(problem: Any, *rest: Any) -> None:
        solve(problem, *rest)
        solved[:] = [problem]

    baselines._solve = recorded
    if estimator == "did":
        return lambda: baselines.DID_TWFE(case.outcome, treatment), Solution
    method = baselines.SC_TWFE if estimator == "sc" else baselines.DIFP_TWFE

    def read(att: float) -> Solution:
        unit = next(each.value for each in solved[0].variables() if each.shape == (case.n_controls,))
        return Solution(att, unit=unit)

    return lambda: method(case.outcome, treatment, units, case.n_post), read


#: What each library offers; ours first.
LIBRARIES: dict[str, tuple[Callable[[Case, str], Prepared], tuple[str, ...]]] = {
    "causal_spark": (causal_spark, ("did", "sc", "difp", "sdid", "mc")),
    "panelkit": (panelkit, ("did", "sc", "difp", "sdid", "mc")),
    "causaltensor": (causaltensor, ("did", "sdid", "mc")),
    "diff-diff": (diff_diff, ("did", "sc", "sdid")),
    "synthdid-py": (synthdid_py, ("did", "sc", "difp", "sdid")),
    "trop": (trop, ("did", "sc", "difp")),
}
