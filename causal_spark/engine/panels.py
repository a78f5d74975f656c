"""The panel job's work on one group: estimators and variances over its panel, rows of result tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from causal_spark.engine.build_panel import build_panel
from causal_spark.engine.keys import seed_for
from causal_spark.engine.panel_groups import Chunks, PanelGroups
from causal_spark.engine.panel_parts import FailedElsewhereError, PanelParts, replicate_seconds, round_sizes
from causal_spark.engine.panel_rows import cell_table, effect_row, event_rows, path_rows, variance_row, weight_rows
from causal_spark.engine.periods import uneven_periods
from causal_spark.engine.tasks import EstimatorTask, failure_of, wanted_tasks, warning_of
from causal_spark.engine.work import Failure, Group, GroupResult, GroupSize, Piece, RoundSize
from causal_spark.errors import GroupError, SolverError
from causal_spark.panel.event_study import event_study
from causal_spark.panel.inference import Details, VarianceEstimate
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates
from causal_spark.panel.summary import summarise, unidentified_cells
from causal_spark.panel.types import Fit, Panel, PanelSize

Cells = Literal["treated", "all", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelWork(PanelGroups):
    """Point estimates, variances and their tables for one panel."""

    cells: Cells = "treated"

    job = "panel_effects"
    tables = (
        "panel_effects",
        "panel_variances",
        "panel_event_study",
        "panel_cells",
        "panel_weights",
        "tuning_path",
    )

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per estimator that is run on the group, its variances included."""
        panel = self.panel_size(size)
        costs: dict[str, float] = {}
        for task in self.fitting(size):
            definition = ESTIMATORS[task.name]
            costs[task.name] = definition.cost(panel, task.options, True) + sum(
                replicate_seconds(definition, task.options, one, panel) for one in self.replicate_sets()
            )
        return costs

    def cell_rows(self, size: PanelSize, n_rows: int) -> int:
        """Rows of ``panel_cells`` per estimator."""
        return {"none": 0, "treated": size.n_treated_cells, "all": n_rows}[self.cells]

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """Estimators that can be split on the group, with their rounds."""
        panel, sets = self.panel_size(size), self.replicate_sets()
        found = {
            task.name: round_sizes(ESTIMATORS[task.name], task.options, sets, panel) for task in self.fitting(size)
        }
        return {name: sizes for name, sizes in found.items() if sizes}

    def chunks(self, panel: Panel, group: Group, task: EstimatorTask, number: int, done: Sequence[Piece]) -> Chunks:
        """Chunks of tuning and estimation, or of replicates: of which others may be of use where one failed."""
        parts = self._parts(panel, group.group_id, task)
        return Chunks(*parts.chunks(number, done), failing=number < parts.n_fit_rounds)

    def _parts(self, panel: Panel, group: str, task: EstimatorTask) -> PanelParts:
        definition, seed = ESTIMATORS[task.name], partial(seed_for, self.seed, group)
        sets = self.replicate_sets()
        return PanelParts(panel, definition, task.options, sets, self._tuning_seed(group, task), seed)

    def _tuning_seed(self, group: str, task: EstimatorTask) -> int:
        return seed_for(self.seed, group, f"tune:{ESTIMATORS[task.name].draws or task.name}")

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
                self.require_memory(panel, group, task)
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
                    replicates = Replicates(setting, self.replicate_sets(), parts.replicates(setting, done))
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
