"""Long frames the tests share."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROLES = {"unit": "unit", "time": "year", "outcome": "y", "treatment": "w"}


def long_panel(
    n_units: int = 12, n_periods: int = 10, n_treated: int = 1, effect: float = 1.0, seed: int = 0
) -> pd.DataFrame:
    """A block panel: the first units are treated in the last three periods."""
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n_units, 1)) + np.cumsum(rng.normal(size=n_periods)) * 0.3
    outcome = outcome + 0.1 * rng.normal(size=(n_units, n_periods))
    treated = np.zeros((n_units, n_periods), dtype=int)
    treated[:n_treated, -3:] = 1
    return pd.DataFrame(
        {
            "unit": np.repeat([f"u{i:02d}" for i in range(n_units)], n_periods),
            "year": np.tile(np.arange(2000, 2000 + n_periods), n_units),
            "y": (outcome + effect * treated).ravel(),
            "w": treated.ravel(),
        }
    )


def grouped(**panels: pd.DataFrame) -> pd.DataFrame:
    """Panels under one another, told apart by column ``region``."""
    return pd.concat([frame.assign(region=name) for name, frame in panels.items()], ignore_index=True)


def messy_panels() -> pd.DataFrame:
    """One good panel and one for every way in which a panel can be bad, by region."""
    good = long_panel()
    first, last = good.index[0], good.index[-1]
    treated_everywhere = good.assign(w=good["year"].ge(2007).astype(int))
    return grouped(
        good=good,
        missing_null=good.astype({"y": "object"}).assign(y=good["y"].where(good.index != last, None)),
        missing_row=good.drop(index=last),
        duplicate=pd.concat([good, good.loc[[first]]]),
        no_controls=treated_everywhere,
        no_pre_periods=good[good["year"] >= 2007],
        no_treated=good.assign(w=0),
        treatment_two=good.assign(w=good["w"] * 2),
        treatment_missing=good.assign(w=good["w"].where(good.index != first)),
        infinite=good.assign(y=good["y"].where(good.index != first, np.inf)),
        unit_missing=good.assign(unit=good["unit"].where(good.index != first, None)),
    ).astype({"y": "float64", "w": "float64"})
