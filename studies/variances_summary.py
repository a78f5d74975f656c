"""From draws of the variance study to tables: coverage by quartile of the true variance, width, power."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from benchmarks.machine import read_rows
from causal_spark.panel.types import Floats
from studies.noise import DESIGNS, homoskedastic_error

#: Effects at which power is reported, in standard errors of difference-in-differences when no scale varies.
EFFECTS = (1.4, 2.0, 2.8)
VARIANCES = ("marginal", "unit", "time", "unit_time", "unit_time_direct")
_UPPER = 0.975
_QUARTILES = 4


def summarise(rows: pd.DataFrame, design: str, estimator: str) -> pd.DataFrame:
    """One row per variance.

    rows: as stored by `studies.variances`. coverage of 95% intervals overall and by quartile of the true variance
    (``coverage_q1`` the quietest), their Monte Carlo standard errors, mean width over that of ``marginal``, and power
    at `EFFECTS`.
    """
    estimate = rows["estimate"].to_numpy()
    truth = rows["true_variance"].to_numpy()
    varies = np.ptp(truth) > 1e-9 * truth.mean()
    quartile = np.argsort(np.argsort(truth, kind="stable"), kind="stable") * _QUARTILES // len(truth)
    unit = homoskedastic_error(DESIGNS[design])
    widths = {name: half_width(rows, name) for name in VARIANCES}
    found = []
    for name, width in widths.items():
        covered = np.abs(estimate) <= width
        row: dict[str, object] = {"design": design, "estimator": estimator, "variance": name, "n": len(rows)}
        row |= {"coverage": covered.mean(), "coverage_error": np.sqrt(0.95 * 0.05 / len(rows))}
        for q in range(_QUARTILES):
            row[f"coverage_q{q + 1}"] = covered[quartile == q].mean() if varies else np.nan
        row["quartile_error"] = np.sqrt(0.95 * 0.05 * _QUARTILES / len(rows)) if varies else np.nan
        row["width"] = width.mean() / widths["marginal"].mean()
        # The distribution is symmetric, so both signs of an effect are as many draws again.
        for effect in EFFECTS:
            row[f"power_{effect:g}"] = np.mean(
                [np.mean(np.abs(estimate + sign * effect * unit) > width) for sign in (-1.0, 1.0)]
            )
        found.append(row)
    return pd.DataFrame(found)


def half_width(rows: pd.DataFrame, name: str) -> Floats:
    """(n,) half widths of 95% intervals."""
    return np.asarray(stdtrit(rows[f"{name}_df"].to_numpy(), _UPPER) * rows[f"{name}_std_error"].to_numpy())


def write_summary(work: Path, folder: Path, notes: Mapping[str, object]) -> str:
    """Write ``variances.csv`` of all draws kept, and how they came about. Returns a table for people."""
    parts = []
    commits: dict[str, list[str]] = {}
    for path in sorted(work.glob("*/*.csv")):
        rows = read_rows(path).drop_duplicates("draw").sort_values("draw")
        parts.append(summarise(rows, path.stem, path.parent.name))
        commits[f"{path.parent.name}/{path.stem}"] = sorted(set(rows["commit"]))
    if not parts:
        raise SystemExit("There is nothing to summarise yet.")
    table = pd.concat(parts, ignore_index=True)
    order = {name: place for place, name in enumerate(DESIGNS)}
    table = table.sort_values(
        ["estimator", "design"], key=lambda c: c.map(order) if c.name == "design" else c, kind="stable"
    )
    folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(folder / "variances.csv", index=False)
    (folder / "variances_run.json").write_text(json.dumps({**notes, "commits": commits}, indent=1) + "\n")
    return table.round(3).to_string(index=False)
