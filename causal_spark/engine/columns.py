"""From the user's columns to the engine's: the same checks and types for pandas and for Spark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from causal_spark.engine.frames import escaped
from causal_spark.engine.work import InputColumn, InputColumns
from causal_spark.errors import InputError, did_you_mean
from causal_spark.lake.locations import quoted
from causal_spark.lake.schemas import KEY_TYPES, group_columns

#: Start of the engine's names of covariates; the rest is the user's name, `escaped`.
COVARIATE = "_covariate_"
#: Start of the engine's names of nodes of a graph.
NODE = "_node_"
#: The engine's name of the policy that simulated treatments go by.
POLICY = "_policy"
#: Start of the engine's names of costs of arms.
COST = "_cost_"
NUMERIC = ("DOUBLE", "FLOAT", "DECIMAL", "BIGINT", "INT", "BOOLEAN")
UNIT_TYPES = ("STRING", "BIGINT", "INT", "DATE")
ARM_TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN")
LEVEL_TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN")
TIME_TYPES = ("BIGINT", "INT", "DATE", "TIMESTAMP", "TIMESTAMP_NTZ")

_SPARK_TYPES: dict[str, str] = {
    "string": "STRING",
    "bigint": "BIGINT",
    "int": "INT",
    "smallint": "INT",
    "tinyint": "INT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp_ntz": "TIMESTAMP_NTZ",
    "double": "DOUBLE",
    "float": "FLOAT",
}

ARROW_TYPES: dict[str, pa.DataType] = {
    "STRING": pa.string(),
    "BIGINT": pa.int64(),
    "INT": pa.int32(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "DOUBLE": pa.float64(),
    "BINARY": pa.binary(),
}

_REMEDY = {
    "group": "Cast it to a string, an integer, a boolean, a date or a timestamp.",
    "unit": "Cast it to a string or an integer.",
    "time": "Cast it to an integer, a date or a timestamp.",
    "arm": "Cast it to a string, an integer or a boolean; for a dose, estimate response curves.",
    "level": "Cast it to a string, an integer or a boolean.",
    "number": "Cast it to a double.",
    "covariate": "Cast it to a double, or to a string if it is a category.",
}


def _spark_type(data_type: T.DataType) -> str:
    name = data_type.simpleString()
    return "DECIMAL" if name.startswith("decimal") else _SPARK_TYPES.get(name.split("(")[0], name.upper())


def _arrow_type(data_type: pa.DataType) -> str:
    if pa.types.is_dictionary(data_type):
        return _arrow_type(data_type.value_type)
    if pa.types.is_timestamp(data_type):
        return "TIMESTAMP" if data_type.tz else "TIMESTAMP_NTZ"
    if pa.types.is_decimal(data_type):
        return "DECIMAL"
    if pa.types.is_string(data_type) or pa.types.is_large_string(data_type) or data_type == pa.string_view():
        return "STRING"
    if pa.types.is_integer(data_type):
        wide = data_type.bit_width == 64 or data_type == pa.uint32()
        return "BIGINT" if wide else "INT"
    names = {"bool": "BOOLEAN", "date32[day]": "DATE", "double": "DOUBLE", "float": "FLOAT", "halffloat": "FLOAT"}
    return names.get(str(data_type), str(data_type).upper())


def column_types(data: pd.DataFrame | DataFrame, used: Sequence[str]) -> dict[str, str]:
    """Column name to contract type (or the type's own name where the contract has none).

    Only ``used`` columns of a pandas frame are looked into; others are listed with type ``?``. Raises `InputError` for
    a used column that occurs twice or whose values are of several types.
    """
    if not isinstance(data, pd.DataFrame):
        return {field.name: _spark_type(field.dataType) for field in data.schema.fields}
    types = {str(name): "?" for name in data.columns}
    for name in used:
        if name not in types:
            continue
        n_times = int((data.columns == name).sum())
        if n_times > 1:
            raise InputError(f"Column {name!r} occurs {n_times} times.", "Give each column its own name.")
        types[name] = _arrow_type(_arrow(data[name], name).type)
    return types


def _arrow(column: pd.Series, name: str) -> pa.Array:
    try:
        values = pa.Array.from_pandas(column)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"Column {name!r} has values of several types: {error}.", "Cast it to one type.") from error
    return pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values


def _existing(name: str, role: str, available: Mapping[str, str]) -> str:
    if name in available:
        return available[name]
    raise InputError(f"Column {name!r} ({role}) is not in the input.", did_you_mean(name, available))


def _typed(name: str, role: str, kind: str, allowed: Sequence[str], available: Mapping[str, str]) -> str:
    found = _existing(name, role, available)
    if found not in allowed:
        raise InputError(f"Column {name!r} ({role}) has type {found.lower()}.", _REMEDY[kind])
    return found.removesuffix("_NTZ")


@dataclass(frozen=True, slots=True)
class PanelRoles:
    """Which column of a long panel table plays which role. policy: of units that simulated treatments go by."""

    unit: str
    time: str
    outcome: str
    treatment: str
    groups: Sequence[str] = ()
    covariates: Sequence[str] = ()
    policy: str | None = None

    @property
    def names(self) -> list[str]:
        """Every column used."""
        policy = [] if self.policy is None else [self.policy]
        return [*self.groups, self.unit, self.time, self.outcome, self.treatment, *self.covariates, *policy]


def panel_columns(data: pd.DataFrame | DataFrame, roles: PanelRoles) -> InputColumns:
    """Columns of a long panel table, checked against what is there.

    Raises `InputError` naming column, role and remedy when one is missing, has a type that cannot serve, or is given
    two roles.
    """
    available = _available(data, roles.names)
    groups = _group_columns(roles.groups, available)
    policy = [] if roles.policy is None else [roles.policy]
    numbers = {"outcome": [roles.outcome], "treatment": [roles.treatment], "covariate": roles.covariates}
    _numeric({**numbers, "policy": policy}, available)
    values = (
        InputColumn("_unit", roles.unit, _typed(roles.unit, "unit", "unit", UNIT_TYPES, available)),
        InputColumn("_time", roles.time, _typed(roles.time, "time", "time", TIME_TYPES, available)),
        InputColumn("_outcome", roles.outcome, "DOUBLE"),
        InputColumn("_treatment", roles.treatment, "DOUBLE"),
        *(InputColumn(f"{COVARIATE}{escaped(name)}", name, "DOUBLE") for name in roles.covariates),
        *(InputColumn(POLICY, name, "DOUBLE") for name in policy),
    )
    return InputColumns(groups, values, ("_unit", "_time"))


@dataclass(frozen=True, slots=True)
class CurveRoles:
    """Which column of a table with a row per individual plays which role. sample_weight: None where all rows count
    alike.
    """

    treatment: str
    outcome: str
    covariates: Sequence[str]
    groups: Sequence[str] = ()
    sample_weight: str | None = None

    @property
    def names(self) -> list[str]:
        """Every column used."""
        weights = [] if self.sample_weight is None else [self.sample_weight]
        return [*self.groups, self.treatment, self.outcome, *self.covariates, *weights]


def curve_columns(data: pd.DataFrame | DataFrame, roles: CurveRoles) -> InputColumns:
    """Columns of a table with a row per individual; covariates may be numbers or strings. Raises as `panel_columns`."""
    if not roles.covariates:
        raise InputError("There are no covariates.", "Name what treatment and outcome may both depend on.")
    available = _available(data, roles.names)
    groups = _group_columns(roles.groups, available)
    weights = [] if roles.sample_weight is None else [roles.sample_weight]
    _numeric({"outcome": [roles.outcome], "treatment": [roles.treatment], "sample weight": weights}, available)
    values = (
        InputColumn("_treatment", roles.treatment, "DOUBLE"),
        InputColumn("_outcome", roles.outcome, "DOUBLE"),
        *(InputColumn("_weight", name, "DOUBLE") for name in weights),
        *_covariate_columns(roles.covariates, available),
    )
    # No column tells rows apart: all of them order the rows, and rows alike in all may stand in any order.
    return InputColumns(groups, values, ("_treatment", "_outcome"))


@dataclass(frozen=True, slots=True)
class ArmRoles:
    """Which column of a table with a row per individual and its arm plays which role.

    costs: arm to the column of what it costs each row, for arms whose costs differ by row.
    """

    row_id: str
    treatment: str
    outcome: str
    covariates: Sequence[str]
    groups: Sequence[str] = ()
    costs: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every column used."""
        values = [self.row_id, self.treatment, self.outcome, *self.covariates]
        return [*self.groups, *values, *sorted(set(self.costs.values()))]


def arm_columns(data: pd.DataFrame | DataFrame, roles: ArmRoles) -> InputColumns:
    """Columns of a table with a row per individual and its arm. Raises as `panel_columns`."""
    if not roles.covariates:
        raise InputError("There are no covariates.", "Name what treatment and outcome may both depend on.")
    available = _available(data, roles.names)
    groups = _group_columns(roles.groups, available)
    _numeric({"outcome": [roles.outcome], "cost": list(roles.costs.values())}, available)
    _typed(roles.row_id, "row id", "unit", UNIT_TYPES, available)
    _typed(roles.treatment, "treatment", "arm", ARM_TYPES, available)
    values = (
        InputColumn("_row_id", roles.row_id, "STRING"),
        InputColumn("_treatment", roles.treatment, "STRING"),
        InputColumn("_outcome", roles.outcome, "DOUBLE"),
        *(InputColumn(f"{COST}{escaped(arm)}", name, "DOUBLE") for arm, name in roles.costs.items()),
        *_covariate_columns(roles.covariates, available),
    )
    return InputColumns(groups, values, ("_row_id",))


@dataclass(frozen=True, slots=True)
class NodeRoles:
    """Which column of a table with normal rows, events and changed rows plays which role.

    role: what a row is, one of `causal_spark.engine.build_nodes.ROLES`. event_id: of events; period: of changed rows.
    discrete: nodes whose numbers are labels.
    """

    nodes: Sequence[str]
    role: str
    event_id: str
    period: str
    groups: Sequence[str] = ()
    discrete: Sequence[str] = ()


def node_columns(data: pd.DataFrame | DataFrame, roles: NodeRoles) -> InputColumns:
    """Columns of such a table; nodes are numbers, or discrete: text, booleans and those named. Raises as
    `panel_columns`.
    """
    own = (roles.role, roles.event_id, roles.period)
    available = _available(data, [*roles.groups, *own, *roles.nodes])
    groups = _group_columns(roles.groups, available)
    values = [
        InputColumn(name, source, "STRING") for name, source in zip(("_role", "_event_id", "_period"), own, strict=True)
    ]
    for name in roles.nodes:
        if name in roles.discrete:
            _typed(name, "node", "level", LEVEL_TYPES, available)
            type_ = "STRING"
        else:
            type_ = _typed(name, "node", "covariate", (*NUMERIC, "STRING"), available)
        discrete = name in roles.discrete or type_ in ("STRING", "BOOLEAN")
        values.append(InputColumn(f"{NODE}{escaped(name)}", name, "STRING" if discrete else "DOUBLE"))
    return InputColumns(groups, tuple(values), ("_role", "_event_id", "_period"))


def new_row_columns(
    data: pd.DataFrame | DataFrame,
    row_id: str,
    covariates: Mapping[str, str],
    groups: Mapping[str, str],
    costs: Mapping[str, str],
) -> InputColumns:
    """Columns of new rows that models are to be applied to. Raises as `panel_columns`.

    covariates, groups: name to the type that the models were fitted with. costs: as in `ArmRoles`.
    """
    available = _available(data, [*groups, row_id, *covariates, *sorted(set(costs.values()))])
    _numeric({"cost": list(costs.values())}, available)
    _typed(row_id, "row id", "unit", UNIT_TYPES, available)
    for name, type_ in groups.items():
        if _typed(name, "group", "group", (*KEY_TYPES, "TIMESTAMP_NTZ"), available) != type_:
            raise InputError(
                f"Column {name!r} (group) has type {available[name].lower()}.", f"Cast it to {type_.lower()}."
            )
    for name, type_ in covariates.items():
        _typed(name, "covariate", "covariate", NUMERIC if type_ == "DOUBLE" else ("STRING",), available)
    return InputColumns(
        tuple(InputColumn(name, name, type_) for name, type_ in groups.items()),
        (
            InputColumn("_row_id", row_id, "STRING"),
            *(InputColumn(f"{COST}{escaped(arm)}", name, "DOUBLE") for arm, name in costs.items()),
            *(InputColumn(f"{COVARIATE}{escaped(name)}", name, type_) for name, type_ in covariates.items()),
        ),
        ("_row_id",),
    )


def _covariate_columns(names: Sequence[str], available: Mapping[str, str]) -> Iterator[InputColumn]:
    for name in names:
        type_ = _typed(name, "covariate", "covariate", (*NUMERIC, "STRING"), available)
        yield InputColumn(f"{COVARIATE}{escaped(name)}", name, "STRING" if type_ == "STRING" else "DOUBLE")


def _available(data: pd.DataFrame | DataFrame, names: Sequence[str]) -> dict[str, str]:
    """`column_types` of an input whose columns have one role each."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Column {twice[0]!r} is given two roles.", "Each column has one role; copy it if it needs two."
        )
    return column_types(data, names)


def _group_columns(names: Sequence[str], available: Mapping[str, str]) -> tuple[InputColumn, ...]:
    key_types = (*KEY_TYPES, "TIMESTAMP_NTZ")
    keys = tuple((name, _typed(name, "group", "group", key_types, available)) for name in names)
    group_columns(keys)
    return tuple(InputColumn(name, name, type_) for name, type_ in keys)


def _numeric(roles: Mapping[str, Sequence[str]], available: Mapping[str, str]) -> None:
    for role, names in roles.items():
        for name in names:
            _typed(name, role, "number", NUMERIC, available)


def select_spark(data: DataFrame, columns: InputColumns) -> DataFrame:
    """The engine's columns of a Spark frame, named and cast."""

    def one(column: InputColumn) -> Any:
        source = F.col(quoted(column.source))
        if _spark_type(data.schema[column.source].dataType) == "TIMESTAMP_NTZ":
            # A plain cast would read the wall clock in the session's time zone.
            source = F.to_timestamp(F.concat(source.cast("string"), F.lit("Z")))
        source = source.cast(column.type.lower())
        # NaN and NULL both mean missing, and sort to different ends.
        return (F.nanvl(source, F.lit(None)) if column.type == "DOUBLE" else source).alias(column.name)

    return data.select(*[one(column) for column in columns.all])


def select_pandas(data: pd.DataFrame, columns: InputColumns) -> pa.Table:
    """The engine's columns of a pandas frame as an Arrow table, named, cast, and sorted by group and order columns."""
    arrays = [_cast(_arrow(data[column.source], column.source), column) for column in columns.all]
    table = pa.Table.from_arrays(arrays, names=[column.name for column in columns.all])
    keys = [column.name for column in columns.groups] + list(columns.sorting)
    # As Spark does it: what is missing comes first.
    known = {f"known {key}": pc.is_valid(table[key]) for key in keys if table[key].null_count}
    sorting = [(name, "ascending") for key in keys for name in (f"known {key}", key) if name == key or name in known]
    ordered = pa.table([*table.columns, *known.values()], [*table.column_names, *known])
    return table.take(pc.sort_indices(ordered, sorting))


def _cast(values: pa.Array, column: InputColumn) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = pc.assume_timezone(values, "UTC")
    if pa.types.is_boolean(values.type) and column.type == "DOUBLE":
        values = values.cast(pa.int8())
    if pa.types.is_decimal(values.type):
        # Arrow's own cast is off in the last bit, Spark's is not.
        values = values.cast(pa.string())
    try:
        return values.cast(ARROW_TYPES[column.type], safe=column.type != "DOUBLE")
    except pa.ArrowException as error:
        raise InputError(
            f"Column {column.source!r} cannot be read as {column.type.lower()}: {error}.", "Cast it before the run."
        ) from error
