"""From draws of the study of response curves to tables: RMSE and paired ratios, wrong priors, coverage, goals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

from benchmarks.machine import read_rows
from causal_spark.panel.comparison import log_ratio, rmse
from causal_spark.panel.types import Floats
from studies.curve_draws import METHODS, N_GRID, PRIORS, SIZES, make
from studies.dose_designs import DESIGNS

#: The predecessors that the published claim is about.
CLASSICS = ("unweighted", "gps", "ebct1", "permutation")
#: All that e2b has to stand beside; `e2b_free` is e2b without its network.
OTHERS = tuple(name for name in METHODS if not name.startswith("e2b"))
_OWN = "e2b"
_QUANTILE = float(ndtri(0.975))
#: A method that gives up more often than this has no RMSE that others could be compared with.
_MOST_DECLINED = 0.5


@dataclass(frozen=True, slots=True)
class Draws:
    """What is stored of a cell. rows: one per draw, as made by `studies.curve_draws.run`."""

    design: str
    n_rows: int
    method: str
    rows: pd.DataFrame


def stored(work: Path, kind: str) -> list[Draws]:
    """All cells of a kind, in the order of designs, sizes and methods."""
    paths = [path.relative_to(work / kind).with_suffix("").parts for path in (work / kind).glob("*/*/*.csv")]
    order = [*METHODS, *PRIORS]
    places = sorted(paths, key=lambda parts: (list(DESIGNS).index(parts[0]), int(parts[1]), order.index(parts[2])))
    return [
        Draws(
            design,
            int(n_rows),
            method,
            read_rows(work / kind / design / n_rows / f"{method}.csv").drop_duplicates("draw").set_index("draw"),
        )
        for design, n_rows, method in places
    ]


def _wide(cells: Iterable[Draws]) -> dict[tuple[str, int], pd.DataFrame]:
    """Draw by method, mean squared errors over the grid, for each design and size."""
    found: dict[tuple[str, int], dict[str, pd.Series]] = {}
    for cell in cells:
        found.setdefault((cell.design, cell.n_rows), {})[cell.method] = cell.rows["mse"].astype(float)
    return {key: pd.DataFrame(columns) for key, columns in found.items()}


def best_of(wide: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The smallest RMSE on the draws that all accept, of the methods that accept at least half of theirs.

    wide: (n_draws, n_methods) mean squared errors, NaN where declined.
    """
    reach = wide[wide[_OWN].notna()] if _OWN in wide else wide
    known = [name for name in names if name in reach and reach[name].notna().mean() >= _MOST_DECLINED]
    common = reach[known].dropna()
    return str(common.mean().idxmin()) if len(common) and known else None


def ratio(wide: pd.DataFrame, name: str, other: str | None) -> tuple[float, float, int]:
    """Ratio of two RMSEs on the draws that both accept, its Monte Carlo error by the delta method, and those draws."""
    if other is None or name not in wide or other not in wide:
        return math.nan, math.nan, 0
    both = np.sqrt(pd.DataFrame({"mine": wide[name], "theirs": wide[other]}).dropna().to_numpy(np.float64))
    if len(both) < 2:
        return math.nan, math.nan, len(both)
    log, error = log_ratio(both[:, 0], both[:, 1])
    return math.exp(log), math.exp(log) * error, len(both)


def _rmse(squares: pd.Series) -> tuple[float, float]:
    known = np.sqrt(squares.dropna().to_numpy(np.float64))
    return rmse(known) if len(known) > 1 else (math.nan, math.nan)


def accuracy(cells: Sequence[Draws]) -> pd.DataFrame:
    """One row per design, size and method that the first part has.

    rmse: root of the mean over draws of the mean squared error over the grid; ``mean_rmse`` the mean of the roots. Of
    the draws that a method accepts; ratios of those that both accept.
    """
    wide = _wide(cells)
    found = []
    for cell in (one for one in cells if one.method in METHODS and one.n_rows in SIZES):
        errors = wide[cell.design, cell.n_rows]
        known = errors[cell.method].dropna()
        value, error = _rmse(known)
        row: dict[str, object] = {"design": cell.design, "n_rows": cell.n_rows, "method": cell.method}
        row |= {"draws": len(known), "declined": len(cell.rows) - len(known), "rmse": value, "rmse_mcse": error}
        row["mean_rmse"] = float(np.sqrt(known).mean())
        references = {
            "best_classic": best_of(errors, CLASSICS),
            "best_other": best_of(errors, OTHERS),
            _OWN: _OWN,
        }
        for label, other in references.items():
            against, against_error, common = ratio(errors, cell.method, other)
            row |= {} if label == _OWN else {label: other}
            row |= {f"ratio_to_{label}": against, f"ratio_to_{label}_mcse": against_error}
            row[f"common_with_{label}"] = common
        row["effective_rows"] = float(cell.rows["effective_rows"].mean())
        row["not_converged"] = int(cell.rows["notices"].notna().sum())
        row["cpu_seconds_per_draw"] = float(cell.rows["seconds"].mean())
        found.append(row)
    return pd.DataFrame(found)


