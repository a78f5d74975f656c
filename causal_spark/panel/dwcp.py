"""Doubly weighted causal panel estimator (DWCP, published as the triply robust panel estimator TROP).

Athey, Imbens, Qu, Viviano, "Triply Robust Panel Estimators", arXiv 2508.21536, equations (2) and (3). For each target
cell (i, t), other treated cells left out:

    min over alpha, beta, L of  sum_js theta_s omega_j (1 - W_js) (Y_js - alpha_j - beta_s - L_js)^2 + lambda_nn ||L||_*
    theta_s = exp(-lambda_time |t - s|),  omega_j = exp(-lambda_unit d(j, i))

with d(j, i) the root mean square of Y_iu - Y_ju over the periods u != t in which both are untreated and observed.
Penalties are chosen by predicting control cells, each left out in turn, or by placebo blocks. With covariates X L is
replaced by X b + L, b not penalised (section 6 there).

Outcomes are first divided by the standard deviation of the control cells; lambda_time is per period, lambda_unit per
standard deviation of distance, lambda_nn on the scale of the standardised sum of squares (no 1/2). Weights are not
normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.panel.calibration_panels import placebo_panels
from causal_spark.panel.constancy import ConstancyOptions, assess, read_block
from causal_spark.panel.did import require_identified, require_targets
from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.tuning import (
    Triple,
    block_search,
    check_grids,
    check_tolerances,
    given_triple,
    search,
    standardised,
    triple_of,
)
from causal_spark.panel.two_way import covariate_basis, identified_cells
from causal_spark.panel.types import Bools, Constancy, Fit, Floats, Ints, Panel, PanelSize, Penalties, TuningStep

# Cells predicted before a triple is first compared with the best.
_FIRST_CELLS = 100


@dataclass(frozen=True, slots=True)
class DwcpOptions:
    """How DWCP chooses its penalties.

    lambda_time: candidates for the decay per period, >= 0.
    lambda_unit: candidates for the decay per standard deviation of distance between units, >= 0.
    lambda_nn: candidates for the nuclear-norm penalty, >= `LAMBDA_NN_FLOOR`; infinity stands for no low-rank part.
    tuning: ``loocv`` (the paper's: every control cell left out in turn) or ``block`` (the squared error of the ATT on
        placebo blocks of the treated cells' shape, among untreated units and in earlier periods).
    search: of ``loocv``: ``cyclic`` (the paper's: one penalty at a time, then coordinate descent) or ``grid`` (every
        combination).
    unit_placebos, time_placebos: of ``block``: placebos of each kind at most, >= 0, one of them positive.
    cv_tolerance, tolerance: precision of predictions, in standard deviations of the control cells, in tuning and at the
        treated cells.
    """

    lambda_time: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
    lambda_unit: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    lambda_nn: tuple[float, ...] = (math.inf, 10.0, 3.0, 1.0, 0.3, 0.1)
    tuning: Literal["loocv", "block"] = "loocv"
    search: Literal["cyclic", "grid"] = "cyclic"
    unit_placebos: int = 6
    time_placebos: int = 6
    cv_tolerance: float = 3e-4
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        check_grids(self.lambda_time, self.lambda_unit, self.lambda_nn)
        check_tolerances(cv_tolerance=self.cv_tolerance, tolerance=self.tolerance)
        if self.tuning not in ("loocv", "block"):
            raise ValueError(f"tuning must be loocv or block, not {self.tuning!r}.")
        if self.search not in ("cyclic", "grid"):
            raise ValueError(f"search must be cyclic or grid, not {self.search!r}.")
        if min(self.unit_placebos, self.time_placebos) < 0 or self.unit_placebos + self.time_placebos == 0:
            raise ValueError("unit_placebos and time_placebos must not be negative, nor both zero.")


_DEFAULTS = DwcpOptions()


def dwcp(panel: Panel, options: DwcpOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Predict every identified treated cell by its own weighted low-rank fit.

    Any assignment pattern, missing cells and covariates; effects are assumed not to carry over. Penalties that are
    given but None mean no weighting (lambda_time, lambda_unit) and no low-rank part (lambda_nn).
    ``counterfactual`` holds the target cells' predictions and, at control cells of ever-treated units, leave-one-out
    predictions at the chosen penalties; elsewhere, and where not identified, NaN. With ``loocv`` the criterion is the
    mean squared leave-one-out error in squared standard deviations of the control cells, and a candidate abandoned
    because its errors already exceeded the best's is listed with what it had; for ``block`` see `block_search`.
    ``seed`` draws placebos. ``rank`` is the largest over target cells. ``constancy`` tests that the effect does not
    change over time.
    Raises NoTreatedCellsError, NotIdentifiedError, ConstantOutcomeError, and ValueError for given penalties out of
    range.
    """
    require_targets(panel)
    controls = panel.control_cells
    basis = None if panel.covariates is None else covariate_basis(controls, panel.covariates)
    identified = identified_cells(controls) & (True if basis is None else basis.identified)
    wanted = panel.target_cells & identified
    require_identified(panel, np.where(wanted, 0.0, np.nan))
    outcome, centre, scale = standardised(panel)
    cells = SingleCells(outcome, controls, basis)
    left_out = cells.identified_when_left_out()
    triple: Triple = (0.0, 0.0, math.inf)
    path: tuple[TuningStep, ...] = ()
    solved = True
    if penalties is not None:
        triple = given_triple(penalties)
    elif options.tuning == "block":
        triple, path, solved = _tune_on_blocks(panel, outcome, options, seed)
    elif left_out.any():
        score = _LeaveOneOut(cells, left_out, options.cv_tolerance)
        triple, path = search(score, options.lambda_time, options.lambda_unit, options.lambda_nn, options.search)
        solved = score.converged
    prediction = np.full(outcome.shape, np.nan)
    rows, columns = np.nonzero(wanted)
    prediction[rows, columns], rank, converged = cells.predict(rows, columns, triple, options.tolerance)
    rows, columns = np.nonzero(left_out & panel.ever_treated[:, None])
    prediction[rows, columns], _, placebos = cells.predict(rows, columns, triple, options.cv_tolerance)
    return Fit(
        counterfactual=prediction * scale + centre,
        penalties=Penalties(*triple),
        tuning="fixed" if penalties is not None else options.tuning if path else "none",
        criterion=next((step.criterion for step in reversed(path) if triple_of(step) == triple), None),
        path=path,
        rank=rank,
        converged=converged and placebos and solved,
        constancy=_constancy(panel, seed) if penalties is None else None,
    )


def _constancy(panel: Panel, seed: int) -> Constancy | None:
    # The test's own fits take no covariates.
    return assess(read_block(panel), ConstancyOptions(), seed).constancy if panel.covariates is None else None


def _tune_on_blocks(
    panel: Panel, outcome: Floats, options: DwcpOptions, seed: int
) -> tuple[Triple, tuple[TuningStep, ...], bool]:
    """The triple that predicts placebo blocks best, all that were tried, and whether every solve converged.

    A panel without placebos is left unweighted.
    """
    rng = np.random.default_rng([seed, 3])
    treated, n_unit, n_time = panel.target_cells, options.unit_placebos, options.time_placebos
    placebos = placebo_panels(outcome, panel.observed, treated, n_unit, n_time, rng)
    if placebos is None:
        return (0.0, min(options.lambda_unit), math.inf), (), True
    cells, targets = [], []
    for k in range(placebos.panels.n):
        one = placebos.panels.take(np.array([k]))
        controls = one.cells[0] & ~one.treated[0] & ~treated
        basis = None if panel.covariates is None else covariate_basis(controls, panel.covariates)
        known = identified_cells(controls) & (True if basis is None else basis.identified)
        cells.append(SingleCells(outcome, controls, basis))
        targets.append(np.nonzero(one.targets[0] & ~treated & known))
    solved = [True]

    def squares(triples: list[Triple], where: Ints) -> Floats:
        found = np.zeros((len(triples), where.size))
        for place, k in enumerate(where):
            rows, columns = targets[k]
            for number, triple in enumerate(triples):
                predicted, _, converged = cells[k].predict(rows, columns, triple, options.cv_tolerance)
                error = float((outcome[rows, columns] - predicted).mean()) if rows.size else 0.0
                found[number, place] = (error * placebos.inflation[k]) ** 2
                solved[0] = solved[0] and converged
        return found

    grids = options.lambda_time, options.lambda_unit, options.lambda_nn
    return *block_search(squares, placebos.placebo, *grids), solved[0]


class _LeaveOneOut:
    """The criterion: mean squared error of predicting control cells left out in turn.

    Cells with the largest errors under the best triple so far come first, in chunks that grow, so that a worse triple
    is soon known to be worse. That saves work and changes no complete score.
    """

    def __init__(self, cells: SingleCells, scored: Bools, tolerance: float) -> None:
        self.cells, (self.rows, self.columns) = cells, np.nonzero(scored)
        self.tolerance, self.converged = tolerance, True
        self.order, self.least = np.arange(self.rows.size), math.inf

    def __call__(self, triple: Triple, bound: float) -> tuple[float, bool]:
        squares = np.zeros(self.rows.size)
        begin, step = 0, self.rows.size if math.isinf(triple[2]) else _FIRST_CELLS
        while begin < self.rows.size:
            part = self.order[begin : begin + step]
            rows, columns = self.rows[part], self.columns[part]
            predicted, _, good = self.cells.predict(rows, columns, triple, self.tolerance)
            self.converged = self.converged and good
            squares[part] = (self.cells.outcome[rows, columns] - predicted) ** 2
            begin, step = begin + step, 2 * step
            score = float(squares.sum()) / squares.size
            if score > bound and begin < self.rows.size:
                return score, False
        if score < self.least:
            self.order, self.least = np.argsort(-squares, kind="stable"), score
        return score, True


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
