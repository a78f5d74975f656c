"""Runs a panel job through spark-submit on local cores and watches it: time line, peak memory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO

from benchmarks.machine import ROOT, cpu_seconds, stat_fields

SUBMIT = [str(ROOT / ".venv" / "bin" / "spark-submit"), "--conf", "spark.jars.packages="]
_PACKED = re.compile(r"\d+ groups, \d+ rows; \d+ waves")
_WAVE = re.compile(r"wave \d+/\d+:")
_SAMPLE_SECONDS = 0.25
_KIB_PER_MIB = 1024.0


@dataclass(slots=True)
class Used:
    """What a run's processes took. Peak resident memory in MiB: the JVM's, the largest Python worker's, the driver's
    Python process's, that of all.

    The sum over all counts pages that forked workers share once for each of them. jvm_cpu, worker_cpu: seconds of each
    process so far.
    """

    jvm: float = 0.0
    worker: float = 0.0
    driver: float = 0.0
    total: float = 0.0
    jvm_cpu: dict[int, float] = field(default_factory=dict)
    worker_cpu: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class JobRun:
    """One run, in seconds from submit; None where the log is silent.

    ready: session up, input opened, result tables there; packed: groups packed and counted; estimated: last wave done;
    wall: all written and the process gone.
    """

    wall: float
    packed: float | None
    estimated: float | None
    ready: float | None = None
    used: Used = field(default_factory=Used)

    def phases(self) -> dict[str, object]:
        """Columns of a result row."""
        marks = [0.0, self.ready, self.packed, self.estimated, self.wall]
        names = ("ready_s", "pack_s", "waves_s", "tables_s")
        spans = {
            name: "" if begin is None or end is None else f"{end - begin:.1f}"
            for name, begin, end in zip(names, marks, marks[1:], strict=False)
        }
        return {
            "job_s": f"{self.wall:.1f}",
            **spans,
            "jvm_cpu_s": f"{sum(self.used.jvm_cpu.values()):.1f}",
            "worker_cpu_s": f"{sum(self.used.worker_cpu.values()):.1f}",
            "jvm_peak_mib": f"{self.used.jvm:.0f}",
            "worker_peak_mib": f"{self.used.worker:.0f}",
            "total_peak_mib": f"{self.used.total:.0f}",
        }


def run_job(
    folder: Path,
    source: Path,
    groups: list[str],
    estimators: Sequence[str | Mapping[str, object]],
    cores: int,
    fresh: bool = True,
    job: str = "panel_effects",
    more: Mapping[str, object] = MappingProxyType({}),
) -> JobRun:
    """Run a job on a Parquet input, without variances, into Delta tables that are new or, if not ``fresh``, there.

    Columns of the input: groups, unit, period, outcome, treated. more: keys of the configuration. Raises RuntimeError
    with the job's words on failure.
    """
    from deltalake import DeltaTable

    tables = folder / "tables"
    if fresh:
        shutil.rmtree(tables, ignore_errors=True)
    config = {
        "input": {"location": str(source), "format": "parquet"},
        "columns": {"groups": groups, "unit": "unit", "time": "period", "outcome": "outcome", "treatment": "treated"},
        "estimators": estimators,
        "variances": [],
        "seed": 1,
        "output": {"location": str(tables)},
        **more,
    }
    path = folder / "job.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(config))
    submitted = time.time()
    run = submit([str(ROOT / "jobs" / f"{job}.py"), "--config", str(path), "--force"], cores)
    started = DeltaTable(str(tables / "runs")).to_pandas()["started_at"].max()
    run.ready = started.timestamp() - submitted
    return run


def submit(arguments: list[str], cores: int) -> JobRun:
    """Run spark-submit and stamp its log lines as they come."""
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [*SUBMIT, "--master", f"local[{cores}]", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        # spark-submit sends what the driver's Python says on stderr to its own stdout.
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[tuple[float, str]] = []
    assert process.stdout is not None  # noqa: S101
    reader = threading.Thread(target=_stamp, args=(process.stdout, started, lines))
    reader.start()
    used = Used()
    while process.poll() is None:
        _sample(process.pid, used)
        time.sleep(_SAMPLE_SECONDS)
    wall = time.perf_counter() - started
    reader.join()
    if process.returncode != 0:
        said = "".join(line for _, line in lines)
        raise RuntimeError(f"spark-submit ended with {process.returncode}:\n{said[-4000:]}")
    packed = [at for at, line in lines if _PACKED.search(line)]
    waves = [at for at, line in lines if _WAVE.search(line)]
    return JobRun(wall, min(packed, default=None), max(waves, default=None), used=used)


def bare_session(cores: int) -> float:
    """Seconds that spark-submit takes to start a session and end: what no job can do without."""
    return submit([str(ROOT / "benchmarks" / "empty_job.py")], cores).wall


def _stamp(stream: IO[str], started: float, lines: list[tuple[float, str]]) -> None:
    for line in stream:
        lines.append((time.perf_counter() - started, line))
        sys.stderr.write(line)


def _sample(root: int, used: Used) -> None:
    """Raise what is used to what the processes below ``root`` hold now (sum) or ever held (each)."""
    total = 0.0
    for pid in _descendants(root):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/status").read_text()
            seconds = cpu_seconds(pid)
        except OSError:
            # It ended since it was listed.
            continue
        total += _held(status, "VmRSS")
        if b"pyspark.daemon" in words:
            used.worker = max(used.worker, _held(status, "VmHWM"))
            used.worker_cpu[pid] = seconds
        elif words[0].endswith(b"java"):
            used.jvm = max(used.jvm, _held(status, "VmHWM"))
            used.jvm_cpu[pid] = seconds
        elif b"--config" in words:
            used.driver = max(used.driver, _held(status, "VmHWM"))
    used.total = max(used.total, total)


def _held(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / _KIB_PER_MIB if found else 0.0


def _descendants(root: int) -> Iterable[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(stat_fields(int(entry.name))[1])
            except OSError:
                continue
    below = [root]
    for pid in below:
        below += [child for child, parent in parents.items() if parent == pid]
    return below
