"""The response curve job's work on groups: weightings and curves of each, rows of result tables."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from causal_spark.dose_response.costs import SegmentSize, model_numbers
from causal_spark.dose_response.doses import choose_doses
from causal_spark.dose_response.expected_bias import OutcomeModel, expected_bias, fit_outcome
from causal_spark.dose_response.imbalance import Imbalance, imbalances, notice_of
from causal_spark.dose_response.inference import Curve, estimate_curve
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.second_stage import StageName, StageOptions, curve_problem
from causal_spark.dose_response.types import CurveProblem, Floats, Weighting
from causal_spark.engine.build_segment import build_segment
from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory
from causal_spark.engine.tasks import EstimatorTask, failure_of, wanted_tasks, warning_of
from causal_spark.engine.whole import BundledWork, Prepared
from causal_spark.engine.work import (
    Group,
    GroupResult,
    GroupSize,
    Row,
)
from causal_spark.errors import SolverError

#: Weights that are given, so that what they leave unbalanced is no surprise.
_AS_GIVEN = "unweighted"
#: Bytes of an input row while it is read and encoded, beyond those of its columns, and of each of these.
_ROW, _ROW_COLUMN = 200, 80


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared(Prepared[Weighting]):
    """One group that can be read: its problem and the outcome of its rows."""

    problem: CurveProblem
    outcome: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveWork(BundledWork[_Prepared, CurveProblem, Weighting]):
    """Response curves and balance of groups; see `causal_spark.engine.work.Work`.

    grid: a number of doses per group, or the doses. least_effective: rows that weights must leave effective.
    """

    stage: StageName
    stage_options: StageOptions
    grid: int | tuple[float, ...]
    n_replicates: int
    least_effective: float

    job = "response_curves"
    tables = ("response_curves", "balance")
    measures = ()
    remedy = "use fewer covariates"

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

    def companions(self, size: GroupSize) -> int:
        """Groups that are trained in one tensor program."""
        segment = self.segment_size(size)
        return max(WEIGHTINGS[task.name].companions(segment) for task in self.estimators)

    def described(self, size: GroupSize) -> str:
        """Rows and covariates."""
        return f"{size.n_rows} rows with {self.segment_size(size).n_covariates} covariates"

    def prepare(self, group: Group, result: GroupResult) -> _Prepared:
        """Arrays of the group, without its outcome and with it."""
        built = build_segment(group.rows)
        tasks = wanted_tasks(self.estimators, group.key)
        grid, told = choose_doses(built.segment, self.grid)
        problem = curve_problem(built.segment, grid, self.stage, self.stage_options)
        result.failures += [warning_of("read", None, notice) for notice in (*built.notices, *told)]
        size = GroupSize(group.group_id, group.key, len(group.rows), {})
        return _Prepared(group, size, tasks, result, problem, built.outcome)

    def look(self, task: EstimatorTask, one: _Prepared, seed: int) -> CurveProblem:
        """The problem with what the options want to know of the outcome."""
        return WEIGHTINGS[task.name].look(one.problem, one.outcome, task.options, seed)

    def shape(self, task: EstimatorTask, seen: CurveProblem) -> Hashable | None:
        """Of the problem, for the weighting."""
        return WEIGHTINGS[task.name].shape(seen, task.options)

    def fit(self, task: EstimatorTask, seen: Sequence[CurveProblem], seeds: Sequence[int]) -> Sequence[Weighting]:
        """Weights of problems of one shape."""
        return WEIGHTINGS[task.name].fit_together(seen, task.options, seeds)

    def tell(self, one: _Prepared) -> None:
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
