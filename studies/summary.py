"""From errors draw by draw to tables: RMSE, paired ratios, means over designs, each with its Monte Carlo error."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from causal_spark.panel.types import Floats
from studies.designs import DESIGNS

REFERENCE = "sdid"
# Published root mean squared errors of the same simulations, 1,000 draws: Arkhangelsky, Athey, Hirshberg, Imbens,
# Wager, "Synthetic Difference-in-Differences", AER 2021, tables 2 and 3, from the authors' stored results.
PUBLISHED = Path(__file__).resolve().parent / "published_rmse.csv"
_PUBLISHED_DRAWS = 1000
# Standard errors by which an estimator may miss the best and still count as no worse.
_TIE = 2.0


def rmse(errors: Floats) -> tuple[float, float]:
    """Root mean square of (n,) errors, and its Monte Carlo standard error by the delta method."""
    squares = errors**2
    value = math.sqrt(float(squares.mean()))
    return value, float(squares.std(ddof=1)) / math.sqrt(errors.size) / (2.0 * value)


def log_ratio(errors: Floats, others: Floats) -> tuple[float, float]:
    """Logarithm of the ratio of two RMSEs on the same draws, (n,) each, and its standard error by the delta method."""
    squares, other_squares = errors**2, others**2
    mean, other_mean = float(squares.mean()), float(other_squares.mean())
    spread = squares / mean - other_squares / other_mean
    return 0.5 * math.log(mean / other_mean), 0.5 * float(spread.std(ddof=1)) / math.sqrt(errors.size)


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per design, shape and estimator.

    rows: as stored by `studies.dwcp`. Ratios are of RMSEs on the draws that both estimators have. ``best_or_tied``:
    whether the RMSE is the smallest of its design and shape, or above it by at most two paired standard errors.
    """
    found = []
    published = _published()
    for (design, shape), part in rows.groupby(["design", "shape"], sort=False):
        wide = part.pivot_table(index="draw", columns="estimator", values="error", sort=False)
        best = min(wide.columns, key=lambda name: rmse(_paired(wide, name, name)[0])[0])
        for name in wide.columns:
            own = part[part["estimator"] == name]
            errors = wide[name].dropna().to_numpy()
            value, error = rmse(errors)
            row: dict[str, object] = {
                "design": design,
                "shape": shape,
                "estimator": name,
                "n": errors.size,
                "declined": int(own["error"].isna().sum()),
                "rmse": value,
                "rmse_mcse": error,
                "bias": float(errors.mean()),
                "bias_mcse": float(errors.std(ddof=1)) / math.sqrt(errors.size),
            }
            for label, other in (("sdid", REFERENCE), ("best", best)):
                row |= _ratio(wide, name, other, label)
            row["best_or_tied"] = name == best or _tied(row)
            row["constancy_rejected"] = _share(own["p_value"])
            row["constancy_weight"] = float(own["weight"].mean())
            row["cpu_seconds_per_draw"] = float(own["seconds"].mean())
            known = published.get((str(design), str(name)))
            row["published_rmse"] = known
            row["published_z"] = None if known is None else (value - known) / math.hypot(error, _published_error(known))
            found.append(row)
    return pd.DataFrame(found)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """One row per shape and estimator: geometric mean over designs of the ratio to SDID, worst design, places.

    table: of `cells`. Designs are drawn independently, so variances of log ratios add up.
    """
    found = []
    for (shape, name), part in table.dropna(subset=["ratio_to_sdid"]).groupby(["shape", "estimator"], sort=False):
        worst = part.loc[part["ratio_to_sdid"].idxmax()]
        mean = math.exp(float(np.log(part["ratio_to_sdid"]).mean()))
        errors = part["ratio_to_sdid_mcse"] / part["ratio_to_sdid"]
        found.append(
            {
                "shape": shape,
                "estimator": name,
                "designs": len(part),
                "fewest_draws": int(part["n"].min()),
                "ratio_to_sdid": mean,
                "ratio_to_sdid_mcse": mean * math.sqrt(float((errors**2).sum())) / len(part),
                "worst_ratio": float(worst["ratio_to_sdid"]),
                "worst_ratio_mcse": float(worst["ratio_to_sdid_mcse"]),
                "worst_design": worst["design"],
                "best": int((part["ratio_to_best"] == 1.0).sum()),
                "best_or_tied": int(part["best_or_tied"].sum()),
                "constancy_rejected": float(part["constancy_rejected"].mean()),
                "constancy_weight": float(part["constancy_weight"].mean()),
                "cpu_seconds_per_draw": float(part["cpu_seconds_per_draw"].mean()),
            }
        )
    return pd.DataFrame(found)


def write_summary(rows: pd.DataFrame, folder: Path, notes: Mapping[str, str | int]) -> str:
    """Write ``dwcp_cells.csv``, ``dwcp_means.csv`` and ``dwcp_run.csv`` to ``folder``; returns the means as text.

    notes: where and how this run was made; commits and options of all rows are added to it.
    """
    table = cells(rows)
    over = means(table)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "dwcp_cells.csv", index=False, float_format="%.5g")
    over.to_csv(folder / "dwcp_means.csv", index=False, float_format="%.5g")
    parts = rows.groupby("estimator", sort=False)
    run = pd.DataFrame(
        {
            "estimator": list(parts.groups),
            "draws_per_design": parts["draw"].nunique().to_numpy(),
            "options": parts["options"].agg(lambda texts: " ".join(sorted(set(texts)))).to_numpy(),
            "draws_made_at_commit": parts["commit"].agg(lambda texts: " ".join(sorted(set(texts)))).to_numpy(),
        }
    ).assign(**{f"summary_{name}" if name == "commit" else name: value for name, value in notes.items()})
    run.to_csv(folder / "dwcp_run.csv", index=False)
    return over.to_string(index=False, float_format="%.3f")


def _paired(wide: pd.DataFrame, name: str, other: str) -> tuple[Floats, Floats]:
    """Errors of two estimators on the draws that both have."""
    both = wide[[name]].assign(other=wide[other]).dropna().to_numpy(np.float64)
    return both[:, 0], both[:, 1]


def _ratio(wide: pd.DataFrame, name: str, other: str, label: str) -> dict[str, object]:
    names = f"ratio_to_{label}", f"ratio_to_{label}_mcse"
    if other not in wide:
        return dict.fromkeys(names)
    mine, theirs = _paired(wide, name, other)
    if mine.size < 2:
        return dict.fromkeys(names)
    log, error = log_ratio(mine, theirs)
    return dict(zip(names, (math.exp(log), math.exp(log) * error), strict=True))


def _tied(row: Mapping[str, object]) -> bool:
    ratio, error = row["ratio_to_best"], row["ratio_to_best_mcse"]
    return isinstance(ratio, float) and isinstance(error, float) and math.log(ratio) <= _TIE * error / ratio


def _share(p_values: pd.Series) -> float:
    known = p_values.dropna()
    return float((known < 0.05).mean()) if len(known) else math.nan


def _published() -> dict[tuple[str, str], float]:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        table = {row["simulation"]: row for row in csv.DictReader(file)}
    return {
        (design.name, name): float(value)
        for design in DESIGNS.values()
        if design.published
        for name, value in table[design.published].items()
        if name != "simulation"
    }


def _published_error(value: float) -> float:
    return value / math.sqrt(2.0 * _PUBLISHED_DRAWS)
