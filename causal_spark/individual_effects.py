"""`IndividualEffects`: effects of each of several treatments on every row, from a pandas or a Spark frame."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from causal_spark.engine.arms import ArmWork
from causal_spark.engine.columns import ArmRoles, arm_columns
from causal_spark.engine.keys import canonical_json
from causal_spark.errors import ConfigError
from causal_spark.methods import Method, estimator_tasks
from causal_spark.multi_treatment.registry import ESTIMATORS
from causal_spark.results import Frame, Result, fit_frame, memory_bytes, require_frame

DEFAULT_ESTIMATORS = ("memento",)
MIN_ARM_ROWS = 10
MIN_PROPENSITY = 0.02
#: What an arm costs: a number for all rows, or the column that has it.
Cost = float | str


@dataclass(frozen=True)
class EffectResult(Result):
    """Individual effects of a run, see `Result`."""

    pictures: ClassVar[Mapping[str, str]] = {
        "arm_effects": "arm_effects",
        "policy_values": "policy_values",
    }

    def _told(self, kind: str) -> dict[str, Any]:
        control = json.loads(self._config_json)["control"]
        return {"reference": str(control)} if kind == "arm_effects" else {}

    @property
    def individual_effects(self) -> Frame:
        """One row per group, estimator, row and arm: outcome, effect against the control arm, interval, propensity."""
        return self._run.frame("individual_effects")

    @property
    def arm_effects(self) -> Frame:
        """Mean effects of every arm against every other, doubly robust."""
        return self._run.frame("arm_effects")

    @property
    def policies(self) -> Frame:
        """The arm to choose for each row, and what is expected of it."""
        return self._run.frame("policies")

    @property
    def policy_values(self) -> Frame:
        """What the policy is worth, beside one arm for all and none for anybody."""
        return self._run.frame("policy_values")

    @property
    def overlap(self) -> Frame:
        """Propensities and differences of covariates, by arm."""
        return self._run.frame("overlap")

    @property
    def models(self) -> Frame:
        """Fitted models, for `causal_spark.score`."""
        return self._run.frame("models")


@dataclass(frozen=True)
class IndividualEffects:
    """Effects of each of several treatments (arms) on every row, against a control arm, and the arm to choose.

    estimators: names, or mappings with ``name``, options and ``where`` (group columns to the values they are run for).
    control: the control arm as the treatment column has it. min_arm_rows: arms with fewer rows in a group are left
    out. min_propensity: an arm less likely than that is out of support for a row. abstain: recommend the control arm
    where the interval of the best gain holds zero. confidence_level: of every interval. seed: of everything random.
    worker_memory: GiB one task may use; None measures it where groups are large.

    >>> result = IndividualEffects(control="none").fit(
    ...     frame, row_id="customer", treatment="offer", outcome="spend", covariates=["age", "region"], costs={"a": 2}
    ... )
    >>> result.policies
    """

    estimators: Sequence[Method] = DEFAULT_ESTIMATORS
    control: str | int | bool = "control"
    min_arm_rows: int = MIN_ARM_ROWS
    min_propensity: float = MIN_PROPENSITY
    abstain: bool = True
    confidence_level: float = 0.95
    seed: int = 0
    worker_memory: float | None = None

    def fit(
        self,
        data: Frame,
        *,
        row_id: str,
        treatment: str,
        outcome: str,
        covariates: Sequence[str],
        groups: Sequence[str] = (),
        costs: Mapping[str | int | bool, Cost] | None = None,
        work_location: str | None = None,
    ) -> EffectResult:
        """Estimate the effects of all arms on every row of every group of a frame.

        treatment: the arm a row received: text, an integer or a boolean. outcome: a number, or 0 and 1. covariates:
        what treatment and outcome may both depend on, numbers or strings (categories); NULL is a value of its own.
        costs: arm to what it costs in units of the outcome, a number or the column that has it; others cost nothing.
        Groups that cannot be estimated end in ``.failures``. work_location: for Spark frames, a folder all workers can
        write to (default: a temporary folder of this machine; required on Spark Connect and on clusters).
        Raises `InputError` for columns that cannot serve, `EmptyInputError`, `ConfigError` for unknown methods.
        """
        require_frame(data)
        given = Assignment(row_id, treatment, outcome, tuple(covariates), tuple(groups), labelled(costs or {}))
        work = self.plan_work(data, given)
        return fit_frame(data, work, self._identity(work), work_location, EffectResult)

    def plan_work(self, data: Frame, given: Assignment) -> ArmWork:
        """The engine's description of this fit, its columns and methods checked. Raises as `fit` does."""
        memory_limit = memory_bytes(self.confidence_level, self.seed, self.worker_memory)
        if self.min_arm_rows < 2:
            raise ConfigError(f"min_arm_rows is {self.min_arm_rows}.", "Nothing is learned from fewer than 2 rows.")
        if not 0 < self.min_propensity < 0.5:
            raise ConfigError(f"min_propensity is {self.min_propensity}.", "It lies between 0 and 0.5, such as 0.02.")
        fixed, by_row = split_costs(given.costs)
        columns = arm_columns(
            data,
            ArmRoles(given.row_id, given.treatment, given.outcome, given.covariates, given.groups, by_row),
        )
        return ArmWork(
            columns=columns,
            estimators=estimator_tasks(self.estimators, ESTIMATORS, columns.group_types),
            control=label_of(self.control),
            costs=fixed,
            min_arm_rows=int(self.min_arm_rows),
            min_propensity=float(self.min_propensity),
            abstains=bool(self.abstain),
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            memory_limit=memory_limit,
        )

    def _identity(self, work: ArmWork) -> str:
        return canonical_json(
            {
                "columns": {column.name: column.source for column in work.columns.all},
                "estimators": list(self.estimators),
                "control": work.control,
                "costs": work.costs,
                "min_arm_rows": self.min_arm_rows,
                "min_propensity": self.min_propensity,
                "abstain": self.abstain,
                "confidence_level": self.confidence_level,
                "seed": int(self.seed),
                "worker_memory": self.worker_memory,
            }
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """Columns and their roles, and what arms cost, by label."""

    row_id: str
    treatment: str
    outcome: str
    covariates: tuple[str, ...]
    groups: tuple[str, ...] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)


def label_of(arm: str | int | bool) -> str:
    """An arm as text, as Spark and Arrow write it."""
    return str(arm).lower() if isinstance(arm, bool) else str(arm)


def labelled(costs: Mapping[str | int | bool, Cost]) -> dict[str, Cost]:
    """The same by label."""
    return {label_of(arm): cost for arm, cost in costs.items()}


def split_costs(costs: Mapping[str, Cost]) -> tuple[dict[str, float], dict[str, str]]:
    """Costs that are numbers, and those that are columns. Raises `ConfigError` for what is neither."""
    fixed: dict[str, float] = {}
    by_row: dict[str, str] = {}
    for arm, cost in costs.items():
        if isinstance(cost, str):
            by_row[arm] = cost
        elif isinstance(cost, bool) or not math.isfinite(cost):
            raise ConfigError(f"The cost of arm {arm!r} is {cost}.", "It is a number, or the name of a column.")
        else:
            fixed[arm] = float(cost)
    return fixed, by_row
