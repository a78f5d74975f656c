"""Stored models applied to new rows, batch by batch: what is held in memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from causal_spark.engine import arm_rows
from causal_spark.engine.arm_rows import Level
from causal_spark.engine.build_arms import read_costs
from causal_spark.engine.columns import ARROW_TYPES
from causal_spark.engine.keys import group_id
from causal_spark.engine.read_rows import read_covariates
from causal_spark.engine.stored_models import StoredModel, read_model
from causal_spark.engine.work import InputColumns
from causal_spark.lake.contract import Column
from causal_spark.lake.schemas import TABLES
from causal_spark.multi_treatment.policy import choose_arms

What = Literal["individual_effects", "policies"]
#: Rows scored at once.
_ROWS = 16_384


@dataclass(frozen=True)
class Scorer:
    """Models of groups, and what is asked of them.

    packed: group id to the text and the bytes of its model. estimator: that fitted them. what: a row per row and arm,
    or one with the arm to choose. abstains: see `causal_spark.engine.arms.ArmWork`. costs: of arms that cost all rows
    alike, in place of those of the fit.
    """

    columns: InputColumns
    packed: Mapping[str, tuple[str, bytes]]
    estimator: str
    what: What
    confidence_level: float
    abstains: bool
    costs: Mapping[str, float]

    @cached_property
    def models(self) -> dict[str, StoredModel]:
        """By group id, read once in every process."""
        return {group: read_model(*content) for group, content in self.packed.items()}

    def __getstate__(self) -> dict[str, Any]:
        # Models go to workers packed.
        return {name: value for name, value in self.__dict__.items() if name != "models"}

    @property
    def fields(self) -> list[Column]:
        """Columns of what `scored` gives."""
        groups = [Column(column.name, column.type, "") for column in self.columns.groups]
        return [Column("group_id", "STRING", ""), *groups, *TABLES[self.what].columns]

    def schema(self) -> pa.Schema:
        """The same in Arrow."""
        return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in self.fields])

    def scored(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Results for batches of the columns; rows of groups without a model have none."""
        with threadpool_limits(limits=1):
            for batch in batches:
                for start in range(0, len(batch), _ROWS):
                    for group, key, rows in self._by_group(pa.Table.from_batches([batch.slice(start, _ROWS)])):
                        if group in self.models:
                            yield from self._results(group, key, rows).to_batches()

    def _by_group(self, rows: pa.Table) -> Iterator[tuple[str, Mapping[str, Any], pa.Table]]:
        names = [column.name for column in self.columns.groups]
        if not names:
            yield group_id({}, {}), {}, rows
            return
        keys = rows.select(names)
        distinct = keys.group_by(names, use_threads=False).aggregate([]).to_pylist()
        for key in distinct:
            chosen = np.ones(len(rows), dtype=bool)
            for name in names:
                chosen &= _equal(rows[name], key[name])
            yield group_id(key, self.columns.group_types), key, rows.take(pa.array(np.flatnonzero(chosen)))

    def _results(self, group: str, key: Mapping[str, Any], rows: pa.Table) -> pa.Table:
        model, raw = self.models[group], read_covariates(rows, slice(None))
        found = model.predictor.predict(model.encoding.apply({name: raw[name] for name in model.covariates}))
        row_ids, level = rows["_row_id"].combine_chunks(), Level(self.confidence_level)
        if self.what == "policies":
            fixed = {arm: cost for arm, cost in model.costs.items() if cost is not None}
            costs = read_costs(rows, np.arange(len(rows)), model.arms, {**fixed, **self.costs})
            errors = found.std_errors if self.abstains else None
            policy = choose_arms(found.effects, costs, errors, level.reach, found.in_support)
            table = arm_rows.policy_table(row_ids, model.arms, policy)
        else:
            table = arm_rows.effect_table(row_ids, model.arms, found, level)
        table = arm_rows.with_estimator(table, self.estimator).append_column("group_id", _repeated(group, len(table)))
        for column in self.columns.groups:
            values = pa.scalar(key[column.name], ARROW_TYPES[column.type])
            table = table.append_column(column.name, pa.repeat(values, len(table)))
        return table.select([column.name for column in self.fields]).cast(self.schema())


def _repeated(text: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), n)


def _equal(column: pa.ChunkedArray, value: Any) -> np.ndarray:
    """Where a column has a value, or none where that is None."""
    if value is None:
        return np.asarray(column.is_null().to_numpy())
    found = pc.equal(column, pa.scalar(value, column.type))
    return np.asarray(pc.fill_null(found, False).to_numpy())


def bundles(sizes: Sequence[tuple[str, int]], most_bytes: int) -> list[list[str]]:
    """Groups in bundles whose models have so many bytes at most, a larger one by itself, in the order given.

    sizes: group id and bytes of each.
    """
    found: list[list[str]] = []
    held = most_bytes
    for group, size in sizes:
        if held + size > most_bytes or not found:
            found.append([])
            held = 0
        found[-1].append(group)
        held += size
    return found
