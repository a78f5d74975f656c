"""Difference in differences by imputation: two-way effects fitted on control cells predict treated ones.

Borusyak, Jaravel, Spiess, "Revisiting Event-Study Designs" (2024); the member of the DWCP family with equal weights and
no low-rank part (lambda_nn = inf). With one block of treated cells it is the textbook difference in differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.errors import NotIdentifiedError, NoTreatedCellsError
from causal_spark.panel.two_way import equal_two_way_fit, two_way_covariate_fit
from causal_spark.panel.types import Bools, Fit, Floats, Ints, Panel, PanelSize, Penalties


@dataclass(frozen=True, slots=True)
class DidOptions:
    """Difference in differences has nothing to choose."""


_DEFAULTS = DidOptions()


def did(panel: Panel, options: DidOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Impute every identified cell by alpha_i + beta_t (+ X_it' b), fitted on control cells with equal weights.

    Any assignment pattern and missing cells. ``options``, ``penalties`` and ``seed`` have no effect: nothing is tuned.
    At control cells the counterfactual is the fitted value. Raises NoTreatedCellsError without a target cell and
    NotIdentifiedError when no target cell's unit and period are linked through control cells.
    """
    require_targets(panel)
    controls = panel.control_cells
    if panel.covariates is None:
        fitted = equal_two_way_fit(panel.outcome, controls)
    else:
        fitted = two_way_covariate_fit(panel.outcome, controls.astype(np.float64), panel.covariates).fitted
    require_identified(panel, fitted)
    return Fit(counterfactual=fitted)


def did_placebos(untreated: Panel, treatment: Bools, assignments: Ints) -> Floats | None:
    """Errors of `did` with each assignment's units taken as treated, in closed form.

    untreated: panel of untreated units only; treatment: (n_treated, n_periods); assignments: (n, n_treated) positions.
    Returns (n, n_treated, n_periods) outcomes less predictions; None where there are missing cells or covariates, or
    where treatment is not lasting from one period on.
    """
    first = int(treatment.any(axis=0).argmax())
    block = first > 0 and treatment[:, first:].all() and not treatment[:, :first].any()
    n_units, n_treated = untreated.n_units, treatment.shape[0]
    if not block or n_treated >= n_units or untreated.covariates is not None or not untreated.observed.all():
        return None
    gaps = untreated.outcome - untreated.outcome[:, :first].mean(axis=1, keepdims=True)
    mine = gaps[assignments]
    total = gaps.sum(axis=0)
    # Before treatment period effects are learnt from all units, afterwards from those not assigned.
    after = (total[first:] - mine[:, :, first:].sum(axis=1)) / (n_units - n_treated)
    return np.concatenate([mine[:, :, :first] - total[:first] / n_units, mine[:, :, first:] - after[:, None]], axis=2)


def did_cost(size: PanelSize, options: DidOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit: passes over the cells, the products that eliminate the longer side, one factorisation."""
    short = min(size.n_units, size.n_periods)
    cells = size.n_units * size.n_periods
    return 8e-4 + 7e-8 * cells + 3e-11 * cells * short + 3e-11 * short**3


def require_targets(panel: Panel) -> None:
    """Raise NoTreatedCellsError unless some treated cell is observed."""
    if not np.count_nonzero(panel.target_cells):
        raise NoTreatedCellsError(
            "No observed cell is treated.", "Check the treatment column, or drop this group from the run."
        )


def require_identified(panel: Panel, counterfactual: Floats) -> None:
    """Raise NotIdentifiedError unless some target cell has a prediction."""
    if not np.count_nonzero(np.isfinite(counterfactual) & panel.target_cells):
        raise NotIdentifiedError(
            "No treated cell can be predicted: none has both a period in which other units are untreated and a unit "
            "with untreated periods, linked through control cells.",
            "Add control units observed in the treated periods, and periods before treatment.",
        )
