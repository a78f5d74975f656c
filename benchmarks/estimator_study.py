"""The estimator study through the job, on one core and on more (``make bench-estimator-study``): draws per second.

Panels of 50 x 40 as in `benchmarks.throughput`, one design, a constant effect, the five classics; then with the placebo
variance of 100 re-estimates on every draw.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import RESULTS, SCRATCH, append_rows, origin
from benchmarks.spark_job import JobRun, run_job
from benchmarks.throughput import ESTIMATORS, write_panels

_VARIANCES: list[dict[str, object]] = [{"name": "placebo", "replicates": 100}]


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panels", type=int, default=8)
    parser.add_argument("--draws", type=int, default=400, help="of each panel without variances; with them a tenth")
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS / "estimator_study.csv")
    options = parser.parse_args()
    folder = SCRATCH / "estimator_study"
    source = write_panels(folder / "input", options.panels)
    stamp = origin()
    tried: list[tuple[list[dict[str, object]], int]] = [([], options.draws), (_VARIANCES, options.draws // 10)]
    for variances, draws in tried:
        alone: float | None = None
        for cores in options.cores:
            job = run_job(
                folder,
                source,
                ["panel"],
                ESTIMATORS,
                cores,
                job="estimator_study",
                more={"designs": ["calibrated"], "effects": ["constant"], "replicates": draws, "variances": variances},
            )
            row, seconds = columns(job, options.panels * draws * len(ESTIMATORS), cores)
            alone = seconds if cores == 1 else alone
            row |= {"speedup": f"{alone / seconds:.2f}" if alone else ""}
            described = {"panels": options.panels, "draws": draws, "estimators": len(ESTIMATORS), "cores": cores}
            named = {"variances": " ".join(f"{one['name']} {one['replicates']}" for one in variances)}
            append_rows(options.results, [described | named | row | job.phases() | stamp])
            print("\n".join(f"{name:>28} {value}" for name, value in row.items()), flush=True)


def columns(job: JobRun, n_estimates: int, cores: int) -> tuple[dict[str, object], float]:
    """Of the time in which draws are made, which no part of the session's start or of the tables is in; its seconds."""
    if job.packed is None or job.estimated is None:
        raise RuntimeError("The job's log does not say when it drew.")
    seconds = job.estimated - job.packed
    rate = n_estimates / seconds
    return {"draws_x_estimators_per_s": f"{rate:.1f}", "per_s_and_core": f"{rate / cores:.1f}"}, seconds


if __name__ == "__main__":
    main()
