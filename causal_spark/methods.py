"""Methods by name, with their options: how configuration and Python say which estimators are run, and where."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from causal_spark.engine.tasks import EstimatorTask
from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.panel.registry import VARIANCES, VarianceMethod

#: A name, or a mapping with ``name``, options of that method and, for estimators, ``where``.
Method = str | dict[str, Any]


def method_name(method: Method) -> str:
    """The name in a checked entry."""
    return method if isinstance(method, str) else str(method["name"])


def parse_method(
    method: Method | Mapping[str, Any], known: Mapping[str, Any], kind: str, extra: tuple[str, ...] = ()
) -> tuple[str, Any, dict[str, Any]]:
    """Name, options and ``extra`` settings of a method. Raises `ConfigError` for what is not known or not valid."""
    settings = {"name": method} if isinstance(method, str) else dict(method)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"An entry of {kind}s has no name: {dict(settings)}.", f"Known: {', '.join(known)}.")
    if name not in known:
        raise ConfigError(f"Unknown {kind} {name!r}.", did_you_mean(name, list(known)))
    taken = {key: settings.pop(key) for key in extra if key in settings}
    options = known[name].options
    fields = [field.name for field in dataclasses.fields(options)]
    for key in settings:
        if key not in fields:
            raise ConfigError(
                f"{kind.capitalize()} {name!r} has no option {key!r}.", did_you_mean(key, [*fields, *extra])
            )
    return name, validated(options, settings, f"{kind} {name!r}"), taken


def validated(options: Any, settings: Mapping[str, Any], what: str) -> Any:
    """Options of a class from settings by name. what: whose they are. Raises `ConfigError` for what is not valid."""
    try:
        return TypeAdapter(options).validate_python(settings)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError(f"Options of {what} are not valid: {'; '.join(lines)}.") from error


def _once(names: Sequence[str], kind: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"{kind.capitalize()} {min(twice)!r} is listed twice.", "Each name may appear once.")


def checked_run_key(run_key: str) -> str:
    """The user's run key. Raises `ConfigError` for an empty one."""
    if not run_key:
        raise ConfigError("run_key is empty.", "Leave it out, or name the run.")
    return run_key


_KEY_CLASSES: dict[str, type] = {
    "STRING": str,
    "BIGINT": int,
    "INT": int,
    "BOOLEAN": bool,
    "DATE": dt.date,
    "TIMESTAMP": dt.datetime,
}


def _key_value(value: Any, type_: str | None, where: str) -> Any:
    # `1` is not "1" and YAML's NO is not a string: a value of another type would never match and nobody would know.
    if value is None or type_ is None:
        return value
    if type(value) is not _KEY_CLASSES[type_]:
        raise ConfigError(
            f"{where}: {value!r} is no {type_.lower()}, as the column is.", "Quote text, unquote numbers."
        )
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    return value


def estimator_tasks(
    methods: Sequence[Method], known: Mapping[str, Any], groups: Mapping[str, str | None]
) -> tuple[EstimatorTask, ...]:
    """Estimators to run, from names or mappings.

    known: definitions by name, with their class of ``options``. groups: group column to contract type, None where it is
    not known yet. Raises `ConfigError` naming the entry.
    """
    tasks = []
    for method in methods:
        name, options, taken = parse_method(method, known, "estimator", ("where",))
        where = taken.get("where") or {}
        if not isinstance(where, Mapping):
            raise ConfigError(f"Estimator {name!r}: where is a mapping of group columns to values.")
        for column in where:
            if column not in groups:
                raise ConfigError(f"Estimator {name!r}: where names {column!r}.", did_you_mean(str(column), groups))
        values = {
            column: tuple(
                _key_value(one, groups[column], f"Estimator {name!r}, where {column!r}")
                for one in (value if isinstance(value, list | tuple) else (value,))
            )
            for column, value in where.items()
        }
        tasks.append(EstimatorTask(name, options, values))
    if not tasks:
        raise ConfigError("No estimator is asked for.", f"Known: {', '.join(known)}.")
    _once([task.name for task in tasks], "estimator")
    return tuple(tasks)


def variance_tasks(methods: Sequence[Method]) -> tuple[VarianceMethod, ...]:
    """Variance estimators to run, from names or mappings. Raises `ConfigError` naming the entry."""
    tasks = []
    for method in methods:
        name, options, _ = parse_method(method, VARIANCES, "variance")
        tasks.append(VarianceMethod(name, options))
    _once([task.name for task in tasks], "variance")
    return tuple(tasks)