def consistency(cells: Sequence[Draws]) -> pd.DataFrame:
    """One row per design and size: e2b beside the best classic one there.

    ``rate``: power of the sample size with which e2b's RMSE changes, a line through the logarithms of all its sizes.
    """
    found = []
    for (design, n_rows), errors in sorted(_wide(cells).items(), key=lambda one: list(DESIGNS).index(one[0][0])):
        if _OWN not in errors:
            continue
        best = best_of(errors, CLASSICS)
        value, error = _rmse(errors[_OWN])
        other, other_error = (math.nan, math.nan) if best is None else _rmse(errors[best])
        against, against_error, _ = ratio(errors, _OWN, best)
        row: dict[str, object] = {"design": design, "n_rows": n_rows, "draws": int(errors[_OWN].notna().sum())}
        row |= {"rmse": value, "rmse_mcse": error, "best_classic": best}
        row |= {"best_classic_rmse": other, "best_classic_rmse_mcse": other_error}
        found.append(row | {"ratio_to_best_classic": against, "ratio_to_best_classic_mcse": against_error})
    table = pd.DataFrame(found)
    if table.empty:
        return table
    rates = pd.DataFrame([{"design": design} | _rate(part) for design, part in table.groupby("design")])
    return table.merge(rates, on="design", how="left")


def _rate(part: pd.DataFrame) -> dict[str, float]:
    """Slope of a least-squares line, and its error from the independent errors of the sizes."""
    if len(part) < 2:
        return {"rate": math.nan, "rate_mcse": math.nan}
    x = np.log(part["n_rows"].to_numpy(np.float64))
    value, error = part["rmse"].to_numpy(np.float64), part["rmse_mcse"].to_numpy(np.float64)
    shares = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    return {"rate": float(shares @ np.log(value)), "rate_mcse": float(np.sqrt(np.sum((shares * error / value) ** 2)))}


def priors(cells: Sequence[Draws]) -> pd.DataFrame:
    """One row per design and wrong prior: RMSE over that of the default, on the same draws."""
    wide = _wide(cells)
    found = []
    for cell in (one for one in cells if one.method in PRIORS):
        option, value = PRIORS[cell.method]
        against, error, draws = ratio(wide[cell.design, cell.n_rows], cell.method, _OWN)
        row: dict[str, object] = {"design": cell.design, "n_rows": cell.n_rows, "option": option, "value": value}
        row |= {"draws": draws, "declined": int(cell.rows["mse"].isna().sum())}
        row |= {"rmse": _rmse(cell.rows["mse"])[0], "ratio_to_default": against, "ratio_to_default_mcse": error}
        found.append(row)
    return pd.DataFrame(found)


def _columns(rows: pd.DataFrame, name: str) -> Floats:
    """(n_draws, n_grid) of the draws that were not declined."""
    return rows.loc[rows["declined"].isna(), [f"{name}_{k}" for k in range(N_GRID)]].to_numpy(np.float64)


def coverage_of(estimate: Floats, std_error: Floats, bias: Floats, truth: Floats) -> dict[str, float]:
    """Coverage of 95% intervals over draws and grid.

    estimate, std_error, bias: (n_draws, n_grid), the last of them the expected one; truth: (n_grid,). Draws are
    independent and the points of a curve are not, so that the Monte Carlo error is that of the draws' own shares of
    covered points. ``coverage_by_std_error``: without the expected bias. ``told_over_true``: mean standard error over
    the standard deviation of estimates, the mean over the grid; ``lowest_coverage``: of its worst point.
    """
    missed, error = np.abs(estimate - truth), np.hypot(std_error, bias)
    covered = missed <= _QUANTILE * error
    shares, spread = covered.mean(axis=1), estimate.std(axis=0, ddof=1)
    return {
        "coverage": float(shares.mean()),
        "coverage_mcse": float(shares.std(ddof=1)) / math.sqrt(len(shares)),
        "lowest_coverage": float(covered.mean(axis=0).min()),
        "coverage_by_std_error": float((missed <= _QUANTILE * std_error).mean()),
        "mean_width": float(2 * _QUANTILE * error.mean()),
        "told_over_true": float(np.mean(std_error.mean(axis=0) / spread)),
        "rms_expected_bias": float(np.sqrt(np.mean(bias**2))),
        "rms_bias": float(np.sqrt(np.mean((estimate.mean(axis=0) - truth) ** 2))),
        "rms_spread": float(np.sqrt(np.mean(spread**2))),
    }


