"""Configuration of jobs: checked on reading, with errors that name the key and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from causal_spark.engine.keys import canonical_json
from causal_spark.engine.source import Format
from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.lake.locations import without_secrets

Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """A part of a configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check(self) -> None:
        """Raise `ConfigError` for what is not valid beyond the types of single keys."""


class InputConfig(Strict):
    """Where the input table is, and which of its rows count: those that meet a SQL condition."""

    location: str
    format: Format = "delta"
    where: str | None = None


class ColumnsConfig(Strict):
    """Columns of every job; each adds those of its own."""

    groups: tuple[str, ...] = ()
    rename: dict[str, str] = Field(default_factory=dict)


class OutputConfig(Strict):
    """Where results go."""

    location: str
    work_location: str | None = None


class JobConfig(Strict):
    """What every job can be told; each adds what is its own, its columns and its defaults."""

    input: InputConfig
    columns: ColumnsConfig
    output: OutputConfig
    confidence_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    max_failed_fraction: Fraction = 0.5
    worker_memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    run_key: Annotated[str, Field(min_length=1)] | None = None
    series: Annotated[str, Field(min_length=1)] | None = None

    def identity(self) -> str:
        """What makes two runs the same, as JSON without secrets: everything but names and where results go."""
        named: dict[str, Any] = {"output": {"location", "work_location"}, "run_key": True, "series": True}
        return without_secrets(canonical_json(self.model_dump(exclude=named)))


AnyConfig = TypeVar("AnyConfig", bound=JobConfig)
_Config = TypeVar("_Config", bound=Strict)


def load_config(model: type[_Config], path: str, settings: Sequence[str] = ()) -> _Config:
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
        raise ConfigError(f"Configuration {path!r} holds no keys.", "Start from the job's file in conf/.")
    for setting in settings:
        _lay_over(tree, setting)
    return parse_config(model, tree)


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


def parse_config(model: type[_Config], tree: Mapping[str, Any]) -> _Config:
    """Check a configuration tree. Raises `ConfigError` with one line per problem."""
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("The configuration is not valid:" + _problems(error, model)) from error
    config.check()
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
