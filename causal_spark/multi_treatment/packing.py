"""Fitted models as text and tensors, and back: nothing in them is ever executed."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from causal_spark.errors import InputError
from causal_spark.multi_treatment.boosting import Regression
from causal_spark.multi_treatment.ensembles import Ensemble
from causal_spark.multi_treatment.forests import Forest
from causal_spark.multi_treatment.intervals import EffectErrors
from causal_spark.multi_treatment.memento import Stacked
from causal_spark.multi_treatment.meta_learners import ByArm, CrossFit, Effect, WithArm, WithEffects
from causal_spark.multi_treatment.networks import Networks, NetworkSpec, Scaling
from causal_spark.multi_treatment.predictor import Predictor
from causal_spark.multi_treatment.propensity import Logits, PropensityModel

#: Raised when models packed before can no longer be read.
FORMAT = 1
_KNOWN = {
    one.__name__: one
    for one in (
        *(ByArm, CrossFit, Effect, EffectErrors, Ensemble, Forest, Logits, Networks, NetworkSpec),
        *(Predictor, PropensityModel, Regression, Scaling, Stacked, WithArm, WithEffects),
    )
}
_TYPE, _ARRAY, _TENSOR, _LIST, _TUPLE, _PAIRS = "type", "array", "tensor", "list", "tuple", "pairs"


def pack(predictor: Predictor) -> tuple[dict[str, Any], bytes]:
    """What describes a predictor, for JSON, and its tensors in the format of safetensors."""
    tensors: dict[str, np.ndarray] = {}
    described = _packed(predictor, tensors)
    return {"format": FORMAT, "model": described}, save(tensors)


def unpack(described: dict[str, Any], tensors: bytes) -> Predictor:
    """The predictor that `pack` was given. Raises `InputError` for what is none."""
    try:
        if described["format"] != FORMAT:
            raise InputError(f"The model has format {described['format']}, not {FORMAT}.", "Fit it again.")
        found = _unpacked(described["model"], load(tensors))
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(f"The model cannot be read: {error}.", "Fit it again.") from error
    if not isinstance(found, Predictor):
        raise InputError("The model is no predictor.", "Fit it again.")
    return found


def _packed(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if is_dataclass(value) and type(value).__name__ in _KNOWN:
        parts = {field.name: _packed(getattr(value, field.name), tensors) for field in fields(value)}
        return {_TYPE: type(value).__name__, "fields": parts}
    if isinstance(value, np.ndarray | torch.Tensor):
        name = str(len(tensors))
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        tensors[name] = np.ascontiguousarray(array)
        return {_TENSOR if isinstance(value, torch.Tensor) else _ARRAY: name}
    if isinstance(value, dict):
        return {_PAIRS: [[_packed(key, tensors), _packed(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        kind = _LIST if isinstance(value, list) else _TUPLE
        return {kind: [_packed(one, tensors) for one in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be packed")


def _unpacked(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if _TYPE in value:
        parts = {name: _unpacked(one, tensors) for name, one in value["fields"].items()}
        return _KNOWN[value[_TYPE]](**parts)
    (kind, content), *more = value.items()
    if more:
        raise ValueError("an entry has several kinds")
    if kind == _ARRAY:
        return tensors[content]
    if kind == _TENSOR:
        return torch.from_numpy(tensors[content].copy())
    if kind == _PAIRS:
        return {_unpacked(key, tensors): _unpacked(one, tensors) for key, one in content}
    if kind in (_LIST, _TUPLE):
        return (list if kind == _LIST else tuple)(_unpacked(one, tensors) for one in content)
    raise ValueError(f"{kind!r} is no kind of entry")


def to_json(described: dict[str, Any]) -> str:
    """Text of what describes a model."""
    return json.dumps(described, separators=(",", ":"), allow_nan=False)
