"""What the works of several sciences share: estimators to run on some groups, and what to tell of what went wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from causal_spark.engine.work import Failure
from causal_spark.errors import DeclinedError, GroupError, NoEstimatorError


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


def wanted_tasks(tasks: Sequence[EstimatorTask], key: Mapping[str, Any]) -> list[EstimatorTask]:
    """Estimators asked for on the group of that key. Raises `NoEstimatorError` where there is none."""
    wanted = [task for task in tasks if task.wants(key)]
    if not wanted:
        raise NoEstimatorError("No estimator is asked for here.", "Widen `where`, or drop the group.")
    return wanted


class Told(Protocol):
    """Something to know of an estimate."""

    @property
    def name(self) -> str:
        """Of the warning."""
        ...

    @property
    def message(self) -> str:
        """What to know."""
        ...

    @property
    def hint(self) -> str:
        """What to do about it."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know of a group that was estimated all the same."""

    name: str
    message: str
    hint: str


def warning_of(stage: str, estimator: str | None, notice: Told) -> Failure:
    """A row of ``failures`` of kind ``warned``."""
    return Failure(stage, estimator, "warned", notice.name, notice.message, notice.hint)


def failure_of(stage: str, estimator: str | None, error: Exception) -> Failure:
    """A row of ``failures`` for what was declined or failed."""
    kind = "declined" if isinstance(error, DeclinedError) else "failed"
    if isinstance(error, GroupError):
        return Failure(stage, estimator, kind, type(error).__name__, error.message, error.hint)
    hint = "This is a defect of causal_spark or of its libraries: please report it with the group's data."
    return Failure(stage, estimator, kind, type(error).__name__, str(error) or type(error).__name__, hint)
