"""One long panel through the job on local cores: wall time and peak memory (``make bench-long``)."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, SCRATCH, append_rows, origin
from benchmarks.panels import EFFECT, NOISE, RANK
from benchmarks.spark_job import bare_session, run_job

_UNITS_PER_CHUNK = 500
_SEED = 1


def main() -> None:
    """Run the panel the command line describes and append a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--periods", type=int, default=500)
    parser.add_argument("--treated", type=int, default=200, help="units treated in the last fifth of the periods")
    parser.add_argument("--estimators", nargs="+", default=["did", "sdid"])
    parser.add_argument("--options", type=json.loads, default={}, help='such as {"dwcp": {"tuning": "block"}}')
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS / "long_panel.csv")
    options = parser.parse_args()
    stamp = origin()
    folder = SCRATCH / "long_panel"
    source = write_panel(
        folder / f"input_{options.units}x{options.periods}", options.units, options.periods, options.treated
    )
    session = bare_session(options.cores)
    estimators = [{"name": name, **options.options.get(name, {})} for name in options.estimators]
    run = run_job(folder, source, [], estimators, options.cores)
    row: dict[str, object] = {
        "units": options.units,
        "periods": options.periods,
        "estimators": " ".join(_text(name, options.options.get(name)) for name in options.estimators),
        "cores": options.cores,
        "input_mib": f"{sum(file.stat().st_size for file in source.iterdir()) / 2**20:.0f}",
        "array_mib": f"{8 * options.units * options.periods / 2**20:.0f}",
        "bare_session_s": f"{session:.1f}",
        **run.phases(),
        **_estimates(folder / "tables", options.estimators),
    }
    append_rows(options.results, [row | stamp])
    print("\n".join(f"{name:>20} {value}" for name, value in row.items()), flush=True)


def _text(name: str, options: Mapping[str, object] | None) -> str:
    return f"{name} {json.dumps(options)}" if options else name


def write_panel(folder: Path, n_units: int, n_periods: int, n_treated: int) -> Path:
    """A long table of one panel, a file per 500 units, so that it never is in memory; written once.

    The design of `panels.generate`, with loadings and noise of each chunk from the chunk's own seed; the last units are
    treated in the last fifth of the periods.
    """
    finished = folder / "_SUCCESS"
    if finished.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shared = np.random.default_rng(_SEED)
    factors = np.cumsum(shared.normal(size=(n_periods, RANK)), axis=0) / np.sqrt(n_periods)
    time = 0.3 * np.cumsum(shared.normal(size=n_periods))
    periods = np.arange(n_periods)
    for first in range(0, n_units, _UNITS_PER_CHUNK):
        units = np.arange(first, min(first + _UNITS_PER_CHUNK, n_units))
        rng = np.random.default_rng([_SEED, first])
        outcome = rng.normal(size=(units.size, 1)) + time + rng.normal(size=(units.size, RANK)) @ factors.T
        outcome += NOISE * rng.normal(size=outcome.shape)
        treated = (units >= n_units - n_treated)[:, None] & (periods >= n_periods - n_periods // 5)
        outcome += EFFECT * treated
        columns = {
            "unit": np.repeat(units, n_periods),
            "period": np.tile(periods, units.size),
            "outcome": outcome.ravel(),
            "treated": treated.ravel().astype(np.int32),
        }
        pq.write_table(pa.table(columns), folder / f"part-{first:06d}.parquet")
    finished.touch()
    return folder


def _estimates(tables: Path, estimators: list[str]) -> dict[str, object]:
    """The job's ATT of each estimator, near 1 by construction; empty where it declined or failed."""
    from deltalake import DeltaTable

    found = DeltaTable(str(tables / "panel_effects")).to_pandas().set_index("estimator")["estimate"]
    return {"estimates": " ".join(f"{found[name]:.6g}" if name in found else "none" for name in estimators)}


if __name__ == "__main__":
    main()
