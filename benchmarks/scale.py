"""Time and weigh many thousands of small panels through the job on local cores (``make bench-scale``)."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from benchmarks.machine import RESULTS, ROOT, SCRATCH, append_rows, origin
from benchmarks.spark_job import bare_session, run_job, submit

#: Estimator to the numbers of panels it is run on.
SIZES = {"did": (10_000, 100_000), "sdid": (2_000, 20_000)}


def main() -> None:
    """Run every size, and append a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimators", nargs="+", default=list(SIZES))
    parser.add_argument("--panels", nargs="+", type=int, help="in place of the usual numbers")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS / "scale.csv")
    options = parser.parse_args()
    stamp = origin()
    session = bare_session(options.cores)
    for estimator in options.estimators:
        before: tuple[int, float] | None = None
        for n_panels in options.panels or SIZES[estimator]:
            source = _input(n_panels, options.cores)
            run = run_job(SCRATCH / "scale", source, ["panel"], [estimator], options.cores)
            growth = "" if before is None else f"{run.wall / before[1] / (n_panels / before[0]):.3f}"
            before = (n_panels, run.wall)
            row = {
                "estimator": estimator,
                "panels": n_panels,
                "rows": n_panels * 400,
                "cores": options.cores,
                "bare_session_s": f"{session:.1f}",
                **run.phases(),
                "driver_peak_mib": f"{run.used.driver:.0f}",
                "panels_per_s": f"{n_panels / run.wall:.0f}",
                "growth_over_linear": growth,
            }
            append_rows(options.results, [row | stamp])
            print("\n".join(f"{name:>20} {value}" for name, value in row.items()), flush=True)
            shutil.rmtree(SCRATCH / "scale" / "tables")


def _input(n_panels: int, cores: int) -> Path:
    folder = SCRATCH / "scale" / f"input_{n_panels}"
    if not (folder / "_SUCCESS").exists():
        shutil.rmtree(folder, ignore_errors=True)
        submit([str(ROOT / "benchmarks" / "scale_input.py"), str(n_panels), str(folder)], cores)
    return folder


if __name__ == "__main__":
    main()
