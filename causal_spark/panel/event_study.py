"""Effects by time since treatment, with the periods before it as placebos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.summary import effect_cells
from causal_spark.panel.types import Fit, Floats, Ints, Panel


@dataclass(frozen=True, slots=True, eq=False)
class EventStudy:
    """Mean effects by event time, ascending.

    event_time: (k,) period position minus the unit's first treated position: 0 is the first treated period.
    estimate: (k,) mean of outcome - prediction, in outcome units; n_cells: (k,) cells averaged.
    """

    event_time: Ints
    estimate: Floats
    n_cells: Ints


def event_study(panel: Panel, fit: Fit) -> EventStudy:
    """Mean of outcome - prediction by event time over ever-treated units.

    From event time 0 on only treated cells count, before it the observed cells before the unit's first treatment.
    Cells without a finite effect are left out, and event times without any cell do not appear.
    """
    rows = np.flatnonzero(panel.ever_treated)
    start = first_treated(panel.treated)[rows]
    event = np.arange(panel.n_periods) - start[:, None]
    effects = effect_cells(panel, fit)[rows]
    counted = ((event < 0) | panel.treated[rows]) & np.isfinite(effects)
    earliest = -panel.n_periods
    bins = event[counted] - earliest
    n_cells = np.bincount(bins, minlength=2 * panel.n_periods)
    sums = np.bincount(bins, weights=effects[counted], minlength=2 * panel.n_periods)
    present = np.flatnonzero(n_cells)
    return EventStudy(present + earliest, sums[present] / n_cells[present], n_cells[present])
