"""What a group needs in memory, and what a task has: compared before a run, so that no worker dies of a large panel.

Needs are predicted from sizes alone by a rule whose factors were measured (peak resident memory of fresh processes, at
0.4 to 4 million cells and three shapes). What a task has is measured only when some group needs more than
`SAFE_BYTES`: runs over small panels never pay for it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from causal_spark.errors import GroupTooLargeError
from causal_spark.panel.types import PanelSize

GIB = 2**30
#: No worker has less to spare, so needs below this are not compared with anything.
SAFE_BYTES = GIB // 2
#: What a panel may need without a measurement, when its size was thought safe before its distinct periods were known.
UNMEASURED_BYTES = 2 * SAFE_BYTES
#: Share of what is free that is used: the other tasks' JVM and the page cache grow meanwhile.
_SHARE = 0.8
#: Bytes of an input row while it is held in Arrow (labels of up to 16 characters), and at the peak of arranging rows
#: into arrays; a covariate adds so much to each. Measured: 28 to 38 and 111 to 117; 8 and 39.
_HELD, _HELD_COVARIATE = 40, 8
_ARRANGED, _ARRANGED_COVARIATE = 120, 40
#: Bytes of a panel's cell: outcome, treatment, mask, and each covariate.
_CELL, _CELL_COVARIATE = 10, 8
#: Bytes of one row of ``panel_cells`` in Arrow. Measured: 54 to 66 with short labels.
_CELL_ROW = 120
_N_PROBES = 8


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Peak bytes a group needs in a task: to arrange its rows, and while each estimator runs."""

    base: int
    estimators: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The largest of them."""
        return max(self.base, *self.estimators.values()) if self.estimators else self.base

    def fitting(self, limit: int | None) -> list[str]:
        """Estimators that need no more than a task may use; all without a limit."""
        return [name for name, needed in self.estimators.items() if limit is None or needed <= limit]


def cell_bytes(n_covariates: int) -> int:
    """Bytes of one cell of a panel's arrays."""
    return _CELL + _CELL_COVARIATE * n_covariates


def panel_memory(
    size: PanelSize, n_rows: int, n_covariates: int, arrays: Mapping[str, float], n_cell_rows: int
) -> GroupMemory:
    """What one panel needs.

    arrays: estimator to the float64 arrays of the panel's shape it holds beyond the panel; each covariate is taken to
    cost as much again. n_cell_rows: rows of ``panel_cells`` per estimator, which pile up from one to the next.
    """
    n_cells = size.n_units * size.n_periods
    panel = n_cells * cell_bytes(n_covariates)
    held = n_rows * (_HELD + _HELD_COVARIATE * n_covariates) + panel
    estimators = {
        name: math.ceil(held + 8 * n_cells * factor * (1 + n_covariates) + place * n_cell_rows * _CELL_ROW)
        for place, (name, factor) in enumerate(arrays.items(), start=1)
    }
    # Units are brought into their final order by a copy.
    return GroupMemory(n_rows * (_ARRANGED + _ARRANGED_COVARIATE * n_covariates) + 2 * panel, estimators)


