"""Many small panels through the job on local cores, against a plain loop in one process (``make bench-throughput``).

A list of sizes is run in order, and each appends a row. One panel shows the cold start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import RESULTS, ROOT, SCRATCH, SINGLE_THREAD, append_rows, origin
from benchmarks.panels import Size, generate
from benchmarks.spark_job import JobRun, bare_session, run_job

PANEL = Size(50, 40, 5, 10)
ESTIMATORS = ["did", "sc", "difp", "mc", "sdid"]
_PANELS_PER_FILE = 250


def main() -> None:
    """Run every size the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panels", nargs="+", type=int, default=[1, 1000, 4000])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--skip-loop", action="store_true", help="time the job only")
    parser.add_argument("--keep-tables", action="store_true", help="append to the tables of the last run")
    parser.add_argument("--results", type=Path, default=RESULTS / "throughput.csv")
    options = parser.parse_args()
    stamp = origin()
    session = bare_session(options.cores)
    before: tuple[int, float] | None = None
    for n_panels in options.panels:
        folder = SCRATCH / "throughput"
        source = write_panels(folder / f"input_{n_panels}", n_panels)
        job = run_job(folder, source, ["panel"], ESTIMATORS, options.cores, fresh=not options.keep_tables)
        row: dict[str, object] = {
            "panels": n_panels,
            "cores": options.cores,
            "tables": "there" if options.keep_tables else "new",
            "bare_session_s": f"{session:.1f}",
            **job.phases(),
        }
        loop = None if options.skip_loop else run_loop(folder, source)
        row |= _loop_columns(n_panels, job, loop, folder)
        # Against the size before, unless that was the single panel of the cold start.
        growth = before and n_panels > before[0] > 1 and (job.wall / before[1]) / (n_panels / before[0])
        row["growth_over_linear"] = f"{growth:.3f}" if growth else ""
        before = (n_panels, job.wall)
        append_rows(options.results, [row | stamp])
        print("\n".join(f"{name:>20} {value}" for name, value in row.items()), flush=True)


def write_panels(folder: Path, n_panels: int) -> Path:
    """The long table of panels 0, 1, ..., each generated from its number; written once, a file per 250 panels."""
    finished = folder / "_SUCCESS"
    if finished.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    units, periods = (axis.ravel().astype(np.int64) for axis in np.indices((PANEL.n_units, PANEL.n_periods)))
    treated = (units >= PANEL.n_units - PANEL.n_treated) & (periods >= PANEL.n_periods - PANEL.n_post)
    for first in range(0, n_panels, _PANELS_PER_FILE):
        parts = [
            pd.DataFrame(
                {
                    "panel": seed,
                    "unit": units,
                    "period": periods,
                    "outcome": generate(PANEL, seed)[0].ravel(),
                    "treated": treated.astype(np.int32),
                }
            )
            for seed in range(first, min(first + _PANELS_PER_FILE, n_panels))
        ]
        pd.concat(parts).to_parquet(folder / f"part-{first:06d}.parquet", index=False)
    finished.touch()
    return folder


def run_loop(folder: Path, source: Path) -> dict[str, float]:
    """Seconds of the plain loop: in all (with Python's start and imports), reading, looping."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.plain_loop", str(source), str(folder / "loop.parquet"), *ESTIMATORS]
    done = subprocess.run(  # noqa: S603
        command,
        cwd=ROOT,
        env=os.environ | SINGLE_THREAD,
        check=True,
        capture_output=True,
        text=True,
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer | {"wall": time.perf_counter() - began}


def _loop_columns(n_panels: int, job: JobRun, loop: dict[str, float] | None, folder: Path) -> dict[str, object]:
    if loop is None:
        return dict.fromkeys(("loop_s", "loop_read_s", "throughput_ratio", "difference", "mc_difference"), "")
    difference, mc_difference = largest_differences(n_panels, folder)
    return {
        "loop_s": f"{loop['wall']:.1f}",
        "loop_read_s": f"{loop['read']:.1f}",
        "throughput_ratio": f"{loop['wall'] / job.wall:.3f}",
        "difference": f"{difference:.1e}",
        "mc_difference": f"{mc_difference:.1e}",
    }


def largest_differences(n_panels: int, folder: Path) -> tuple[float, float]:
    """Of the job's estimates from the loop's: without mc, and of mc, whose folds the job draws with other seeds.

    Raises RuntimeError unless both have every estimate of every panel.
    """
    from deltalake import DeltaTable

    keys = ["panel", "estimator"]
    table = DeltaTable(str(folder / "tables" / "panel_effects")).to_pandas()
    newest = table["run_id"] == table["run_id"].max()
    job = table.loc[newest, [*keys, "estimate"]]
    both = job.merge(pd.read_parquet(folder / "loop.parquet"), on=keys, suffixes=("_job", "_loop"))
    if not len(job) == len(both) == n_panels * len(ESTIMATORS):
        raise RuntimeError(f"{len(job)} estimates in the job's table, {len(both)} of them in the loop's as well.")
    apart = (both["estimate_job"] - both["estimate_loop"]).abs()
    return float(apart[both["estimator"] != "mc"].max()), float(apart[both["estimator"] == "mc"].max())


if __name__ == "__main__":
    main()
