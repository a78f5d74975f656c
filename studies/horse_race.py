"""The horse race: who errs least on panels like real ones whose effect is known (``make horse-race``).

Every design of `studies.designs`, 1,000 draws for the classics and 200 of the same draws for the versions of DWCP, each
tuned anew on each drawn panel and on nothing else. Errors of the ATT are stored draw by draw, so that a run can be
stopped, continued and extended; the summary of all that is there goes to ``studies/results``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.machine import SINGLE_THREAD, append_rows, origin, read_rows
from causal_spark.errors import GroupError
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.shaped import shaped_estimates
from studies.designs import DESIGNS, SHAPES, draw, seed_of
from studies.horse_race_summary import write_summary
from studies.runner import missing_batches, reported, run_all

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
#: Rows of single draws of quick estimators, and of draws that are for development; ignored by git.
WORK = ROOT / "artifacts" / "studies" / "horse_race"

STUDY_SEED = 20261127
CLASSICS = ("did", "sc", "difp", "mc", "sdid")
#: Hours of work in all, so that their draws are committed.
SLOW = ("dwcp", "dwcp_constant", "dwcp_adaptive")
_CLASSIC_DRAWS, _SLOW_DRAWS = 1000, 200
#: Draws of one task.
_BATCH = dict.fromkeys(CLASSICS, 25)


@dataclass(frozen=True, slots=True)
class Task:
    """Draws of one design for one estimator. draws: ``report``, or another kind, which shares no seed with it."""

    draws: str
    design: str
    estimator: str
    numbers: tuple[int, ...]

    def seed(self, number: int) -> int:
        """Of the panel."""
        return seed_of(STUDY_SEED, self.draws, self.design, number)


def run(task: Task) -> list[dict[str, object]]:
    """A row per draw: the error of the ATT under each effect shape, in standard deviations; empty where declined.

    All estimators get the same panels and the same seeds. ``seconds`` are CPU seconds for all shapes together.
    """
    rows: list[dict[str, object]] = []
    definition = ESTIMATORS[task.estimator]
    for number in task.numbers:
        panel = draw(task.design, task.seed(number))
        effects = {name: shape(panel) for name, shape in SHAPES.items()}
        row: dict[str, object] = {"design": task.design, "estimator": task.estimator, "draw": number}
        start = time.process_time()
        try:
            found = shaped_estimates(
                panel, definition, definition.options(), seed_of(task.seed(number), "estimator") >> 32, effects
            )
        except GroupError as error:
            print(f"{task.estimator}, {task.design}, draw {number}: {error}", file=sys.stderr)
            found = {}
        seconds = time.process_time() - start
        row |= {shape: f"{found[shape].estimate:.5g}" if shape in found else "" for shape in SHAPES}
        first = found.get(next(iter(SHAPES)))
        row["p_value"] = "" if first is None or first.p_value is None else f"{first.p_value:.4g}"
        for shape in SHAPES:
            weight = found[shape].weight if shape in found else None
            row[f"weight_{shape}"] = "" if weight is None else f"{weight:.3g}"
        rows.append(row | {"seconds": f"{seconds:.3g}"})
    return rows


def store_of(draws: str, design: str, estimator: str) -> Path:
    """Where the rows of an estimator's draws of a design are kept."""
    if draws == "report" and estimator in SLOW:
        return RESULTS / "horse_race_draws" / f"{design}.csv"
    return WORK / draws / f"{design}.csv"


def stored(draws: str) -> pd.DataFrame:
    """All rows kept so far."""
    paths = {store_of(draws, design, name) for design in DESIGNS for name in (*CLASSICS, *SLOW)}
    parts = [read_rows(path) for path in sorted(paths) if path.is_file()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_tasks(arguments: argparse.Namespace) -> list[Task]:
    """Draws that are not stored yet, designs in turn, so that a run cut short has as many of each."""
    for design in arguments.designs:
        for name in arguments.estimators:
            _mend(store_of(arguments.draws, design, name))
    cells = [(design, name) for design in arguments.designs for name in arguments.estimators]
    done: dict[tuple[str, str], set[int]] = {cell: set() for cell in cells}
    known = stored(arguments.draws)
    for (design, name), part in known.groupby(["design", "estimator"]) if len(known) else ():
        if (design, name) in done:
            done[str(design), str(name)] = set(part["draw"])
    tasks: list[Task] = []
    for names, n in ((CLASSICS, arguments.n_classic), (SLOW, arguments.n)):
        mine = {cell: numbers for cell, numbers in done.items() if cell[1] in names}
        batches = missing_batches(mine, n, lambda cell: _BATCH.get(cell[1], 1))
        tasks += [Task(arguments.draws, *cell, numbers) for cell, numbers in batches]
    return tasks


def _mend(path: Path) -> None:
    """Drop the last row of a file if a run was killed while it was written."""
    if path.is_file():
        whole, _, cut = path.read_text(encoding="utf-8").rpartition("\n")
        if cut:
            path.write_text(f"{whole}\n", encoding="utf-8")


def arguments_of(given: Sequence[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.horse_race", description=__doc__)
    everybody = [*CLASSICS, *SLOW]
    parser.add_argument("--estimators", nargs="+", default=everybody, choices=everybody)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--draws", default="report", help="a kind of draws; others than report share none with it")
    parser.add_argument("--n", type=int, default=_SLOW_DRAWS, help="draws per design of the versions of DWCP")
    parser.add_argument("--n-classic", type=int, default=_CLASSIC_DRAWS, help="and of the others")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    here = origin()
    tasks = [] if arguments.summary_only else open_tasks(arguments)
    for rows in reported(
        _kept(run_all(run, tasks, arguments.processes), arguments.draws, here), len(tasks), "tasks", 50
    ):
        del rows
    known = stored(arguments.draws)
    if known.empty:
        raise SystemExit("There is nothing to summarise yet.")
    folder = RESULTS if arguments.draws == "report" else WORK / arguments.draws
    notes = here | {"command": "python -m studies.horse_race " + " ".join(given), "study_seed": str(STUDY_SEED)}
    print(write_summary(known, folder, notes))


def _kept(
    results: Iterator[list[dict[str, object]]], draws: str, here: dict[str, str]
) -> Iterator[list[dict[str, object]]]:
    for rows in results:
        store = store_of(draws, str(rows[0]["design"]), str(rows[0]["estimator"]))
        append_rows(store, [row | {"commit": here["commit"]} for row in rows])
        yield rows


if __name__ == "__main__":
    main(sys.argv[1:])
