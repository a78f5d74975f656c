"""From a fit to effects: by cell, and the average effect on the treated (ATT) with the counts that qualify it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.errors import NotIdentifiedError
from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.labels import label, listed
from causal_spark.panel.types import Fit, Floats, Notice, Panel

#: Notices of estimators that say which treated cells they leave without a prediction.
_ACCOUNTED = ("AlwaysTreatedUnits", "NoDonorsLeft", "DroppedCells")


@dataclass(frozen=True, slots=True)
class EffectSummary:
    """The ATT of one fit and what it rests on.

    estimate: mean effect over treated, observed cells with a prediction, in outcome units.
    n_treated_cells: all treated, observed cells; n_cells_not_identified: those of them without a prediction.
    n_control_units: never-treated units. n_pre_periods: periods before anybody is treated.
    pre_rmse: root mean square of outcome - prediction over ever-treated units' observed cells before their treatment;
        None when there are none with a prediction.
    """

    estimate: float
    n_units: int
    n_periods: int
    n_treated_units: int
    n_treated_cells: int
    n_cells_not_identified: int
    n_control_units: int
    n_pre_periods: int
    pre_rmse: float | None


def effect_cells(panel: Panel, fit: Fit) -> Floats:
    """(n_units, n_periods) outcome - prediction, NaN where either is missing."""
    return panel.outcome - fit.counterfactual


def att(panel: Panel, fit: Fit) -> float:
    """Mean effect over target cells with a prediction; raises NotIdentifiedError when there are none."""
    effects = effect_cells(panel, fit)[panel.target_cells]
    effects = effects[np.isfinite(effects)]
    if effects.size == 0:
        raise NotIdentifiedError(
            "No treated cell can be predicted from the control cells.",
            "Add untreated periods of the treated units and untreated units in the treated periods.",
        )
    return float(effects.mean())


def summarise(panel: Panel, fit: Fit) -> EffectSummary:
    """The ATT and the counts around it; raises NotIdentifiedError when no target cell has a prediction."""
    estimate = att(panel, fit)
    effects = effect_cells(panel, fit)
    treated_units = panel.ever_treated
    start = first_treated(panel.treated)
    before = treated_units[:, None] & (np.arange(panel.n_periods) < start[:, None])
    pre = effects[before]
    pre = pre[np.isfinite(pre)]
    target = panel.target_cells
    return EffectSummary(
        estimate=estimate,
        n_units=panel.n_units,
        n_periods=panel.n_periods,
        n_treated_units=int(treated_units.sum()),
        n_treated_cells=int(target.sum()),
        n_cells_not_identified=int((target & ~np.isfinite(fit.counterfactual)).sum()),
        n_control_units=int((~treated_units).sum()),
        n_pre_periods=int(start.min()),
        pre_rmse=_root_mean_square(pre) if pre.size else None,
    )


def unidentified_cells(panel: Panel, fit: Fit) -> tuple[Notice, ...]:
    """A notice that counts and names treated, observed cells without a prediction.

    None when there are no such cells, or when the fit's own notices account for them already.
    """
    target = panel.target_cells
    missing = target & ~np.isfinite(fit.counterfactual)
    if not missing.any() or any(notice.name in _ACCOUNTED for notice in fit.notices):
        return ()
    order = np.argsort(panel.units, kind="stable")
    i, t = np.nonzero(missing[order])
    cells = [
        f"{label(panel.units[order[row]])} @ {label(panel.periods[column])}" for row, column in zip(i, t, strict=True)
    ]
    return (
        Notice(
            "UnidentifiedCells",
            f"{len(cells)} of {int(target.sum())} treated cells have no prediction ({listed(np.array(cells))}): the "
            "control cells do not tell their unit's or their period's level. The estimate is about the others.",
            "Add untreated periods of these units and untreated units in these periods, or take the estimate as one of "
            "the other cells.",
        ),
    )


def _root_mean_square(values: Floats) -> float:
    scale = float(np.abs(values).max())
    return scale * float(np.sqrt(np.mean(np.square(values / scale)))) if scale > 0.0 else 0.0
