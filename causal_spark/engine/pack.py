"""From sorted rows to one packed row per group: ids, sizes, a digest, and every value column as a list.

A group longer than `CHUNK_ROWS` becomes several packed rows, so that no single value grows without bound. The same
generator packs Arrow batches of a Spark task and those of a pandas frame.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causal_spark.engine.columns import ARROW_TYPES
from causal_spark.engine.keys import group_id
from causal_spark.engine.work import Group, InputColumns, Work

CHUNK_ROWS = 10_000
#: Column of planned rows that says with which groups theirs is run.
BUNDLE = "_bundle"
# What NULLs of these types are overwritten with before hashing; 0 will do for all others.
_ZEROS = {pa.date32(): dt.date(1970, 1, 1), pa.timestamp("us", tz="UTC"): dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}


def packed_fields(work: Work) -> list[tuple[str, str]]:
    """Column names and SQL types of the packed table."""
    columns = work.columns
    return [
        ("_group_id", "string"),
        *((column.name, column.type.lower()) for column in columns.groups),
        ("_chunk", "int"),
        ("_n_rows", "bigint"),
        ("_digest", "string"),
        *((f"_n_{name}", "bigint") for name in work.measures),
        *((column.name, f"array<{column.type.lower()}>") for column in columns.values),
    ]


def _starts(table: pa.Table, names: list[str]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(n_groups,) positions where the key changes, the first row included."""
    changed = np.zeros(len(table), dtype=bool)
    changed[0] = True
    for name in names:
        codes = pc.dictionary_encode(table[name].combine_chunks(), null_encoding="encode")
        index = np.asarray(codes.indices if isinstance(codes, pa.DictionaryArray) else codes.combine_chunks().indices)
        changed[1:] |= index[1:] != index[:-1]
    return np.flatnonzero(changed)


def _key(table: pa.Table, row: int, columns: InputColumns) -> dict[str, Any]:
    return {column.name: table[column.name][row].as_py() for column in columns.groups}


def _digest(table: pa.Table, columns: InputColumns) -> str:
    running = hashlib.sha256()
    for column in columns.values:
        array = _flat(table[column.name])
        # What lies under a NULL differs between pandas and Spark, so it is overwritten before hashing.
        running.update(np.asarray(array.is_null()).tobytes())
        if column.type == "STRING":
            running.update("\x00".join(value or "" for value in array.to_pylist()).encode())
        else:
            filled = pc.fill_null(array, _ZEROS.get(array.type, 0))
            running.update(np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).tobytes())
    return running.hexdigest()


@dataclass(slots=True)
class _Packer:
    work: Work
    names: list[str]
    types: dict[str, str]

    def batch(self, table: pa.Table, bounds: list[tuple[int, int, int]]) -> pa.RecordBatch:
        """Packed rows of the slices (start, stop, chunk number) of an ordered table, which they cover in order."""
        columns = self.work.columns
        slices = [table.slice(start, stop - start) for start, stop, _ in bounds]
        first = pa.array([start for start, _, _ in bounds], pa.int64())
        measured = np.array([self.work.measure(piece) for piece in slices], dtype=np.int64).reshape(len(bounds), -1)
        offsets = pa.array([start for start, _, _ in bounds] + [bounds[-1][1]], pa.int32())
        arrays = [
            pa.array([group_id(_key(table, start, columns), self.types) for start, _, _ in bounds], pa.string()),
            *(_flat(table[column.name].take(first)) for column in columns.groups),
            pa.array([chunk for _, _, chunk in bounds], pa.int32()),
            pa.array([stop - start for start, stop, _ in bounds], pa.int64()),
            pa.array([_digest(piece, columns) for piece in slices], pa.string()),
            *(pa.array(measured[:, k], pa.int64()) for k in range(len(self.work.measures))),
            *(pa.ListArray.from_arrays(offsets, _flat(table[column.name])) for column in columns.values),
        ]
        return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in packed_fields(self.work)])


def _flat(array: pa.ChunkedArray | pa.Array) -> pa.Array:
    combined = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def pack(batches: Iterable[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    """Packed rows of batches whose rows come sorted by group key and order columns.

    Chunk boundaries depend on the group's rows only, not on how they arrive in batches.
    """
    packer = _Packer(work, [column.name for column in work.columns.groups], work.columns.group_types)
    carry: list[pa.RecordBatch] = []
    chunk = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        carry.append(batch)
        table = pa.Table.from_batches(carry)
        starts = [*_starts(table, packer.names).tolist(), len(table)]
        bounds: list[tuple[int, int, int]] = []
        for index, (start, stop) in enumerate(pairwise(starts)):
            last = index == len(starts) - 2
            number = chunk if index == 0 else 0
            while stop - start > CHUNK_ROWS:
                bounds.append((start, start + CHUNK_ROWS, number))
                start, number = start + CHUNK_ROWS, number + 1
            if last:
                chunk = number
            else:
                bounds.append((start, stop, number))
        kept = bounds[-1][1] if bounds else 0
        if bounds:
            yield packer.batch(table.slice(0, kept), bounds)
        carry = table.slice(kept).to_batches()
    if carry:
        table = pa.Table.from_batches(carry)
        yield packer.batch(table, [(0, len(table), chunk)])


def unpack(batches: Iterable[pa.RecordBatch], work: Work) -> Iterator[Group]:
    """Groups of packed rows that come sorted by group id and chunk, with their bundle where the rows name it."""
    columns = work.columns
    schema = pa.schema([(column.name, ARROW_TYPES[column.type]) for column in columns.values])
    pieces: list[pa.Table] = []
    identity: tuple[str, Mapping[str, Any], int] | None = None

    def group(found: tuple[str, Mapping[str, Any], int]) -> Group:
        return Group(found[0], found[1], pa.concat_tables(pieces), found[2])

    for batch in batches:
        lists = [batch.column(column.name) for column in columns.values]
        bundles = batch.column(BUNDLE) if BUNDLE in batch.schema.names else None
        for row, found in enumerate(batch.column("_group_id").to_pylist()):
            if identity is not None and identity[0] != found:
                yield group(identity)
                pieces = []
            key = {column.name: batch.column(column.name)[row].as_py() for column in columns.groups}
            identity = (found, key, 0 if bundles is None else bundles[row].as_py())
            arrays = [values[row].values.cast(field.type) for values, field in zip(lists, schema, strict=True)]
            pieces.append(pa.Table.from_arrays(arrays, schema=schema))
    if identity is not None:
        yield group(identity)
