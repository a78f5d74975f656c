"""Turns the rows of the DWCP benchmark into a page for people."""

from __future__ import annotations

import csv
from pathlib import Path

Row = dict[str, str]

OURS = "causal_spark"
PEERS = ("diff-diff", "trop")
#: Up to which a fit counts as the optimum: excess of the objective over its bound, as a share of the objective at
#: L = 0, and distance of the target's prediction in standard deviations. At small penalties the objective is so flat in
#: the target's prediction, as the target has no weight, that the first alone says little.
RIGHT, NEAR = 1e-4, 1e-3

_HEAD = f"""# DWCP

Written by `make bench-dwcp` from [dwcp.csv](dwcp.csv), do not edit. CPU seconds in one process on one thread, least
over runs. Penalties (lambda_time / lambda_unit / lambda_nn) are on outcomes in standard deviations of the control
cells, the same problem for all. `>`: cut off there, a lower bound. *Italic*: not the optimum of the problem the library
states, by more than {RIGHT:g} in the objective or {NEAR:g} standard deviations in a prediction (see below). Score:
every control cell left out once, 1,197 and 1,920 fits. Tuning: each library's own search at its defaults, with the
estimate; our race and block tuning stand beside the only tuning the others have."""

_EVIDENCE = """## Is it the optimum?

Three target cells of the first treated unit, the worst of them: the middle of the pre-period, its end, the first
treated. Excess: objective above a lower bound by duality, as a share of the objective at L = 0; bound: what that leaves
open for the best fit known. Cell: distance of the target's prediction from that fit's, in standard deviations. Score
off: relative distance from the score of predictions to 1e-6. ATT in standard deviations."""

_WHERE = "## When and where"


def write_report(results: Path) -> str:
    """Write ``results`` as Markdown beside it and return the text; of repeated measurements the last counts."""
    with results.open(newline="") as file:
        rows = {(row["panel"], row["task"], row["library"]): row for row in csv.DictReader(file)}
    tasks = sorted({key[:2] for key in rows}, key=lambda key: (key[0] != "Proposition 99", *_order(key[1]), key[1]))
    times, evidence = [], []
    for panel, task in tasks:
        ours = rows.get((panel, task, OURS))
        shown, ratios = [_seconds(ours)], []
        for peer in PEERS:
            # Only we have race and block tuning; what others do instead is their only tuning.
            theirs = rows.get((panel, "tuning-loocv" if task.startswith("tuning") else task, peer))
            shown.append(_seconds(theirs))
            ratios.append(_ratio(ours, theirs))
        times.append([panel, task.replace("-", " "), *shown, *ratios])
        for library in (OURS, *PEERS):
            row = rows.get((panel, task, library))
            if row is not None:
                chosen = "/".join(row[name] for name in ("lambda_time", "lambda_unit", "lambda_nn"))
                numbers = [row[name] for name in ("excess", "bound_gap", "cell_off", "score", "score_off", "att")]
                converged = {"True": "yes", "False": "no", "": ""}[row["converged"]]
                evidence.append([panel, task.replace("-", " "), library, chosen.strip("/"), *numbers, converged])
    head = ["", "", OURS, *PEERS, *(f"{peer} / ours" for peer in PEERS)]
    columns = ["", "", "library", "penalties", "excess", "bound", "cell", "score", "score off", "ATT", "converged"]
    text = "\n\n".join(
        (
            _HEAD,
            _table(head, times),
            _EVIDENCE,
            _table(columns, evidence),
            _WHERE,
            _table(["library", "version", "commit", "date", "load", "machine"], _origins(list(rows.values()))),
        )
    )
    results.with_suffix(".md").write_text(text + "\n")
    return text


def _order(task: str) -> tuple[bool, float]:
    """Scores before tuning, the easy before the hard."""
    return task.startswith("tuning"), -float(task.rpartition("/")[2]) if "/" in task else 0.0


def _seconds(row: Row | None) -> str:
    if row is None:
        return ""
    if row["note"] == "failed":
        return "failed"
    shown = f"> {float(row['at_least']):,.0f}" if row["at_least"] else f"{float(row['cpu_min']):,.3g}"
    wrong = row["excess"] and (float(row["excess"]) > RIGHT or float(row["cell_off"]) > NEAR)
    return f"*{shown}*" if wrong else shown


def _ratio(ours: Row | None, theirs: Row | None) -> str:
    if ours is None or theirs is None or not ours["cpu_min"] or not (theirs["cpu_min"] or theirs["at_least"]):
        return ""
    value = float(theirs["at_least"] or theirs["cpu_min"]) / float(ours["cpu_min"])
    return f"{'> ' if theirs['at_least'] else ''}{f'{value:,.0f}' if value >= 10 else f'{value:.2g}'}"


def _origins(rows: list[Row]) -> list[list[str]]:
    """One line per library and commit, with the first and last date and the range of loads."""
    lines = []
    for key in dict.fromkeys((row["library"], row["version"], row["commit"], row["machine"]) for row in rows):
        found = [row for row in rows if (row["library"], row["version"], row["commit"], row["machine"]) == key]
        dates, loads = sorted(row["date"] for row in found), sorted(float(row["load"]) for row in found)
        date = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines.append([*key[:3], date, f"{loads[0]:g} to {loads[-1]:g}", key[3]])
    return lines


def _table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))
