"""The individual effects job's work on groups: effects, policies and models of each, rows of result tables."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from causal_spark.engine import arm_rows
from causal_spark.engine.arm_rows import Level
from causal_spark.engine.build_arms import BuiltArms, build_arms
from causal_spark.engine.columns import COST, COVARIATE
from causal_spark.engine.frames import unescaped
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory
from causal_spark.engine.stored_models import StoredModel, model_row
from causal_spark.engine.tasks import EstimatorTask, Notice, failure_of, wanted_tasks, warning_of
from causal_spark.engine.whole import BundledWork, Prepared
from causal_spark.engine.work import (
    Group,
    GroupResult,
    GroupSize,
)
from causal_spark.errors import SolverError
from causal_spark.multi_treatment import costs
from causal_spark.multi_treatment.arm_effects import arm_effects, doubly_robust_scores
from causal_spark.multi_treatment.costs import SampleSize
from causal_spark.multi_treatment.intervals import effect_errors
from causal_spark.multi_treatment.overlap import in_support, overlap_of
from causal_spark.multi_treatment.policy import Policy, choose_arms, policy_values
from causal_spark.multi_treatment.predictor import Predictor
from causal_spark.multi_treatment.propensity import PropensityModel, fit_propensities
from causal_spark.multi_treatment.registry import ESTIMATORS, shape_of
from causal_spark.multi_treatment.types import ArmSample, FittedModel, Floats

#: Of cross-fitted propensities.
_N_FOLDS = 5
#: Arms that a plan reckons with, whatever the slices of a group hold.
_FEWEST_ARMS, _MOST_ARMS = 2, 20
#: Bytes of an input row while it is read and encoded, beyond those of its columns, and of each of these; and of a row
#: of result tables per arm and estimator.
_ROW, _ROW_COLUMN, _RESULT = 300, 80, 200
#: A smaller share of rows in support of an arm is told of.
_LITTLE_SUPPORT = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared(Prepared[FittedModel]):
    """One group that can be read, with cross-fitted chances, (n_rows, n_arms), and a model of them for new rows."""

    built: BuiltArms
    chances: Floats
    propensity: PropensityModel


class _Seen(NamedTuple):
    """What an estimator sees of a group."""

    sample: ArmSample
    chances: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWork(BundledWork[_Prepared, _Seen, FittedModel]):
    """Individual effects of groups; see `causal_spark.engine.work.Work`.

    control: label of the control arm. costs: of arms that cost all rows alike. min_arm_rows: arms with fewer rows are
    left out. min_propensity: of an arm in support; smaller ones weigh as if they were that. abstains: whether policies
    recommend the control arm where the interval of the best gain holds zero.
    """

    control: str
    costs: Mapping[str, float]
    min_arm_rows: int
    min_propensity: float
    abstains: bool

    job = "individual_effects"
    tables = ("individual_effects", "arm_effects", "policies", "policy_values", "overlap", "models")
    measures = ("arms",)
    remedy = "fit a sample of the rows and score the others"

    @property
    def level(self) -> Level:
        """Of all intervals."""
        return Level(self.confidence_level)

    def measure(self, rows: pa.Table) -> tuple[int, ...]:
        """Arms of the rows."""
        return (len(pc.unique(rows["_treatment"])),)

    def sample_size(self, size: GroupSize) -> SampleSize:
        """Dimensions of a group's sample; a covariate that is a category counts as one column.

        Arms are counted in each slice of a large group, so that their number is one at most.
        """
        n_covariates = sum(column.name.startswith(COVARIATE) for column in self.columns.values)
        n_arms = min(max(size.measures["arms"], _FEWEST_ARMS), _MOST_ARMS)
        return SampleSize(size.n_rows, n_covariates, n_arms)

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per estimator that is run on the group; propensities are the first one's."""
        sample, fitting = self.sample_size(size), self.memory(size).fitting(self.memory_limit)
        n_together = self.companions(size)
        found = {
            task.name: ESTIMATORS[task.name].seconds(sample, task.options, n_together)
            for task in self.estimators
            if task.name in fitting
        }
        return {
            name: seconds + (costs.propensity_seconds(sample) if place == 0 else 0.0)
            for place, (name, seconds) in enumerate(found.items())
        }

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to read the group's rows and to run each of its estimators, with its companions beside it."""
        sample, n_groups = self.sample_size(size), self.companions(size)
        wanted = [task for task in self.estimators if task.wants(size.key)]
        base = n_groups * sample.n_rows * (_ROW + _ROW_COLUMN * (2 + sample.n_covariates))
        results = n_groups * sample.n_rows * sample.n_arms * _RESULT * len(wanted)
        return GroupMemory(
            base,
            {
                task.name: base
                + results
                + math.ceil(8 * n_groups * ESTIMATORS[task.name].numbers(sample, task.options))
                for task in wanted
            },
        )

    def companions(self, size: GroupSize) -> int:
        """Groups that are trained in one tensor program."""
        sample = self.sample_size(size)
        return max(ESTIMATORS[task.name].companions(sample) for task in self.estimators)

    def described(self, size: GroupSize) -> str:
        """Rows and covariates."""
        return f"{size.n_rows} rows with {self.sample_size(size).n_covariates} covariates"

    def prepare(self, group: Group, result: GroupResult) -> _Prepared:
        """Arrays of the group and chances of its arms."""
        tasks = wanted_tasks(self.estimators, group.key)
        built = build_arms(group.rows, self.control, self.costs, self.min_arm_rows)
        result.failures += [warning_of("read", None, notice) for notice in built.notices]
        seed = seed_for(self.seed, group.group_id, "propensity")
        chances, propensity = fit_propensities(built.sample, _N_FOLDS, seed)
        size = GroupSize(group.group_id, group.key, len(group.rows), {"arms": built.sample.n_arms})
        return _Prepared(group, size, tasks, result, built, chances, propensity)

    def look(self, task: EstimatorTask, one: _Prepared, seed: int) -> _Seen:
        """The sample, and its chances."""
        del task, seed
        return _Seen(one.built.sample, one.chances)

    def shape(self, task: EstimatorTask, seen: _Seen) -> Hashable:
        """Of the sample, for the estimator."""
        return shape_of(seen.sample, task.options)

    def fit(self, task: EstimatorTask, seen: Sequence[_Seen], seeds: Sequence[int]) -> Sequence[FittedModel]:
        """Models of samples of one shape."""
        samples, chances = [one.sample for one in seen], [one.chances for one in seen]
        return ESTIMATORS[task.name].fit(samples, chances, task.options, seeds)

    def tell(self, one: _Prepared) -> None:
        """Rows of everything that was found in a group."""
        self._tell_overlap(one)
        for name, model in one.fits:
            started = time.perf_counter()
            try:
                if isinstance(model, Exception):
                    raise model
                self._tell_model(name, one, model)
            except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                one.result.failures.append(failure_of("estimate", name, error))
            one.result.seconds[name] += time.perf_counter() - started

    def _tell_overlap(self, one: _Prepared) -> None:
        built, sample = one.built, one.built.sample
        found = overlap_of(sample, one.chances, self.min_propensity)
        supported = in_support(one.chances, self.min_propensity)
        shares = (supported & supported[:, :1]).mean(axis=0)
        one.result.tables["overlap"] += arm_rows.overlap_rows(built.arms, built.encoding.names, sample, found, shares)
        few = [f"{arm} ({share:.0%})" for arm, share in zip(built.arms, shares, strict=True) if share < _LITTLE_SUPPORT]
        if few:
            notice = Notice(
                "LittleSupport",
                f"For many rows an arm or the control arm has a chance below {self.min_propensity:g}; rows in "
                f"support: {', '.join(few)}.",
                "Trust effects only where in_support is true, or drop the rows that could not receive the arm.",
            )
            one.result.failures.append(warning_of("read", None, notice))

    def _tell_model(self, estimator: str, one: _Prepared, model: FittedModel) -> None:
        built, sample, level = one.built, one.built.sample, self.level
        crossed = model.cross_fitted(sample)
        predictor = Predictor(model, one.propensity, effect_errors(sample, crossed), self.min_propensity)
        found = predictor.predict(sample.covariates)
        numbers = (found.outcomes, found.std_errors, crossed)
        if not all(np.isfinite(values).all() for values in numbers):
            raise SolverError("Effects are not finite.", "Rescale the outcome: it is near the largest double.")
        # Every row's chance is told by a model that has not seen it: what the arm was is no news to the other. Standard
        # errors stay those that `score` gives for the same row: their coverage was measured so.
        seen = in_support(one.chances, self.min_propensity)
        found = replace(found, chances=one.chances, in_support=seen & seen[:, :1])
        scores = doubly_robust_scores(sample, crossed, one.chances, self.min_propensity)
        policy = self._policy(found.effects, built.costs, found.std_errors, found.in_support)
        blind = self._policy(crossed - crossed[:, :1], built.costs, found.std_errors, found.in_support)
        values = policy_values(scores, blind.recommended, built.costs)
        stored = model_row(estimator, StoredModel(built.arms, self._covariates, built.encoding, predictor, self._costs))
        result = one.result
        for name, table in (
            ("individual_effects", arm_rows.effect_table(built.row_ids, built.arms, found, level)),
            ("policies", arm_rows.policy_table(built.row_ids, built.arms, policy)),
        ):
            result.large.setdefault(name, []).append(arm_rows.with_estimator(table, estimator))
        result.tables["arm_effects"] += arm_rows.arm_effect_rows(
            estimator, built.arms, sample, arm_effects(scores), level
        )
        result.tables["policy_values"] += arm_rows.policy_value_rows(
            estimator, built.arms, values, sample.n_rows, level
        )
        result.tables["models"].append(stored)

    @property
    def _covariates(self) -> dict[str, str]:
        """Name to contract type."""
        return {
            unescaped(column.name.removeprefix(COVARIATE)): column.type
            for column in self.columns.values
            if column.name.startswith(COVARIATE)
        }

    @property
    def _costs(self) -> dict[str, float | None]:
        """Of arms that cost something, in this group or another; None where that differs by row."""
        by_row = (
            unescaped(column.name.removeprefix(COST)) for column in self.columns.values if column.name.startswith(COST)
        )
        return {**self.costs, **dict.fromkeys(by_row)}

    def _policy(self, effects: Floats, costs_of: Floats, std_errors: Floats, allowed: NDArray[np.bool_]) -> Policy:
        errors = std_errors if self.abstains else None
        return choose_arms(effects, costs_of, errors, self.level.reach, allowed)
