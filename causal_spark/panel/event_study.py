"""Effects by time since treatment, with the periods before it as placebos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.summary import effect_cells
from causal_spark.panel.types import Bools, Fit, Floats, Ints, Panel


@dataclass(frozen=True, slots=True, eq=False)
class EventStudy:
    """Mean effects by event time, ascending.

    event_time: (k,) period position minus the unit's first treated position: 0 is the first treated period.
    estimate: (k,) mean of outcome - prediction, in outcome units; n_cells: (k,) cells averaged.
    """

    event_time: Ints
    estimate: Floats
    n_cells: Ints


def event_cells(treated: Bools, effects: Floats) -> tuple[Ints, Bools]:
    """Event times (n_treated, n_periods) of ever-treated units' cells, and which cells count: those with a finite
    effect that are treated, or before the first treatment of their unit.

    treated: (n_treated, n_periods); effects: (..., n_treated, n_periods), as is what is returned second.
    """
    event = np.arange(treated.shape[1]) - first_treated(treated)[:, None]
    return event, ((event < 0) | treated) & np.isfinite(effects)


def event_study(panel: Panel, fit: Fit) -> EventStudy:
    """Mean of outcome - prediction by event time over ever-treated units.

    From event time 0 on only treated cells count, before it the observed cells before the unit's first treatment.
    Cells without a finite effect are left out, and event times without any cell do not appear.
    """
    rows = np.flatnonzero(panel.ever_treated)
    effects = effect_cells(panel, fit)[rows]
    event, counted = event_cells(panel.treated[rows], effects)
    earliest = -panel.n_periods
    bins = event[counted] - earliest
    n_cells = np.bincount(bins, minlength=2 * panel.n_periods)
    sums = np.bincount(bins, weights=effects[counted], minlength=2 * panel.n_periods)
    present = np.flatnonzero(n_cells)
    return EventStudy(present + earliest, sums[present] / n_cells[present], n_cells[present])
