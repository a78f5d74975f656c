"""`score`: models that were fitted once, applied to any number of new rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, get_args

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal_spark.engine.columns import new_row_columns, select_pandas, select_spark
from causal_spark.engine.frames import ddl
from causal_spark.engine.scoring import Scorer, What, bundles
from causal_spark.engine.stored_models import costs_by_row_of, covariates_of
from causal_spark.engine.work import InputColumns
from causal_spark.errors import ConfigError, InputError, did_you_mean
from causal_spark.individual_effects import Cost, labelled, split_costs
from causal_spark.lake.schemas.arms import MODELS
from causal_spark.results import Frame

#: Bytes of models that travel with one pass over the rows.
_BUNDLE_BYTES = 64 * 2**20
_OWN = ("run_id", "group_id", *(column.name for column in MODELS.columns))


def score(
    models: Frame,
    rows: Frame,
    *,
    row_id: str,
    estimator: str | None = None,
    what: What = "individual_effects",
    costs: Mapping[str | int | bool, Cost] | None = None,
    abstain: bool = True,
    confidence_level: float = 0.95,
) -> Frame:
    """Effects on new rows, or the arms to choose for them, as tables ``individual_effects`` and ``policies`` have them.

    models: rows of table ``models`` of one run, `EffectResult.models`. rows: a frame of the same kind with the group
    columns and covariates of the fit; rows of groups without a model are not in the result. estimator: whose models;
    needed where there are several. abstain: whether the control arm is chosen where the interval of the best gain holds
    zero. costs: of arms, numbers or columns of the rows, in place of those of the fit; needed for arms whose costs
    differed by row there. Nothing is shuffled, and memory does not grow with the rows.
    Raises `InputError` for columns that cannot serve and for models that cannot be read, `ConfigError` for the rest.
    """
    if what not in get_args(What):
        raise ConfigError(f"what is {what!r}.", did_you_mean(what, get_args(What)))
    if not 0 < confidence_level < 1:
        raise ConfigError(f"confidence_level is {confidence_level}.", "It lies between 0 and 1, such as 0.95.")
    fixed, by_row = split_costs(labelled(costs or {}))
    asked = _Asked(row_id, _chosen(models, estimator), what, abstain, confidence_level, fixed, by_row)
    if isinstance(models, pd.DataFrame) and isinstance(rows, pd.DataFrame):
        return _score_pandas(models, rows, asked)
    if isinstance(models, pd.DataFrame) or isinstance(rows, pd.DataFrame):
        raise ConfigError("Models and rows are frames of two kinds.", "Give both as pandas or both as Spark frames.")
    return _score_spark(models, rows, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    row_id: str
    estimator: str
    what: What
    abstain: bool
    confidence_level: float
    costs: Mapping[str, float]
    costs_by_row: Mapping[str, str]

    def columns(self, rows: Frame, schema_json: str, group_id: str, names: Sequence[str]) -> InputColumns:
        """Of the rows. schema_json, group_id: of any of the models, names: of their group columns."""
        if self.what == "policies":
            missing = costs_by_row_of(schema_json) - set(self.costs) - set(self.costs_by_row)
            if missing:
                raise ConfigError(
                    f"Arm {min(missing)!r} cost every row something else when the model was fitted.",
                    "Give costs=: a number, or a column of the rows.",
                )
        return new_row_columns(
            rows, self.row_id, covariates_of(schema_json), _types(group_id, names), self.costs_by_row
        )

    def scorer(self, columns: InputColumns, packed: Mapping[str, tuple[str, bytes]]) -> Scorer:
        """packed: group id to the text and the bytes of its model."""
        return Scorer(columns, packed, self.estimator, self.what, self.confidence_level, self.abstain, self.costs)


def _chosen(models: Frame, estimator: str | None) -> str:
    missing = [name for name in _OWN[1:] if name not in models.columns]
    if missing:
        raise InputError(f"The models have no column {missing[0]!r}.", "Give rows of table models.")
    distinct = models["estimator"].unique() if isinstance(models, pd.DataFrame) else _first(models, "estimator")
    names = sorted(str(name) for name in distinct)
    if not names:
        raise InputError("There are no models.", "Look for the run's rows in table failures.")
    if estimator is None and len(names) == 1:
        return names[0]
    if estimator not in names:
        raise ConfigError(f"estimator is {estimator!r}.", f"There are models of {', '.join(names)}.")
    return estimator


def _first(models: DataFrame, name: str) -> list[Any]:
    return [row[0] for row in models.select(name).distinct().collect()]


def _once(keys: Sequence[str]) -> None:
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise InputError(
            f"Group {min(twice)} has several models of one estimator.", "Choose the rows of one run by run_id."
        )


def _groups(models: Frame) -> list[str]:
    return [str(name) for name in models.columns if name not in _OWN]


def _score_pandas(models: pd.DataFrame, rows: pd.DataFrame, asked: _Asked) -> pd.DataFrame:
    own = models[models["estimator"] == asked.estimator]
    _once(own["group_id"].tolist())
    columns = asked.columns(rows, own["schema_json"].iloc[0], own["group_id"].iloc[0], _groups(models))
    given = zip(own["group_id"], own["schema_json"], own["tensors"], strict=True)
    scorer = asked.scorer(columns, {group: (text, bytes(tensors)) for group, text, tensors in given})
    batches = list(scorer.scored(select_pandas(rows, columns).to_batches()))
    table: pd.DataFrame = pa.Table.from_batches(batches, scorer.schema()).to_pandas()
    return table


def _types(group_id: str, names: Sequence[str]) -> dict[str, str]:
    """Group column to contract type, from a group's id, which has them as tags."""
    tagged: Mapping[str, Mapping[str, Any]] = json.loads(group_id)
    return {name: next(iter(tagged[name])).upper() for name in names}


def _score_spark(models: DataFrame, rows: DataFrame, asked: _Asked) -> DataFrame:
    own = models.where(F.col("estimator") == asked.estimator)
    names = _groups(models)
    size = (F.length("tensors") + F.length("schema_json")).alias("size")
    sizes = [(row["group_id"], row["size"]) for row in own.select("group_id", size).orderBy("group_id").collect()]
    _once([group for group, _ in sizes])
    columns = asked.columns(rows, own.select("schema_json").limit(1).collect()[0][0], sizes[0][0], names)
    selected = select_spark(rows, columns)
    parts = []
    passes = bundles(sizes, _BUNDLE_BYTES)
    for bundle in passes:
        wanted = own.where(F.col("group_id").isin(bundle))
        found = wanted.select("group_id", "schema_json", "tensors").collect()
        scorer = asked.scorer(columns, {row[0]: (row[1], bytes(row[2])) for row in found})
        parts.append(_mapped(selected if len(passes) == 1 else _of_groups(selected, wanted.select(*names)), scorer))
    return reduce(DataFrame.unionByName, parts)


def _of_groups(selected: DataFrame, keys: DataFrame) -> DataFrame:
    """Rows of some groups only: a pass over the rows need not bring all of them to Python."""
    renamed = keys.select(*(F.col(name).alias(f"_key_{name}") for name in keys.columns))
    same = [F.col(name).eqNullSafe(F.col(f"_key_{name}")) for name in keys.columns]
    return selected.join(F.broadcast(renamed), same, "left_semi")


def _mapped(selected: DataFrame, scorer: Scorer) -> DataFrame:
    schema = ddl((column.name, column.type.lower()) for column in scorer.fields)

    def scored(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return scorer.scored(batches)

    return selected.mapInArrow(scored, schema)