def in_gib(n_bytes: float) -> str:
    """A size for people."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / GIB:.2g} GiB"


def too_large(what: str, needed: int, size: str, limit: int, remedy: str) -> GroupTooLargeError:
    """The error of a group of a ``size`` in words, or of an estimator on it, that needs more than a task may use."""
    return GroupTooLargeError(
        f"{what} takes about {in_gib(needed)} for {size}, more than the {in_gib(limit)} a task may use.",
        "Give tasks more memory (fewer at once per executor, larger workers; worker_memory says how much one may use) "
        f"and run again with --force; or {remedy}, or keep costly estimators to other groups with `where`.",
    )


def panel_too_large(what: str, needed: int, size: PanelSize, limit: int) -> GroupTooLargeError:
    """`too_large` of a panel."""
    return too_large(what, needed, f"{size.n_units} units x {size.n_periods} periods", limit, "aggregate time")


def _number_in(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None


def _inactive(path: Path) -> int:
    """Bytes of page cache that a control group would give up before anything else."""
    try:
        found = re.search(r"^(?:total_)?inactive_file (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


def _control_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group (v1 or v2) above this process that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        below = [part for part in path.split("/") if part not in ("", "..")]
        # Within a container the path may be the host's; what is not there is passed over, the top one is always asked.
        for depth in range(len(below) + 1):
            folder = top.joinpath(*below[:depth])
            limit, used = _number_in(folder / names[0]), _number_in(folder / names[1])
            if limit is not None and used is not None:
                yield max(0, limit - used + _inactive(folder / "memory.stat"))


def _address_space() -> Iterator[int]:
    """What spark.executor.pyspark.memory leaves this process."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        except OSError:
            return
        yield max(0, limit - pages * resource.getpagesize())


def free_bytes(root: str = "/") -> int | None:
    """Memory this machine or container could still give, None where nothing tells.

    The least of what the kernel calls available, what each control group leaves, and the process's own limit.
    """
    found = [*_control_groups(Path(root)), *_address_space()]
    try:
        meminfo = Path(root, "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        meminfo = ""
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if available:
        found.append(int(available[1]) * 1024)
    return min(found, default=None)


def _conf(spark: SparkSession, key: str) -> str:
    # A managed session may refuse to tell.
    try:
        return str(spark.conf.get(key, "") or "")
    except PySparkException:
        return ""


def tasks_at_once(spark: SparkSession, n_cores: int) -> int:
    """Tasks an executor runs at the same time. n_cores: of its machine, for sessions that do not say."""
    master = _conf(spark, "spark.master")
    per_task = max(1, int(_conf(spark, "spark.task.cpus") or 1))
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master)
    if local:
        cores = n_cores if local[1] == "*" else int(local[1] or 1)
    else:
        cores = int(_conf(spark, "spark.executor.cores") or n_cores)
    return max(1, cores // per_task)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _probe(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        pass
    yield pa.RecordBatch.from_pydict({"free": pa.array([free_bytes()], pa.int64()), "cores": [_n_cores()]})


def task_bytes(spark: SparkSession | None, n_tasks: int) -> int | None:
    """What one task may use, measured on the workers (without a session: in this process); None where nothing tells.

    Memory is shared by the tasks that run at once, of which there are no more than ``n_tasks``.
    """
    if spark is None:
        free = free_bytes()
        return None if free is None else int(_SHARE * free)
    rows = spark.range(0, _N_PROBES, 1, _N_PROBES).mapInArrow(_probe, "free bigint, cores bigint").collect()
    shares = [
        int(_SHARE * row["free"]) // max(1, min(tasks_at_once(spark, row["cores"]), n_tasks))
        for row in rows
        if row["free"] is not None
    ]
    return min(shares, default=None)


def limit_for(needed: int, given: int | None) -> int:
    """Bytes that may be used by what needs so many, in the task that is to do it.

    given: the limit found before the run; None when every group was thought small then. What turns out larger, as a
    panel with most of its cells missing does, may use this task's share of what is free on the spot.
    """
    if given is not None or needed <= UNMEASURED_BYTES:
        return UNMEASURED_BYTES if given is None else given
    free = free_bytes()
    return max(UNMEASURED_BYTES, 0 if free is None else int(_SHARE * free) // _n_cores())


def memory_limit(
    spark: SparkSession | None,
    given: int | None,
    needs: Sequence[GroupMemory],
    most_parts: Callable[[], int] = lambda: 1,
) -> int | None:
    """Bytes a task may use: as given, else measured when some group needs more than `SAFE_BYTES`, else None.

    most_parts: how many tasks of groups that are split run at once at most.
    """
    if given is not None or max((need.peak for need in needs), default=0) <= SAFE_BYTES:
        return given
    return task_bytes(spark, max(len(needs), most_parts()))
