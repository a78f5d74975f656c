"""Configuration of jobs: checked on reading, with errors that name the key and what was probably meant."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from causal_spark.engine.keys import canonical_json
from causal_spark.engine.panels import Cells, EstimatorTask, VarianceTask
from causal_spark.engine.source import Format
from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.panel.registry import ESTIMATORS, VARIANCES

#: A name, or a mapping with ``name``, options of that method and, for estimators, ``where``.
Method = str | dict[str, Any]
Fraction = Annotated[float, Field(ge=0, le=1)]

CLASSIC_ESTIMATORS = ("did", "sc", "difp", "mc", "sdid")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(_Strict):
    """Where the long table is."""

    location: str
    format: Format = "delta"


class ColumnsConfig(_Strict):
    """Which column plays which role."""

    unit: str
    time: str
    outcome: str
    treatment: str
    groups: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    rename: dict[str, str] = Field(default_factory=dict)


class OutputConfig(_Strict):
    """Where results go and how much of them."""

    location: str
    work_location: str | None = None
    cells: Cells = "treated"


class PanelEffectsConfig(_Strict):
    """Everything `jobs/panel_effects.py` can be told; the shipped file documents each key."""

    input: InputConfig
    columns: ColumnsConfig
    output: OutputConfig
    estimators: tuple[Method, ...] = CLASSIC_ESTIMATORS
    variances: tuple[Method, ...] = ("placebo",)
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    max_failed_fraction: Fraction = 0.5
    worker_memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    run_key: Annotated[str, Field(min_length=1)] | None = None

    def identity(self) -> str:
        """What makes two runs the same, as JSON: everything but where results and scratch files go."""
        return canonical_json(self.model_dump(exclude={"output": {"location", "work_location"}, "run_key": True}))


def load_config(path: str, settings: Sequence[str] = ()) -> PanelEffectsConfig:
    """Read a YAML file and lay ``key=value`` settings (dotted keys, YAML values) over it.

    Raises `ConfigError` naming file, key and remedy.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Configuration {path!r} cannot be read: {error.strerror}.", "Check --config.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Configuration {path!r} is not YAML: {error}.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"Configuration {path!r} holds no keys.", "Start from conf/panel_effects.yaml.")
    for setting in settings:
        _lay_over(tree, setting)
    return parse_config(tree)


def _lay_over(tree: dict[str, Any], setting: str) -> None:
    dotted, equals, value = setting.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {setting!r} is not key=value.", "For example: --set output.location=./results")
    *parents, last = dotted.split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"--set {setting!r}: {parent!r} has no keys below it.")
        tree = branch
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: the value is not YAML.", "Quote it.") from error


def parse_config(tree: Mapping[str, Any]) -> PanelEffectsConfig:
    """Check a configuration tree. Raises `ConfigError` with one line per problem."""
    try:
        config = PanelEffectsConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("The configuration is not valid:" + _problems(error, PanelEffectsConfig)) from error
    estimator_tasks(config.estimators, dict.fromkeys(config.columns.groups))
    variance_tasks(config.variances)
    return config


def _problems(error: ValidationError, model: type[BaseModel]) -> str:
    lines = []
    for problem in error.errors():
        *parents, last = [str(part) for part in problem["loc"]]
        dotted = ".".join([*parents, last])
        if problem["type"] == "extra_forbidden":
            lines.append(f"\n  {dotted}: unknown key. {did_you_mean(last, _fields_at(model, parents))}")
        else:
            lines.append(f"\n  {dotted}: {problem['msg']}.")
    return "".join(lines)


def _fields_at(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _parse_method(
    method: Method | Mapping[str, Any], known: Mapping[str, Any], kind: str, extra: tuple[str, ...]
) -> tuple[str, Any, dict[str, Any]]:
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
    try:
        return name, TypeAdapter(options).validate_python(settings), taken
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError(f"Options of {kind} {name!r} are not valid: {'; '.join(lines)}.") from error


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


def estimator_tasks(methods: Sequence[Method], groups: Mapping[str, str | None]) -> tuple[EstimatorTask, ...]:
    """Estimators to run, from names or mappings.

    groups: group column to contract type, None where it is not known yet. Raises `ConfigError` naming the entry.
    """
    tasks = []
    for method in methods:
        name, options, taken = _parse_method(method, ESTIMATORS, "estimator", ("where",))
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
        raise ConfigError("No estimator is asked for.", f"Known: {', '.join(ESTIMATORS)}.")
    _once([task.name for task in tasks], "estimator")
    return tuple(tasks)


def variance_tasks(methods: Sequence[Method]) -> tuple[VarianceTask, ...]:
    """Variance estimators to run, from names or mappings. Raises `ConfigError` naming the entry."""
    tasks = []
    for method in methods:
        name, options, _ = _parse_method(method, VARIANCES, "variance", ())
        tasks.append(VarianceTask(name, options))
    _once([task.name for task in tasks], "variance")
    return tuple(tasks)
