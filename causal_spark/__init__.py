"""Causal effects where the data lives: Spark jobs that estimate and write what they find to Delta Lake."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_spark.estimator_study import EstimatorStudy
    from causal_spark.individual_effects import IndividualEffects
    from causal_spark.panel_effects import PanelEffects
    from causal_spark.response_curves import ResponseCurves
    from causal_spark.root_causes import RootCauses
    from causal_spark.scoring import score

__version__ = "0.1.0"
__all__ = [
    "EstimatorStudy",
    "IndividualEffects",
    "PanelEffects",
    "ResponseCurves",
    "RootCauses",
    "__version__",
    "score",
]

_MODULES = {
    "EstimatorStudy": "estimator_study",
    "IndividualEffects": "individual_effects",
    "PanelEffects": "panel_effects",
    "ResponseCurves": "response_curves",
    "RootCauses": "root_causes",
    "score": "scoring",
}


def __getattr__(name: str) -> object:
    # Loaded on first use, so that the sciences can be imported without pyspark, and panels without torch.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name in ("torch", "sklearn", "safetensors"):
            raise ModuleNotFoundError(
                f"{name} needs {error.name}: pip install 'causal_spark[neural]'.", name=error.name
            ) from error
        raise
    return getattr(module, name)
