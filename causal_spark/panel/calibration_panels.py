"""Panels like the observed one whose true effect is zero: how far estimates err on them is how far they err here.

Three kinds, which fail in different ways. Unit placebos: untreated units take over the treated units' rows of W; they
carry the real noise of other units. Time placebos: the treated units are taken as treated earlier, and later periods
are left out; they carry the treated units' own noise, in other times. Parametric bootstraps: panels drawn from a
low-rank model with AR(2) noise (`causal_spark.panel.calibration`) under the real assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.panel.calibration import calibrate
from causal_spark.panel.constant_effect import TreatedPanels
from causal_spark.panel.two_way import identified_cells
from causal_spark.panel.types import Bools, Floats, Ints

# A time placebo needs so many periods before treatment, and as a share of the real pre-period.
_FEWEST_BEFORE, _SHARE_BEFORE = 3, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationPanels:
    """panels: the stack; placebo: (n,) False for a bootstrap; inflation: (n,) by what errors are to be multiplied,
    where fewer units are treated than in the real panel or more.
    """

    panels: TreatedPanels
    placebo: Bools
    inflation: Floats


def placebo_panels(
    outcome: Floats, observed: Bools, treated: Bools, n_unit: int, n_time: int, rng: np.random.Generator
) -> CalibrationPanels | None:
    """At most n_unit unit and n_time time placebos of a panel, None where it has none.

    outcome, observed, treated: (n_units, n_periods).
    """
    parts = [
        part
        for part in (
            _unit_placebos(outcome, observed, treated, n_unit, rng),
            _time_placebos(outcome, observed, treated, n_time),
        )
        if part is not None
    ]
    return join(parts) if parts else None


def bootstrap_panels(
    untreated: Floats, observed: Bools, treated: Bools, n: int, rng: np.random.Generator
) -> CalibrationPanels:
    """N draws of the model fitted to ``untreated`` (n_units, n_periods): outcomes with effects taken out."""
    draws = calibrate(untreated, observed).draw(rng, n)
    ones = np.ones((n, untreated.shape[0]), dtype=bool), np.ones((n, untreated.shape[1]), dtype=bool)
    panels = TreatedPanels(draws, observed, np.repeat(treated[None], n, axis=0), *ones)
    return CalibrationPanels(panels, np.zeros(n, dtype=bool), np.ones(n))


def join(parts: list[CalibrationPanels]) -> CalibrationPanels:
    """All panels of several stacks."""
    return CalibrationPanels(
        TreatedPanels.concatenate([part.panels for part in parts]),
        np.concatenate([part.placebo for part in parts]),
        np.concatenate([part.inflation for part in parts]),
    )


def _identifiable(panels: TreatedPanels) -> Ints:
    """Positions of panels in which control cells link some treated cell's unit and period."""
    controls, targets = panels.cells & ~panels.treated, panels.targets
    return np.flatnonzero([(identified_cells(controls[k]) & targets[k]).any() for k in range(panels.n)])


def _unit_placebos(
    outcome: Floats, observed: Bools, treated: Bools, n: int, rng: np.random.Generator
) -> CalibrationPanels | None:
    rows, controls = np.flatnonzero(treated.any(axis=1)), np.flatnonzero(~treated.any(axis=1))
    # Half of the controls at most stand in, so that the other half is there to compare with.
    n_stand_in = min(rows.size, controls.size // 2)
    if n_stand_in == 0:
        return None
    stacked = np.zeros((n, *outcome.shape), dtype=bool)
    on = np.ones((n, outcome.shape[0]), dtype=bool)
    on[:, rows] = False
    for k in range(n):
        stand_in = rng.permutation(controls)[:n_stand_in]
        stacked[k, stand_in] = treated[rng.permutation(rows)[:n_stand_in]]
    panels = TreatedPanels(
        np.repeat(outcome[None], n, axis=0), observed, stacked, on, np.ones((n, outcome.shape[1]), dtype=bool)
    )
    kept = _identifiable(panels)
    if not kept.size:
        return None
    inflation = np.full(kept.size, np.sqrt(n_stand_in / rows.size))
    return CalibrationPanels(panels.take(kept), np.ones(kept.size, dtype=bool), inflation)


def _time_placebos(outcome: Floats, observed: Bools, treated: Bools, n: int) -> CalibrationPanels | None:
    any_treated = np.asarray(treated.any(axis=0))
    first, end = int(any_treated.argmax()), int(any_treated.size - any_treated[::-1].argmax())
    span = end - first
    fewest = max(_FEWEST_BEFORE, int(_SHARE_BEFORE * first))
    if first - fewest < span or n == 0:
        return None
    # Windows far apart tell more than neighbours, which share most of their periods.
    shifts = np.unique(np.linspace(span, first - fewest, n).round().astype(np.intp))
    stacked = np.zeros((shifts.size, *outcome.shape), dtype=bool)
    on = np.zeros((shifts.size, outcome.shape[1]), dtype=bool)
    for k, shift in enumerate(shifts):
        stacked[k, :, : end - shift] = treated[:, shift:end]
        on[k, : end - shift] = True
    panels = TreatedPanels(
        np.repeat(outcome[None], shifts.size, axis=0),
        observed,
        stacked,
        np.ones((shifts.size, outcome.shape[0]), dtype=bool),
        on,
    )
    kept = _identifiable(panels)
    if not kept.size:
        return None
    return CalibrationPanels(panels.take(kept), np.ones(kept.size, dtype=bool), np.ones(kept.size))
