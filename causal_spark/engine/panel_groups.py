"""What works over panels share: sizes, memory, and one estimator's work in rounds of chunks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causal_spark.engine.build_panel import build_panel
from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.memory import GroupMemory, limit_for, panel_memory, panel_too_large
from causal_spark.engine.tasks import EstimatorTask, failure_of
from causal_spark.engine.work import Failure, Group, GroupResult, GroupSize, InputColumns, Part, Piece
from causal_spark.panel.registry import ESTIMATORS, VarianceMethod, replicate_sets
from causal_spark.panel.replicates import ReplicateSet
from causal_spark.panel.stages import Arrays, to_bytes
from causal_spark.panel.types import Panel, PanelSize


@dataclass(frozen=True, slots=True)
class Chunks:
    """A round's chunks of one estimator on one panel. run: computes one; failing: whether the rest is of no use once
    one has failed.
    """

    n: int
    run: Callable[[int], Arrays]
    failing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelGroups(ABC):
    """Base of works whose groups are panels; see `causal_spark.engine.work.Work`.

    memory_limit: bytes one task may use, None where no group needs much.
    """

    columns: InputColumns
    estimators: tuple[EstimatorTask, ...]
    variances: tuple[VarianceMethod, ...]
    confidence_level: float
    seed: int
    memory_limit: int | None = None

    job: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    measures: ClassVar[tuple[str, ...]] = ("units", "treated_units", "treated_cells")

    @abstractmethod
    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """Everything the science says of one panel. Never raises for what is wrong with it."""

    @abstractmethod
    def chunks(self, panel: Panel, group: Group, task: EstimatorTask, number: int, done: Sequence[Piece]) -> Chunks:
        """A round of one estimator. done: its pieces of earlier rounds."""

    @abstractmethod
    def cell_rows(self, size: PanelSize, n_rows: int) -> int:
        """Rows of tables with a row per cell that each estimator makes."""

    def measure(self, rows: pa.Table) -> tuple[int, ...]:
        """Units, treated units and treated cells of an ordered slice."""
        unit = rows["_unit"]
        treated = pc.fill_null(pc.equal(rows["_treatment"], 1.0), False)
        treated_units = unit.filter(treated)
        return pc.count_distinct(unit).as_py(), pc.count_distinct(treated_units).as_py(), len(treated_units)

    def panel_size(self, size: GroupSize) -> PanelSize:
        """Dimensions of a group's panel; periods as if every unit had a row in each."""
        counted = size.measures
        n_periods = -(-size.n_rows // max(counted["units"], 1))
        return PanelSize(counted["units"], n_periods, counted["treated_units"], counted["treated_cells"])

    def within(self, memory_limit: int | None) -> Self:
        """The same work, knowing what a task may use."""
        return replace(self, memory_limit=memory_limit)

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to arrange the group's rows and to run each of its estimators."""
        return self._panel_memory(self.panel_size(size), size.n_rows, size.key)

    def _panel_memory(self, size: PanelSize, n_rows: int, key: Mapping[str, Any]) -> GroupMemory:
        n_covariates = sum(column.name.startswith(COVARIATE) for column in self.columns.values)
        held = sum(one.numbers(size) for one in self.replicate_sets()) / max(size.n_units * size.n_periods, 1)
        arrays = {
            task.name: ESTIMATORS[task.name].arrays(task.options) + held for task in self.estimators if task.wants(key)
        }
        return panel_memory(size, n_rows, n_covariates, arrays, self.cell_rows(size, n_rows))

    def fitting(self, size: GroupSize) -> list[EstimatorTask]:
        """Estimators that are run on a group of this size."""
        names = self.memory(size).fitting(self.memory_limit)
        return [task for task in self.estimators if task.name in names]

    def refusal(self, size: GroupSize) -> Failure | None:
        """Why the group cannot be arranged within the limit; None when it can."""
        needed = self.memory(size).base
        if self.memory_limit is None or needed <= self.memory_limit:
            return None
        error = panel_too_large(f"Arranging {size.n_rows} rows", needed, self.panel_size(size), self.memory_limit)
        return failure_of("read", None, error)

    def companions(self, size: GroupSize) -> int:
        """A panel gains nothing from others beside it."""
        del size
        return 1

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """One panel after the other."""
        return [self.run(group) for group in groups]

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """Chunks of one estimator's round, up to the first that fails, and a piece that says it is over.

        What is wrong before the first chunk is left to `run`, which finds it again and tells it.
        """
        started = time.perf_counter()
        task = next(task for task in self.estimators if task.name == part.estimator)
        numbers: list[int] = []
        try:
            panel = build_panel(group.rows, self.memory_limit)
            self.require_memory(panel, group, task)
            chunks = self.chunks(panel, group, task, part.round, done)
            if not any(piece.failure for piece in done):
                numbers = _share(chunks.n, part)
        except Exception:  # noqa: BLE001 - one bad group must never fail a job
            numbers = []
        for number in numbers:
            content, failure = None, None
            try:
                content = to_bytes(chunks.run(number))
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                failure = failure_of("estimate", task.name, error)
            now = time.perf_counter()
            yield Piece(task.name, part.round, part.part, number, content, failure, now - started)
            started = now
            if failure is not None and chunks.failing:
                break
        yield Piece(task.name, part.round, part.part, None, None, None, time.perf_counter() - started)

    def require_memory(self, panel: Panel, group: Group, task: EstimatorTask) -> None:
        """Raise `GroupTooLargeError` when the estimator needs more than this task may use."""
        size = PanelSize.of(panel)
        needed = self._panel_memory(size, len(group.rows), group.key).estimators[task.name]
        limit = limit_for(needed, self.memory_limit)
        if needed > limit:
            raise panel_too_large(f"Estimator {task.name}", needed, size, limit)

    def replicate_sets(self) -> tuple[ReplicateSet, ...]:
        """Every list of replicates that some variance needs."""
        return replicate_sets(self.variances)


def _share(n_chunks: int, part: Part) -> list[int]:
    """Chunks of a part, ascending. Chunks whose cost runs with their number are spread over all parts."""
    order = np.random.default_rng(n_chunks).permutation(n_chunks)
    return sorted(order[part.part :: part.n_parts].tolist())
