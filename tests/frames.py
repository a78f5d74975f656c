"""Long frames the tests share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from causal_spark.panel_effects import PanelResult

TABLES = ("effects", "variances", "event_study", "cells", "weights", "tuning_path", "failures")
KEYS = ("group_id", "estimator", "variance_estimator", "event_time", "unit", "time", "kind", "label", "step", "stage")
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


def tables_of(result: PanelResult, names: Mapping[str, str] | None = None) -> dict[str, pd.DataFrame]:
    """Every table, sorted, without timings. names: new name of a unit to its old one, which is put back."""
    found = {}
    for name in TABLES:
        frame = getattr(result, name)
        frame = frame if isinstance(frame, pd.DataFrame) else frame.toPandas()
        frame = frame.drop(columns=[column for column in frame if column == "seconds"])
        if names is not None:
            if name == "cells":
                frame["unit"] = frame["unit"].map(names)
            if name == "weights":
                of_unit = frame["kind"].str.startswith("unit")
                frame["label"] = frame["label"].map(names).where(of_unit, frame["label"])
            # Messages may name units, in the order of their names.
            frame = frame.drop(columns=[column for column in frame if column in ("message", "hint")])
        found[name] = frame.sort_values([column for column in frame if column in KEYS], ignore_index=True)
    return found
