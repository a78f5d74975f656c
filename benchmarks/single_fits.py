"""Single fits, one thread, ours beside the peers: time and whether the answer is the optimum (``make bench``).

Libraries take turns on the same panels, each in a process of its own, because the peers need another numpy than we do
and because whatever else the machine does then hits all alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Solution
from benchmarks.certify import Verdict, judge
from benchmarks.libraries import LIBRARIES
from benchmarks.machine import RESULTS, ROOT, SCRATCH, SINGLE_THREAD, append_rows, cpu_seconds, origin
from benchmarks.panels import Size, generate
from benchmarks.report import write_report

SIZES = {
    size.name.replace(" ", ""): size for size in (Size(50, 40, 5, 10), Size(200, 100, 10, 20), Size(1000, 200, 20, 40))
}
ESTIMATORS = ("did", "sc", "difp", "sdid", "mc")
OURS = "causal_spark"


class Worker:
    """A library's process; started when first asked, and again after it was cut off."""

    def __init__(self, library: str, python: str) -> None:
        self.library, self.python = library, python
        self.process: subprocess.Popen[str] | None = None

    def fit(self, request: dict[str, str | None], limit: float) -> dict[str, float] | str:
        """The seconds of one fit, or why there are none."""
        if self.process is None:
            self.process = subprocess.Popen(  # noqa: S603
                [self.python, str(ROOT / "benchmarks" / "fit_worker.py"), self.library],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | SINGLE_THREAD,
            )
        process = self.process
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        before = cpu_seconds(process.pid)
        while not select.select([process.stdout], [], [], 0.5)[0]:
            if cpu_seconds(process.pid) - before > limit:
                self.stop()
                return f"more than {limit:.0f} s"
        # The seconds, then, once the solution is taken apart, a line to say so.
        lines = [process.stdout.readline(), process.stdout.readline()]
        if not all(lines):
            self.stop()
            return "failed"
        answer: dict[str, float] = json.loads(lines[0])
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def measure(
    workers: dict[str, Worker],
    estimator: str,
    panel: Path,
    runs: int,
    limit: float,
    budget: float,
) -> dict[str, list[dict[str, float]] | str]:
    """Seconds of each run of each library that has the estimator, libraries taking turns.

    The first answer's solution is kept beside the panel. A library that has used ``budget`` seconds sits out the rest.
    """
    found: dict[str, list[dict[str, float]] | str] = {
        library: [] for library in workers if estimator in LIBRARIES[library][1]
    }
    for run, library in itertools.product(range(runs), list(found)):
        times = found[library]
        if isinstance(times, str) or (run >= 2 and sum(one["wall"] for one in times) > budget):
            continue
        solution = str(_solution(panel, library, estimator)) if run == 0 else None
        request = {"panel": str(panel), "estimator": estimator, "solution": solution}
        answer = workers[library].fit(request, limit)
        if isinstance(answer, str):
            found[library] = answer
        else:
            times.append(answer)
    return found


def rows_of(
    size: Size, seed: int, estimator: str, panel: Path, untreated: np.ndarray[Any, Any], found: dict[str, Any]
) -> list[dict[str, object]]:
    """One row per library."""
    with np.load(panel) as arrays:
        case = Case(arrays["outcome"], size.n_treated, size.n_post)
    rows = []
    for library, times in found.items():
        row: dict[str, object] = {"size": size.name, "seed": seed, "estimator": estimator, "library": library}
        done = not isinstance(times, str)
        for clock in ("cpu", "wall"):
            seconds = [one[clock] for one in times] if done else []
            row[f"{clock}_min"] = f"{min(seconds):.3g}" if done else ""
            row[f"{clock}_median"] = f"{statistics.median(seconds):.3g}" if done else ""
        row |= {"runs": len(times) if done else 0, "att": ""}
        verdict = Verdict()
        if done:
            with np.load(_solution(panel, library, estimator)) as arrays:
                seen: dict[str, Any] = {name: arrays[name] for name in arrays.files}
            solution = Solution(**(seen | {"att": float(seen["att"])}))
            row["att"] = f"{solution.att:.8g}"
            verdict = judge(library, estimator, case, untreated, solution)
        row |= {name: "" if value is None else f"{value:.3g}" for name, value in asdict(verdict).items()}
        rows.append(row | {"note": "" if done else times})
    return rows


def main() -> None:
    """Measure what the command line asks for, append the rows and write the report anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=str(ROOT / ".venv-bench" / "bin" / "python"), help="python of the peers")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="one panel each")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--limit", type=float, default=200.0, help="CPU seconds after which a fit is cut off")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of runs after which two runs are enough")
    parser.add_argument("--results", type=Path, default=RESULTS / "single_fits.csv")
    options = parser.parse_args()
    folder = SCRATCH / "single_fits"
    folder.mkdir(parents=True, exist_ok=True)
    workers = {
        library: Worker(library, sys.executable if library == OURS else options.peers) for library in options.libraries
    }
    stamp = origin()
    try:
        # Imports and first calls are nobody's fitting time.
        _, warm = save_panel(folder, SIZES["50x40"], 0)
        for estimator in options.estimators:
            measure(workers, estimator, warm, 1, options.limit, 0.0)
        for name, estimator in itertools.product(options.sizes, options.estimators):
            # Who was cut off on one panel is not asked about the next of its size.
            able = dict(workers)
            for seed in options.seeds:
                untreated, panel = save_panel(folder, SIZES[name], seed)
                found = measure(able, estimator, panel, options.runs, options.limit, options.budget)
                able = {library: worker for library, worker in able.items() if not isinstance(found.get(library), str)}
                rows = rows_of(SIZES[name], seed, estimator, panel, untreated, found)
                for row in rows:
                    print(" ".join(f"{row[column]!s:>12}" for column in list(row)[:10]), row["note"], flush=True)
                append_rows(options.results, [row | stamp for row in rows])
    finally:
        for worker in workers.values():
            worker.stop()
    write_report(options.results)


def save_panel(folder: Path, size: Size, seed: int) -> tuple[np.ndarray[Any, Any], Path]:
    """The noise-free untreated outcomes and the file that workers read."""
    outcome, untreated = generate(size, seed)
    path = folder / f"{size.n_units}x{size.n_periods}_{seed}.npz"
    np.savez(path, outcome=outcome, n_treated=size.n_treated, n_post=size.n_post)
    return untreated, path


def _solution(panel: Path, library: str, estimator: str) -> Path:
    return panel.with_name(f"{panel.stem}_{library}_{estimator}.npz")


if __name__ == "__main__":
    main()
