"""All variances of synthetic DiD on many panels, beside a plain loop over synthdid-py's variance functions.

Both run in this process on one core, and CPU seconds are compared: ours for every panel, with event times and cells,
the loop on a sample of them. Panel k is 50 x 40 with 5 units treated in 10 periods and seed k.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import RESULTS, SINGLE_THREAD, append_rows, origin
from benchmarks.panels import Size, generate

SIZE = Size(50, 40, 5, 10)
METHODS = ("placebo", "jackknife", "bootstrap")
OURS = (*METHODS, "marginal", "unit", "time", "unit_time")


def frame_of(panels: range) -> pd.DataFrame:
    """Long rows of all panels."""
    unit, period = (axis.ravel() for axis in np.indices((SIZE.n_units, SIZE.n_periods)))
    treated = (unit >= SIZE.n_units - SIZE.n_treated) & (period >= SIZE.n_periods - SIZE.n_post)
    parts = [
        pd.DataFrame(
            {"panel": k, "unit": unit, "period": period, "y": generate(SIZE, k)[0].ravel(), "w": treated.astype(int)}
        )
        for k in panels
    ]
    return pd.concat(parts, ignore_index=True)


def ours(frame: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """CPU seconds of the whole fit, and its variances."""
    from causal_spark import PanelEffects

    method = PanelEffects(["sdid"], variances=OURS)
    start = time.process_time()
    result = method.fit(frame, unit="unit", time="period", outcome="y", treatment="w", groups=["panel"])
    return time.process_time() - start, result.variances


def loop(panels: range) -> tuple[float, pd.DataFrame]:
    """CPU seconds of synthdid-py's estimates and variances, 200 replications each, and what they are."""
    import synthdid

    rows = []
    start = time.process_time()
    for k in panels:
        outcome = generate(SIZE, k)[0]
        fit = synthdid.synthdid_estimate(outcome, SIZE.n_units - SIZE.n_treated, SIZE.n_periods - SIZE.n_post)
        for method in METHODS:
            variance = synthdid.vcov(fit, method=method, random_state=k)
            rows.append({"panel": k, "variance_estimator": method, "peer": float(np.sqrt(variance.item()))})
    return time.process_time() - start, pd.DataFrame(rows)


def main() -> None:
    """Append a row to ``results/variances.csv``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variances", description=__doc__)
    parser.add_argument("--panels", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=5, help="panels for the loop")
    parser.add_argument("--results", type=Path, default=RESULTS / "variances.csv")
    arguments = parser.parse_args()
    here = origin()
    panels, sample = range(arguments.panels), range(min(arguments.sample, arguments.panels))
    seconds, found = ours(frame_of(panels))
    peer_seconds, theirs = loop(sample)
    both = theirs.merge(found, on=["panel", "variance_estimator"])
    ratio = np.log(both["std_error"] / both["peer"]).groupby(both["variance_estimator"]).mean()
    row = here | {
        "panels": arguments.panels,
        "cpu_seconds": round(seconds, 2),
        "per_panel": round(seconds / arguments.panels, 4),
        "sample": len(sample),
        "peer_per_panel": round(peer_seconds / len(sample), 3),
        "times_as_fast": round(peer_seconds / len(sample) / (seconds / arguments.panels), 1),
        "not_estimated": int(found["std_error"].isna().sum()),
        **{f"log_ratio_{name}": round(float(ratio[name]), 3) for name in METHODS},
    }
    append_rows(arguments.results, [row])
    for name, value in row.items():
        print(f"{name:>22} {value}")


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    main()
