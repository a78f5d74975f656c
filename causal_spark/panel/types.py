"""What panel estimators take and give: plain frozen containers of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]
#: Small numbers, many of them.
Counts = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One panel: n_units rows in any order, n_periods columns in order of time.

    outcome: (n_units, n_periods) float64, NaN exactly where not observed.
    treated: (n_units, n_periods) bool, the treatment indicator W; False where no row says otherwise.
    observed: (n_units, n_periods) bool, the mask O of cells with a finite outcome.
    units, periods: (n_units,) and (n_periods,) labels; positions, not labels, carry meaning in every formula.
    covariates: (n_units, n_periods, n_covariates) float64, or None.
    """

    outcome: Floats
    treated: Bools
    observed: Bools
    units: NDArray[Any]
    periods: NDArray[Any]
    covariates: Floats | None = None

    @property
    def n_units(self) -> int:
        """Number of rows."""
        return int(self.outcome.shape[0])

    @property
    def n_periods(self) -> int:
        """Number of columns."""
        return int(self.outcome.shape[1])

    @property
    def control_cells(self) -> Bools:
        """(n_units, n_periods): untreated and observed, the cells every estimator learns from."""
        return ~self.treated & self.observed

    @property
    def target_cells(self) -> Bools:
        """(n_units, n_periods): treated and observed, the cells whose effect is wanted."""
        return self.treated & self.observed

    @property
    def ever_treated(self) -> Bools:
        """(n_units,): treated in at least one period."""
        return np.asarray(self.treated.any(axis=1))

    def take_units(self, rows: Ints) -> Panel:
        """The panel of the given unit positions, in that order."""
        return replace(
            self,
            outcome=self.outcome[rows],
            treated=self.treated[rows],
            observed=self.observed[rows],
            units=self.units[rows],
            covariates=None if self.covariates is None else self.covariates[rows],
        )

    def until(self, n_periods: int) -> Panel:
        """The panel of its first periods."""
        return replace(
            self,
            outcome=self.outcome[:, :n_periods],
            treated=self.treated[:, :n_periods],
            observed=self.observed[:, :n_periods],
            periods=self.periods[:n_periods],
            covariates=None if self.covariates is None else self.covariates[:, :n_periods],
        )

    def with_treatment(self, treated: Bools) -> Panel:
        """The same outcomes under another assignment (n_units, n_periods)."""
        return replace(self, treated=treated)


@dataclass(frozen=True, slots=True)
class Penalties:
    """What tuning chose; None where an estimator has no such penalty.

    lambda_time, lambda_unit: decay rates of DWCP's weights (per period, per unit of RMS distance).
    lambda_nn: nuclear-norm penalty on the scale of the sum of squares (no 1/2); may be infinite.
    zeta_unit, zeta_time: ridge levels of SC, DIFP and SDID weights, in outcome units, one per block (by cohort and
        window), NaN for a block that cannot be fitted.
    """

    lambda_time: float | None = None
    lambda_unit: float | None = None
    lambda_nn: float | None = None
    zeta_unit: tuple[float, ...] | None = None
    zeta_time: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class TuningStep:
    """One candidate tried: its penalties and its score (smaller is better)."""

    lambda_time: float | None
    lambda_unit: float | None
    lambda_nn: float | None
    criterion: float


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights an estimator found. kind: ``unit`` or ``time``, with ``:<first treated period>`` when staggered, and
    ``:<first period of the window>`` behind it when units not yet treated are donors.

    positions: (k,) rows (unit) or columns (time) of the panel; values: (k,) float64.
    """

    kind: str
    positions: Ints
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class WeightedBlock:
    """A cohort in one window, with the weights of its units and periods; all positions are those of the panel.

    donors: (n_donors,) and unit: their weights; treated: (n_treated,); periods: (n_pre + n_post,), the first n_pre of
    them the pre-period; time: (n_pre,) weights, None where the method has no intercept. zeta: ridge level of the unit
    weights, in outcome units.
    """

    donors: Ints
    treated: Ints
    periods: Ints
    n_pre: int
    unit: Floats
    time: Floats | None
    zeta: float

    @property
    def n_post(self) -> int:
        """Periods of the window."""
        return int(self.periods.size) - self.n_pre


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a reader of an estimate must know, such as data it leaves out.

    name: stable name of the kind of notice, as ``DroppedCells``; message: what and how much; hint: what to do about it.
    """

    name: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Constancy:
    """Whether the effect looks constant over time.

    statistic, p_value: of the test that it is, None where it cannot be made (one treated period, too few panels to
    calibrate it on); weight: of the constant effect in an average with one that may change, from 0 to 1, else None.
    """

    statistic: float | None
    p_value: float | None
    weight: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What an estimator says of a panel.

    counterfactual: (n_units, n_periods) predicted untreated outcomes, NaN where the method makes no prediction
    (control units of a weight method, cells that are not identified). At treated cells it is the imputation; at
    untreated cells of treated units it is the method's fit (DWCP: leave-one-out prediction), which the event study
    shows as pre-period placebos.

    tuning: how penalties came about (``none``, ``analytic``, ``cross_validation``, ``loocv``, ``race``, ``block``,
    ``fixed``). criterion: the chosen candidate's score, None without a search.
    path: every candidate tried, in order.
    rank: numerical rank of the low-rank part, None for estimators without one.
    converged: whether every solve reached its stated optimality.
    blocks: weights block by block, of the methods that are made of them.
    notices: what else must be said of the estimate; the job writes them to ``failures`` with kind ``warned``.
    constancy: of the effect over time, None for estimators that do not judge it.
    """

    counterfactual: Floats
    penalties: Penalties = field(default_factory=Penalties)
    tuning: str = "none"
    criterion: float | None = None
    path: tuple[TuningStep, ...] = ()
    weights: tuple[Weights, ...] = ()
    rank: int | None = None
    converged: bool = True
    blocks: tuple[WeightedBlock, ...] = ()
    notices: tuple[Notice, ...] = ()
    constancy: Constancy | None = None


#: An estimator: (panel, options, penalties, seed) -> Fit. Given penalties are kept and nothing is tuned; None tunes.
#: ``options`` is the estimator's own frozen dataclass; ``seed`` feeds whatever is random in tuning.
EstimatorFunction = Callable[[Panel, Any, Penalties | None, int], Fit]


@dataclass(frozen=True, slots=True)
class PanelSize:
    """The dimensions the cost model sees before any array is built."""

    n_units: int
    n_periods: int
    n_treated_units: int
    n_treated_cells: int

    @staticmethod
    def of(panel: Panel) -> PanelSize:
        """Of a panel that is there."""
        return PanelSize(panel.n_units, panel.n_periods, int(panel.ever_treated.sum()), int(panel.treated.sum()))


#: Seconds one fit takes on one ordinary core: (size, options, tune) -> float; tune=False means penalties are given.
CostFunction = Callable[[PanelSize, Any, bool], float]
