"""The response curve job's work on groups: weightings and curves of each, rows of result tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from causal_spark.dose_response.costs import SegmentSize, model_numbers
from causal_spark.dose_response.doses import choose_doses
from causal_spark.dose_response.expected_bias import OutcomeModel, expected_bias, fit_outcome
from causal_spark.dose_response.imbalance import Imbalance, imbalances, notice_of
from causal_spark.dose_response.inference import Curve, estimate_curve
from causal_spark.dose_response.registry import WEIGHTINGS, WeightingDefinition
from causal_spark.dose_response.second_stage import StageName, StageOptions, curve_problem
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting
from causal_spark.engine.build_segment import build_segment
from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory, limit_for, too_large
from causal_spark.engine.tasks import EstimatorTask, failure_of, wanted_tasks, warning_of
from causal_spark.engine.work import (
    Failure,
    Group,
    GroupResult,
    GroupSize,
    InputColumns,
    Part,
    Piece,
    RoundSize,
    Row,
)
from causal_spark.errors import GroupError, SolverError

#: Weights that are given, so that what they leave unbalanced is no surprise.
_AS_GIVEN = "unweighted"
#: Bytes of an input row while it is read and encoded, beyond those of its columns, and of each of these.
_ROW, _ROW_COLUMN = 200, 80


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One group that can be read: its problem, the outcome of its rows, the estimators asked for and what they found.

    fits: estimators and their weights, or why there are none.
    """

    group: Group
    problem: CurveProblem
    outcome: Floats
    tasks: Sequence[EstimatorTask]
    result: GroupResult
    fits: list[tuple[str, Weighting | Exception]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CurveWork:
    """Response curves and balance of groups; see `causal_spark.engine.work.Work`.

    grid: a number of doses per group, or the doses. least_effective: rows that weights must leave effective.
    """

    columns: InputColumns
    estimators: tuple[EstimatorTask, ...]
    stage: StageName
    stage_options: StageOptions
    grid: int | tuple[float, ...]
    n_replicates: int
    least_effective: float
    confidence_level: float
    seed: int
    memory_limit: int | None = None

    job = "response_curves"
    tables = ("response_curves", "balance")
    measures = ()

    def measure(self, rows: pa.Table) -> tuple[int, ...]:
        """Nothing beyond the number of rows."""
        del rows
        return ()

    def segment_size(self, size: GroupSize) -> SegmentSize:
        """Dimensions of a group's segment; a covariate that is a category counts as one column."""
        n_covariates = sum(column.name.startswith(COVARIATE) for column in self.columns.values)
        return SegmentSize(size.n_rows, n_covariates)

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per estimator that is run on the group, its bootstrap included."""
        segment = self.segment_size(size)
        fitting = self.memory(size).fitting(self.memory_limit)
        return {
            task.name: WEIGHTINGS[task.name].cost(segment, task.options, self.companions(size), self.n_replicates)
            for task in self.estimators
            if task.name in fitting
        }

    def within(self, memory_limit: int | None) -> CurveWork:
        """The same work, knowing what a task may use."""
        return replace(self, memory_limit=memory_limit)

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to read the group's rows and to run each of its estimators, with its companions beside it."""
        segment, n_groups = self.segment_size(size), self.companions(size)
        base = n_groups * segment.n_rows * (_ROW + _ROW_COLUMN * (2 + segment.n_covariates))
        estimators = {
            task.name: base
            + math.ceil(8 * n_groups * WEIGHTINGS[task.name].held(segment, self.n_replicates))
            + math.ceil(8 * model_numbers(segment))
            for task in self.estimators
            if task.wants(size.key)
        }
        return GroupMemory(base, estimators)

    def refusal(self, size: GroupSize) -> Failure | None:
        """Why the group cannot be read within the limit; None when it can."""
        needed = self.memory(size).base
        if self.memory_limit is None or needed <= self.memory_limit:
            return None
        return failure_of("read", None, self._too_large("Reading the group", needed, size, self.memory_limit))

    def companions(self, size: GroupSize) -> int:
        """Groups that are trained in one tensor program."""
        segment = self.segment_size(size)
        return max(WEIGHTINGS[task.name].companions(segment) for task in self.estimators)

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """None: a weighting does not come in pieces."""
        del size
        return {}

    def run_part(self, group: Group, done: Sequence[Piece], part: Part) -> Iterator[Piece]:
        """Nothing, see `rounds`."""
        del group, done, part
        yield from ()

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """All estimators on one group; what cannot be estimated becomes a failure with a hint."""
        del done
        return self.run_bundle([group])[0]

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """All estimators on several groups, those trained together that can be."""
        results = [GroupResult({name: [] for name in self.tables}) for _ in groups]
        prepared = []
        for group, result in zip(groups, results, strict=True):
            try:
                prepared.append(self._prepare(group, result))
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                result.failures.append(failure_of("read", None, error))
        for task in self.estimators:
            wanting = [one for one in prepared if task in one.tasks]
            self._fit(task, [one for one in wanting if self._fits(task, one)])
        for one in prepared:
            self._tell(one)
        return results

    def _prepare(self, group: Group, result: GroupResult) -> _Prepared:
        built = build_segment(group.rows)
        tasks = wanted_tasks(self.estimators, group.key)
        grid, told = choose_doses(built.segment, self.grid)
        problem = curve_problem(built.segment, grid, self.stage, self.stage_options)
        result.failures += [warning_of("read", None, notice) for notice in (*built.notices, *told)]
        return _Prepared(group, problem, built.outcome, tasks, result)

    def _fits(self, task: EstimatorTask, one: _Prepared) -> bool:
        size = GroupSize(one.group.group_id, one.group.key, len(one.group.rows), {})
        needed = self.memory(size).estimators[task.name]
        limit = limit_for(needed, self.memory_limit)
        if needed <= limit:
            return True
        error = self._too_large(f"Estimator {task.name}", needed, size, limit)
        one.result.failures.append(failure_of("estimate", task.name, error))
        return False

    def _too_large(self, what: str, needed: int, size: GroupSize, limit: int) -> GroupError:
        n_covariates = self.segment_size(size).n_covariates
        described = f"{size.n_rows} rows with {n_covariates} covariates"
        return too_large(what, needed, described, limit, "use fewer covariates")

    def _fit(self, task: EstimatorTask, wanting: Sequence[_Prepared]) -> None:
        started = time.perf_counter()
        seeds = [seed_for(self.seed, one.group.group_id, task.name) for one in wanting]
        definition = WEIGHTINGS[task.name]
        problems = [
            definition.look(one.problem, one.outcome, task.options, seed)
            for one, seed in zip(wanting, seeds, strict=True)
        ]
        fits = _fit_all(definition, problems, task.options, seeds)
        shared = (time.perf_counter() - started) / max(len(wanting), 1)
        for one, weighting in zip(wanting, fits, strict=True):
            one.fits.append((task.name, weighting))
            one.result.seconds[task.name] = shared

    def _tell(self, one: _Prepared) -> None:
        """Rows of everything that was found in a group. What is held for it is not held for the others beside it."""
        started = time.perf_counter()
        model: OutcomeModel | Exception
        try:
            seed = seed_for(self.seed, one.group.group_id, "expected_bias")
            model = fit_outcome(one.problem, one.outcome, seed)
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            model = error
        shared = (time.perf_counter() - started) / max(len(one.fits), 1)
        for name, weighting in one.fits:
            started = time.perf_counter()
            if isinstance(weighting, Exception):
                one.result.failures.append(failure_of("estimate", name, weighting))
            elif isinstance(model, Exception):
                one.result.failures.append(failure_of("estimate", name, model))
            else:
                self._tell_curve(name, one, weighting, model)
            one.result.seconds[name] += shared + time.perf_counter() - started

    def _tell_curve(self, estimator: str, one: _Prepared, weighting: Weighting, model: OutcomeModel) -> None:
        """Rows of a weighting's curve and of its balance. Without standard errors there still is a curve."""
        result, segment = one.result, one.problem.segment
        seed = seed_for(self.seed, one.group.group_id, f"bootstrap:{estimator}")
        try:
            curve = estimate_curve(one.problem, weighting, one.outcome, self.least_effective, self.n_replicates, seed)
            if not np.isfinite([curve.estimate, curve.slope]).all():
                raise SolverError("The curve is not finite.", "Rescale the outcome: it is near the largest double.")
            bias = expected_bias(model, one.problem, weighting.weights)
            balance = imbalances(segment, weighting)
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("estimate", estimator, error))
            return
        if curve.failure is not None:
            result.failures.append(failure_of("variance:bootstrap", estimator, curve.failure))
        result.tables["response_curves"] += self._curve_rows(estimator, one.problem.grid, curve, bias)
        result.tables["balance"] += balance_rows(estimator, segment.names, balance, weighting.effective_sample_size)
        left = None if estimator == _AS_GIVEN else notice_of(segment, weighting, balance[0])
        notices = (*weighting.notices, *(() if left is None else (left,)))
        result.failures += [warning_of("estimate", estimator, notice) for notice in notices]

    def _curve_rows(self, estimator: str, grid: Floats, curve: Curve, bias: Floats) -> list[Row]:
        reach = float(stats.norm.ppf((1 + self.confidence_level) / 2)) * np.hypot(curve.std_error, bias)
        columns = {
            "dose": grid,
            "estimate": curve.estimate,
            "slope": curve.slope,
            "std_error": curve.std_error,
            "slope_std_error": curve.slope_std_error,
            "conf_low": curve.estimate - reach,
            "conf_high": curve.estimate + reach,
            "expected_bias": bias,
        }
        same = {"conf_level": self.confidence_level, "n_replicates": curve.n_replicates}
        return [
            {"estimator": estimator}
            | {name: float(values[k]) if np.isfinite(values[k]) else None for name, values in columns.items()}
            | same
            for k in range(len(grid))
        ]


