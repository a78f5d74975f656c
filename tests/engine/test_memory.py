"""Needs are predicted on the safe side of what is measured; what a task has is read from the machine, and shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from causal_spark import PanelEffects
from causal_spark.engine import memory
from causal_spark.engine.columns import PanelRoles
from causal_spark.engine.memory import (
    GIB,
    SAFE_BYTES,
    UNMEASURED_BYTES,
    GroupMemory,
    free_bytes,
    limit_for,
    memory_limit,
    task_bytes,
    tasks_at_once,
)
from causal_spark.engine.panels import PanelWork
from causal_spark.engine.work import GroupSize
from causal_spark.panel.registry import ESTIMATORS
from tests.frames import ROLES, long_panel

MIB = 2**20
SMALL = long_panel(n_units=30, n_periods=20)


def work_for(estimators: list[str], cells: str = "treated") -> PanelWork:
    job = PanelEffects(estimators, variances=[{"name": "placebo", "replicates": 2}], cells=cells)  # type: ignore[arg-type]
    return job.plan_work(SMALL, PanelRoles(**ROLES))


def size_of(n_units: int, n_periods: int, n_treated_cells: int = 3) -> GroupSize:
    counted = {"units": n_units, "treated_units": 1, "treated_cells": n_treated_cells}
    return GroupSize("{}", {}, n_units * n_periods, counted)


MEASURE = """
import re, sys
from causal_spark.engine.panels import PanelWork
from causal_spark.engine.work import Group
from causal_spark.engine.columns import PanelRoles, select_pandas
from causal_spark import PanelEffects
from tests.frames import ROLES, long_panel

