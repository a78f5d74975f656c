"""The panel job's work on one group: estimators and variances over its panel, rows of result tables."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causal_spark.engine.build_panel import build_panel
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory, limit_for, panel_memory, too_large
from causal_spark.engine.periods import uneven_periods
from causal_spark.engine.work import Failure, Group, GroupResult, GroupSize, InputColumns, Part, Piece, RoundSize, Row
from causal_spark.errors import DeclinedError, GroupError, NoEstimatorError, SolverError
from causal_spark.panel.event_study import EventStudy, event_study
from causal_spark.panel.inference import VarianceEstimate, interval
from causal_spark.panel.labels import label
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.stages import Arrays, Staged, from_bytes, run_in_process, state_after, to_bytes
from causal_spark.panel.summary import EffectSummary, effect_cells, summarise, unidentified_cells
from causal_spark.panel.types import Fit, Floats, Notice, Panel, PanelSize

Cells = Literal["treated", "all", "none"]
#: Weights at or below this are left out of ``panel_weights``.
WEIGHT_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class EstimatorTask:
    """One estimator to run. options: its options dataclass; where: group column to the values it is run for."""

    name: str
    options: Any
    where: Mapping[str, tuple[Any, ...]]

    def wants(self, key: Mapping[str, Any]) -> bool:
        """Whether the group of that key is among those asked for."""
        return all(_instant(key[column]) in values for column, values in self.where.items())


def _instant(value: Any) -> Any:
    # The driver collects timestamps in local time and without a zone, workers have them in UTC.
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value


@dataclass(frozen=True, slots=True)
class VarianceTask:
    """One variance estimator to run on every point estimate."""

    name: str
    options: Any


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _nullable(values: Floats) -> pa.Array:
    return pa.array(np.where(np.isfinite(values), values, np.nan), from_pandas=True)


def _penalty(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


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
            seconds = definition.cost(panel, task.options, True)
            for variance in self.variances:
                n_fits = VARIANCES[variance.name].n_fits(panel, variance.options)
                seconds += n_fits * definition.cost(
                    panel, task.options, VARIANCES[variance.name].retunes(variance.options)
                )
            costs[task.name] = seconds
        return costs

    def within(self, memory_limit: int | None) -> PanelWork:
        """The same work, knowing what a task may use."""
        return replace(self, memory_limit=memory_limit)

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to arrange the group's rows and to run each of its estimators."""
        return self._panel_memory(self.panel_size(size), size.n_rows, size.key)

    def _panel_memory(self, size: PanelSize, n_rows: int, key: Mapping[str, Any]) -> GroupMemory:
        n_covariates = sum(column.name.startswith("_covariate_") for column in self.columns.values)
        arrays = {task.name: ESTIMATORS[task.name].arrays(task.options) for task in self.estimators if task.wants(key)}
        n_cell_rows = {"none": 0, "treated": size.n_treated_cells, "all": n_rows}[self.cells]
        return panel_memory(size, n_rows, n_covariates, arrays, n_cell_rows)

    def refusal(self, size: GroupSize) -> Failure | None:
        """Why the group cannot be arranged within the limit; None when it can."""
        needed = self.memory(size).base
        if self.memory_limit is None or needed <= self.memory_limit:
            return None
        error = too_large(f"Arranging {size.n_rows} rows", needed, self.panel_size(size), self.memory_limit)
        return _failure("read", None, error)

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """Estimators that can be split on the group, with their rounds."""
        fitting = self.memory(size).fitting(self.memory_limit)
        panel = self.panel_size(size)
        return {
            task.name: [
                RoundSize(*of_round)
                for of_round in zip(
                    staged.seconds(panel, task.options), staged.most_chunks(panel, task.options), strict=True
                )
            ]
            for task in self.estimators
            if task.name in fitting and (staged := ESTIMATORS[task.name].staged) is not None
        }

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """Chunks of one estimator's round, up to the first that fails, and a piece that says it is over.

        What is wrong before the first chunk is left to `run`, which finds it again and tells it.
        """
        started = time.perf_counter()
        task = next(task for task in self.estimators if task.name == part.estimator)
        try:
            panel = build_panel(group.rows, self.memory_limit)
            self._require_memory(panel, group, task)
            staged = self._start(panel, group.group_id, task)
            state = state_after(staged, _results(done))
            chunks = _share(staged.n_chunks(state), part) if not any(piece.failure for piece in done) else []
        except Exception:  # noqa: BLE001 - one bad group must never fail a job
            chunks = []
        for chunk in chunks:
            content, failure = None, None
            try:
                content = to_bytes(staged.run(state, chunk))
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                failure = _failure("estimate", task.name, error)
            now = time.perf_counter()
            yield Piece(task.name, part.round, part.part, chunk, content, failure, now - started)
            if failure is not None:
                break
            started = now
        yield Piece(task.name, part.round, part.part, None, None, None, time.perf_counter() - started)

    def _start(self, panel: Panel, group: str, task: EstimatorTask) -> Staged:
        definition = ESTIMATORS[task.name].staged
        if definition is None:
            raise TypeError(f"Estimator {task.name} cannot be split.")
        return definition.start(panel, task.options, None, self._tuning_seed(group, task))

    def _tuning_seed(self, group: str, task: EstimatorTask) -> int:
        return seed_for(self.seed, group, f"tune:{ESTIMATORS[task.name].draws or task.name}")

    def _require_memory(self, panel: Panel, group: Group, task: EstimatorTask) -> None:
        """Raise `GroupTooLargeError` when the estimator needs more than this task may use."""
        size = PanelSize(panel.n_units, panel.n_periods, int(panel.ever_treated.sum()), int(panel.treated.sum()))
        needed = self._panel_memory(size, len(group.rows), group.key).estimators[task.name]
        limit = limit_for(needed, self.memory_limit)
        if needed > limit:
            raise too_large(f"Estimator {task.name}", needed, size, limit)

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """All estimators and variances on one panel; what cannot be estimated becomes a failure with a hint."""
        result = GroupResult({name: [] for name in self.tables})
        try:
            panel = build_panel(group.rows, self.memory_limit)
            if not any(task.wants(group.key) for task in self.estimators):
                raise NoEstimatorError("No estimator is asked for here.", "Widen `where`, or drop the group.")
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(_failure("read", None, error))
            return result
        for task in self.estimators:
            if not task.wants(group.key):
                continue
            try:
                self._require_memory(panel, group, task)
            except GroupError as error:
                result.failures.append(_failure("estimate", task.name, error))
                continue
            pieces = [piece for piece in done if piece.estimator == task.name]
            before, started = sum(piece.seconds for piece in pieces), time.perf_counter()
            self._estimate(panel, group.group_id, task, pieces, result)
            result.seconds[task.name] = before + time.perf_counter() - started
        uneven = uneven_periods(panel.periods)
        # Without an estimate there is nothing to be warned of.
        if uneven is not None and result.tables["panel_effects"]:
            result.failures.append(_warning("read", None, uneven))
        return result

    def _estimate(
        self, panel: Panel, group: str, task: EstimatorTask, pieces: Sequence[Piece], result: GroupResult
    ) -> None:
        failed = [piece for piece in pieces if piece.failure is not None]
        if failed:
            # The one that a loop over all chunks would have met first.
            earliest = min(failed, key=lambda piece: (piece.round, piece.chunk))
            result.failures += [earliest.failure] if earliest.failure else []
            return
        started = time.perf_counter()
        try:
            if pieces:
                fit = run_in_process(self._start(panel, group, task), _results(pieces))
            else:
                fit = ESTIMATORS[task.name].fit(panel, task.options, None, self._tuning_seed(group, task))
            summary = summarise(panel, fit)
            events = event_study(panel, fit)
            seconds = time.perf_counter() - started + sum(piece.seconds for piece in pieces)
            if not np.isfinite([summary.estimate, *events.estimate]).all():
                raise SolverError("The estimate is not finite.", "Rescale the outcome: it is near the largest double.")
            rows = {
                "panel_effects": [_effect_row(task.name, summary, fit, seconds)],
                "panel_weights": _weight_rows(task.name, panel, fit),
                "tuning_path": _path_rows(task.name, fit),
            }
            cells = [] if self.cells == "none" else [self._cells(task.name, panel, fit)]
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(_failure("estimate", task.name, error))
            return
        notices = (*fit.notices, *unidentified_cells(panel, fit))
        result.failures += [_warning("estimate", task.name, notice) for notice in notices]
        estimates: list[VarianceEstimate] = []
        for variance in self.variances:
            found = self._variance(panel, group, task, fit, variance, result)
            result.tables["panel_variances"].append(self._variance_row(task.name, variance.name, summary, found))
            if found is not None:
                estimates.append(found)
        first = estimates[0] if estimates else None
        result.tables["panel_event_study"] += self._event_rows(task.name, events, first)
        for name, made in rows.items():
            result.tables[name] += made
        if cells:
            result.large.setdefault("panel_cells", []).extend(cells)

    def _variance(
        self, panel: Panel, group: str, task: EstimatorTask, fit: Fit, variance: VarianceTask, result: GroupResult
    ) -> VarianceEstimate | None:
        # The seed leaves the estimator out, so that all estimators are judged on the same placebo assignments.
        seed = seed_for(self.seed, group, f"variance:{variance.name}")
        definition = ESTIMATORS[task.name]
        try:
            return VARIANCES[variance.name].run(panel, definition, task.options, fit, variance.options, seed)
        except Exception as error:  # noqa: BLE001 - a variance must not cost the estimate
            result.failures.append(_failure(f"variance:{variance.name}", task.name, error))
            return None

    def _variance_row(
        self, estimator: str, variance: str, summary: EffectSummary, found: VarianceEstimate | None
    ) -> Row:
        row: dict[str, Any] = {
            "estimator": estimator,
            "variance_estimator": variance,
            "conditioning": VARIANCES[variance].conditioning,
            "conf_level": self.confidence_level,
            "n_replicates": 0,
        }
        if found is None:
            return row
        around = interval(summary.estimate, found.std_error, found.df, self.confidence_level)
        return row | {
            "std_error": _number(found.std_error),
            "df": _number(found.df),
            "statistic": _number(around.statistic),
            "p_value": _number(around.p_value),
            "conf_low": _number(around.conf_low),
            "conf_high": _number(around.conf_high),
            "n_replicates": found.n_replicates,
        }

    def _event_rows(self, estimator: str, events: EventStudy, variance: VarianceEstimate | None) -> list[Row]:
        rows: list[Row] = []
        for event_time, estimate, n_cells in zip(
            events.event_time.tolist(), events.estimate.tolist(), events.n_cells.tolist(), strict=True
        ):
            row: dict[str, Any] = {
                "estimator": estimator,
                "event_time": event_time,
                "estimate": estimate,
                "n_cells": n_cells,
            }
            std_error = None if variance is None else variance.event_std_errors.get(event_time)
            if variance is not None and std_error is not None:
                around = interval(estimate, std_error, variance.df, self.confidence_level)
                row |= {
                    "std_error": _number(std_error),
                    "conf_low": _number(around.conf_low),
                    "conf_high": _number(around.conf_high),
                }
            rows.append(row)
        return rows

    def _cells(self, estimator: str, panel: Panel, fit: Fit) -> pa.Table:
        order = _label_order(panel)
        wanted = panel.treated if self.cells == "treated" else panel.treated | panel.observed
        place, t = np.nonzero(wanted[order])
        i = order[place]
        columns: dict[str, Any] = {
            "estimator": pa.repeat(estimator, len(i)),
            "unit": pa.array([label(unit) for unit in panel.units], pa.string()).take(pa.array(i)),
            "time": pa.array([label(period) for period in panel.periods], pa.string()).take(pa.array(t)),
            "treated": pa.array(panel.treated[i, t]),
            "outcome": _nullable(panel.outcome[i, t]),
            "counterfactual": _nullable(fit.counterfactual[i, t]),
            "effect": _nullable(effect_cells(panel, fit)[i, t]),
            "std_error": pa.nulls(len(i), pa.float64()),
        }
        return pa.table(columns)


