"""Fitted models on their way into the table ``models`` and out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from causal_spark.engine.work import Row
from causal_spark.errors import InputError
from causal_spark.multi_treatment.packing import pack, unpack
from causal_spark.multi_treatment.predictor import Predictor
from causal_spark.tabular.encoding import CategoryEncoding, Encoding, NumberEncoding

_KINDS: Mapping[str, type[NumberEncoding] | type[CategoryEncoding]] = {
    "number": NumberEncoding,
    "category": CategoryEncoding,
}


@dataclass(frozen=True, slots=True, eq=False)
class StoredModel:
    """All that new rows need.

    arms: labels, the control arm first. covariates: name to the contract type it had. encoding: of covariates.
    costs: of arms, in units of the outcome; None where they differ by row.
    """

    arms: tuple[str, ...]
    covariates: Mapping[str, str]
    encoding: Encoding
    predictor: Predictor
    costs: Mapping[str, float | None]


def model_row(estimator: str, model: StoredModel) -> Row:
    """Row of ``models``."""
    described, tensors = pack(model.predictor)
    schema = {
        "arms": list(model.arms),
        "control": model.arms[0],
        "covariates": dict(model.covariates),
        "costs": dict(model.costs),
        "encoding": {
            "parts": [{"kind": _kind_of(part)} | asdict(part) for part in model.encoding.parts],
            "kept": list(model.encoding.kept),
        },
        "predictor": described,
    }
    text = json.dumps(schema, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return {"estimator": estimator, "schema_json": text, "tensors": tensors}


def _kind_of(part: NumberEncoding | CategoryEncoding) -> str:
    return next(kind for kind, of in _KINDS.items() if isinstance(part, of))


def covariates_of(schema_json: str) -> dict[str, str]:
    """Name to contract type of the covariates that a stored model looks at. Raises `InputError` for what is none."""
    return {str(name): str(type_) for name, type_ in _part_of(schema_json, "covariates").items()}


def costs_by_row_of(schema_json: str) -> set[str]:
    """Arms whose costs differed by row. Raises `InputError` for what is no model."""
    return {str(arm) for arm, cost in _part_of(schema_json, "costs").items() if cost is None}


def _part_of(schema_json: str, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(schema_json)[name])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"The model cannot be read: {error}.", "Fit it again.") from error


def read_model(schema_json: str, tensors: bytes) -> StoredModel:
    """The model of a row of ``models``. Raises `InputError` for what is none."""
    try:
        schema = json.loads(schema_json)
        encoding = Encoding(
            tuple(_part(part) for part in schema["encoding"]["parts"]), tuple(schema["encoding"]["kept"])
        )
        arms, costs = tuple(schema["arms"]), dict(schema["costs"])
        described = schema["predictor"]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"The model cannot be read: {error}.", "Fit it again.") from error
    return StoredModel(arms, covariates_of(schema_json), encoding, unpack(described, tensors), costs)


def _part(described: Mapping[str, Any]) -> NumberEncoding | CategoryEncoding:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in described.items() if name != "kind"
    }
    part: NumberEncoding | CategoryEncoding = _KINDS[described["kind"]](**values)
    return part
