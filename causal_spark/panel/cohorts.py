"""Block designs: who is treated from when, who never is, and the weighted comparison SC, DIFP and SDID share.

A cohort is the units first treated in one period. Each cohort forms a block with all never-treated units (the donors),
as Arkhangelsky et al. (2021, appendix A) propose for staggered adoption, and gets its own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from causal_spark.errors import (
    MissingCellsError,
    NoControlUnitsError,
    NoPrePeriodsError,
    NoTreatedCellsError,
    SolverError,
    UnsupportedCovariatesError,
    UnsupportedPatternError,
)
from causal_spark.panel.simplex import SimplexFit, simplex_least_squares
from causal_spark.panel.types import Bools, Fit, Floats, Ints, Panel, PanelSize, Penalties, Weights

#: Ridge at the level of the outcomes' own rounding, in multiples of their largest magnitude: differences between units
#: that are rounding only (constant outcomes, say) must not move weights.
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Units first treated in the same period. start: its position; rows: (k,) their positions in the panel."""

    start: int
    rows: Ints


@dataclass(frozen=True, slots=True, eq=False)
class CohortDesign:
    """Never-treated units and the cohorts with at least one pre-period, by start.

    donors: (n_controls,) positions of never-treated units.
    """

    donors: Ints
    cohorts: tuple[Cohort, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One cohort's outcomes.

    controls: (n_controls, n_periods); treated: (n_treated, n_periods); n_pre: periods before the cohort's start.
    """

    controls: Floats
    treated: Floats
    n_pre: int

    @property
    def n_treated(self) -> int:
        """Units in the cohort."""
        return int(self.treated.shape[0])

    @property
    def n_post(self) -> int:
        """Periods from the cohort's start to the panel's end."""
        return int(self.treated.shape[1]) - self.n_pre

    @property
    def controls_pre(self) -> Floats:
        """(n_controls, n_pre)."""
        return self.controls[:, : self.n_pre]

    @property
    def treated_mean_pre(self) -> Floats:
        """(n_pre,) average trajectory of the treated units."""
        return np.asarray(self.treated[:, : self.n_pre].mean(axis=0))

    def noise(self) -> float:
        """Standard deviation of the controls' first differences before treatment; 0 with fewer than two of them.

        Arkhangelsky et al. (2021), equation 2.2 (with the n - 1 divisor of the authors' package).
        """
        differences = np.diff(self.controls_pre, axis=1)
        return float(differences.std(ddof=1)) if differences.size > 1 else 0.0

    def unit_weights(self, zeta: float, intercept: bool) -> SimplexFit:
        """(n_controls,) simplex weights matching the treated units' average before treatment, ridge n_pre zeta^2."""
        return self._solve(self.controls_pre.T, self.treated_mean_pre, zeta, intercept)

    def time_weights(self, zeta: float) -> SimplexFit:
        """(n_pre,) simplex weights, with intercept, matching the controls' post-period average.

        The ridge is n_controls zeta^2.
        """
        return self._solve(self.controls_pre, self.controls[:, self.n_pre :].mean(axis=1), zeta, intercept=True)

    def _solve(self, A: Floats, b: Floats, zeta: float, intercept: bool) -> SimplexFit:
        rounding = _ROUNDING * max(float(np.abs(A).max()), float(np.abs(b).max()))
        return simplex_least_squares(A, b, A.shape[0] * max(zeta, rounding) ** 2, intercept)


@dataclass(frozen=True, slots=True, eq=False)
class BlockWeights:
    """Weights of one block.

    unit: (n_controls,); time: (n_pre,), or None for no intercept; zeta_time: None where time weights are not fitted.
    """

    unit: Floats
    time: Floats | None
    zeta_unit: float
    zeta_time: float | None
    converged: bool


#: (block, zeta_unit, zeta_time) -> weights; a zeta of None is to be computed from the block.
WeightFunction = Callable[[Block, float | None, float | None], BlockWeights]


def first_treated(treated: Bools) -> Ints:
    """(n_units,) position of each unit's first treated period, n_periods for the never treated."""
    return np.asarray(np.where(treated.any(axis=1), treated.argmax(axis=1), treated.shape[1]))


def read_cohorts(panel: Panel) -> CohortDesign:
    """Cohorts and donors of a panel with absorbing treatment and no missing cells.

    A treated unit counts as treated from its first treated period on, even where later cells are absent. Units treated
    in every period belong to no cohort: their cells cannot be identified and stay NaN in the counterfactual.

    Raises NoTreatedCellsError, UnsupportedPatternError (treatment that ends), NoControlUnitsError, NoPrePeriodsError,
    MissingCellsError and UnsupportedCovariatesError.
    """
    if panel.covariates is not None:
        raise UnsupportedCovariatesError(
            "This estimator cannot adjust for covariates.", "Leave the covariates out, or use an estimator with them."
        )
    if not panel.target_cells.any():
        raise NoTreatedCellsError("No observed cell is treated.", "Check the treatment column.")
    start = first_treated(panel.treated)
    _check_absorbing(panel, start)
    donors = np.flatnonzero(start == panel.n_periods)
    if donors.size == 0:
        raise NoControlUnitsError(
            "Every unit is treated at some time, so there are no donors.",
            "Add untreated units, or use did, mc or dwcp.",
        )
    starts = [int(s) for s in np.unique(start) if 0 < s < panel.n_periods]
    if not starts:
        raise NoPrePeriodsError(
            "Every treated unit is treated from the first period on.", "Add earlier periods of the treated units."
        )
    cohorts = tuple(Cohort(s, np.flatnonzero(start == s)) for s in starts)
    _check_complete(panel, np.concatenate([donors, *(cohort.rows for cohort in cohorts)]))
    return CohortDesign(donors, cohorts)


def _check_absorbing(panel: Panel, start: Ints) -> None:
    after = np.arange(panel.n_periods) > start[:, None]
    n_back = int((after & panel.control_cells).any(axis=1).sum())
    if n_back:
        raise UnsupportedPatternError(
            f"Treatment ends again in {n_back} unit(s), but this estimator takes it as lasting.",
            "Use did, mc or dwcp, which take any pattern.",
        )


def _check_complete(panel: Panel, rows: Ints) -> None:
    """The one place that says which cells a block estimator needs: all periods of donors and cohorts."""
    missing = ~panel.observed[rows]
    n_missing = int(missing.sum())
    if n_missing:
        raise MissingCellsError(
            f"{n_missing} cell(s) of {int(missing.any(axis=1).sum())} unit(s) are missing, and this estimator needs a "
            "complete panel.",
            "Use did, mc or dwcp, or leave out those units or periods.",
        )


def fit_blocks(panel: Panel, weigh: WeightFunction, penalties: Penalties | None) -> Fit:
    """Weigh each cohort's block and predict its units' untreated outcomes in all periods.

    For treated unit i and donors c the prediction is omega'Y_c,t + lambda'(Y_i,pre - omega'Y_c,pre), the second term
    absent where the method has no intercept. One ATT over all treated cells then weights cohorts by their cells.
    Given penalties must hold one zeta per cohort, else SolverError.
    """
    design = read_cohorts(panel)
    counterfactual = np.full(panel.outcome.shape, np.nan)
    controls = panel.outcome[design.donors]
    fitted: list[BlockWeights] = []
    weights: list[Weights] = []
    zetas = zip(
        _given(None if penalties is None else penalties.zeta_unit, len(design.cohorts)),
        _given(None if penalties is None else penalties.zeta_time, len(design.cohorts)),
        strict=True,
    )
    for cohort, (zeta_unit, zeta_time) in zip(design.cohorts, zetas, strict=True):
        block = Block(controls, panel.outcome[cohort.rows], cohort.start)
        found = weigh(block, zeta_unit, zeta_time)
        fitted.append(found)
        counterfactual[cohort.rows] = _predict(block, found)
        suffix = "" if len(design.cohorts) == 1 else f":{panel.periods[cohort.start]}"
        weights += _listed(found, design.donors, suffix)
    return Fit(
        counterfactual=counterfactual,
        penalties=Penalties(
            zeta_unit=tuple(found.zeta_unit for found in fitted),
            zeta_time=tuple(found.zeta_time for found in fitted if found.zeta_time is not None) or None,
        ),
        tuning="analytic" if penalties is None else "fixed",
        weights=tuple(weights),
        converged=all(found.converged for found in fitted),
    )


def _given(zetas: tuple[float, ...] | None, n_cohorts: int) -> tuple[float | None, ...]:
    if zetas is None:
        return (None,) * n_cohorts
    if len(zetas) != n_cohorts:
        raise SolverError(
            f"{len(zetas)} ridge level(s) are given for {n_cohorts} cohort(s).", "Retune on the changed panel."
        )
    return zetas


def _predict(block: Block, found: BlockWeights) -> Floats:
    synthetic = np.asarray(found.unit @ block.controls)
    if found.time is None:
        return np.broadcast_to(synthetic, block.treated.shape)
    offset = (block.treated[:, : block.n_pre] - synthetic[: block.n_pre]) @ found.time
    return np.asarray(synthetic + offset[:, None])


def _listed(found: BlockWeights, donors: Ints, suffix: str) -> Iterator[Weights]:
    supported = np.flatnonzero(found.unit)
    yield Weights(f"unit{suffix}", donors[supported], found.unit[supported])
    if found.time is not None and found.zeta_time is not None:
        supported = np.flatnonzero(found.time)
        yield Weights(f"time{suffix}", supported, found.time[supported])


def block_cost(size: PanelSize, time_weights: bool) -> float:
    """Seconds of a fit of one cohort on one ordinary core: about ten pivots, each a product over the block."""
    n_controls = max(size.n_units - size.n_treated_units, 1)
    n_pre = max(size.n_periods - size.n_treated_cells // max(size.n_treated_units, 1), 1)
    pivots = 7e-10 * n_controls * n_pre * (min(n_controls, n_pre) + 50)
    return (2.0 if time_weights else 1.0) * (5e-4 + pivots)
