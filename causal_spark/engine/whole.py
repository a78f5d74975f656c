"""Works that take groups whole, one by one or side by side: what of them fails, and for which group only."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeVar

from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory, limit_for, too_large
from causal_spark.engine.tasks import EstimatorTask, failure_of
from causal_spark.engine.work import (
    Failure,
    Group,
    GroupResult,
    GroupSize,
    InputColumns,
    Part,
    Piece,
    RoundSize,
)
from causal_spark.errors import GroupError

T = TypeVar("T")
Seen = TypeVar("Seen")
Fitted = TypeVar("Fitted")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared(Generic[Fitted]):
    """One group that can be read, the estimators asked for, and what they found.

    size: of the group, as memory is reckoned. fits: estimators and what came of each, or why there is nothing.
    """

    group: Group
    size: GroupSize
    tasks: Sequence[EstimatorTask]
    result: GroupResult
    fits: list[tuple[str, Fitted | Exception]] = field(default_factory=list, init=False)


Ready = TypeVar("Ready", bound=Prepared[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeWork(ABC):
    """Base of works that never split a group; see `causal_spark.engine.work.Work`."""

    columns: InputColumns
    confidence_level: float
    seed: int
    memory_limit: int | None = None

    tables: ClassVar[Sequence[str]]
    #: What to do about a group that is too large.
    remedy: ClassVar[str]

    @abstractmethod
    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to read the group's rows and to run each of its estimators, with its companions beside it."""

    @abstractmethod
    def described(self, size: GroupSize) -> str:
        """A group's size in words."""

    @abstractmethod
    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """Everything the science says of several groups. Never raises for what is wrong with one of them."""

    def within(self, memory_limit: int | None) -> Self:
        """The same work, knowing what a task may use."""
        return replace(self, memory_limit=memory_limit)

    def refusal(self, size: GroupSize) -> Failure | None:
        """Why the group cannot be read within the limit; None when it can."""
        needed = self.memory(size).base
        if self.memory_limit is None or needed <= self.memory_limit:
            return None
        return failure_of("read", None, self._too_large("Reading the group", needed, size, self.memory_limit))

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """None: nothing comes in pieces."""
        del size
        return {}

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """Nothing, see `rounds`."""
        del group, done, part
        yield from ()

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """What `run_bundle` says of one group."""
        del done
        return self.run_bundle([group])[0]

    def fits(self, name: str, size: GroupSize, result: GroupResult) -> bool:
        """Whether an estimator can be run within the limit; a failure is added to the result where it cannot."""
        needed = self.memory(size).estimators[name]
        limit = limit_for(needed, self.memory_limit)
        if needed <= limit:
            return True
        error = self._too_large(f"Estimator {name}", needed, size, limit)
        result.failures.append(failure_of("estimate", name, error))
        return False

    def _too_large(self, what: str, needed: int, size: GroupSize, limit: int) -> GroupError:
        return too_large(what, needed, self.described(size), limit, self.remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledWork(WholeWork, Generic[Ready, Seen, Fitted]):
    """Base of works that run bundles of groups.

    Ready: what is known of a group before any estimator is run; Seen: what an estimator sees of it; Fitted: what
    comes of that.
    """

    estimators: tuple[EstimatorTask, ...]

    @abstractmethod
    def prepare(self, group: Group, result: GroupResult) -> Ready:
        """What is known before any estimator is run. Raises what is wrong with the group."""

    @abstractmethod
    def look(self, task: EstimatorTask, one: Ready, seed: int) -> Seen:
        """What an estimator sees of a group. Raises what is wrong with the group."""

    @abstractmethod
    def shape(self, task: EstimatorTask, seen: Seen) -> Hashable | None:
        """Groups of one shape are fitted together; None: only alone."""

    @abstractmethod
    def fit(self, task: EstimatorTask, seen: Sequence[Seen], seeds: Sequence[int]) -> Sequence[Fitted]:
        """What comes of groups of one shape. Raises what is wrong with one of them."""

    @abstractmethod
    def tell(self, one: Ready) -> None:
        """Add rows of everything that was found in a group to its result. Never raises."""

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """All estimators on several groups, those fitted together that can be."""
        results = [GroupResult({name: [] for name in self.tables}) for _ in groups]
        prepared = []
        for group, result in zip(groups, results, strict=True):
            try:
                prepared.append(self.prepare(group, result))
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                result.failures.append(failure_of("read", None, error))
        for task in self.estimators:
            wanting = [one for one in prepared if task in one.tasks]
            self._run(task, [one for one in wanting if self.fits(task.name, one.size, one.result)])
        for one in prepared:
            self.tell(one)
        return results

    def _run(self, task: EstimatorTask, wanting: Sequence[Ready]) -> None:
        started = time.perf_counter()
        seeds = [seed_for(self.seed, one.group.group_id, task.name) for one in wanting]
        fits = self._fit_all(task, wanting, seeds)
        shared = (time.perf_counter() - started) / max(len(wanting), 1)
        for one, fitted in zip(wanting, fits, strict=True):
            one.fits.append((task.name, fitted))
            one.result.seconds[task.name] = shared

    def _fit_all(self, task: EstimatorTask, wanting: Sequence[Ready], seeds: Sequence[int]) -> list[Fitted | Exception]:
        """What came of every group, or what is wrong with it."""
        found: dict[int, Fitted | Exception] = {}
        seen: dict[int, Seen] = {}
        stacks: dict[Hashable, list[int]] = {}
        for place, (one, seed) in enumerate(zip(wanting, seeds, strict=True)):
            looked = _attempt(partial(self.look, task, one, seed))
            if isinstance(looked, Exception):
                found[place] = looked
                continue
            seen[place], shape = looked, self.shape(task, looked)
            stacks.setdefault(("alone", place) if shape is None else shape, []).append(place)
        for places in stacks.values():
            fits = _attempt(partial(self.fit, task, [seen[k] for k in places], [seeds[k] for k in places]))
            if not isinstance(fits, Exception):
                found |= dict(zip(places, fits, strict=True))
                continue
            # Who is to blame shows when each is fitted by itself.
            for k in places:
                alone = _attempt(partial(self.fit, task, [seen[k]], [seeds[k]]))
                found[k] = alone if isinstance(alone, Exception) else alone[0]
        return [found[place] for place in range(len(wanting))]


def _attempt(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
        return error
