"""Variances as tests ask for them: an estimate with what a job would know of it, and its replicates."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from causal_spark.panel.conditional import CONDITIONING, ConditionalOptions, conditional_sets
from causal_spark.panel.inference import VarianceEstimate
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates, Setting
from causal_spark.panel.types import Fit, Panel, Penalties


def setting_of(
    panel: Panel,
    name: str = "did",
    options: Any = None,
    penalties: Penalties | None = None,
    seed: int = 1,
    spy: Callable[..., Fit] | None = None,
) -> Setting:
    """An estimate by the estimator's default options, penalties tuned unless given.

    spy: takes the place of the estimator's function in replicates, which then are fitted one by one.
    """
    definition = ESTIMATORS[name]
    options = definition.options() if options is None else options
    fit = definition.fit(panel, options, penalties, seed)
    if spy is not None:
        definition = replace(definition, fit=spy, placebos=None)
    return Setting(panel, definition, options, fit, lambda label: zlib.crc32(label.encode()) + seed)


def variance_of(setting: Setting, name: str, results: Replicates | None = None, **options: Any) -> VarianceEstimate:
    """A variance of the setting's estimate."""
    definition = VARIANCES[name]
    return definition.estimate(setting, definition.options(**options), results or Replicates(setting))


def all_four(setting: Setting, **options: Any) -> dict[str, VarianceEstimate]:
    """Every conditional variance, all from the same replicates."""
    results = Replicates(setting, conditional_sets(ConditionalOptions(**options)))
    return {name: variance_of(setting, name, results, **options) for name in CONDITIONING}
