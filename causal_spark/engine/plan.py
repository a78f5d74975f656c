"""Which group runs in which task of which wave: a function of sizes and configuration only.

Groups that a science likes to run side by side come in bundles of like size, which stay together.

A group that is long, also beside all the others, and whose estimator's work comes in pieces
(`causal_spark.panel.stages`) is split: its rounds, one Spark job each for all such groups together, come after the
ordinary waves. Then a last wave of its own finishes what was split and runs the group's other estimators, as ever.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from causal_spark.engine.keys import digest_of
from causal_spark.engine.work import GroupSize, Part, RoundSize, Work

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
#: The longest group of a bundle has at most so many times the rows of the shortest: shorter ones are padded.
BUNDLE_RATIO = 1.25
#: An estimator is split over tasks when it takes longer than this on one group,
SPLIT_SECONDS = 30.0
#: and more than this share of the whole run: otherwise there are enough other groups to keep every core at work.
SPLIT_SHARE = 1 / 256
#: Each of its tasks works on a share of its chunks for so long at least, in seconds and in seconds per row: it is sent
#: all of the group's rows, which takes 1e-6 to 4e-6 core seconds per row, measured with 400,000 of them.
PART_SECONDS = 10.0
PART_ROW_SECONDS = 2e-5
#: Unpacking, array building and encoding, per group and per row.
_GROUP_SECONDS = 1e-3
_ROW_SECONDS = 5e-7


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """Where one group runs, with whom, and how long it should take."""

    group_id: str
    wave: int
    task: int
    bundle: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Wave:
    """One stretch of work, staged by a commit of its own. finishes: its groups are those that were split before."""

    number: int
    n_tasks: int
    n_groups: int
    seconds: float
    finishes: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """One round of all groups that are split, staged by a commit of its own."""

    number: int
    parts: tuple[Part, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All groups, waves, and the rounds before the last wave, if any group is split."""

    groups: tuple[PlannedGroup, ...]
    waves: tuple[Wave, ...]
    rounds: tuple[Round, ...] = ()

    @property
    def seconds(self) -> float:
        """Core seconds of the whole plan."""
        return sum(wave.seconds for wave in self.waves) + sum(one.seconds for one in self.rounds)

    @property
    def n_tasks(self) -> int:
        """Tasks of all waves and rounds."""
        return sum(wave.n_tasks for wave in self.waves) + sum(len(one.parts) for one in self.rounds)

    @property
    def splits(self) -> dict[str, str]:
        """Group id to what is split there, for people: estimator and tasks per round."""
        tasks: dict[str, dict[str, list[str]]] = {}
        for one in self.rounds:
            for part in one.parts:
                if part.part == 0:
                    tasks.setdefault(part.group_id, {}).setdefault(part.estimator, []).append(str(part.n_parts))
        return {
            group_id: ", ".join(f"{name} {'+'.join(counts)} tasks" for name, counts in estimators.items())
            for group_id, estimators in tasks.items()
        }

    @property
    def digest(self) -> str:
        """Changes when any group would run elsewhere."""
        parts = (part for one in self.rounds for part in one.parts)
        return digest_of(
            [
                *(f"{group.wave}/{group.task}/{group.bundle}/{group.group_id}" for group in self.groups),
                *(f"{part.round}/{part.part}/{part.n_parts}/{part.estimator}/{part.group_id}" for part in parts),
            ]
        )


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is dealt as a whole: the groups of a bundle, by group id, and their core seconds together."""

    seconds: float
    sizes: tuple[GroupSize, ...]

    @property
    def group_id(self) -> str:
        """Of the first group."""
        return self.sizes[0].group_id


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


def make_bundles(sizes: Sequence[GroupSize], work: Work) -> list[tuple[GroupSize, ...]]:
    """Groups that are run side by side, each bundle by group id: a function of sizes and configuration only."""
    bundles: list[list[GroupSize]] = []
    for size in sorted(sizes, key=lambda size: (size.n_rows, size.group_id)):
        room = bundles and len(bundles[-1]) < work.companions(size)
        if room and size.n_rows <= BUNDLE_RATIO * bundles[-1][0].n_rows:
            bundles[-1].append(size)
        else:
            bundles.append([size])
    return [tuple(sorted(bundle, key=lambda size: size.group_id)) for bundle in bundles]


def make_plan(sizes: Sequence[GroupSize], work: Work) -> Plan:
    """Deal bundles of groups into cost-balanced waves and each wave's bundles into cost-balanced tasks.

    Long ones come last, in few waves with many of them each: cores would stand idle behind one that ends a wave, and
    what is done before them is staged, should one of them bring the job down. Those that are split come after them.
    """
    units = _longest_first(
        [_Unit(sum(group_seconds(size, work) for size in bundle), bundle) for bundle in make_bundles(sizes, work)]
    )
    splits = _splits(units, work)
    whole = [unit for unit in units if unit.group_id not in splits]
    groups: list[PlannedGroup] = []
    waves: list[Wave] = []
    for members, groups_per_wave in (
        ([unit for unit in whole if unit.seconds <= LONG_SECONDS], 1),
        ([unit for unit in whole if unit.seconds > LONG_SECONDS], LONG_GROUPS),
    ):
        if not members:
            continue
        n_waves = _n_waves([unit.seconds for unit in members], groups_per_wave)
        dealt = _deal([unit.seconds for unit in members], n_waves)
        for place in range(n_waves):
            _add_wave([unit for unit, wave in zip(members, dealt, strict=True) if wave == place], groups, waves)
    if not splits:
        return Plan(tuple(groups), tuple(waves))
    left = [
        _Unit(max(0.0, unit.seconds - sum(map(_seconds, splits[unit.group_id].values()))), unit.sizes)
        for unit in units
        if unit.group_id in splits
    ]
    _add_wave(_longest_first(left), groups, waves, finishes=True)
    return Plan(tuple(groups), tuple(waves), _rounds([size for unit in left for size in unit.sizes], splits))


def most_parts(sizes: Sequence[GroupSize], work: Work) -> int:
    """Tasks at once at most of groups that are split."""
    return max((len(one.parts) for one in make_plan(sizes, work).rounds), default=1)


def _longest_first(units: list[_Unit]) -> list[_Unit]:
    return sorted(units, key=lambda unit: (-unit.seconds, unit.group_id))


def _seconds(rounds: Sequence[RoundSize]) -> float:
    return sum(one.seconds for one in rounds)


def _splits(units: Sequence[_Unit], work: Work) -> dict[str, dict[str, Sequence[RoundSize]]]:
    """Group id and estimator to rounds, for what is split; only groups that are alone in their bundle are."""
    least = max(SPLIT_SECONDS, SPLIT_SHARE * sum(unit.seconds for unit in units))
    found = {
        unit.group_id: {
            name: rounds
            for name, rounds in work.rounds(unit.sizes[0]).items()
            if _seconds([one for one in rounds if one.most_chunks > 1]) > least
        }
        for unit in units
        if unit.seconds > least and len(unit.sizes) == 1
    }
    return {group_id: estimators for group_id, estimators in found.items() if estimators}


def _rounds(sizes: Sequence[GroupSize], splits: dict[str, dict[str, Sequence[RoundSize]]]) -> tuple[Round, ...]:
    found = []
    for number in range(max(len(rounds) for one in splits.values() for rounds in one.values())):
        wanted = [
            (size, name, rounds[number])
            for size in sorted(sizes, key=lambda size: size.group_id)
            for name, rounds in splits[size.group_id].items()
            if number < len(rounds)
        ]
        total = sum(one.seconds for _, _, one in wanted)
        parts: list[Part] = []
        for size, name, one in wanted:
            useful = math.ceil(one.seconds / max(PART_SECONDS, PART_ROW_SECONDS * size.n_rows, total / MAX_TASKS))
            n_parts = max(1, min(useful, one.most_chunks))
            parts += [Part(size.group_id, name, number, k, n_parts, len(parts) + k) for k in range(n_parts)]
        found.append(Round(number, tuple(parts), total))
    return tuple(found)


def _add_wave(
    members: Sequence[_Unit],
    groups: list[PlannedGroup],
    waves: list[Wave],
    finishes: bool = False,
) -> None:
    number = len(waves)
    seconds = sum(unit.seconds for unit in members)
    sizes = [size for unit in members for size in unit.sizes]
    n_rows = sum(size.n_rows for size in sizes)
    wanted = max(math.ceil(seconds / TASK_SECONDS), math.ceil(n_rows / TASK_ROWS), 1)
    n_tasks = min(wanted, len(members), MAX_TASKS)
    places = _deal([unit.seconds for unit in members], n_tasks)
    first_bundle = groups[-1].bundle + 1 if groups else 0
    groups += [
        PlannedGroup(size.group_id, number, task, bundle, unit.seconds / len(unit.sizes))
        for bundle, (unit, task) in enumerate(zip(members, places, strict=True), start=first_bundle)
        for size in unit.sizes
    ]
    waves.append(Wave(number, n_tasks, len(sizes), seconds, finishes))
