"""What every result row says of where and when it was measured, and how rows are kept."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: Generated inputs and outputs of runs; ignored by git.
SCRATCH = ROOT / "artifacts" / "benchmarks"

SINGLE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def origin() -> dict[str, str]:
    """Commit (with ``+`` when the package differs from it), date, processor, cores and memory."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = "+" if _git("status", "--porcelain", "--", "causal_spark", "jobs") else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "commit": commit + changed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process so far. Raises OSError when there is no such process."""
    user, system = stat_fields(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on: the command's name before it may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def append_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Add rows to a CSV file, which starts with the names of the first row's columns. Other columns: ValueError."""
    rows = list(rows)
    known = _header(path)
    names = known or list(rows[0])
    if any(list(row) != names for row in rows):
        raise ValueError(f"{path.name} has other columns than the new rows; move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if not known:
            writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> pd.DataFrame:
    """Rows of such a file. A commit may look like a number."""
    return pd.read_csv(path, dtype={"commit": str})


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _git(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
