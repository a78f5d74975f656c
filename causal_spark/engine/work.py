"""What the engine asks of a science: columns to read, the cost of a group, and the rows it makes of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pyarrow as pa

from causal_spark.engine.memory import GroupMemory

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One column to read.

    name: its name inside the engine; source: its name in the input; type: contract type it has or is cast to.
    """

    name: str
    source: str
    type: str


@dataclass(frozen=True, slots=True)
class InputColumns:
    """Columns of a job: group keys, then values. Rows of a group are ordered by the ``order`` value columns."""

    groups: tuple[InputColumn, ...]
    values: tuple[InputColumn, ...]
    order: tuple[str, ...]

    @property
    def sorting(self) -> tuple[str, ...]:
        """Value columns in the order rows are sorted by: the ``order`` columns, then the rest."""
        return self.order + tuple(column.name for column in self.values if column.name not in self.order)

    @property
    def all(self) -> tuple[InputColumn, ...]:
        """Group columns, then value columns."""
        return self.groups + self.values

    @property
    def group_types(self) -> dict[str, str]:
        """Group column to contract type."""
        return {column.name: column.type for column in self.groups}


@dataclass(frozen=True, slots=True)
class GroupSize:
    """What the plan knows of a group. measures: what the science counted while the group was packed."""

    group_id: str
    key: Mapping[str, Any]
    n_rows: int
    measures: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One group's rows, in order. rows: an Arrow table of the value columns; bundle: with whom it is run."""

    group_id: str
    key: Mapping[str, Any]
    rows: pa.Table
    bundle: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the ``failures`` table, less what the engine knows (ids, job, number of rows)."""

    stage: str
    estimator: str | None
    kind: str
    error_class: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class RoundSize:
    """What the plan knows of a round of a split estimator: core seconds, and chunks at most."""

    seconds: float
    most_chunks: int


@dataclass(frozen=True, slots=True)
class Part:
    """One task of a round: its share of the round's chunks of one estimator on one group.

    part: from 0 to n_parts - 1; task: the task's number among all of the round.
    """

    group_id: str
    estimator: str
    round: int
    part: int
    n_parts: int
    task: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one chunk of a split estimator; or, with chunk None, that a part has nothing more to give.

    content: what the science wrote of it, None when it failed. seconds: worker seconds.
    """

    estimator: str
    round: int
    part: int
    chunk: int | None
    content: bytes | None
    failure: Failure | None
    seconds: float


@dataclass(slots=True)
class GroupResult:
    """What a science made of one group: rows per result table, failures, and worker seconds per estimator.

    large: Arrow pieces of tables with a row per cell of the data, for which dictionaries would fill a worker.
    """

    tables: dict[str, list[Row]]
    large: dict[str, list[pa.Table]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Work(Protocol):
    """One science's task over one group. Implementations are picklable and hold no session."""

    @property
    def job(self) -> str:
        """Name of the job, as in ``runs``."""
        ...

    @property
    def tables(self) -> Sequence[str]:
        """Result tables filled, ``failures`` excluded; the first has a row per estimate."""
        ...

    @property
    def columns(self) -> InputColumns:
        """What to read."""
        ...

    @property
    def seed(self) -> int:
        """Run seed."""
        ...

    @property
    def measures(self) -> Sequence[str]:
        """Names of what `measure` counts."""
        ...

    def measure(self, rows: pa.Table) -> tuple[int, ...]:
        """Sizes of an ordered slice of one group's rows; slices are added up."""
        ...

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds each estimator should take on this group, on one ordinary core."""
        ...

    @property
    def memory_limit(self) -> int | None:
        """Bytes one task may use; None where that was not asked for."""
        ...

    def within(self, memory_limit: int | None) -> Self:
        """The same work, knowing what a task may use."""
        ...

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes this group should need in a task."""
        ...

    def refusal(self, size: GroupSize) -> Failure | None:
        """Why the group cannot even be read within the limit; None when it is run."""
        ...

    def companions(self, size: GroupSize) -> int:
        """Groups of this size that are worth running side by side (`run_bundle`); 1 where nothing is gained by it."""
        ...

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """Estimators that can be split on this group, with their rounds, whose seconds are contained in `cost`."""
        ...

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """A part of a split estimator's round, ending in a piece without chunk. done: pieces of all earlier rounds.

        Never raises for what is wrong with the group.
        """
        ...

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """Everything the science says of one group. Never raises for what is wrong with the group.

        done: pieces of estimators that were split; the others run whole.
        """
        ...

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """What `run` says of each of several groups, of which none was split."""
        ...
