"""DWCP on two real panels, one thread, ours beside the peers: time and optimality (``make bench-dwcp``).

Tasks: the leave-one-out score of a triple of penalties; tuning with the estimate. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dwcp_cases import DwcpCase, Triple
from benchmarks.dwcp_certify import excess, optimum
from benchmarks.dwcp_libraries import LIBRARIES, Ours
from benchmarks.dwcp_report import write_report
from benchmarks.machine import RESULTS, ROOT, SCRATCH, SINGLE_THREAD, append_rows, cpu_seconds, origin
from causal_spark.examples import load_example

OURS = "causal_spark"
#: Name -> source and outcome in the example table.
PANELS = {"Proposition 99": ("prop99", "packs_per_capita"), "CPS log wage": ("cps_placebo", "log_wage")}
TRIPLES: tuple[Triple, ...] = (
    (0.0, 0.0, math.inf),
    (0.25, 0.4, math.inf),
    (0.25, 0.4, 0.3),
    (0.25, 0.4, 0.011),
)
_EXACT = 1e-6


@dataclass(frozen=True)
class Task:
    """A score when ``triple`` is given, else tuning of the kind ``how`` and the estimate."""

    triple: Triple | None
    how: str = "loocv"

    @property
    def name(self) -> str:
        """Without commas and blanks, for the command line."""
        return f"tuning-{self.how}" if self.triple is None else f"score-{'/'.join(f'{p:g}' for p in self.triple)}"


TASKS = {task.name: task for task in (*map(Task, TRIPLES), *(Task(None, how) for how in ("loocv", "race", "block")))}


def main() -> None:
    """Measure what the command line asks for, append the rows, write the report anew and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=str(ROOT / ".venv-bench" / "bin" / "python"), help="python of the peers")
    parser.add_argument("--panels", nargs="+", choices=PANELS, default=list(PANELS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--score-limit", type=float, default=600.0, help="CPU seconds for one score")
    parser.add_argument("--tuning-limit", type=float, default=1800.0, help="CPU seconds for tuning and estimate")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of runs after which no other is started")
    parser.add_argument("--results", type=Path, default=RESULTS / "dwcp.csv")
    options = parser.parse_args()
    for panel in options.panels:
        for name in options.tasks:
            for library in options.libraries:
                task = TASKS[name]
                if library != OURS and task.how != "loocv":
                    continue
                row = {"panel": panel, "task": name, "library": library} | measure(panel, task, library, options)
                print(" ".join(f"{column}={value}" for column, value in row.items() if value != ""), flush=True)
                append_rows(options.results, [row])
    print(write_report(options.results))


def measure(panel: str, task: Task, library: str, options: argparse.Namespace) -> dict[str, object]:
    """One row but for its key: seconds, answer, verdict, and where and when."""
    stamp = origin()
    path, case = _saved(panel)
    solution = SCRATCH / "dwcp" / f"{path.stem}_{task.name.replace('/', '_')}_{library}.npz"
    solution.unlink(missing_ok=True)
    request = {
        "library": library,
        "panel": str(path),
        "triple": task.triple,
        "how": task.how,
        "solution": str(solution),
        "runs": options.runs,
        "budget": options.budget,
    }
    scorings = LIBRARIES[library].scorings if task.triple else 1
    limit = options.tuning_limit if task.triple is None else options.score_limit
    python = sys.executable if library == OURS else options.peers
    times, answer, used = _watch(
        [python, str(ROOT / "benchmarks" / "dwcp_worker.py"), json.dumps(request)], limit * scorings
    )
    row: dict[str, object] = {}
    for clock in ("cpu", "wall"):
        seconds = [one[clock] for one in times]
        row[f"{clock}_min"] = f"{min(seconds):.4g}" if seconds else ""
        row[f"{clock}_median"] = f"{statistics.median(seconds):.4g}" if seconds else ""
    row |= {
        "runs": len(times),
        "at_least": f"{used / scorings:.4g}" if answer is None and used > limit * scorings else "",
    }
    row["note"] = "" if answer else "cut off" if row["at_least"] else "failed"
    row |= _verdict(panel, case, task, solution, answer or {})
    return row | {"version": "" if library == OURS else _pin(library)} | stamp


def _watch(command: list[str], limit: float) -> tuple[list[dict[str, float]], dict[str, Any] | None, float]:
    """Seconds of each run, the answer or None, and the CPU seconds used since the clock started."""
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | SINGLE_THREAD
    )
    assert process.stdout is not None  # noqa: S101
    times: list[dict[str, float]] = []
    answer, before, used = None, math.inf, 0.0
    try:
        while True:
            if not select.select([process.stdout], [], [], 0.5)[0]:
                used = cpu_seconds(process.pid) - before
                if used > limit:
                    break
                continue
            line = process.stdout.readline()
            if not line:
                break
            told = json.loads(line)
            if "ready" in told:
                before = cpu_seconds(process.pid)
            elif "cpu" in told:
                times.append(told)
            else:
                answer = told
    finally:
        process.kill()
        process.wait()
    return times, answer, used


def _verdict(panel: str, case: DwcpCase, task: Task, solution: Path, answer: dict[str, Any]) -> dict[str, object]:
    """The answer and how far it is from the optimum; blank where a library has or shows no such thing."""
    triple = task.triple or (tuple(answer["triple"]) if answer.get("triple") else None)
    row: dict[str, object] = dict.fromkeys(
        ("score", "score_off", "excess", "bound_gap", "cell_off", "att", "lambda_time", "lambda_unit", "lambda_nn"), ""
    )
    if triple:
        row |= dict(zip(("lambda_time", "lambda_unit", "lambda_nn"), (f"{value:g}" for value in triple), strict=True))
    if answer.get("att") is not None:
        row["att"] = f"{answer['att']:.6g}"
    if answer.get("score") is not None:
        row["score"] = f"{answer['score']:.6g}"
        exact = _exact_score(panel, triple) if triple and triple[2] > 0 else None
        row["score_off"] = "" if exact is None else f"{abs(answer['score'] / exact - 1.0):.2g}"
    if triple and triple[2] > 0 and solution.exists():
        with np.load(solution) as arrays:
            fits = list(zip(arrays["predicted"], arrays["weights"], arrays["at_cell"], strict=True))
        over, gaps, off = [], [], []
        for (predicted, weights, at_cell), cell in zip(fits, case.judged_cells(), strict=True):
            best = optimum(case.outcome, weights, triple[2])
            over.append(excess(case.outcome, weights, predicted, triple[2], best))
            gaps.append(best.gap)
            off.append(abs(at_cell - best.predicted[cell]))
        row |= {"excess": f"{max(over):.2g}", "bound_gap": f"{max(gaps):.2g}", "cell_off": f"{max(off):.2g}"}
    row["converged"] = "" if answer.get("converged") is None else str(answer["converged"])
    return row


@cache
def _exact_score(panel: str, triple: Triple) -> float | None:
    """Ours with each prediction to 1e-6 standard deviations; None unless its certificate confirms it."""
    answer = Ours(_saved(panel)[1]).score(triple, cv_tolerance=_EXACT)
    return answer.score if answer.converged else None


def _pin(library: str) -> str:
    """The peer's version, as the environment of the peers pins it."""
    lines = (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{library}=="))


@cache
def _saved(panel: str) -> tuple[Path, DwcpCase]:
    """The file that workers read, and its content."""
    source, name = PANELS[panel]
    table = load_example("policies")
    table = table[(table["source"] == source) & (table["outcome_name"] == name)]
    wide = table.pivot_table(index="unit", columns="year", values=["outcome", "treated"])
    outcome, treated = wide["outcome"].to_numpy(float), wide["treated"].to_numpy() > 0
    controls = outcome[~treated]
    case = DwcpCase((outcome - controls.mean()) / controls.std(), treated)
    path = SCRATCH / "dwcp" / f"{panel.replace(' ', '_')}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, outcome=case.outcome, treated=case.treated)
    return path, case


if __name__ == "__main__":
    main()
