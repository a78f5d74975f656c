"""Accuracy of the DWCP family beside the classics on simulated panels whose effect is known (``make study-dwcp``).

Errors of the ATT are stored draw by draw in a work folder, so that a run can be stopped, continued and extended by an
estimator; the summary of all that is there goes to ``studies/results``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.machine import SINGLE_THREAD, append_rows, origin, read_rows
from causal_spark.errors import GroupError
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.types import Panel
from studies.designs import DESIGNS, draw, seed_of, shapes, with_effect
from studies.runner import run_all
from studies.shortcuts import SHORTCUTS, Found, found_by
from studies.summary import write_summary

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
#: Rows of single draws; ignored by git.
WORK = ROOT / "artifacts" / "studies" / "dwcp"

STUDY_SEED = 20261124
NAMES = ("did", "sc", "difp", "mc", "sdid", "dwcp", "dwcp_constant", "dwcp_adaptive")
#: Their predictions read control cells only, so an effect of mean zero leaves the error of the ATT as it is, and one
#: fit serves all shapes.
READS_CONTROLS_ONLY = frozenset({"did", "sc", "difp", "mc", "sdid", "dwcp"})


@dataclass(frozen=True, slots=True)
class Task:
    """One draw of one design, and who is to estimate it. options: of each estimator, as keyword arguments."""

    design: str
    draws: str
    number: int
    estimators: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    anew: bool

    @property
    def seed(self) -> int:
        """Of the panel; tuning draws and reported draws share none."""
        return seed_of(STUDY_SEED, self.draws, self.design, self.number)


def run(task: Task) -> list[dict[str, object]]:
    """Rows of one draw: for every estimator and effect shape the error of the ATT, in standard deviations.

    All estimators get the same panel and the same seed. An estimator that declines a panel has an empty error.
    ``seconds`` are CPU seconds for all shapes of the draw together.
    """
    panel = draw(task.design, task.seed)
    seed = seed_of(task.seed, "estimator") >> 32
    rows: list[dict[str, object]] = []
    for name in task.estimators:
        options = ESTIMATORS[name].options(**task.options.get(name, {}))
        start = time.process_time()
        try:
            found = _of_shapes(name, panel, options, seed, task.anew)
        except GroupError as error:
            print(f"{name}, {task.design}, draw {task.number}: {error}", file=sys.stderr)
            found = dict.fromkeys(shapes(), Found())
        seconds = time.process_time() - start
        rows.extend(
            {
                "design": task.design,
                "draw": task.number,
                "shape": shape,
                "estimator": name,
                **asdict(what),
                "seconds": round(seconds, 4),
                "options": _text(task.options, name),
            }
            for shape, what in found.items()
        )
    return rows


def _of_shapes(name: str, panel: Panel, options: Any, seed: int, anew: bool) -> dict[str, Found]:
    """What an estimator finds at every effect shape."""
    if name in SHORTCUTS and not anew:
        return SHORTCUTS[name](panel, options, seed, shapes())
    found: dict[str, Found] = {}
    for shape, effect in shapes().items():
        shared = next(iter(found.values()), None) if name in READS_CONTROLS_ONLY and not anew else None
        if shared is None:
            affected = with_effect(panel, effect)
            shared = found_by(affected, ESTIMATORS[name].fit(affected, options, None, seed))
        found[shape] = shared
    return found


def _text(options: dict[str, dict[str, Any]], name: str) -> str:
    return json.dumps(options.get(name, {}), sort_keys=True)


def store_of(draws: str, design: str, estimator: str) -> Path:
    """Where the rows of an estimator's draws of a design are kept."""
    return WORK / draws / design / f"{estimator}.csv"


def stored(draws: str, designs: Iterable[str], estimators: Iterable[str]) -> pd.DataFrame:
    """All rows kept so far."""
    paths = [store_of(draws, design, name) for design in designs for name in estimators]
    parts = [read_rows(path) for path in paths if path.is_file()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def open_tasks(arguments: argparse.Namespace) -> list[Task]:
    """Draws that are not stored yet, designs in turn, so that a run cut short has as many of each.

    Raises SystemExit when stored rows were made with other options.
    """
    done: dict[tuple[str, str], set[int]] = {}
    for design in arguments.designs:
        for name in arguments.estimators:
            path = store_of(arguments.draws, design, name)
            if not path.is_file():
                continue
            rows = read_rows(path)
            if (rows["options"] != _text(arguments.options, name)).any():
                raise SystemExit(f"{path} holds draws with other options. Move it away, or pass the same options.")
            # A draw whose rows were cut off in the middle is not whole.
            whole = rows.groupby("draw")["shape"].nunique() == len(shapes())
            if not whole.all():
                rows = rows[rows["draw"].map(whole)]
                rows.to_csv(path, index=False)
            done[design, name] = set(rows["draw"])
    tasks = []
    for number in range(arguments.n):
        for design in arguments.designs:
            missing = tuple(name for name in arguments.estimators if number not in done.get((design, name), ()))
            if missing:
                tasks.append(Task(design, arguments.draws, number, missing, arguments.options, arguments.anew))
    return tasks


def keep(draws: str, rows: list[dict[str, object]], commit: str) -> None:
    """Add the rows of one draw to the files of their estimators."""
    for name in dict.fromkeys(str(row["estimator"]) for row in rows):
        own = [row | {"commit": commit} for row in rows if row["estimator"] == name]
        append_rows(store_of(draws, str(own[0]["design"]), name), own)


def arguments_of(given: list[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.dwcp", description=__doc__)
    parser.add_argument("--estimators", nargs="+", default=list(NAMES), choices=list(ESTIMATORS))
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--draws", default="report", choices=("report", "tuning"), help="which of two disjoint sets")
    parser.add_argument("--n", type=int, default=200, help="draws per design")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--options", type=json.loads, default={}, help='such as {"dwcp": {"tuning": "block"}}')
    parser.add_argument("--anew", action="store_true", help="run the whole estimator at every shape, no shortcuts")
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    here = origin()
    tasks = [] if arguments.summary_only else open_tasks(arguments)
    start, seconds = time.perf_counter(), dict.fromkeys(arguments.estimators, 0.0)
    counts = dict.fromkeys(arguments.estimators, 0)
    for k, rows in enumerate(run_all(run, tasks, arguments.processes), start=1):
        keep(arguments.draws, rows, here["commit"])
        for name in arguments.estimators:
            own = [row for row in rows if row["estimator"] == name]
            counts[name] += bool(own)
            seconds[name] += float(str(own[0]["seconds"])) if own else 0.0
        if k % 20 == 0 or k == len(tasks):
            per_draw = "  ".join(f"{name} {seconds[name] / counts[name]:.2f}" for name in counts if counts[name])
            print(
                f"{k}/{len(tasks)} draws, {time.perf_counter() - start:.0f} s; CPU s per draw: {per_draw}", flush=True
            )
    rows_kept = stored(arguments.draws, DESIGNS, NAMES)
    if rows_kept.empty:
        raise SystemExit("There is nothing to summarise yet.")
    folder = RESULTS if arguments.draws == "report" else WORK / arguments.draws
    run_notes = here | {
        "command": "python -m studies.dwcp " + " ".join(given),
        "study_seed": STUDY_SEED,
        "draws": arguments.draws,
    }
    print(write_summary(rows_kept, folder, run_notes))


if __name__ == "__main__":
    main(sys.argv[1:])
