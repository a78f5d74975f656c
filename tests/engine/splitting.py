"""What a cluster does with a group that is split, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from causal_spark import PanelEffects
from causal_spark.engine.columns import PanelRoles, select_pandas
from causal_spark.engine.pack import pack
from causal_spark.engine.panel_groups import PanelGroups
from causal_spark.engine.panels import PanelWork
from causal_spark.engine.rounds import run_finishing, run_parts
from causal_spark.engine.stage import run_packed
from tests.frames import ROLES, long_panel

FRAME = long_panel(n_units=14, n_periods=12, n_treated=3)


def work_for(
    estimators: list[Any], frame: pd.DataFrame = FRAME, variances: Sequence[Any] = (), **more: Any
) -> PanelWork:
    return PanelEffects(estimators, variances=variances, **more).plan_work(frame, PanelRoles(**ROLES))


def without_seconds(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    rows = pa.Table.from_batches(batches).drop_columns("_seconds").to_pylist()
    for row in rows:
        for effect in row.get("_panel_effects", ()):
            assert effect.pop("seconds") >= 0
    return rows


def sent(packed: list[pa.RecordBatch], pieces: list[pa.RecordBatch], place: Mapping[str, Any]) -> list[pa.RecordBatch]:
    """What the engine's sorted union sends to one task, cut where no boundary of anything lies."""
    tables = [pa.Table.from_batches(packed)] + ([pa.Table.from_batches(pieces)] if pieces else [])
    rows = pa.concat_tables(tables, promote_options="default")
    if "_round" not in rows.column_names:
        rows = rows.append_column("_round", pa.nulls(len(rows), pa.int32()))
    for name, value in place.items():
        rows = rows.drop_columns([name]) if name in rows.column_names else rows
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    if pieces:
        rows = rows.sort_by([("_round", "ascending"), ("_chunk", "ascending")])
        is_row = pa.compute.is_null(rows["_round"])
        rows = pa.concat_tables([rows.filter(is_row), rows.filter(pa.compute.invert(is_row))])
    else:
        empty = {"_estimator": pa.string(), "_part": pa.int32(), "_content": pa.binary(), "_seconds": pa.float64()}
        empty["_failure"] = pa.struct([(name, pa.string()) for name in FAILURE_FIELDS])
        for name, type_ in empty.items():
            rows = rows.append_column(name, pa.nulls(len(rows), type_))
    return rows.combine_chunks().to_batches(max_chunksize=7)


FAILURE_FIELDS = ("stage", "estimator", "kind", "error_class", "message", "hint")


def split(
    frame: pd.DataFrame, work: PanelGroups, n_parts: int, n_rounds: int = 3, lose: Any = None, name: str = "steps"
) -> list[Any]:
    """What becomes of one group when its rounds run as tasks."""
    packed = list(pack(select_pandas(frame, work.columns).to_batches(), work))
    pieces: list[pa.RecordBatch] = []
    for number in range(n_rounds):
        made = []
        for k in reversed(range(n_parts)):
            place = {"_for": name, "_mine": k, "_n_parts": n_parts, "_task": k}
            made += list(run_parts(sent(packed, pieces, place), number, work))
        assert sum(batch.column("_chunk").null_count for batch in made) == n_parts
        pieces += [batch for batch in made if batch.column("_chunk")[0].as_py() != lose or lose is None]
    return without_seconds(list(run_finishing(sent(packed, pieces, {}), work)))


def whole(frame: pd.DataFrame, work: PanelGroups) -> list[Any]:
    packed = pack(select_pandas(frame, work.columns).to_batches(), work)
    return without_seconds(list(run_packed(packed, work)))
