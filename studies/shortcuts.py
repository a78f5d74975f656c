"""What an estimator finds on a panel, and how to find it for several effect shapes at the cost of little more than one.

What tuning and calibration see does not depend on an effect that all treated units share, because free effects by
period are taken out first; so both are done once per draw and kept for all shapes. A test compares with the estimators
run whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from causal_spark.panel.constancy import ConstancyOptions, assess, growth, read_block
from causal_spark.panel.constant_effect import constant_at
from causal_spark.panel.dwcp import DwcpOptions, DwcpStages
from causal_spark.panel.dwcp_adaptive import DwcpAdaptiveOptions, combine
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, tune
from causal_spark.panel.summary import att
from causal_spark.panel.types import Fit, Floats, Panel
from studies.designs import with_effect


@dataclass(frozen=True, slots=True)
class Found:
    """error: of the ATT, as the effect's mean is zero; None when the estimator declined. p_value, weight: of constancy.

    Where tuning and calibration are shared by several shapes the test is made at the first only.
    """

    error: float | None = None
    lambda_time: float | None = None
    lambda_unit: float | None = None
    lambda_nn: float | None = None
    p_value: float | None = None
    weight: float | None = None


def found_by(panel: Panel, fit: Fit) -> Found:
    """Read a fit."""
    penalties, constancy = fit.penalties, fit.constancy
    return Found(
        error=att(panel, fit),
        lambda_time=penalties.lambda_time,
        lambda_unit=penalties.lambda_unit,
        lambda_nn=penalties.lambda_nn,
        p_value=constancy.p_value if constancy else None,
        weight=constancy.weight if constancy else None,
    )


def _constant(panel: Panel, options: DwcpConstantOptions, seed: int, shapes: Mapping[str, Floats]) -> dict[str, Found]:
    """Tune once; no test of constancy, which `_adaptive` makes on the same panels."""
    triple = tune(read_block(panel), options, seed)[0]
    found = {}
    for name, effect in shapes.items():
        block = read_block(with_effect(panel, effect))
        estimate = constant_at(block.panels, [triple], tolerance=options.tolerance).effects[0, 0]
        found[name] = Found(float(estimate) * block.scale, *triple)
    return found


def _adaptive(panel: Panel, options: DwcpAdaptiveOptions, seed: int, shapes: Mapping[str, Floats]) -> dict[str, Found]:
    """Calibrate once; everything computed on the panel itself is computed at every shape."""
    placebos = options.unit_placebos, options.time_placebos, options.bootstraps
    whole = ConstancyOptions(options.lambda_time, options.lambda_nn, *placebos)
    alone = replace(whole, unit_placebos=0, time_placebos=0, bootstraps=0)
    found: dict[str, Found] = {}
    calibrated = None
    for name, effect in shapes.items():
        block = read_block(with_effect(panel, effect))
        here = assess(block, whole if calibrated is None else alone, seed, with_sdid=True)
        calibrated = here if calibrated is None else calibrated
        estimate, weight = combine(replace(here, covariance=calibrated.covariance, n=calibrated.n))
        found[name] = Found(
            error=estimate * block.scale,
            lambda_time=options.lambda_time,
            lambda_unit=0.0,
            lambda_nn=options.lambda_nn * growth(panel.n_units),
            p_value=here.constancy.p_value,
            weight=weight,
        )
    return found


def _dwcp(panel: Panel, options: DwcpOptions, seed: int, shapes: Mapping[str, Floats]) -> dict[str, Found]:
    """One fit, as treated outcomes are not read, of the target cells alone; no test of constancy."""
    stages = DwcpStages(panel, options, None, seed)
    state: dict[str, Any] = {}
    while (triple := stages.triple(state)) is None:
        results = [stages.run(state, chunk) for chunk in range(stages.n_chunks(state))]
        state = dict(stages.fold(state, results))
    rows, columns = stages.targets
    predicted, _, _ = stages.cells.predict(rows, columns, triple, options.tolerance)
    outcome = (panel.outcome[rows, columns] - stages.centre) / stages.scale
    return dict.fromkeys(shapes, Found(float((outcome - predicted).mean()) * stages.scale, *triple))


#: Estimator to (panel, its options, seed, shapes) -> what it finds at every shape.
SHORTCUTS: Mapping[str, Callable[[Panel, Any, int, Mapping[str, Floats]], dict[str, Found]]] = MappingProxyType(
    {"dwcp": _dwcp, "dwcp_constant": _constant, "dwcp_adaptive": _adaptive}
)
