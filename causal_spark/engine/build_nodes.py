"""Rows of normal times, of events and of changed times to tables of a graph's nodes, levels of discrete nodes coded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from causal_spark.engine.columns import NODE
from causal_spark.engine.frames import escaped
from causal_spark.engine.read_rows import check_ids, read_numbers
from causal_spark.engine.tasks import Notice
from causal_spark.errors import NodeValueError, NoRowsError
from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.types import Floats, NodeTable

#: What a row is.
NORMAL, EVENT, CHANGED = ROLES = ("normal", "event", "changed")
#: Period of changed rows that have none.
NO_PERIOD = "changed"
#: More levels than these are no category.
MOST_LEVELS = 50
#: Events that a message names.
_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class BuiltNodes:
    """normal: rows the model is fitted to. events: rows in which the target and its ancestors are known, with
    ``event_ids``. periods: changed rows by period, in the order of its text. notices: what to know of the rows.
    """

    normal: NodeTable
    events: NodeTable
    event_ids: tuple[str, ...]
    periods: Mapping[str, NodeTable]
    notices: tuple[Notice, ...]


def build_nodes(rows: pa.Table, graph: CausalGraph, target: str) -> BuiltNodes:
    """Tables of one group from its rows (columns ``_role, _event_id, _period, _node_*``).

    A level is known when it occurs in normal or changed rows. Events without a target or an ancestor are left out and
    told of. Raises `NoRowsError` without normal rows, `NodeValueError` for an infinite node or one with too many
    levels, `KeyValueError` and `DuplicateRowError` for ids of events.
    """
    roles = np.array(rows["_role"].to_pylist(), dtype=object)
    if not (roles == NORMAL).any():
        raise NoRowsError("The group has no normal rows to compare with.", "Widen the normal rows, or drop the group.")
    columns = []
    n_levels = []
    known_levels = pa.array(roles != EVENT)
    for name in graph.nodes:
        column = rows[f"{NODE}{escaped(name)}"]
        if pa.types.is_string(column.type):
            levels = _levels(name, column.filter(known_levels))
            columns.append(_coded(column, levels))
            n_levels.append(len(levels))
        else:
            columns.append(_numbers(name, column))
            n_levels.append(0)
    table = NodeTable(np.stack(columns, axis=1), tuple(n_levels))
    ids = rows["_event_id"].filter(pa.array(roles == EVENT))
    check_ids(ids, "event")
    events = table.rows(roles == EVENT)
    complete = events.complete(graph.lineage(graph.place(target)))
    event_ids = [str(one) for one in ids.to_pylist()]
    missing = [one for one, whole in zip(event_ids, complete, strict=True) if not whole]
    notices = [_left_out(missing, len(event_ids))] if missing else []
    return BuiltNodes(
        table.rows(roles == NORMAL),
        events.rows(complete),
        tuple(one for one, whole in zip(event_ids, complete, strict=True) if whole),
        _periods(rows["_period"], roles == CHANGED, table),
        tuple(notices),
    )


def _periods(column: pa.ChunkedArray, changed: NDArray[np.bool_], table: NodeTable) -> dict[str, NodeTable]:
    labels = np.array([NO_PERIOD if one is None else one for one in column.to_pylist()], dtype=object)
    return {str(one): table.rows(changed & (labels == one)) for one in sorted(set(labels[changed].tolist()))}


def _numbers(name: str, column: pa.ChunkedArray) -> Floats:
    values = read_numbers(column)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise NodeValueError(
            f"Node {name!r} is infinite in {infinite} of {len(values)} rows.", "Set it to NULL where it is not known."
        )
    return values


def _levels(name: str, column: pa.ChunkedArray) -> list[str]:
    found = sorted(str(one) for one in pc.unique(column).to_pylist() if one is not None)
    if len(found) > MOST_LEVELS:
        raise NodeValueError(
            f"Node {name!r} has {len(found)} levels, more than {MOST_LEVELS}.",
            "Merge levels; if it is a number, cast it to a double.",
        )
    return found or ["(none)"]


def _coded(column: pa.ChunkedArray, levels: Sequence[str]) -> Floats:
    return read_numbers(pc.index_in(column, pa.array(levels, pa.string())).cast(pa.float64()))


def _left_out(missing: Sequence[str], n_events: int) -> Notice:
    named = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
    return Notice(
        "EventsLeftOut",
        f"{len(missing)} of {n_events} events lack the target, one of its ancestors, or have a level that no normal "
        f"row has: {named}.",
        "Fill the gaps, or take nodes that are rarely known out of the graph.",
    )