def kib(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

estimator, n_units, n_periods, cells = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
job = PanelEffects([estimator], variances=[{"name": "placebo", "replicates": 2}], cells=cells)
def group(*shape):
    frame = long_panel(*shape)
    work = job.plan_work(frame, PanelRoles(**ROLES))
    return work, Group("{}", {}, select_pandas(frame, work.columns))
work, small = group(30, 20)
work.run(small)
work, large = group(n_units, n_periods)
before = kib("VmRSS") * 1024 - large.rows.nbytes
open("/proc/self/clear_refs", "w").write("5")
result = work.run(large)
assert not result.failures, result.failures
print(kib("VmHWM") * 1024 - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize(
    ("estimator", "n_units", "n_periods", "cells"),
    [("did", 2000, 150, "none"), ("sdid", 1500, 200, "none"), ("mc", 600, 60, "none"), ("did", 500, 100, "all")],
)
def test_predicted_needs_hold_the_measured_peak_and_are_not_far_above(
    estimator: str, n_units: int, n_periods: int, cells: str
) -> None:
    command = [sys.executable, "-c", MEASURE, estimator, str(n_units), str(n_periods), cells]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout)
    needed = work_for([estimator], cells).memory(size_of(n_units, n_periods))
    # Batches and buffers of a size of their own come on top of what grows with the panel.
    assert measured < needed.peak + 40 * MIB
    assert needed.peak < 4 * measured


def test_needs_grow_with_cells_covariates_and_rows_to_show() -> None:
    small, large = (work_for(["did", "mc"]).memory(size_of(100 * k, 50)) for k in (1, 2))
    assert large.base == 2 * small.base
    assert small.estimators["mc"] > 3 * small.estimators["did"]
    many_folds = work_for([{"name": "mc", "n_folds": 20}]).memory(size_of(100, 50))
    assert many_folds.estimators["mc"] > 2 * small.estimators["mc"]
    shown = work_for(["did", "sc"], cells="all").memory(size_of(100, 50))
    assert shown.estimators["sc"] > shown.estimators["did"] > small.estimators["did"]
    plain, adjusted = (PanelRoles(**ROLES, covariates=covariates) for covariates in ([], ["x"]))
    frame = SMALL.assign(x=1.0)
    one, other = (PanelEffects(["did"]).plan_work(frame, roles).memory(size_of(100, 50)) for roles in (plain, adjusted))
    assert other.base > one.base
    assert other.peak > one.peak
    assert set(work_for(list(ESTIMATORS)).memory(size_of(10, 10)).estimators) == set(ESTIMATORS)


def machine(root: Path, cgroup: str, files: dict[str, int | str], available_kib: int = 8 * 2**20) -> str:
    """A folder that looks like the root of a Linux system."""
    contents = {"proc/self/cgroup": cgroup, "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:   {available_kib} kB\n"}
    for name, text in (contents | {f"sys/fs/cgroup/{path}": value for path, value in files.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")
    return str(root)


STAT = "anon 5\ninactive_file 1000\nactive_file 7"
V1 = {"memory/a/memory.limit_in_bytes": 6000, "memory/a/memory.usage_in_bytes": 2000}


@pytest.mark.parametrize(
    ("cgroup", "files", "wanted"),
    [
        ("0::/", {}, 8 * GIB),
        ("0::/", {"memory.max": 5000, "memory.current": 2000, "memory.stat": STAT}, 4000),
        ("0::/a/b", {"a/memory.max": 5000, "a/memory.current": 4500, "a/b/memory.max": "max"}, 500),
        ("0::/not/here", {"memory.max": 5000, "memory.current": 6000}, 0),
        ("0::/", {"memory.max": "max", "memory.current": 2000}, 8 * GIB),
        ("5:cpu:/a\n4:memory:/a", V1 | {"memory/a/memory.stat": "total_inactive_file 1500"}, 5500),
        ("5:cpu:/a\n4:memory:/a", V1 | {"memory/memory.limit_in_bytes": 2**63 - 4096}, 4000),
        ("4:cpuset:/a", V1, 8 * GIB),
    ],
)
def test_free_memory_is_the_least_that_kernel_and_control_groups_leave(
    tmp_path: Path, cgroup: str, files: dict[str, int | str], wanted: int
) -> None:
    assert free_bytes(machine(tmp_path, cgroup, files)) == wanted


def test_a_machine_that_tells_nothing_sets_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(str(tmp_path)) is None
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert task_bytes(None, 1) is None


class FakeSession:
    """A session that knows settings only."""

    def __init__(self, **settings: str) -> None:
        self.settings = settings
        self.conf = self

    def get(self, key: str, default: str) -> str:
        return self.settings.get(key.removeprefix("spark.").replace(".", "_"), default)


@pytest.mark.parametrize(
    ("settings", "n_tasks"),
    [
        ({"master": "local"}, 1),
        ({"master": "local[3]"}, 3),
        ({"master": "local[3, 2]"}, 3),
        ({"master": "local[*]", "executor_cores": "9"}, 16),
        ({"master": "spark://host:7077", "executor_cores": "4"}, 4),
        ({"master": "k8s://x", "executor_cores": "4", "task_cpus": "2"}, 2),
        ({"executor_cores": "1", "task_cpus": "2"}, 1),
        ({}, 16),
    ],
)
def test_tasks_at_once_come_from_the_session_or_else_from_the_cores(settings: dict[str, str], n_tasks: int) -> None:
    assert tasks_at_once(FakeSession(**settings), 16) == n_tasks  # type: ignore[arg-type]


def test_memory_is_measured_only_where_a_group_may_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory, "task_bytes", lambda spark, n_groups: asked.append(n_groups) or 7 * GIB)
    small, large = GroupMemory(SAFE_BYTES, {"did": SAFE_BYTES - 1}), GroupMemory(1, {"did": SAFE_BYTES + 1})
    assert memory_limit(None, None, [small] * 3) is None
    assert memory_limit(None, None, []) is None
    assert memory_limit(None, 5, [large]) == 5
    assert not asked
    assert memory_limit(None, None, [small, large]) == 7 * GIB
    # A group that is split runs as several tasks, which share the machine.
    assert memory_limit(None, None, [small, large], lambda: 40) == 7 * GIB
    assert asked == [2, 40]


@pytest.mark.spark
def test_workers_tell_what_a_task_may_use_and_share_it(spark: object) -> None:
    alone, shared = task_bytes(spark, 1), task_bytes(spark, 50)  # type: ignore[arg-type]
    free = free_bytes()
    assert alone is not None
    assert shared is not None
    assert free is not None
    assert 0.5 * free < alone < free
    assert 0.35 * alone < shared < 0.65 * alone


@pytest.mark.parametrize(
    ("needed", "given", "free", "expected"),
    [
        (GIB // 4, None, 0, UNMEASURED_BYTES),
        (3 * GIB, None, 100 * GIB, 80 * GIB // 4),
        (3 * GIB, None, GIB // 8, UNMEASURED_BYTES),
        (3 * GIB, None, None, UNMEASURED_BYTES),
        (3 * GIB, 5, 100 * GIB, 5),
    ],
    ids=["small", "sparse panel", "little left", "nothing tells", "given"],
)
def test_what_turns_out_larger_than_planned_may_use_what_is_free(
    monkeypatch: pytest.MonkeyPatch, needed: int, given: int | None, free: int | None, expected: int
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    monkeypatch.setattr(memory, "_n_cores", lambda: 4)
    assert limit_for(needed, given) == expected
