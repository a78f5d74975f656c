"""Normal rows, events and changed rows in one frame, each marked as what it is: the engine reads one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal_spark.engine.build_nodes import CHANGED, EVENT, NORMAL
from causal_spark.engine.columns import UNIT_TYPES, column_types
from causal_spark.errors import ConfigError, InputError, did_you_mean
from causal_spark.lake.locations import quoted

#: What a row is, which event or which period it belongs to.
ROLE, EVENT_ID, PERIOD = "_role", "_event_id", "_period"
_MARKED = {EVENT: EVENT_ID, CHANGED: PERIOD}


def stacked(
    frames: Mapping[str, pd.DataFrame | DataFrame], names: Sequence[str], marks: Mapping[str, str | None]
) -> pd.DataFrame | DataFrame:
    """Frames by role as one, with columns `ROLE`, `EVENT_ID` and `PERIOD` beside the named ones.

    marks: role to the column that tells its rows apart, None where there is none. Raises `ConfigError` for frames of
    several kinds, `InputError` for a column that is missing, cannot serve, or is text in some of the frames only.
    """
    types = _checked(frames[NORMAL], names, NORMAL, None)
    for role, frame in frames.items():
        own = _checked(frame, names, role, marks.get(role))
        for name in names:
            if (own[name] == "STRING") != (types[name] == "STRING"):
                raise InputError(
                    f"Column {name!r} is {own[name].lower()} in the {role} rows and {types[name].lower()} in the "
                    "normal ones.",
                    "Cast it to one type.",
                )
    as_pandas = {role: frame for role, frame in frames.items() if isinstance(frame, pd.DataFrame)}
    as_spark = {role: frame for role, frame in frames.items() if not isinstance(frame, pd.DataFrame)}
    if as_pandas and as_spark:
        raise ConfigError("The frames are of two kinds.", "Give all as pandas or all as Spark frames.")
    if as_pandas:
        parts = [_marked_pandas(frame, names, role, marks.get(role)) for role, frame in as_pandas.items()]
        return pd.concat(parts, ignore_index=True)
    spark_parts = [_marked_spark(frame, names, role, marks.get(role)) for role, frame in as_spark.items()]
    return reduce(DataFrame.unionByName, spark_parts)


def by_condition(
    data: DataFrame, names: Sequence[str], conditions: Mapping[str, str], marks: Mapping[str, str | None]
) -> DataFrame:
    """The same from one frame and a SQL condition per role: a row is there once for everything that it is.

    Raises `InputError` as `stacked`, and `ConfigError` for a condition that is not valid.
    """
    for role in conditions:
        _checked(data, names, role, marks.get(role))
    try:
        asked = [F.when(F.expr(condition), F.lit(role)) for role, condition in conditions.items()]
        roles = F.filter(F.array(*asked), lambda role: role.isNotNull())
        exploded = data.select("*", F.explode(roles).alias(ROLE))
        found = exploded.select(
            *(F.col(quoted(name)) for name in names),
            F.col(ROLE),
            *(
                F.when(F.col(ROLE) == role, _mark(marks.get(role))).cast("string").alias(column)
                for role, column in _MARKED.items()
            ),
        )
        # On Connect what is wrong shows only when something is asked for.
        _ = found.columns
    except (AnalysisException, ParseException) as error:
        raise ConfigError(
            f"A condition in rows is not valid: {str(error).splitlines()[0]}", "Write SQL on the input's columns."
        ) from error
    return found


def _checked(frame: pd.DataFrame | DataFrame, names: Sequence[str], role: str, mark: str | None) -> dict[str, str]:
    """Column to type. Raises `InputError` for one that is missing, and for a mark that cannot be text."""
    wanted = list(names) if mark is None else [*names, mark]
    types = column_types(frame, wanted)
    for name in wanted:
        if name not in types:
            raise InputError(f"The {role} rows have no column {name!r}.", did_you_mean(name, types))
    if mark is not None and types[mark] not in UNIT_TYPES:
        raise InputError(f"Column {mark!r} ({role}) has type {types[mark].lower()}.", "Cast it to a string.")
    return types


def _marked_pandas(frame: pd.DataFrame, names: Sequence[str], role: str, mark: str | None) -> pd.DataFrame:
    found = frame[list(names)].copy()
    found[ROLE] = role
    for marked, column in _MARKED.items():
        labels: list[Any] = [None] * len(frame)
        if mark is not None and marked == role:
            # As text at once: next to rows without one, integers would become floats.
            labels = pa.Array.from_pandas(frame[mark]).cast(pa.string()).to_pylist()
        found[column] = pd.Series(labels, index=frame.index, dtype=object)
    return found


def _marked_spark(frame: DataFrame, names: Sequence[str], role: str, mark: str | None) -> DataFrame:
    return frame.select(
        *(F.col(quoted(name)) for name in names),
        F.lit(role).alias(ROLE),
        *(
            (_mark(mark) if marked == role else F.lit(None)).cast("string").alias(column)
            for marked, column in _MARKED.items()
        ),
    )


def _mark(name: str | None) -> Column:
    return F.lit(None) if name is None else F.col(quoted(name))
