"""Accuracy and coverage of effects of several treatments on single rows (``make study-individual-effects``).

Rows of single draws are appended to a file that is committed beside the summary: a run can be stopped, continued and
extended, on other machines too. See `studies.arm_draws` for draws and methods.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.machine import SINGLE_THREAD, append_rows, origin, read_rows
from studies.arm_designs import ARM_DESIGNS
from studies.arm_draws import N_ARMS, STUDY_SEED, Task, run
from studies.individual_effects_summary import write_summary
from studies.runner import missing_batches, reported, run_all

RESULTS = Path(__file__).resolve().parent / "results"
DRAWS = RESULTS / "individual_effects_draws.csv"
N_DRAWS = 30


def open_tasks(designs: Sequence[str], arms: Sequence[int], draws: range, store: Path) -> list[Task]:
    """What is not stored yet, one draw of each design after the other."""
    done: dict[tuple[str, int], set[int]] = {(design, n_arms): set() for design in designs for n_arms in arms}
    if store.is_file():
        known = read_rows(store)
        for design, n_arms, draw in zip(known["design"], known["n_arms"], known["draw"], strict=True):
            done.get((str(design), int(n_arms)), set()).add(int(draw))
    batches = missing_batches(done, draws.stop, lambda _: 1)
    return [Task(*cell, numbers[0]) for cell, numbers in batches if numbers[0] in draws]


def arguments_of(given: list[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.individual_effects", description=__doc__)
    parser.add_argument("--designs", nargs="+", choices=list(ARM_DESIGNS), default=list(ARM_DESIGNS))
    parser.add_argument("--arms", nargs="+", type=int, choices=N_ARMS, default=list(N_ARMS))
    parser.add_argument("--n", type=int, default=N_DRAWS, help="draws of each cell")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--store", type=Path, default=DRAWS, help="file of single draws")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draws-only", action="store_true", help="no summary")
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def run_with_origin(task: Task, here: Mapping[str, str]) -> list[dict[str, object]]:
    """The rows of a task, and where they come from."""
    return [row | {"commit": here["commit"], "machine": here["machine"]} for row in run(task)]


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    if not arguments.summary_only:
        draws = range(arguments.first, arguments.first + arguments.n)
        tasks = open_tasks(arguments.designs, arguments.arms, draws, arguments.store)
        # Code is loaded now, whatever is committed while it runs.
        done = run_all(partial(run_with_origin, here=origin()), tasks, arguments.processes)
        for rows in reported(done, len(tasks), "draws", 10):
            append_rows(arguments.store, rows)
    if not arguments.draws_only:
        notes = origin() | {"command": "python -m studies.individual_effects", "study_seed": STUDY_SEED}
        print(write_summary(arguments.store, RESULTS, notes))


if __name__ == "__main__":
    main(sys.argv[1:])
