"""Accuracy and coverage of response curves beside the true ones (``make study-response-curves``).

Rows of single draws are stored in a work folder, so that a run can be stopped, continued and extended; the summary of
all that is there goes to ``studies/results``. See `studies.curve_draws` for draws and methods.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.machine import SINGLE_THREAD, append_rows, origin
from studies.curve_draws import METHODS, PRIORS, SIZES, STUDY_SEED, Cell, Task, is_stacked, run
from studies.dose_designs import DESIGNS
from studies.response_curves_summary import CLASSICS, write_summary
from studies.runner import missing_batches, reported, run_all, stored_draws

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
#: Rows of single draws; ignored by git.
WORK = ROOT / "artifacts" / "studies" / "response_curves"

#: Draws of each cell.
PARTS = {"accuracy": 60, "consistency": 20, "misspecification": 40, "coverage": 500, "retraining": 6}
_MORE_SIZES = (500, 1000, 2000, 4000, 8000)
#: Draws of one task, and rows of those that are trained side by side.
BATCH = 20
_STACKED_ROWS = 20_000


def cells_of(part: str) -> list[Cell]:
    """What a part wants. Draws of the first three are of one kind: none is computed twice."""
    usual = SIZES[0]
    if part == "accuracy":
        return [Cell("curves", design, n, name) for n in SIZES for design in DESIGNS for name in METHODS]
    if part == "consistency":
        names = ("e2b", *CLASSICS)
        return [Cell("curves", design, n, name) for n in _MORE_SIZES for design in DESIGNS for name in names]
    if part == "misspecification":
        cells = [Cell("curves", design, usual, name) for design in DESIGNS for name in ("e2b", *PRIORS)]
        # The average curve of responses to a line is left to the line.
        return [one for one in cells if "curvature" not in one.method or DESIGNS[one.design].second_stage != "line"]
    if part == "coverage":
        return [Cell("coverage", design, usual, name) for design in DESIGNS for name in ("e2b", "unweighted", "ebct1")]
    return [Cell("retraining", design, usual, "e2b") for design in ("L1", "VG", "VC")]


def store_of(cell: Cell) -> Path:
    """Where a cell's draws are kept."""
    return WORK / cell.kind / cell.design / str(cell.n_rows) / f"{cell.method}.csv"


def batch_of(cell: Cell) -> int:
    """Draws of one task."""
    if cell.kind == "retraining":
        return 1
    return max(1, min(BATCH, _STACKED_ROWS // cell.n_rows)) if is_stacked(cell) else BATCH


def open_tasks(cells: Iterable[Cell], n: int) -> list[Task]:
    """What is not stored yet of n draws of each cell."""
    done = {cell: stored_draws(store_of(cell)) for cell in cells}
    return [Task(cell, numbers) for cell, numbers in missing_batches(done, n, batch_of)]


def arguments_of(given: list[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.response_curves", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *PRIORS], help="default: all that a part has")
    parser.add_argument("--rows", nargs="+", type=int, help="sizes of draws; default: all that a part has")
    defaults = ", ".join(f"{part} {n}" for part, n in PARTS.items())
    parser.add_argument("--n", type=int, help=f"draws of each cell; default: {defaults}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def wanted_cells(part: str, arguments: argparse.Namespace) -> list[Cell]:
    """Those of a part's cells that the command line names."""
    return [
        cell
        for cell in cells_of(part)
        if cell.design in arguments.designs
        and (arguments.methods is None or cell.method in arguments.methods)
        and (arguments.rows is None or cell.n_rows in arguments.rows)
    ]


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    here = origin()
    for part in [] if arguments.summary_only else arguments.part:
        tasks = open_tasks(wanted_cells(part, arguments), arguments.n or PARTS[part])
        done = run_all(run_with_task, tasks, arguments.processes)
        for task, rows in reported(done, len(tasks), f"batches of {part}", 10):
            append_rows(store_of(task.cell), [row | {"commit": here["commit"]} for row in rows])
    notes = here | {"command": "python -m studies.response_curves " + " ".join(given), "study_seed": STUDY_SEED}
    print(write_summary(WORK, RESULTS, notes))


def run_with_task(task: Task) -> tuple[Task, list[dict[str, object]]]:
    """The rows of a task, and the task itself."""
    return task, run(task)


if __name__ == "__main__":
    main(sys.argv[1:])
