"""Turns the rows of single fits into a page for people."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean

import numpy as np
import scipy

Row = dict[str, str]

#: A certified excess over the optimum (as a share of the objective at equal weights or at L = 0) or, where a library
#: shows neither weights nor predictions, a distance of the ATT in standard deviations, up to which an answer counts as
#: the right optimum. Loose on purpose: what is compared with must not be lost to a digit nobody needs.
RIGHT = 1e-4
OURS = "causal_spark"


_HEAD = f"""# Single fits

Written by `make bench` from [single_fits.csv](single_fits.csv), do not edit. CPU milliseconds of one fit on one thread:
least over runs, mean over panels. *Italic*: not the optimum of the problem the library states, by more than {RIGHT:g}
(see below). The last column is the fastest right peer's time over ours: above 1 we are faster."""

_EVIDENCE = """## Is it the optimum?

Worst over sizes and panels. Gap: certified bound on the excess of the objective over its optimum, as a share of the
objective at equal weights (sc, difp, sdid: the larger of unit and time weights) or at L = 0 (mc). ATT: distance from
that of the optimum, in standard deviations of the control cells; for mc at the library's own penalty. Infeasible:
violation of the simplex. Path: RMSE of the predicted untreated path of the treated units' average against the truth
without noise, mean over panels, in standard deviations."""


def write_report(results: Path) -> None:
    """Write ``results`` as Markdown beside it; of repeated measurements the last counts."""
    with results.open(newline="") as file:
        latest = {(row["size"], row["seed"], row["estimator"], row["library"]): row for row in csv.DictReader(file)}
    rows = list(latest.values())
    libraries = [OURS, *sorted({row["library"] for row in rows} - {OURS})]
    sizes = sorted({row["size"] for row in rows}, key=lambda size: int(size.split(" x ")[0]))
    lines = [
        _HEAD,
        "",
        f"- Measured {_each(rows, 'date')} at commit {_each(rows, 'commit')} (`+`: with changes not committed)",
        f"- {_each(rows, 'machine')}; load average at the start {_each(rows, 'load')}",
        f"- Ours with numpy {np.__version__} and scipy {scipy.__version__}",
        f"- Peers: {', '.join(_pins())}",
    ]
    for size in sizes:
        lines += ["", f"## {size}", "", *_table(["", *libraries, "best peer / ours"], _timings(rows, size, libraries))]
    evidence = _table(["", "library", "gap", "ATT", "infeasible", "path"], _evidence(rows, libraries))
    results.with_suffix(".md").write_text("\n".join([*lines, "", _EVIDENCE, "", *evidence]) + "\n")


def is_right(row: Row) -> bool:
    """Whether the answer counts as the optimum."""
    gaps = [float(row[name]) for name in ("unit_gap", "time_gap", "nn_gap") if row[name]]
    # Where optimal weights are not unique they leave the ATT open, so a known gap decides, unless it is half of one.
    if not gaps or (row["estimator"] == "sdid" and not row["time_gap"]):
        gaps += [float(row["att_off"])] if row["att_off"] else [np.inf]
    return max(gaps) <= RIGHT and float(row["infeasible"] or 0.0) <= RIGHT


def _timings(rows: list[Row], size: str, libraries: list[str]) -> list[list[str]]:
    table = []
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        cells, seconds, peers = [estimator], {}, []
        for library in libraries:
            found = [row for row in rows if _of(row, "size", "estimator", "library") == (size, estimator, library)]
            if not found:
                cells.append("")
            elif notes := [row["note"] for row in found if row["note"]]:
                cells.append(notes[0])
            else:
                seconds[library] = mean(float(row["cpu_min"]) for row in found)
                right = all(map(is_right, found))
                shown = _milliseconds(seconds[library])
                cells.append(shown if right else f"*{shown}*")
                peers += [seconds[library]] if right and library != OURS else []
        if len(cells) > 1 and any(cells[1:]):
            ratio = min(peers) / seconds[OURS] if peers and OURS in seconds else None
            table.append([*cells, "" if ratio is None else f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2g}"])
    return table


def _evidence(rows: list[Row], libraries: list[str]) -> list[list[str]]:
    table = []
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        for library in libraries:
            found = [row for row in rows if _of(row, "estimator", "library") == (estimator, library)]
            gap = _worst(found, "unit_gap", "time_gap", "nn_gap")
            path = [float(row["path_rmse"]) for row in found if row["path_rmse"]]
            cells = [gap, _worst(found, "att_off"), _worst(found, "infeasible"), f"{mean(path):.3f}" if path else ""]
            if any(cells):
                table.append([estimator, library, *cells])
    return table


def _of(row: Row, *names: str) -> tuple[str, ...]:
    return tuple(row[name] for name in names)


def _worst(rows: list[Row], *names: str) -> str:
    values = [float(row[name]) for row in rows for name in names if row[name]]
    return f"{max(values):.1e}" if values else ""


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.3g}"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def _each(rows: list[Row], name: str) -> str:
    return ", ".join(sorted({row[name] for row in rows}))


def _pins() -> list[str]:
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    return [line.replace("==", " ") for line in lines if not line.startswith("#")]
