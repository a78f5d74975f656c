"""Causal effects where the data lives: Spark jobs that estimate and write what they find to Delta Lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_spark.panel_effects import PanelEffects

__version__ = "0.1.0"
__all__ = ["PanelEffects", "__version__"]


def __getattr__(name: str) -> object:
    # Loaded on first use, so that the sciences can be imported without pyspark.
    if name == "PanelEffects":
        from causal_spark.panel_effects import PanelEffects

        return PanelEffects
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
