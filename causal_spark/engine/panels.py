"""The panel job's work on one group: estimators and variances over its panel, rows of result tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causal_spark.engine.build_panel import build_panel
from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory, limit_for, panel_memory, panel_too_large
from causal_spark.engine.panel_parts import FailedElsewhereError, PanelParts, replicate_seconds, round_sizes
from causal_spark.engine.panel_rows import cell_table, effect_row, event_rows, path_rows, variance_row, weight_rows
from causal_spark.engine.periods import uneven_periods
from causal_spark.engine.tasks import EstimatorTask, failure_of, wanted_tasks, warning_of
from causal_spark.engine.work import Failure, Group, GroupResult, GroupSize, InputColumns, Part, Piece, RoundSize
from causal_spark.errors import GroupError, SolverError
from causal_spark.panel.event_study import event_study
from causal_spark.panel.inference import Details, VarianceEstimate
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates, ReplicateSet, distinct
from causal_spark.panel.stages import to_bytes
from causal_spark.panel.summary import summarise, unidentified_cells
from causal_spark.panel.types import Fit, Panel, PanelSize

Cells = Literal["treated", "all", "none"]
#: Weights at or below this are left out of ``panel_weights``.
WEIGHT_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class VarianceTask:
    """One variance estimator to run on every point estimate."""

    name: str
    options: Any


@dataclass(frozen=True, slots=True)
class PanelWork:
    """Point estimates, variances and their tables for one panel; see `causal_spark.engine.work.Work`.

    memory_limit: bytes one task may use, None where no group needs much.
    """

    columns: InputColumns
    estimators: tuple[EstimatorTask, ...]
    variances: tuple[VarianceTask, ...]
    confidence_level: float
    seed: int
    cells: Cells
    memory_limit: int | None = None

    job = "panel_effects"
    tables = (
        "panel_effects",
        "panel_variances",
        "panel_event_study",
        "panel_cells",
        "panel_weights",
        "tuning_path",
    )
    measures = ("units", "treated_units", "treated_cells")

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

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per estimator that is run on the group, its variances included."""
        panel = self.panel_size(size)
        costs: dict[str, float] = {}
        fitting = self.memory(size).fitting(self.memory_limit)
        for task in self.estimators:
            if task.name not in fitting:
                continue
            definition = ESTIMATORS[task.name]
            costs[task.name] = definition.cost(panel, task.options, True) + sum(
                replicate_seconds(definition, task.options, one, panel) for one in self._replicate_sets()
            )
        return costs

    def within(self, memory_limit: int | None) -> PanelWork:
        """The same work, knowing what a task may use."""
        return replace(self, memory_limit=memory_limit)

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to arrange the group's rows and to run each of its estimators."""
        return self._panel_memory(self.panel_size(size), size.n_rows, size.key)

    def _panel_memory(self, size: PanelSize, n_rows: int, key: Mapping[str, Any]) -> GroupMemory:
        n_covariates = sum(column.name.startswith(COVARIATE) for column in self.columns.values)
        held = sum(one.numbers(size) for one in self._replicate_sets()) / max(size.n_units * size.n_periods, 1)
        arrays = {
            task.name: ESTIMATORS[task.name].arrays(task.options) + held for task in self.estimators if task.wants(key)
        }
        n_cell_rows = {"none": 0, "treated": size.n_treated_cells, "all": n_rows}[self.cells]
        return panel_memory(size, n_rows, n_covariates, arrays, n_cell_rows)

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

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """Estimators that can be split on the group, with their rounds."""
        fitting = self.memory(size).fitting(self.memory_limit)
        panel = self.panel_size(size)
        sets = self._replicate_sets()
        found = {
            task.name: round_sizes(ESTIMATORS[task.name], task.options, sets, panel)
            for task in self.estimators
            if task.name in fitting
        }
        return {name: sizes for name, sizes in found.items() if sizes}

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """Chunks of one estimator's round, up to the first that fails, and a piece that says it is over.

        What is wrong before the first chunk is left to `run`, which finds it again and tells it.
        """
        started = time.perf_counter()
        task = next(task for task in self.estimators if task.name == part.estimator)
        of_fit = True
        try:
            panel = build_panel(group.rows, self.memory_limit)
            self._require_memory(panel, group, task)
            parts = self._parts(panel, group.group_id, task)
            of_fit = part.round < parts.n_fit_rounds
            n_chunks, run = parts.chunks(part.round, done)
            chunks = _share(n_chunks, part) if not any(piece.failure for piece in done) else []
        except Exception:  # noqa: BLE001 - one bad group must never fail a job
            chunks = []
        for chunk in chunks:
            content, failure = None, None
            try:
                content = to_bytes(run(chunk))
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                failure = failure_of("estimate", task.name, error)
            now = time.perf_counter()
            yield Piece(task.name, part.round, part.part, chunk, content, failure, now - started)
            started = now
            # Replicates of another list may still be of use.
            if failure is not None and of_fit:
                break
        yield Piece(task.name, part.round, part.part, None, None, None, time.perf_counter() - started)

    def _parts(self, panel: Panel, group: str, task: EstimatorTask) -> PanelParts:
        definition, seed = ESTIMATORS[task.name], partial(seed_for, self.seed, group)
        sets = self._replicate_sets()
        return PanelParts(panel, definition, task.options, sets, self._tuning_seed(group, task), seed)

    def _tuning_seed(self, group: str, task: EstimatorTask) -> int:
        return seed_for(self.seed, group, f"tune:{ESTIMATORS[task.name].draws or task.name}")

    def _require_memory(self, panel: Panel, group: Group, task: EstimatorTask) -> None:
        """Raise `GroupTooLargeError` when the estimator needs more than this task may use."""
        size = PanelSize.of(panel)
        needed = self._panel_memory(size, len(group.rows), group.key).estimators[task.name]
        limit = limit_for(needed, self.memory_limit)
        if needed > limit:
            raise panel_too_large(f"Estimator {task.name}", needed, size, limit)

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """All estimators and variances on one panel; what cannot be estimated becomes a failure with a hint."""
        result = GroupResult({name: [] for name in self.tables})
        try:
            panel = build_panel(group.rows, self.memory_limit)
            tasks = wanted_tasks(self.estimators, group.key)
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("read", None, error))
            return result
        for task in tasks:
            try:
                self._require_memory(panel, group, task)
            except GroupError as error:
                result.failures.append(failure_of("estimate", task.name, error))
                continue
            pieces = [piece for piece in done if piece.estimator == task.name]
            before, started = sum(piece.seconds for piece in pieces), time.perf_counter()
            self._estimate(panel, group.group_id, task, pieces, result)
            result.seconds[task.name] = before + time.perf_counter() - started
        uneven = uneven_periods(panel.periods)
        # Without an estimate there is nothing to be warned of.
        if uneven is not None and result.tables["panel_effects"]:
            result.failures.append(warning_of("read", None, uneven))
        return result

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """One panel after the other."""
        return [self.run(group) for group in groups]

    def _estimate(
        self, panel: Panel, group: str, task: EstimatorTask, pieces: Sequence[Piece], result: GroupResult
    ) -> None:
        parts = self._parts(panel, group, task)
        of_fit = [piece for piece in pieces if piece.round < parts.n_fit_rounds]
        failed = [piece for piece in of_fit if piece.failure is not None]
        if failed:
            # The one that a loop over all chunks would have met first.
            earliest = min(failed, key=lambda piece: (piece.round, piece.chunk))
            result.failures += [earliest.failure] if earliest.failure else []
            return
        started = time.perf_counter()
        try:
            fit = parts.fit(of_fit)
            summary = summarise(panel, fit)
            events = event_study(panel, fit)
            seconds = time.perf_counter() - started + sum(piece.seconds for piece in of_fit)
            if not np.isfinite([summary.estimate, *events.estimate]).all():
                raise SolverError("The estimate is not finite.", "Rescale the outcome: it is near the largest double.")
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("estimate", task.name, error))
            return
        of_replicates = [piece for piece in pieces if piece.round >= parts.n_fit_rounds]
        variances, details, failures = self._variances(parts, task, fit, of_replicates)
        try:
            rows = {
                "panel_effects": [effect_row(task.name, summary, fit, seconds)],
                "panel_variances": [
                    variance_row(task.name, one.name, summary.estimate, variances.get(one.name), self.confidence_level)
                    for one in self.variances
                ],
                "panel_event_study": event_rows(task.name, events, details.event_times, self.confidence_level),
                "panel_weights": weight_rows(task.name, panel, fit),
                "tuning_path": path_rows(task.name, fit),
            }
            wanted = panel.treated if self.cells == "treated" else panel.treated | panel.observed
            cells = [] if self.cells == "none" else [cell_table(task.name, panel, fit, wanted, details.cells)]
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("estimate", task.name, error))
            return
        notices = (*fit.notices, *unidentified_cells(panel, fit))
        result.failures += [warning_of("estimate", task.name, notice) for notice in notices]
        result.failures += failures
        for name, made in rows.items():
            result.tables[name] += made
        if cells:
            result.large.setdefault("panel_cells", []).extend(cells)

    def _variances(
        self, parts: PanelParts, task: EstimatorTask, fit: Fit, done: Sequence[Piece]
    ) -> tuple[dict[str, VarianceEstimate], Details, list[Failure]]:
        """Variances by name, error bars of event times and of cells, each from the first variance that has them, and
        what could not be estimated, which must not cost the estimate.
        """
        found: dict[str, VarianceEstimate] = {}
        failures: list[Failure] = []
        replicates: Replicates | None = None
        setting = parts.setting(fit)
        for variance in self.variances:
            try:
                if replicates is None:
                    replicates = Replicates(setting, self._replicate_sets(), parts.replicates(setting, done))
                estimate = VARIANCES[variance.name].estimate(setting, variance.options, replicates)
                if not estimate.att.is_usable:
                    raise SolverError("The standard error is not finite.", "Look for extreme outcomes.")
                found[variance.name] = estimate
            except FailedElsewhereError as error:
                failures.append(replace(error.failure, stage=f"variance:{variance.name}"))
            except Exception as error:  # noqa: BLE001 - one bad variance must never fail a job
                failures.append(failure_of(f"variance:{variance.name}", task.name, error))
        details = Details({})
        for name, estimate in found.items():
            if details.event_times and details.cells is not None:
                break
            try:
                mine = estimate.details()
            except Exception as error:  # noqa: BLE001 - nor may its details cost the variance
                failures.append(failure_of(f"details:{name}", task.name, error))
                continue
            cells = mine.cells if details.cells is None else details.cells
            details = Details(details.event_times or mine.event_times, cells)
        return found, details, failures

    def _replicate_sets(self) -> tuple[ReplicateSet, ...]:
        """Every list of replicates that some variance needs."""
        return distinct([one for variance in self.variances for one in VARIANCES[variance.name].sets(variance.options)])


def _share(n_chunks: int, part: Part) -> list[int]:
    """Chunks of a part, ascending. Chunks whose cost runs with their number are spread over all parts."""
    order = np.random.default_rng(n_chunks).permutation(n_chunks)
    return sorted(order[part.part :: part.n_parts].tolist())
