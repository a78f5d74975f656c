"""The ATT of one panel under several effects that have the same mean, at the cost of little more than one estimate.

For simulated panels, whose effect can be changed. Most estimators read no treated outcome, so that an effect of mean
zero leaves their ATT as it is. For the versions of DWCP that do, what tuning and calibration see does not depend on an
effect that all treated units share, because free effects by period are taken out first; so both are done once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from causal_spark.panel.constancy import ConstancyOptions, assess, read_block
from causal_spark.panel.constant_effect import constant_at
from causal_spark.panel.definitions import EstimatorDefinition, ShapedEstimate
from causal_spark.panel.dwcp import DwcpOptions, DwcpStages
from causal_spark.panel.dwcp_adaptive import DwcpAdaptiveOptions, combine
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, tune
from causal_spark.panel.summary import att
from causal_spark.panel.types import Floats, Panel

#: Treated periods up to which what calibration takes out as free effects is any effect that treated units share.
_MOST_FREE_PERIODS = 12


def with_effect(panel: Panel, effect: Floats) -> Panel:
    """The panel with effects (n_units, n_periods) added to its outcomes."""
    return replace(panel, outcome=panel.outcome + effect)


def dwcp_shaped(
    panel: Panel, options: DwcpOptions, seed: int, effects: Mapping[str, Floats]
) -> dict[str, ShapedEstimate]:
    """Predictions of the target cells alone, which read no treated outcome; no fit of other cells."""
    stages = DwcpStages(panel, options, None, seed)
    state: dict[str, Any] = {}
    while (triple := stages.triple(state)) is None:
        results = [stages.run(state, chunk) for chunk in range(stages.n_chunks(state))]
        state = dict(stages.fold(state, results))
    rows, columns = stages.targets
    predicted, _, _ = stages.cells.predict(rows, columns, triple, options.tolerance)
    outcome = (panel.outcome[rows, columns] - stages.centre) / stages.scale
    return dict.fromkeys(effects, ShapedEstimate(float((outcome - predicted).mean()) * stages.scale))


def dwcp_constant_shaped(
    panel: Panel, options: DwcpConstantOptions, seed: int, effects: Mapping[str, Floats]
) -> dict[str, ShapedEstimate]:
    """Tuned once; no test of constancy, which `dwcp_adaptive_shaped` makes on the same panels."""
    triple = tune(read_block(panel), options, seed)[0]
    found = {}
    for name, effect in effects.items():
        block = read_block(with_effect(panel, effect))
        estimate = constant_at(block.panels, [triple], tolerance=options.tolerance).effects[0, 0]
        found[name] = ShapedEstimate(float(estimate) * block.scale)
    return found


def dwcp_adaptive_shaped(
    panel: Panel, options: DwcpAdaptiveOptions, seed: int, effects: Mapping[str, Floats]
) -> dict[str, ShapedEstimate]:
    """Calibrated once; everything computed on the panel itself is computed at every effect."""
    placebos = options.unit_placebos, options.time_placebos, options.bootstraps
    whole = ConstancyOptions(options.lambda_time, options.lambda_nn, *placebos)
    alone = replace(whole, unit_placebos=0, time_placebos=0, bootstraps=0)
    found: dict[str, ShapedEstimate] = {}
    calibrated = None
    for name, effect in effects.items():
        block = read_block(with_effect(panel, effect))
        here = assess(block, whole if calibrated is None else alone, seed, with_sdid=True)
        calibrated = here if calibrated is None else calibrated
        estimate, weight = combine(replace(here, covariance=calibrated.covariance, n=calibrated.n))
        found[name] = ShapedEstimate(estimate * block.scale, here.constancy.p_value, weight)
    return found


def shaped_estimates(
    panel: Panel, definition: EstimatorDefinition, options: Any, seed: int, effects: Mapping[str, Floats]
) -> Mapping[str, ShapedEstimate]:
    """The ATT of a panel under each of several effects; raises as the estimator does.

    effects: (n_units, n_periods) by name, zero of untreated cells, of mean zero over treated, observed ones.
    """
    n_post = int(panel.treated.sum(axis=1).max(initial=0))
    if definition.shaped is not None and (n_post <= _MOST_FREE_PERIODS or not definition.reads_treated):
        return definition.shaped(panel, options, seed, effects)
    found: dict[str, ShapedEstimate] = {}
    for name, effect in effects.items():
        if found and not definition.reads_treated:
            found[name] = next(iter(found.values()))
            continue
        affected = with_effect(panel, effect)
        fit = definition.fit(affected, options, None, seed)
        constancy = fit.constancy
        found[name] = ShapedEstimate(
            att(affected, fit),
            None if constancy is None else constancy.p_value,
            None if constancy is None else constancy.weight,
        )
    return found
