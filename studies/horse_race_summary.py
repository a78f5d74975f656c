"""From errors draw by draw to tables: RMSE beside the published, paired ratios, means over designs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from causal_spark.panel.comparison import compare, ratio, rmse
from studies.designs import DESIGNS, SHAPES

REFERENCE = "sdid"
_HERE = Path(__file__).resolve().parent
# Published root mean squared errors of the same simulations, 1,000 draws: Arkhangelsky, Athey, Hirshberg, Imbens,
# Wager, "Synthetic Difference-in-Differences", AER 2021, tables 2 and 3, from the authors' stored results.
PUBLISHED = _HERE / "published_rmse.csv"
_PUBLISHED_DRAWS = 1000
# RMSE over that of DWCP: Athey, Imbens, Qu, Viviano, "Triply Robust Panel Estimators" (2025), table 1. There penalties
# are fixed per design, and DWCP assumes a constant effect, so that its column is beside ``dwcp_constant`` here; its
# column sdid squares the weights.
PUBLISHED_DWCP = _HERE / "published_normalised_rmse.csv"


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per design, shape and estimator.

    rows: as stored by `studies.horse_race`. RMSE and bias are of all draws that an estimator has; places and ratios of
    the draws that all have. ``best_or_tied``: see `causal_spark.panel.comparison.Accuracy`.
    """
    found = []
    published, relative = _published(PUBLISHED, "simulation"), _published(PUBLISHED_DWCP, "design")
    for design in [name for name in DESIGNS if name in set(rows["design"])]:
        part = rows[rows["design"] == design]
        for shape in SHAPES:
            wide = part.pivot_table(index="draw", columns="estimator", values=shape, sort=False)
            errors = {str(name): wide[name].to_numpy(np.float64) for name in wide.columns}
            everybody = part.groupby("draw")["estimator"].nunique().reindex(wide.index) == len(errors)
            common = {name: one[everybody.to_numpy()] for name, one in errors.items()}
            for name, one in compare(common).items():
                own = part[part["estimator"] == name]
                all_of_it = errors[name][np.isfinite(errors[name])]
                value, error = rmse(all_of_it)
                to_reference = ratio(common[name], common[REFERENCE]) if REFERENCE in common else (math.nan,) * 2
                known = published.get((str(DESIGNS[design].published), name))
                found.append(
                    {
                        "design": design,
                        "shape": shape,
                        "estimator": name,
                        "n": all_of_it.size,
                        "declined": int(own[shape].isna().sum()),
                        "rmse": value,
                        "rmse_mc_error": error,
                        "bias": float(all_of_it.mean()),
                        "bias_mc_error": float(all_of_it.std(ddof=1)) / math.sqrt(all_of_it.size),
                        "n_common": one.n,
                        "normalised_rmse": one.normalised_rmse,
                        "normalised_rmse_mc_error": one.normalised_rmse_mc_error,
                        "place": one.place,
                        "best_or_tied": one.tied,
                        "ratio_to_sdid": to_reference[0] if name != REFERENCE else 1.0,
                        "ratio_to_sdid_mc_error": to_reference[1] if name != REFERENCE else 0.0,
                        "constancy_rejected": _share(own["p_value"]),
                        "constancy_weight": float(own[f"weight_{shape}"].mean()),
                        "cpu_seconds_per_draw": float(own["seconds"].mean()),
                        "published_rmse": known,
                        "published_z": None if known is None else (value - known) / math.hypot(error, _error(known)),
                        "published_over_dwcp": relative.get((str(DESIGNS[design].published_dwcp), _dwcp(name))),
                    }
                )
    return pd.DataFrame(found)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """One row per shape and estimator: geometric mean over designs of the ratio to SDID, worst design, places.

    table: of `cells`. Designs are drawn independently, so variances of log ratios add up.
    """
    found = []
    for (shape, name), part in table.dropna(subset=["ratio_to_sdid"]).groupby(["shape", "estimator"], sort=False):
        worst = part.loc[part["ratio_to_sdid"].idxmax()]
        mean = math.exp(float(np.log(part["ratio_to_sdid"]).mean()))
        errors = part["ratio_to_sdid_mc_error"] / part["ratio_to_sdid"]
        found.append(
            {
                "shape": shape,
                "estimator": name,
                "designs": len(part),
                "fewest_draws": int(part["n_common"].min()),
                "ratio_to_sdid": mean,
                "ratio_to_sdid_mc_error": mean * math.sqrt(float((errors**2).sum())) / len(part),
                "worst_ratio": float(worst["ratio_to_sdid"]),
                "worst_ratio_mc_error": float(worst["ratio_to_sdid_mc_error"]),
                "worst_design": worst["design"],
                "best": int((part["place"] == 1).sum()),
                "best_or_tied": int(part["best_or_tied"].sum()),
                "constancy_rejected": float(part["constancy_rejected"].mean()),
                "constancy_weight": float(part["constancy_weight"].mean()),
                "cpu_seconds_per_draw": float(part["cpu_seconds_per_draw"].mean()),
            }
        )
    return pd.DataFrame(found)


def write_summary(rows: pd.DataFrame, folder: Path, notes: Mapping[str, str]) -> str:
    """Write ``horse_race.csv``, ``horse_race_means.csv`` and ``horse_race_run.json`` to ``folder``; means as text.

    notes: where and how this run was made; commits of all rows are added to it.
    """
    table = cells(rows)
    if table.empty:
        return "Nothing can be compared yet: no design has two draws of all its estimators."
    over = means(table)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "horse_race.csv", index=False, float_format="%.5g")
    over.to_csv(folder / "horse_race_means.csv", index=False, float_format="%.5g")
    z = table.loc[table["shape"] == next(iter(SHAPES)), "published_z"].dropna().astype(float)
    run = dict(notes) | {
        "draws_per_design": {str(name): int(n) for name, n in table.groupby("estimator")["n"].min().items()},
        "draws_made_at_commit": sorted(set(rows["commit"])),
        "compared_with_published": len(z),
        "beyond_three_standard_errors": int((z.abs() > 3).sum()),
        "cpu_hours": round(float(rows["seconds"].sum()) / 3600, 2),
    }
    (folder / "horse_race_run.json").write_text(json.dumps(run, indent=1) + "\n")
    return over.to_string(index=False, float_format="%.3f") + "\n" + json.dumps(run)


def _share(p_values: pd.Series) -> float:
    known = p_values.dropna()
    return float((known < 0.05).mean()) if len(known) else math.nan


def _dwcp(name: str) -> str:
    return "dwcp" if name == "dwcp_constant" else "" if name == "dwcp" else name


def _published(path: Path, key: str) -> dict[tuple[str, str], float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row[key], name): float(value) for row in csv.DictReader(file) for name, value in row.items() if name != key
        }


def _error(value: float) -> float:
    return value / math.sqrt(2.0 * _PUBLISHED_DRAWS)
