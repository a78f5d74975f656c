"""What the rest of the package must know of an estimator beyond its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from causal_spark.panel.stages import StagedDefinition
from causal_spark.panel.types import Bools, CostFunction, EstimatorFunction, Floats, Ints, Panel

#: (panel of untreated units, treatment (n_treated, n_periods), assignments (n, n_treated)) -> prediction errors
#: (n, n_treated, n_periods) of every assignment's placebo fit at once; None where there is no way around the fits.
PlaceboFunction = Callable[[Panel, Bools, Ints], Floats | None]


@dataclass(frozen=True, slots=True)
class ShapedEstimate:
    """The ATT of a simulated panel under one effect, in units of the outcome.

    p_value, weight: of constancy, None where it is not judged: of several effects the test is made at the first only.
    """

    estimate: float
    p_value: float | None = None
    weight: float | None = None


#: (panel, options, seed, effects (n_units, n_periods) by name, all of mean zero over target cells) -> what the
#: estimator finds on the panel with each of them, see `causal_spark.panel.shaped`.
ShapedFunction = Callable[[Panel, Any, int, Mapping[str, Floats]], Mapping[str, ShapedEstimate]]


@dataclass(frozen=True, slots=True)
class EstimatorDefinition:
    """An estimator: its function, its options' class, what it costs in time and memory, and a line for people.

    arrays: options -> float64 arrays of the panel's shape that a fit, tuning and placebos included, holds at its peak
    beyond the panel itself. Measured as peak resident memory between 0.4 and 4 million cells, and rounded up.
    staged: how its tuning and estimate on one long panel are split, None where they are not; `arrays` is then what one
    chunk holds.
    draws: name of the estimator whose random draws it shares, its own if None. The versions of DWCP share theirs, so
    that all of them report one test of constancy.
    placebos: all placebo fits of a panel at once, where that is possible.
    pools_periods: whether treated units' outcomes before treatment inform period effects, so that their residuals are
    smaller than those of units left out.
    averages_past: whether predictions start from a unit's mean over all periods before treatment, so that the more of
    these there are the better (with ``lambda_time``, only where that is zero).
    shaped: the ATT under several effects in less time than a fit at each, None where there is no such way.
    reads_treated: whether predictions depend on outcomes of treated cells, so that the error of the ATT depends on how
    effects differ between cells.
    """

    name: str
    fit: EstimatorFunction
    options: type[Any]
    cost: CostFunction
    arrays: Callable[[Any], float]
    description: str
    staged: StagedDefinition | None = None
    draws: str | None = None
    placebos: PlaceboFunction | None = None
    pools_periods: bool = False
    averages_past: bool = False
    shaped: ShapedFunction | None = None
    reads_treated: bool = False