def balance_rows(
    estimator: str, names: Sequence[str], balance: Sequence[Imbalance], effective_sample_size: float
) -> list[Row]:
    """Rows of ``balance``; moments that do not vary have none."""
    return [
        {
            "estimator": estimator,
            "covariate": covariate,
            "moment": one.moment,
            "correlation_before": float(before),
            "correlation_after": float(after),
            "effective_sample_size": effective_sample_size,
        }
        for one in balance
        for covariate, before, after in zip(names, one.before, one.after, strict=True)
        if np.isfinite([before, after]).all()
    ]


def _fit_all(
    definition: WeightingDefinition, problems: Sequence[CurveProblem], options: Any, seeds: Sequence[int]
) -> list[Weighting | Exception]:
    """Weights of every problem, or what is wrong with it; problems of one shape are fitted together."""
    stacks: dict[Hashable, list[int]] = {}
    for place, problem in enumerate(problems):
        shape = definition.shape(problem, options)
        stacks.setdefault(place if shape is None else shape, []).append(place)
    found: dict[int, Weighting | Exception] = {}
    for places in stacks.values():
        try:
            fits = definition.fit_together([problems[k] for k in places], options, [seeds[k] for k in places])
            found |= dict(zip(places, fits, strict=True))
        except Exception:  # noqa: BLE001 - who is to blame shows when each is fitted by itself
            found |= {k: _attempt(partial(definition.fit, problems[k], options, seeds[k])) for k in places}
    return [found[place] for place in range(len(problems))]


def _attempt(fit: Callable[[], Weighting]) -> Weighting | Exception:
    try:
        return fit()
    except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
        return error