def _effect_row(estimator: str, summary: EffectSummary, fit: Fit, seconds: float) -> Row:
    penalties = fit.penalties
    return {
        "estimator": estimator,
        "estimand": "att",
        "estimate": summary.estimate,
        "n_units": summary.n_units,
        "n_periods": summary.n_periods,
        "n_treated_units": summary.n_treated_units,
        "n_treated_cells": summary.n_treated_cells,
        "n_cells_not_identified": summary.n_cells_not_identified,
        "n_control_units": summary.n_control_units,
        "n_pre_periods": summary.n_pre_periods,
        "pre_rmse": _number(summary.pre_rmse),
        "tuning": fit.tuning,
        "criterion": _number(fit.criterion),
        "lambda_time": _penalty(penalties.lambda_time),
        "lambda_unit": _penalty(penalties.lambda_unit),
        "lambda_nn": _penalty(penalties.lambda_nn),
        "fitted_rank": fit.rank,
        "converged": fit.converged,
        "seconds": seconds,
        "constancy_statistic": _number(None if fit.constancy is None else fit.constancy.statistic),
        "constancy_p_value": _number(None if fit.constancy is None else fit.constancy.p_value),
        "constancy_weight": _number(None if fit.constancy is None else fit.constancy.weight),
    }


def _label_order(panel: Panel) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(n_units,) positions of units by label, the order people read them in."""
    return np.argsort(panel.units, kind="stable")


def _weight_rows(estimator: str, panel: Panel, fit: Fit) -> list[Row]:
    place = np.argsort(_label_order(panel), kind="stable")
    rows: list[Row] = []
    for weights in fit.weights:
        of_time = weights.kind.startswith("time")
        labels = panel.periods if of_time else panel.units
        order = np.argsort(weights.positions if of_time else place[weights.positions], kind="stable")
        rows += [
            {"estimator": estimator, "kind": weights.kind, "label": label(labels[position]), "weight": value}
            for position, value in zip(weights.positions[order].tolist(), weights.values[order].tolist(), strict=True)
            if value > WEIGHT_FLOOR
        ]
    return rows


def _path_rows(estimator: str, fit: Fit) -> list[Row]:
    return [
        {
            "estimator": estimator,
            "step": step,
            "lambda_time": _penalty(tried.lambda_time),
            "lambda_unit": _penalty(tried.lambda_unit),
            "lambda_nn": _penalty(tried.lambda_nn),
            "criterion": _number(tried.criterion),
        }
        for step, tried in enumerate(fit.path)
    ]


def _share(n_chunks: int, part: Part) -> list[int]:
    """Chunks of a part, ascending. Chunks whose cost runs with their number are spread over all parts."""
    order = np.random.default_rng(n_chunks).permutation(n_chunks)
    return sorted(order[part.part :: part.n_parts].tolist())


def _results(pieces: Sequence[Piece]) -> list[dict[int, Arrays]]:
    """Per round, chunk number to result."""
    rounds: list[dict[int, Arrays]] = [{} for _ in range(max((piece.round + 1 for piece in pieces), default=0))]
    for piece in pieces:
        if piece.chunk is not None and piece.content is not None:
            rounds[piece.round][piece.chunk] = from_bytes(piece.content)
    return rounds


def _warning(stage: str, estimator: str | None, notice: Notice) -> Failure:
    return Failure(stage, estimator, "warned", notice.name, notice.message, notice.hint)


def _failure(stage: str, estimator: str | None, error: Exception) -> Failure:
    kind = "declined" if isinstance(error, DeclinedError) else "failed"
    if isinstance(error, GroupError):
        return Failure(stage, estimator, kind, type(error).__name__, error.message, error.hint)
    hint = "This is a defect of causal_spark or of its libraries: please report it with the group's data."
    return Failure(stage, estimator, kind, type(error).__name__, str(error) or type(error).__name__, hint)
