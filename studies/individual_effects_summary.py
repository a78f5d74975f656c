"""From draws of the study of individual effects to tables: errors, paired ratios, coverage, goals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import read_rows
from causal_spark.panel.types import Floats
from studies.arm_designs import ARM_DESIGNS
from studies.arm_draws import PREDECESSORS, VARIANTS

_OWN = "memento"
_METHODS = (_OWN, *PREDECESSORS, "memento_networks", "memento_uncalibrated", *VARIANTS)
#: Standard errors by which a method may be above another and still count as no worse.
_TIE = 2.0
_WANTED_RATIO, _COVERAGE, _LEAST_COVERAGE = 0.9, (0.93, 0.97), 0.9
_COLUMNS = {"pehe": "root_pehe", "pehe_seen": "root_pehe_seen"}


def write_summary(store: Path, results: Path, notes: Mapping[str, object]) -> str:
    """Write ``individual_effects*.csv`` and ``individual_effects.json``, and tell the goals."""
    rows = read_rows(store).drop_duplicates(["design", "n_arms", "draw", "method"])
    for name, root in _COLUMNS.items():
        rows[root] = np.sqrt(rows[name])
    accuracy, coverage = accuracy_of(rows), coverage_of(rows)
    accuracy.to_csv(results / "individual_effects.csv", index=False, float_format="%.4f", lineterminator="\n")
    coverage.to_csv(results / "individual_effects_coverage.csv", index=False, float_format="%.4f", lineterminator="\n")
    goals = goals_of(rows, coverage)
    about = {
        **notes,
        "n_draws": int(rows[rows["method"] == _OWN].groupby(["design", "n_arms"]).size().min()),
        "machines": sorted(set(rows["machine"])),
        "commits": sorted(set(rows["commit"])),
        "goals": goals,
    }
    (results / "individual_effects.json").write_text(json.dumps(about, indent=2) + "\n")
    wide = accuracy.pivot_table(index=["design", "n_arms"], columns="method", values="root_pehe", sort=False)
    return wide.round(3).to_string() + "\n" + json.dumps(goals, indent=2)


def _cells(rows: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    cells = [(design, n_arms) for design in ARM_DESIGNS for n_arms in sorted(set(rows["n_arms"]))]
    parts = ((cell, rows[(rows["design"] == cell[0]) & (rows["n_arms"] == cell[1])]) for cell in cells)
    return [(cell, part) for cell, part in parts if len(part)]


def accuracy_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per design, arms and method: mean errors over draws, and their ratios to memento's on the same draws.

    ratio: geometric mean over draws of memento's error over the method's; log_ratio_error: Monte Carlo standard error
    of its logarithm.
    """
    found = []
    for (design, n_arms), part in _cells(rows):
        for method in _METHODS:
            own = part[part["method"] == method]
            if own.empty:
                continue
            row: dict[str, object] = {"design": design, "n_arms": n_arms, "method": method, "n": len(own)}
            for name in ("root_pehe", "root_pehe_seen", "ate_error"):
                row |= {name: own[name].mean(), f"{name}_mc_error": _error(own[name].to_numpy())}
            ratio, error = _paired(part, method, "root_pehe")
            row |= {"pehe_ratio": math.exp(ratio), "log_ratio_error": error}
            ratio, error = _paired(part, method, "ate_error")
            row |= {"ate_ratio": math.exp(ratio), "ate_log_ratio_error": error}
            found.append(row | {"seconds": own["seconds"].mean()})
    return pd.DataFrame(found)


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _paired(part: pd.DataFrame, method: str, name: str) -> tuple[float, float]:
    """Mean over draws of the logarithm of memento's error over the method's, and its Monte Carlo error."""
    wide = part[part["method"].isin([_OWN, method])].pivot_table(index="draw", columns="method", values=name).dropna()
    logs = np.log(wide[_OWN].to_numpy() / wide[method].to_numpy())
    return float(logs.mean()), _error(logs)


def coverage_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per design, arms and method: coverage of 95% intervals, in all and at least by arm and quartile."""
    found = []
    for (design, n_arms), part in _cells(rows):
        for method in _METHODS:
            own = part[part["method"] == method]
            if own.empty:
                continue
            cells = by_arm_and_quartile(own["covered"])
            places = np.unravel_index(int(cells.mean(axis=0).argmin()), cells.shape[1:])
            found.append(
                {
                    "design": design,
                    "n_arms": n_arms,
                    "method": method,
                    "coverage": own["coverage"].mean(),
                    "coverage_mc_error": _error(own["coverage"].to_numpy()),
                    "coverage_seen": own["coverage_seen"].mean(),
                    "least_coverage": cells.mean(axis=0).min(),
                    "least_mc_error": _error(cells[:, places[0], places[1]]),
                    "least_arm": int(places[0]) + 1,
                    "least_quartile": int(places[1]) + 1,
                    "n_below": int((cells.mean(axis=0) < _LEAST_COVERAGE).sum()),
                    "n_cells": int(cells[0].size),
                    "width": own["width"].mean(),
                    "spread_of_effects": own["spread"].mean(),
                }
            )
    return pd.DataFrame(found)


def by_arm_and_quartile(covered: Sequence[str] | pd.Series) -> Floats:
    """(n_draws, n_arms - 1, 4) shares covered."""
    return np.array([[list(map(float, arm.split())) for arm in one.split(";")] for one in covered])


def goals_of(rows: pd.DataFrame, coverage: pd.DataFrame) -> dict[str, object]:
    """What was aimed at and what was reached.

    The best predecessor of a cell is the one with the lowest mean logarithm of the error on the very draws, which
    favours predecessors.
    """
    own = coverage[coverage["method"] == _OWN]
    goals: dict[str, object] = {}
    for name, label in (("root_pehe", "pehe"), ("ate_error", "ate")):
        best = {}
        for (design, n_arms), part in _cells(rows):
            ratios = {method: _paired(part, method, name) for method in PREDECESSORS}
            method = max(ratios, key=lambda one: ratios[one][0])
            best[f"{design}, {n_arms} arms"] = (method, *ratios[method])
        logs = np.array([ratio for _, ratio, _ in best.values()])
        errors = np.array([error for *_, error in best.values()])
        above = [cell for cell, (_, ratio, error) in best.items() if ratio > _TIE * error]
        goals[label] = {
            "ratio to the best predecessor, geometric mean over cells": round(math.exp(logs.mean()), 4),
            "Monte Carlo error of its logarithm": round(float(np.sqrt((errors**2).sum()) / len(errors)), 4),
            "cells above the best predecessor by more than two Monte Carlo errors": above,
            "best predecessors": {
                cell: f"{method}: {math.exp(ratio):.3f} (log +- {error:.3f})"
                for cell, (method, ratio, error) in best.items()
            },
        }
    goals["pehe ratio wanted"] = _WANTED_RATIO
    inside = own["coverage"].between(*_COVERAGE)
    goals["coverage"] = {
        "cells with coverage from .93 to .97": f"{int(inside.sum())} of {len(own)}",
        "arms and quartiles of propensities covered at least 90%": (
            f"{int(own['n_cells'].sum() - own['n_below'].sum())} of {int(own['n_cells'].sum())}"
        ),
    }
    return goals
