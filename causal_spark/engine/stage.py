"""Results on their way to the lake: one row per group (more when long), every result table a list of structs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from causal_spark.engine.columns import ARROW_TYPES
from causal_spark.engine.pack import unpack
from causal_spark.engine.work import Failure, Group, GroupResult, Row, Work
from causal_spark.errors import LostGroupError
from causal_spark.lake.contract import Column
from causal_spark.lake.schemas import TABLES
from causal_spark.lake.schemas.runs import FAILURES

#: Rows of one table in one staged row; longer tables continue in further rows of the same group.
PART_ROWS = 20_000
#: Rows of all tables in one Arrow batch.
BATCH_ROWS = 20_000


def staged_name(table: str) -> str:
    """Column of the staged table that holds a result table; no group column can start with an underscore."""
    return f"_{table}"


def result_columns(work: Work) -> dict[str, tuple[Column, ...]]:
    """Per table, ``failures`` first, its columns beyond the keys."""
    return {name: TABLES[name].columns for name in (FAILURES.name, *work.tables)}


def staged_fields(work: Work) -> list[tuple[str, str]]:
    """Column names and SQL types of the staged table."""

    def struct(columns: tuple[Column, ...]) -> str:
        return f"array<struct<{','.join(f'{column.name}:{column.type.lower()}' for column in columns)}>>"

    return [
        ("_group_id", "string"),
        *((column.name, column.type.lower()) for column in work.columns.groups),
        ("_part", "int"),
        ("_n_rows", "bigint"),
        ("_seconds", "map<string,double>"),
        *((staged_name(name), struct(columns)) for name, columns in result_columns(work).items()),
    ]


def staged_schema(work: Work) -> pa.Schema:
    """The staged table in Arrow."""

    def struct(columns: tuple[Column, ...]) -> pa.DataType:
        return pa.list_(pa.struct([(column.name, ARROW_TYPES[column.type]) for column in columns]))

    return pa.schema(
        [
            ("_group_id", pa.string()),
            *((column.name, ARROW_TYPES[column.type]) for column in work.columns.groups),
            ("_part", pa.int32()),
            ("_n_rows", pa.int64()),
            ("_seconds", pa.map_(pa.string(), pa.float64())),
            *((staged_name(name), struct(columns)) for name, columns in result_columns(work).items()),
        ]
    )


def failure_row(failure: Failure, job: str, n_rows: int) -> Row:
    """A row of ``failures``, keys excluded."""
    return {
        "stage": failure.stage,
        "estimator": failure.estimator,
        "job": job,
        "kind": failure.kind,
        "error_class": failure.error_class,
        "message": failure.message,
        "hint": failure.hint,
        "n_rows": n_rows,
    }


def _parts(group: Group, result: GroupResult, work: Work) -> Iterator[dict[str, Any]]:
    n_rows = len(group.rows)
    tables: dict[str, Sequence[Row] | pa.Table] = {
        FAILURES.name: [failure_row(failure, work.job, n_rows) for failure in result.failures],
        **result.tables,
        **{name: pa.concat_tables(pieces) for name, pieces in result.large.items()},
    }
    n_parts = max(1, *(-(-len(rows) // PART_ROWS) for rows in tables.values()))
    for part in range(n_parts):
        yield {
            "_group_id": group.group_id,
            **group.key,
            "_part": part,
            "_n_rows": n_rows if part == 0 else 0,
            "_seconds": list(result.seconds.items()) if part == 0 else [],
            **{staged_name(name): rows[part * PART_ROWS : (part + 1) * PART_ROWS] for name, rows in tables.items()},
        }


def _encoded(waiting: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [row[field.name] for row in waiting]
        if any(isinstance(value, pa.Table) for value in values):
            structs = [_structs(value, field.type.value_type) for value in values]
            offsets = pa.array(np.cumsum([0, *map(len, structs)]), pa.int32())
            arrays.append(pa.ListArray.from_arrays(offsets, pa.concat_arrays(structs), type=field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _structs(rows: Sequence[Row] | pa.Table, type_: pa.StructType) -> pa.StructArray:
    if not isinstance(rows, pa.Table):
        return pa.array(rows, type_)
    chunks = rows.select([field.name for field in type_]).to_struct_array().cast(type_)
    return pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], type_)


def encode_results(results: Iterable[tuple[Group, GroupResult]], work: Work) -> Iterator[pa.RecordBatch]:
    """What the science says of each group as staged rows."""
    schema = staged_schema(work)
    names = [staged_name(name) for name in (FAILURES.name, *work.tables)]
    waiting: list[dict[str, Any]] = []
    held = 0
    # The last bits of a product depend on how many threads share it, and a task has one core anyway.
    with threadpool_limits(limits=1):
        for group, result in results:
            for row in _parts(group, result, work):
                waiting.append(row)
                held += 1 + sum(len(row[name]) for name in names)
                if held >= BATCH_ROWS:
                    yield _encoded(waiting, schema)
                    waiting, held = [], 0
    if waiting:
        yield _encoded(waiting, schema)


def run_bundles(bundles: Iterable[Sequence[Group]], work: Work) -> Iterator[pa.RecordBatch]:
    """Run the science on bundles of groups, each in the order of its group ids."""

    def results() -> Iterator[tuple[Group, GroupResult]]:
        for bundle in bundles:
            groups = sorted(bundle, key=lambda group: group.group_id)
            yield from zip(groups, work.run_bundle(groups), strict=True)

    return encode_results(results(), work)


def run_packed(batches: Iterable[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    """Staged rows of packed rows that come sorted by bundle, group id and chunk."""
    return run_bundles((list(one) for _, one in groupby(unpack(batches, work), attrgetter("bundle"))), work)


def result_table(staged: pa.Table, name: str, work: Work) -> pa.Table:
    """One result table out of staged rows: ``group_id``, group columns where the contract has them, its columns."""
    lists = staged[staged_name(name)].combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    parents = pc.list_parent_indices(lists)
    keys = [staged["_group_id"].take(parents)]
    names = ["group_id"]
    if TABLES[name].has_group_columns:
        keys += [staged[column.name].take(parents) for column in work.columns.groups]
        names += [column.name for column in work.columns.groups]
    rows = lists.flatten()
    columns = [column.name for column in TABLES[name].columns]
    return pa.Table.from_arrays([*keys, *(rows.field(column) for column in columns)], names=[*names, *columns])


def group_status(n_estimates: int, kinds: Iterable[str]) -> str:
    """``failed`` when anything failed, else ``declined`` without any estimate, else ``succeeded``."""
    if "failed" in kinds:
        return "failed"
    return "succeeded" if n_estimates else "declined"


def lost_row(work: Work, n_rows: int) -> Mapping[str, Any]:
    """The failure of a group that a task took and never gave back."""
    failure = Failure(
        "estimate",
        None,
        "failed",
        LostGroupError.__name__,
        "The group was planned but came back neither with a result nor with a failure.",
        "Run again; if it stays lost, report it as a defect of causal_spark.",
    )
    return failure_row(failure, work.job, n_rows)
