"""Which group runs in which task of which wave: a function of sizes and configuration only."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from causal_spark.engine.keys import digest_of
from causal_spark.engine.work import GroupSize, Work

#: Enough work for a task's start-up to vanish, little enough to balance cores.
TASK_SECONDS = 2.0
#: Bounds what one worker holds in memory at once.
TASK_ROWS = 1_000_000
#: How often a long run says where it is.
WAVE_SECONDS = 120.0
MAX_WAVES = 20
MAX_TASKS = 4096
#: A group longer than this waits for the others; so many of them share a wave at least.
LONG_SECONDS = 10.0
LONG_GROUPS = 64
#: Unpacking, array building and encoding, per group and per row.
_GROUP_SECONDS = 1e-3
_ROW_SECONDS = 5e-7


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """Where one group runs, and how long it should take."""

    group_id: str
    wave: int
    task: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Wave:
    """One stretch of work, staged by a commit of its own."""

    number: int
    n_tasks: int
    n_groups: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All groups and waves."""

    groups: tuple[PlannedGroup, ...]
    waves: tuple[Wave, ...]

    @property
    def seconds(self) -> float:
        """Core seconds of the whole plan."""
        return sum(wave.seconds for wave in self.waves)

    @property
    def digest(self) -> str:
        """Changes when any group would run elsewhere."""
        return digest_of(f"{group.wave}/{group.task}/{group.group_id}" for group in self.groups)


def group_seconds(size: GroupSize, work: Work) -> float:
    """Core seconds a group should take, the engine's own share included."""
    return _GROUP_SECONDS + _ROW_SECONDS * size.n_rows + sum(work.cost(size).values())


def _deal(costs: Sequence[float], n_bins: int) -> list[int]:
    """Longest processing time first: the next largest goes to the least loaded bin."""
    loads = [(0.0, place) for place in range(n_bins)]
    places = []
    for cost in costs:
        load, place = heapq.heappop(loads)
        places.append(place)
        heapq.heappush(loads, (load + cost, place))
    return places


def _n_waves(seconds: Sequence[float], groups_per_wave: int) -> int:
    return max(1, min(MAX_WAVES // 2, math.ceil(sum(seconds) / WAVE_SECONDS), len(seconds) // groups_per_wave))


def make_plan(sizes: Sequence[GroupSize], work: Work) -> Plan:
    """Deal groups into cost-balanced waves and each wave's groups into cost-balanced tasks.

    Long groups come last, in few waves with many groups each: cores would stand idle behind one that ends a wave, and
    what is done before them is staged, should one of them bring the job down.
    """
    costed = sorted(
        ((group_seconds(size, work), size) for size in sizes), key=lambda pair: (-pair[0], pair[1].group_id)
    )
    groups: list[PlannedGroup] = []
    waves: list[Wave] = []
    for members, groups_per_wave in (
        ([pair for pair in costed if pair[0] <= LONG_SECONDS], 1),
        ([pair for pair in costed if pair[0] > LONG_SECONDS], LONG_GROUPS),
    ):
        if not members:
            continue
        n_waves = _n_waves([seconds for seconds, _ in members], groups_per_wave)
        dealt = _deal([seconds for seconds, _ in members], n_waves)
        for place in range(n_waves):
            mine = [pair for pair, wave in zip(members, dealt, strict=True) if wave == place]
            _add_wave(mine, groups, waves)
    return Plan(tuple(groups), tuple(waves))


def _add_wave(members: Sequence[tuple[float, GroupSize]], groups: list[PlannedGroup], waves: list[Wave]) -> None:
    number = len(waves)
    seconds = sum(cost for cost, _ in members)
    n_rows = sum(size.n_rows for _, size in members)
    wanted = max(math.ceil(seconds / TASK_SECONDS), math.ceil(n_rows / TASK_ROWS), 1)
    n_tasks = min(wanted, len(members), MAX_TASKS)
    places = _deal([cost for cost, _ in members], n_tasks)
    groups += [
        PlannedGroup(size.group_id, number, task, cost) for (cost, size), task in zip(members, places, strict=True)
    ]
    waves.append(Wave(number, n_tasks, len(members), seconds))
