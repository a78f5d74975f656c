"""From draws of the study of root causes to a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import read_rows

CELL = ["design", "n_nodes", "n_causes"]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and rule: shares of causes found, with Monte Carlo errors over draws.

    Rules that saw only some draws stand beside the others' shares on the same draws and events (``*_same``, of the
    evidence).
    """
    found = []
    for key, part in rows.groupby([*CELL, "rule"], sort=False):
        cell = dict(zip([*CELL, "rule"], key, strict=True))
        row: dict[str, object] = {**cell, "n_draws": len(part), "n_events": int(part["n_events"].sum())}
        for name in ("top_1", "top_3"):
            values = part[name].to_numpy(dtype=float)
            row[name] = round(float(values.mean()), 4)
            row[f"{name}_mc_error"] = (
                round(float(values.std(ddof=1) / np.sqrt(len(values))), 4) if len(values) > 1 else None
            )
        seconds = pd.to_numeric(part["cpu_seconds_per_event"], errors="coerce")
        row["cpu_seconds_per_event"] = round(float(seconds.mean()), 5) if seconds.notna().any() else None
        if str(cell["rule"]).startswith("dowhy"):
            same = rows[(rows[CELL] == [cell[name] for name in CELL]).all(axis=1) & rows["draw"].isin(part["draw"])]
            for rule in ("contribution", "evidence"):
                mine = same[same["rule"] == rule]
                row[f"{rule}_top_1_same"] = round(float(mine["top_1_first"].astype(float).mean()), 4)
        found.append(row)
    return pd.DataFrame(found)


def write_summary(store: Path, folder: Path, notes: Mapping[str, object]) -> str:
    """Write the table and what it comes from beside the draws, and return it for people."""
    rows = read_rows(store)
    table = summarise(rows)
    table.to_csv(folder / "root_causes.csv", index=False, lineterminator="\n")
    of_draws = {"commits": sorted(set(rows["commit"])), "machines": sorted(set(rows["machine"]))}
    (folder / "root_causes.json").write_text(json.dumps({**notes, **of_draws}, indent=1) + "\n", encoding="utf-8")
    shown = table.pivot_table(index=CELL, columns="rule", values="top_1", sort=False)
    return shown.to_string(float_format=lambda value: f"{value:.3f}")
