"""DWCP in each library, behind one face: the score of one triple, and tuning with the estimate. Ours and the peers'.

All get the same outcomes in standard deviations of the control cells, on which penalties mean the same: weights times
squared residuals, no 1/2, weights not normalised, plus lambda_nn times the nuclear norm. ``diff-diff`` states that
problem in its code; ``trop`` weights residuals by the root of the weights before it squares them, the same again, but
its weights belong to a block at the end of the panel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks.cases import Floats
from benchmarks.dwcp_cases import Cell, DwcpCase, Triple, formula_parts, formula_weights


@dataclass(frozen=True)
class Answer:
    """score: mean squared error of leaving each control cell out, None where a library has no such number.

    att: the estimate, in standard deviations; triple: the penalties it belongs to; converged: what the library says of
    its own solves, None where it says nothing.
    """

    score: float | None = None
    att: float | None = None
    triple: Triple | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class CellFit:
    """One target cell's fit: predicted and weights (n_units, n_periods), at_cell the prediction of the cell itself."""

    predicted: Floats
    weights: Floats
    at_cell: float


class Library(Protocol):
    """What the benchmark asks of a library; ``scorings`` is how many scores its call for one score computes."""

    scorings: int

    def __init__(self, case: DwcpCase) -> None: ...

    def score(self, triple: Triple) -> Answer:
        """Leave every control cell out in turn."""

    def tune(self, how: str) -> Answer:
        """Choose the penalties (``how``: loocv, race or block) and estimate the ATT."""

    def cell(self, cell: Cell, triple: Triple) -> CellFit:
        """One target cell's fit, by the code and to the tolerance that scoring uses."""


class Ours:
    """This package: the stages of its public function, and that function.

    One cell's fit comes from the solver it calls, to the same tolerance, as the function shows predictions only.
    """

    scorings = 1

    def __init__(self, case: DwcpCase) -> None:
        from causal_spark.panel.types import Panel

        n_units, n_periods = case.outcome.shape
        observed = np.ones(case.outcome.shape, dtype=bool)
        self.case = case
        self.panel = Panel(case.outcome, case.treated, observed, np.arange(n_units), np.arange(n_periods))

    def score(self, triple: Triple, **more: Any) -> Answer:
        """The round of tuning alone, over a grid of one point. more: further options."""
        from causal_spark.panel.dwcp import DwcpOptions, DwcpStages

        time, unit, nn = triple
        options = DwcpOptions((time,), (unit,), (nn,), tuning="loocv", search="grid", **more)
        found = DwcpStages(self.panel, options, None, 0).run({}, 0)
        return Answer(float(found["path"][0, -1]), None, triple, bool(found["solved"]))

    def tune(self, how: str) -> Answer:
        """At the default options, but for the kind of tuning."""
        from causal_spark.panel.dwcp import DwcpOptions, dwcp

        return self._answer(dwcp(self.panel, DwcpOptions(tuning=how), None, 0))  # type: ignore[arg-type]

    def cell(self, cell: Cell, triple: Triple) -> CellFit:
        """The prediction of the cell is taken from the public function, the rest of the fit from the solver."""
        from causal_spark.panel.dwcp import DwcpOptions, dwcp
        from causal_spark.panel.low_rank import low_rank_fit
        from causal_spark.panel.product_weights import ProductWeights
        from causal_spark.panel.types import Penalties

        options = DwcpOptions()
        omega, theta = formula_parts(self.case, cell, triple)
        at = np.array([cell[0]]), np.array([cell[1]])
        out = at if self.case.controls[cell] else None
        found = low_rank_fit(
            self.case.outcome,
            ProductWeights(omega[None], theta[None], self.case.controls[None], out),
            np.array([triple[2]]),
            targets=at,
            tolerance=options.tolerance if out is None else options.cv_tolerance,
        )
        fit = dwcp(self.panel, options, Penalties(*triple), 0)
        weights = formula_weights(self.case, cell, triple)
        return CellFit(found.predictions()[0], weights, float(fit.counterfactual[cell]))

    def _answer(self, fit: Any) -> Answer:
        att = float((self.case.outcome - fit.counterfactual)[self.case.treated].mean())
        chosen = fit.penalties
        triple = (float(chosen.lambda_time), float(chosen.lambda_unit), float(chosen.lambda_nn))
        score = fit.criterion if fit.tuning == "loocv" else None
        return Answer(score, att, triple, bool(fit.converged))