def coverage(cells: Sequence[Draws]) -> pd.DataFrame:
    """One row per design and method, see `coverage_of`."""
    found = []
    for cell in cells:
        estimate, std_error, bias = (_columns(cell.rows, name) for name in ("estimate", "std_error", "bias"))
        row: dict[str, object] = {"design": cell.design, "n_rows": cell.n_rows, "method": cell.method}
        row |= {"draws": len(estimate), "declined": len(cell.rows) - len(estimate)}
        if len(estimate) > 1:
            truth = make("coverage", cell.design, cell.n_rows, 0).truth
            row |= coverage_of(estimate, std_error, bias, truth)
        found.append(row | {"cpu_seconds_per_draw": float(cell.rows["seconds"].mean())})
    return pd.DataFrame(found)


def retraining(cells: Sequence[Draws]) -> pd.DataFrame:
    """One row per design: standard errors of networks trained anew over those of the one that is kept.

    A draw's ratio is the mean over the grid; ``lowest`` and ``highest`` are of single draws.
    """
    found = []
    for cell in cells:
        ratios = (_columns(cell.rows, "anew") / _columns(cell.rows, "fixed")).mean(axis=1)
        row: dict[str, object] = {"design": cell.design, "n_rows": cell.n_rows, "draws": len(ratios)}
        row["declined"] = len(cell.rows) - len(ratios)
        if len(ratios) > 1:
            error = float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
            row |= {"anew_over_kept": float(ratios.mean()), "anew_over_kept_mcse": error}
            row |= {"lowest": float(ratios.min()), "highest": float(ratios.max())}
        found.append(row)
    return pd.DataFrame(found)


#: Largest ratio of e2b's RMSE to the best classic one's: below the published 27% and 38% where all classics are
#: misspecified, and next to nothing lost where one of them is right.
_AGAINST_CLASSICS = {"L1": 1.05, "L2": 0.73, "HI": 1.05, "VG": 0.62, "VC": 1.05}
_AGAINST_ALL = 1.05
_COVERAGE = (0.93, 0.97)


def goals(accuracy_table: pd.DataFrame, coverage_table: pd.DataFrame) -> pd.DataFrame:
    """One row per goal: what was wanted of e2b, what came out with its Monte Carlo error, and whether it was met."""
    found = []
    for design, most in _AGAINST_CLASSICS.items():
        for label, limit in (("best_classic", most), ("best_other", _AGAINST_ALL)):
            for n_rows, value, error in _of_e2b(accuracy_table, design, f"ratio_to_{label}"):
                found.append(_goal(f"RMSE over {label}", design, n_rows, value, error, 0.0, limit))
    for design in DESIGNS:
        for n_rows, value, error in _of_e2b(coverage_table, design, "coverage"):
            found.append(_goal("coverage", design, n_rows, value, error, *_COVERAGE))
    return pd.DataFrame(found)


def _of_e2b(table: pd.DataFrame, design: str, column: str) -> list[tuple[object, float, float]]:
    """Size, value and error wherever there is one; a single empty one where the study was not run."""
    if column in table:
        own = table[(table["design"] == design) & (table["method"] == _OWN)].dropna(subset=[column])
        if len(own):
            return list(zip(own["n_rows"], own[column], own[f"{column}_mcse"], strict=True))
    return [("", math.nan, math.nan)]


def _goal(
    name: str, design: str, n_rows: object, value: float, error: float, least: float, most: float
) -> dict[str, object]:
    verdict = "not run" if math.isnan(value) else "met" if least <= value <= most else "missed"
    wanted = f"at most {most:g}" if least == 0 else f"{least:g} to {most:g}"
    return {"goal": name, "design": design, "n_rows": n_rows, "wanted": wanted, "found": value, "mcse": error} | {
        "verdict": verdict
    }


def write_summary(work: Path, folder: Path, notes: Mapping[str, object]) -> str:
    """Write ``response_curves_*.csv`` of all draws kept, and how they came about. Returns the goals for people."""
    kinds = {kind: stored(work, kind) for kind in ("curves", "coverage", "retraining")}
    if not any(kinds.values()):
        raise SystemExit("There is nothing to summarise yet.")
    curves = kinds["curves"]
    tables = {
        "accuracy": accuracy(curves),
        "consistency": consistency(curves),
        "priors": priors(curves),
        "coverage": coverage(kinds["coverage"]),
        "retraining": retraining(kinds["retraining"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        if len(table):
            table.to_csv(folder / f"response_curves_{name}.csv", index=False, float_format="%.5g")
    commits = {
        kind: sorted({commit for one in cells for commit in one.rows["commit"]}) for kind, cells in kinds.items()
    }
    (folder / "response_curves_run.json").write_text(json.dumps({**notes, "commits": commits}, indent=1) + "\n")
    return goals(tables["accuracy"], tables["coverage"]).to_string(index=False, float_format="%.3f")
