"""Columns of Arrow rows as arrays, missing values included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.frames import unescaped
from causal_spark.errors import DuplicateRowError, KeyValueError

Floats = NDArray[np.float64]


def read_numbers(column: pa.ChunkedArray) -> Floats:
    """(n_rows,) numbers, NaN where missing."""
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), dtype=np.float64)


def check_ids(ids: pa.Array | pa.ChunkedArray, what: str) -> None:
    """Raise `KeyValueError` where an id is missing and `DuplicateRowError` where one is there twice. what: a row is."""
    if ids.null_count:
        raise KeyValueError(f"The {what} id is missing in {ids.null_count} rows.", f"Give every {what} an id.")
    n_twice = len(ids) - len(ids.unique())
    if n_twice:
        counts = ids.value_counts().to_pylist()
        first = min(one["values"] for one in counts if one["counts"] > 1)
        raise DuplicateRowError(
            f"{n_twice} {what}s have the id of another, such as {first!r}.",
            f"Give every {what} of a group an id of its own.",
        )


def read_covariates(rows: pa.Table, used: NDArray[np.intp] | slice) -> dict[str, NDArray[Any]]:
    """Name to (n_used,) numbers, NaN where missing, or labels, None where missing, of the columns ``_covariate_*``."""
    names = [name for name in rows.column_names if name.startswith(COVARIATE)]
    return {unescaped(name.removeprefix(COVARIATE)): _values(rows[name])[used] for name in names}


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_floating(column.type):
        return read_numbers(column)
    return np.array(column.to_pylist(), dtype=object)