class DiffDiff:
    """``TROP`` by its compiled code. A grid of one point makes its search score ten times.

    Two coordinate rounds of three searches and the final score are the triple's own, seven in all; three starting
    searches set one or two of the penalties to none. It cannot leave out standard errors: two bootstrap draws, the
    fewest, are 1 to 2 percent of the fits it makes for one score's search.
    """

    scorings = 10

    def __init__(self, case: DwcpCase) -> None:
        import pandas as pd

        self.case = case
        unit, period = (axis.ravel() for axis in np.indices(case.outcome.shape))
        self.data = pd.DataFrame(
            {
                "unit": unit,
                "period": period,
                "outcome": case.outcome.ravel(),
                "treated": case.treated.ravel().astype(int),
            }
        )

    def score(self, triple: Triple) -> Answer:
        """Its public fit at a grid of one point."""
        time, unit, nn = triple
        return self._fit(lambda_time_grid=[time], lambda_unit_grid=[unit], lambda_nn_grid=[nn])

    def tune(self, how: str) -> Answer:
        """Its default grid (6 x 6 x 5) and the paper's criterion, the only one it has."""
        del how
        return self._fit()

    def cell(self, cell: Cell, triple: Triple) -> CellFit:
        """By its Python version of the same algorithm, whose scores agree with the compiled one's to 10 digits."""
        import diff_diff as library

        unit, period = cell
        outcome, treatment = np.ascontiguousarray(self.case.outcome.T), self.case.treated.T.astype(int)
        n_periods, n_units = outcome.shape
        method = library.TROP()
        never = np.flatnonzero(~self.case.treated.any(axis=1))
        weights = method._compute_observation_weights(
            outcome, treatment, unit, period, triple[0], triple[1], never, n_units, n_periods
        )
        nn = 1e10 if math.isinf(triple[2]) else triple[2]
        alpha, beta, low_rank = method._estimate_model(
            outcome, treatment == 0, weights, nn, n_units, n_periods, exclude_obs=(period, unit)
        )
        predicted = (alpha + beta[:, None] + low_rank).T
        return CellFit(predicted, formula_weights(self.case, cell, triple), float(predicted[cell]))

    def _fit(self, **grids: list[float]) -> Answer:
        import diff_diff as library

        found = library.TROP(n_bootstrap=2, seed=0, **grids).fit(self.data, "outcome", "treated", "unit", "period")
        score = float(found.loocv_score) / int(self.case.controls.sum())
        return Answer(score, float(found.att), (found.lambda_time, found.lambda_unit, found.lambda_nn))


class Trop:
    """One fit by cvxpy (OSQP, SCS) per call. It has no leave-one-out score: we call it once for each control cell.

    Its weights belong to a block at the end (distances over the periods before, from the block's middle), so the
    problems differ from the paper's in their weights, not in their size; each is judged as the problem it states.
    """

    scorings = 1

    def __init__(self, case: DwcpCase) -> None:
        self.case = case

    def score(self, triple: Triple) -> Answer:
        """As many fits as the score needs; its own weights, so the number itself says nothing."""
        for unit, period in np.argwhere(self.case.controls):
            self._fit((int(unit), int(period)), triple)
        return Answer()

    def tune(self, how: str) -> Answer:
        """Its adaptive search on placebo blocks among the never treated, with its defaults, and one fit."""
        del how
        import trop as library

        treated, n_post = self.case.block
        never = self.case.outcome[~self.case.treated.any(axis=1)]
        unit, time, nn = library.adaptive_TROP_cv(never, n_post, n_treated_units=len(treated), n_jobs=1)
        att = library.TROP_TWFE_average(self.case.outcome, self.case.treated, treated, unit, time, nn, n_post)
        return Answer(None, att, (time, unit, nn))

    def cell(self, cell: Cell, triple: Triple) -> CellFit:
        """Its variables, read off the problem that it hands to cvxpy."""
        import cvxpy

        solved: list[Any] = []
        solve = cvxpy.Problem.solve

        def recorded(problem: Any, *rest: Any, **more: Any) -> Any:
            value = solve(problem, *rest, **more)
            solved[:] = [problem]
            return value

        cvxpy.Problem.solve = recorded
        try:
            weights = self._fit(cell, triple)
        finally:
            cvxpy.Problem.solve = solve
        n_units, n_periods = self.case.outcome.shape
        parts = {variable.shape: variable.value for variable in solved[0].variables()}
        predicted = parts[()] + parts[(1, n_units)].T + parts[(1, n_periods)] + parts.get((n_units, n_periods), 0.0)
        return CellFit(predicted, weights, float(predicted[cell]))

    def _fit(self, cell: Cell, triple: Triple) -> Floats:
        """Fit with one more cell left out, as if its unit were treated from there on; the weights the fit states."""
        import trop as library

        (time, apart, nn), (unit, period) = triple, cell
        n_periods = self.case.outcome.shape[1]
        left_out = self.case.treated.astype(float)
        left_out[cell] = 1.0
        n_post = min(n_periods - period, n_periods - 1)
        library.TROP_TWFE_average(self.case.outcome, left_out, [unit], apart, time, nn, n_post)
        before = slice(0, n_periods - n_post)
        difference = self.case.outcome[:, before] - self.case.outcome[unit, before]
        theta = np.exp(-time * np.abs(np.arange(n_periods) - (n_periods - n_post / 2.0)))
        omega = np.exp(-apart * np.sqrt(np.mean(difference**2, axis=1)))
        return np.asarray(omega[:, None] * theta * (1.0 - left_out))


#: Ours first.
LIBRARIES: dict[str, type[Library]] = {"causal_spark": Ours, "diff-diff": DiffDiff, "trop": Trop}
