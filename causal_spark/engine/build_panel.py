"""Long rows to a `Panel`: checked, arranged into arrays, units in an order that their names have no part in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causal_spark.engine.columns import COVARIATE
from causal_spark.engine.frames import unescaped
from causal_spark.engine.memory import limit_for, panel_memory, panel_too_large
from causal_spark.errors import (
    CovariateValueError,
    DuplicateCellError,
    KeyValueError,
    OutcomeValueError,
    TreatmentValueError,
)
from causal_spark.panel.labels import label
from causal_spark.panel.types import Panel, PanelSize


def build_panel(rows: pa.Table, memory_limit: int | None = None) -> Panel:
    """Arrays of one panel from its long rows (columns ``_unit, _time, _outcome, _treatment, _covariate_*``).

    Periods are sorted by label, units by what their rows hold (`_content_order`), so that names of units have no part
    in any result. Cells without a row are unobserved and untreated; NULL and NaN outcomes are unobserved.
    memory_limit: bytes that may be used, None: see `limit_for`. Raises a `GroupError` naming the offending unit and
    time, or the size.
    """
    units, unit_codes = _codes(rows["_unit"], "unit")
    times, time_codes = _codes(rows["_time"], "time")
    n_units, n_periods = len(units), len(times)
    names = [name for name in rows.column_names if name.startswith(COVARIATE)]
    size = PanelSize(n_units, n_periods, 0, 0)
    needed = panel_memory(size, len(rows), len(names), {}, 0).base
    limit = limit_for(needed, memory_limit)
    if needed > limit:
        raise panel_too_large(f"Arranging {len(rows)} rows", needed, size, limit)
    cell = unit_codes * n_periods + time_codes

    def where(row: int) -> str:
        return f"unit {units[unit_codes[row]]!s}, time {label(times[time_codes[row]])}"

    given = np.zeros(n_units * n_periods, dtype=bool)
    given[cell] = True
    if np.count_nonzero(given) < len(cell):
        order = np.argsort(cell, kind="stable")
        again = order[1:][np.diff(cell[order]) == 0]
        raise DuplicateCellError(
            f"{np.unique(cell[again]).size} (unit, time) pairs occur more than once, the first at {where(again[0])}.",
            "Aggregate to one row per unit and time, or add the missing key to the group columns.",
        )
    treatment = _numbers(rows["_treatment"])
    wrong = ~((treatment == 0) | (treatment == 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = "missing" if np.isnan(treatment[row]) else f"{treatment[row]:g}"
        raise TreatmentValueError(
            f"The treatment is {found} at {where(row)}; {int(wrong.sum())} rows are neither 0 nor 1.",
            "Code the treatment as 1 where a unit is treated in that period and 0 elsewhere.",
        )
    outcome = _numbers(rows["_outcome"])
    if np.isinf(outcome).any():
        row = int(np.flatnonzero(np.isinf(outcome))[0])
        raise OutcomeValueError(
            f"The outcome is infinite at {where(row)}.", "Drop the row, or set the outcome to NULL to mark it missing."
        )
    covariates = None
    if names:
        values = np.stack([_numbers(rows[name]) for name in names], axis=-1)
        bad = ~np.isfinite(values).all(axis=1) & np.isfinite(outcome)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            name = unescaped(names[int(np.flatnonzero(~np.isfinite(values[row]))[0])].removeprefix(COVARIATE))
            raise CovariateValueError(
                f"Covariate {name!r} is missing or infinite at {where(row)}, where the outcome is observed.",
                "Fill it in, or set the outcome to NULL to leave the cell out.",
            )
        covariates = np.full((n_units, n_periods, len(names)), np.nan)
        covariates[unit_codes, time_codes] = _canonical(values)
    grid = np.full((n_units, n_periods), np.nan)
    grid[unit_codes, time_codes] = _canonical(outcome)
    treated = np.zeros((n_units, n_periods), dtype=bool)
    treated[unit_codes, time_codes] = treatment == 1
    return Panel(grid, treated, np.isfinite(grid), units, times, covariates).take_units(
        _content_order(grid, treated, covariates)
    )


def unit_flags(rows: pa.Table, panel: Panel, column: str, role: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n_units,) units of the panel with a 1 in some row; rows: those the panel was built of.

    Raises `TreatmentValueError` for a value that is neither 0 nor 1 nor missing.
    """
    values = np.nan_to_num(_numbers(rows[column]))
    wrong = ~((values == 0) | (values == 1))
    if wrong.any():
        raise TreatmentValueError(
            f"The {role} is {values[np.flatnonzero(wrong)[0]]:g}; {int(wrong.sum())} rows are neither 0 nor 1.",
            f"Code the {role} as 1 and 0.",
        )
    units, codes = _codes(rows["_unit"], "unit")
    flagged = np.zeros(len(units), dtype=bool)
    flagged[codes[values == 1]] = True
    # Labels are sorted, and the panel has each of them.
    return flagged[np.searchsorted(units, panel.units)]


def _canonical(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The same numbers with one pattern of bits for zero and one for NaN."""
    # Adding zero turns the negative zero into the positive one.
    return np.where(np.isnan(values), np.nan, values + 0.0)


def _content_order(
    grid: np.ndarray[Any, np.dtype[np.float64]],
    treated: np.ndarray[Any, np.dtype[np.bool_]],
    covariates: np.ndarray[Any, np.dtype[np.float64]] | None,
) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(n_units,) positions of units, sorted by their outcomes from the first period on; rows alike keep their order.

    Sums, cross-validation folds and placebo draws depend on the order of units in the last bits or more. An order taken
    from the rows alone makes all of them the same under every renaming of units; one by size keeps them under a change
    of the outcome's units of measurement too.
    """
    keys = [_rows_as_bytes(_bits_by_size(grid)), _rows_as_bytes(treated)]
    if covariates is not None:
        keys.append(_rows_as_bytes(_bits_by_size(covariates)))
    return np.lexsort(keys[::-1])


def _bits_by_size(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    """Integers that sort as the numbers do, NaN last, the most significant byte first."""
    bits = values.view(np.int64)
    # Numbers below zero have their bits turned over, others only the sign: then more is more. The shift copies the sign
    # into every bit.
    return (bits ^ ((bits >> 63) | np.int64(-(2**63)))).byteswap(inplace=True)


def _rows_as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(n_units,) each unit's values as one opaque item, which NumPy compares byte by byte; no copy."""
    return array.reshape(len(array), -1).view(np.dtype((np.void, array[0].nbytes))).ravel()


def _codes(column: pa.ChunkedArray, role: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if column.null_count:
        raise KeyValueError(
            f"The {role} is missing in {column.null_count} rows.", f"Drop these rows or fill in the {role}."
        )
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    distinct = encoded.dictionary
    order = np.asarray(pc.sort_indices(distinct))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    labels = distinct.take(pa.array(order))
    if pa.types.is_timestamp(labels.type):
        labels = labels.cast(pa.timestamp("us"))
    return labels.to_numpy(zero_copy_only=False), rank[np.asarray(encoded.indices)]


def _numbers(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), dtype=np.float64)
