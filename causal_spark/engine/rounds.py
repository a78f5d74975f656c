"""Rounds: one long group's estimator as many tasks.

A round is one Spark job for all groups that are split. Each of its tasks is sent one group's packed rows, once, and the
pieces of the rounds before; it runs its share of the chunks and stages a piece for each, and one more that says it is
through. The wave after the last round gets the same rows with all pieces, and makes of them what an ordinary wave
would. Rows and pieces travel in one frame: pieces have a round, rows have none and so are sorted before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from causal_spark.engine.frames import ddl
from causal_spark.engine.pack import packed_fields, unpack
from causal_spark.engine.plan import Plan, Round
from causal_spark.engine.stage import encode_results
from causal_spark.engine.work import Failure, Group, GroupResult, Part, Piece, Work

_FAILURE = pa.struct([(field.name, pa.string()) for field in fields(Failure)])
_SCHEMA = pa.schema(
    [
        ("_group_id", pa.string()),
        ("_estimator", pa.string()),
        ("_round", pa.int32()),
        ("_part", pa.int32()),
        ("_chunk", pa.int32()),
        ("_content", pa.binary()),
        ("_failure", _FAILURE),
        ("_seconds", pa.float64()),
    ]
)
_SQL = {pa.string(): "string", pa.int32(): "int", pa.binary(): "binary", pa.float64(): "double"}
_SQL[_FAILURE] = f"struct<{','.join(f'{field.name}:string' for field in fields(Failure))}>"
#: Column names and SQL types of staged pieces.
PIECE_FIELDS = [(field.name, _SQL[field.type]) for field in _SCHEMA]
#: Columns of pieces beyond their group's id, in the order of `Piece`.
PIECE_COLUMNS = _SCHEMA.names[1:]
#: What tells one part of a round from another.
PART_KEY = ["_group_id", "_estimator", "_part"]
_PLACE = "_group_id string, _estimator string, _task int, _mine int, _n_parts int"


def round_rows(packed: DataFrame, pieces: DataFrame, one: Round, work: Work) -> DataFrame:
    """Pieces of one round. packed: rows of the groups that are split; pieces: of the rounds before."""
    number, names = one.number, [name for name, _ in packed_fields(work)]
    places = F.broadcast(
        packed.sparkSession.createDataFrame(
            [(part.group_id, part.estimator, part.task, part.part, part.n_parts) for part in one.parts], _PLACE
        )
    )
    rows = packed.select(*names).join(places.withColumnRenamed("_estimator", "_for"), "_group_id")
    before = pieces.join(places, ["_group_id", "_estimator"])

    def runner(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return run_parts(batches, number, work)

    return (
        rows.unionByName(before, allowMissingColumns=True)
        .repartitionById(len(one.parts), F.col("_task"))
        .sortWithinPartitions("_task", "_round", "_chunk")
        .select(*columns_with_pieces(work), "_for", "_task", "_mine", "_n_parts")
        .mapInArrow(runner, ddl(PIECE_FIELDS))
    )


def columns_with_pieces(work: Work) -> list[str]:
    """Columns of packed rows and of pieces; both have ``_chunk``."""
    names = [name for name, _ in packed_fields(work)]
    return names + [name for name in PIECE_COLUMNS if name not in names]


def with_pieces(planned: DataFrame, pieces: DataFrame, plan: Plan) -> DataFrame:
    """Packed rows with their wave and task, and pieces with those of their group."""
    places = planned.sparkSession.createDataFrame(
        [(group.group_id, group.wave, group.task) for group in plan.groups], "_group_id string, cs_wave int, _task int"
    )
    return planned.unionByName(pieces.join(F.broadcast(places), "_group_id"), allowMissingColumns=True)


def run_parts(batches: Iterable[pa.RecordBatch], number: int, work: Work) -> Iterator[pa.RecordBatch]:
    """Pieces of the parts of round ``number`` whose rows come sorted by task, then round."""
    # See `encode_results`.
    with threadpool_limits(limits=1):
        for rows, done in _runs(batches, "_task"):
            (group,) = unpack(rows, work)
            place = {name: rows[0].column(name)[0].as_py() for name in ("_for", "_mine", "_n_parts", "_task")}
            part = Part(group.group_id, place["_for"], number, place["_mine"], place["_n_parts"], place["_task"])
            for piece in work.run_part(group, done, part):
                yield _encoded(group, piece)


def run_finishing(batches: Iterable[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    """Staged rows of groups that were split; packed rows and pieces come sorted by group id, then round."""

    def results() -> Iterator[tuple[Group, GroupResult]]:
        for rows, done in _runs(batches, "_group_id"):
            (group,) = unpack(rows, work)
            yield group, work.run(group, done)

    return encode_results(results(), work)


def _encoded(group: Group, piece: Piece) -> pa.RecordBatch:
    values = (group.group_id, *asdict(piece).values())
    arrays = [pa.array([value], field.type) for value, field in zip(values, _SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def _decoded(row: Mapping[str, Any]) -> Piece:
    failure = None if row["_failure"] is None else Failure(**row["_failure"])
    return Piece(**{name[1:]: value for name, value in row.items()} | {"failure": failure})


def _runs(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[tuple[list[pa.RecordBatch], list[Piece]]]:
    """Packed rows and pieces of every stretch of rows with one key."""
    current: Any = None
    rows: list[pa.RecordBatch] = []
    done: list[Piece] = []
    for batch in batches:
        keys = batch.column(key).to_pylist()
        changes = [place for place in range(1, len(keys)) if keys[place] != keys[place - 1]]
        for start, stop in pairwise([0, *changes, len(keys)] if keys else []):
            if rows and keys[start] != current:
                yield rows, done
                rows, done = [], []
            current = keys[start]
            stretch = batch.slice(start, stop - start)
            n_rows = stretch.column("_round").null_count
            if n_rows:
                rows.append(stretch.slice(0, n_rows))
            done += [_decoded(row) for row in stretch.slice(n_rows).select(PIECE_COLUMNS).to_pylist()]
    if rows:
        yield rows, done
