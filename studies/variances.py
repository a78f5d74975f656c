"""Coverage, width and power of conditional variances where noise is heteroskedastic (``make study-variances``).

Every draw's estimate and standard errors are stored in a work folder, so that a run can be stopped, continued and
extended; the summary of all that is there goes to ``studies/results``.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from benchmarks.machine import SINGLE_THREAD, append_rows, origin
from causal_spark.panel.conditional import CONDITIONING, ConditionalOptions, TimeScale
from causal_spark.panel.inference import ErrorBar
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates, Setting
from causal_spark.panel.summary import att
from causal_spark.panel.types import Penalties
from studies.designs import seed_of
from studies.noise import ANCHORS, DESIGNS, draw
from studies.runner import reported, run_all, stored_draws
from studies.variances_summary import write_summary

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
#: Rows of single draws; ignored by git.
WORK = ROOT / "artifacts" / "studies" / "variances"

STUDY_SEED = 20261125
#: Penalties of DWCP, which are not tuned here: moderate decay in time and between units, and no low-rank part, since
#: there are no factors.
PENALTIES = {"dwcp": Penalties(lambda_time=0.1, lambda_unit=0.5)}
#: DWCP fits every treated cell by itself, so that it gets fewer replicates than by default.
CONDITIONAL = {"dwcp": ConditionalOptions(replicates=100, starts=3)}
#: Draws of one task.
BATCH = 25


@dataclass(frozen=True, slots=True)
class Task:
    """Consecutive draws of one design for one estimator. draws: ``report`` or ``development``, disjoint sets."""

    design: str
    estimator: str
    draws: str
    first: int
    n: int


def run(task: Task) -> list[dict[str, object]]:
    """A row per draw: the estimate, its true variance, and standard error and degrees of freedom by variance."""
    return [run_draw(task, number) for number in range(task.first, task.first + task.n)]


def run_draw(task: Task, number: int) -> dict[str, object]:
    """One draw's row."""
    seed = seed_of(STUDY_SEED, task.draws, task.design, number)
    panel, variance = draw(DESIGNS[task.design], seed)
    definition = ESTIMATORS[task.estimator]
    options = definition.options()
    fit = definition.fit(panel, options, PENALTIES.get(task.estimator), seed)
    setting = Setting(panel, definition, options, fit, partial(seed_of, seed))
    replicates = Replicates(setting)
    row: dict[str, object] = {"draw": number, "true_variance": variance, "estimate": att(panel, fit)}
    for name in CONDITIONING:
        for scale in get_args(TimeScale) if name == "unit_time" else get_args(TimeScale)[:1]:
            chosen = replace(CONDITIONAL.get(task.estimator, ConditionalOptions()), time_scale=scale)
            found = VARIANCES[name].estimate(setting, chosen, replicates).att
            row |= _columns(f"{name}_direct" if scale == "direct" else name, found)
    return row


def _columns(name: str, bar: ErrorBar) -> dict[str, object]:
    return {f"{name}_std_error": bar.std_error, f"{name}_df": bar.df}


def store_of(draws: str, design: str, estimator: str) -> Path:
    """Where draws of a design are kept for an estimator."""
    return WORK / draws / estimator / f"{design}.csv"


def open_tasks(draws: str, estimator: str, designs: list[str], n: int) -> list[Task]:
    """Batches that are not stored yet, designs in turn, so that a run cut short has as many of each."""
    tasks = []
    done = {}
    for design in designs:
        done[design] = stored_draws(store_of(draws, design, estimator))
    for first in range(0, n, BATCH):
        size = min(BATCH, n - first)
        tasks += [
            Task(design, estimator, draws, first, size) for design in designs if first + size - 1 not in done[design]
        ]
    return tasks


def arguments_of(given: list[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.variances", description=__doc__)
    parser.add_argument("--estimator", default="did", choices=("did", "sdid", "dwcp"))
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), help="default: all for did, else the anchors")
    parser.add_argument("--draws", default="report", choices=("report", "development"))
    parser.add_argument("--n", type=int, help="draws per design; default: 8,000 for did, else 2,000")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    fast = arguments.estimator == "did"
    designs = arguments.designs or (list(DESIGNS) if fast else [design.name for design in ANCHORS])
    n = arguments.n or (8000 if fast else 2000)
    here = origin()
    tasks = [] if arguments.summary_only else open_tasks(arguments.draws, arguments.estimator, designs, n)
    for task, rows in reported(run_all(run_with_task, tasks, arguments.processes), len(tasks), "batches", 50):
        append_rows(
            store_of(task.draws, task.design, task.estimator), [row | {"commit": here["commit"]} for row in rows]
        )
    folder = RESULTS if arguments.draws == "report" else WORK / arguments.draws
    notes = here | {"command": "python -m studies.variances " + " ".join(given), "study_seed": STUDY_SEED}
    print(write_summary(WORK / arguments.draws, folder, notes))


def run_with_task(task: Task) -> tuple[Task, list[dict[str, object]]]:
    """The rows of a task, and the task itself."""
    return task, run(task)


if __name__ == "__main__":
    main(sys.argv[1:])
