"""The weighted comparison that SC, DIFP and SDID share, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causal_spark.errors import SolverError
from causal_spark.panel.block_parts import BlockPart, read_parts
from causal_spark.panel.cohorts import Donors, read_cohorts
from causal_spark.panel.simplex import SimplexFit, simplex_least_squares
from causal_spark.panel.types import Fit, Floats, Ints, Panel, PanelSize, Penalties, WeightedBlock, Weights

#: Ridge at the level of the outcomes' own rounding, in multiples of their largest magnitude: differences between units
#: that are rounding only (constant outcomes, say) must not move weights.
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Outcomes of one block: a cohort in one window, without missing cells but for the treated units' after n_pre.

    controls: (n_controls, n_periods); treated: (n_treated, n_periods); n_pre: how many of the periods are the
    pre-period, the others being those of the window.
    """

    controls: Floats
    treated: Floats
    n_pre: int

    @property
    def n_treated(self) -> int:
        """Treated units."""
        return int(self.treated.shape[0])

    @property
    def n_post(self) -> int:
        """Periods of the window."""
        return int(self.treated.shape[1]) - self.n_pre

    @property
    def controls_pre(self) -> Floats:
        """(n_controls, n_pre)."""
        return self.controls[:, : self.n_pre]

    @property
    def treated_mean_pre(self) -> Floats:
        """(n_pre,) average trajectory of the treated units."""
        return np.asarray(self.treated[:, : self.n_pre].sum(axis=0) / self.n_treated)

    def noise(self) -> float:
        """Standard deviation of the controls' first differences before treatment; 0 with fewer than two of them.

        Arkhangelsky et al. (2021), equation 2.2 (with the n - 1 divisor of the authors' package).
        """
        pre = self.controls_pre
        differences = pre[:, 1:] - pre[:, :-1]
        if differences.size < 2:
            return 0.0
        differences -= differences.sum() / differences.size
        return math.sqrt(float(np.vdot(differences, differences)) / (differences.size - 1))

    def unit_weights(self, zeta: float, intercept: bool) -> SimplexFit:
        """(n_controls,) simplex weights matching the treated units' average before treatment, ridge n_pre zeta^2."""
        return self._solve(self.controls_pre.T, self.treated_mean_pre, zeta, intercept)

    def time_weights(self, zeta: float) -> SimplexFit:
        """(n_pre,) simplex weights, with intercept, matching the controls' post-period average.

        The ridge is n_controls zeta^2.
        """
        return self._solve(
            self.controls_pre, self.controls[:, self.n_pre :].sum(axis=1) / self.n_post, zeta, intercept=True
        )

    def _solve(self, A: Floats, b: Floats, zeta: float, intercept: bool) -> SimplexFit:
        largest = max(np.maximum.reduce(np.abs(A), axis=None), np.maximum.reduce(np.abs(b)))
        ridge = max(zeta, _ROUNDING * float(largest))
        return simplex_least_squares(A, b, A.shape[0] * ridge * ridge, intercept)


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


def fit_blocks(
    panel: Panel, weigh: WeightFunction, penalties: Penalties | None, donors: Donors, min_balanced_share: float
) -> Fit:
    """Weigh each block and predict its treated units' untreated outcomes in its periods.

    For treated unit i and donors c the prediction is omega'Y_c,t + lambda'(Y_i,pre - omega'Y_c,pre), the second term
    absent where the method has no intercept. A cohort's pre-period, which all its windows share, gets the mean of their
    predictions, weighted by the windows' periods. One ATT over all treated cells then weights blocks by their cells.

    Penalties are one zeta per block by cohort and window, NaN for a block that cannot be fitted; a given NaN is
    computed from the block. Raises what `read_cohorts` and `read_parts` raise, and SolverError for given penalties of
    another number.
    """
    design = read_cohorts(panel, donors)
    parts, notices = read_parts(panel, design, min_balanced_share)
    given_unit = _given(None if penalties is None else penalties.zeta_unit, len(parts))
    given_time = _given(None if penalties is None else penalties.zeta_time, len(parts))
    fitted: list[BlockWeights | None] = []
    blocks: list[WeightedBlock] = []
    weights: list[Weights] = []
    for block, part, zeta_unit, zeta_time in zip(design.blocks, parts, given_unit, given_time, strict=True):
        if part is None:
            fitted.append(None)
            continue
        outcomes = Block(
            _take(panel.outcome, part.donors, part.periods),
            _take(panel.outcome, part.treated, part.periods),
            part.n_pre,
        )
        found = weigh(outcomes, zeta_unit, zeta_time)
        fitted.append(found)
        blocks.append(
            WeightedBlock(part.donors, part.treated, part.periods, part.n_pre, found.unit, found.time, found.zeta_unit)
        )
        weights += _listed(found, part, block.suffix)
    return Fit(
        counterfactual=predict_blocks(panel.outcome, blocks),
        penalties=Penalties(
            zeta_unit=tuple(math.nan if found is None else found.zeta_unit for found in fitted),
            zeta_time=_zeta_time(fitted),
        ),
        tuning="analytic" if penalties is None else "fixed",
        weights=tuple(weights),
        blocks=tuple(blocks),
        converged=all(found is None or found.converged for found in fitted),
        notices=notices,
    )


def _given(zetas: tuple[float, ...] | None, n_blocks: int) -> tuple[float | None, ...]:
    if zetas is None:
        return (None,) * n_blocks
    if len(zetas) != n_blocks:
        raise SolverError(
            f"{len(zetas)} ridge level(s) are given for {n_blocks} block(s).", "Retune on the changed panel."
        )
    return tuple(None if math.isnan(zeta) else zeta for zeta in zetas)


def _zeta_time(fitted: list[BlockWeights | None]) -> tuple[float, ...] | None:
    zetas = [math.nan if found is None else found.zeta_time for found in fitted]
    return tuple(zeta for zeta in zetas if zeta is not None) if None not in zetas else None


def predict_blocks(outcome: Floats, blocks: Sequence[WeightedBlock]) -> Floats:
    """(n_units, n_periods) untreated outcomes that blocks predict for their treated units, NaN elsewhere.

    outcome: (n_units, n_periods). Pre-periods that windows share get the mean of their predictions, see `fit_blocks`.
    """
    counterfactual = np.zeros(outcome.shape)
    n_averaged = np.zeros(outcome.shape)
    for block in blocks:
        cells = block.treated[:, None], block.periods
        n_averaged[cells] += block.n_post
        # A running mean, so that a first prediction enters as it is, to the last bit.
        share = block.n_post / n_averaged[cells]
        counterfactual[cells] += share * (_predict(outcome, block) - counterfactual[cells])
    counterfactual[n_averaged == 0.0] = np.nan
    return counterfactual


def n_fitted(outcome: Floats, block: WeightedBlock) -> float:
    """Effective number of parameters that fit the treated units' average before treatment, by ridge regression.

    outcome: (n_units, n_periods). Sum over singular values s of s^2 / (s^2 + n_pre zeta^2), donors without weight left
    out and one direction lost to the weights' sum, plus one for the intercept.
    """
    active = outcome[np.ix_(block.donors[block.unit > 0.0], block.periods[: block.n_pre])]
    differences = active - active.mean(axis=0)
    intercept = block.time is not None
    if intercept:
        differences -= differences.mean(axis=1, keepdims=True)
    wide = differences.shape[0] < differences.shape[1]
    gram = differences @ differences.T if wide else differences.T @ differences
    squares = np.linalg.eigvalsh(gram)
    squares = squares[squares > _ROUNDING * max(float(squares[-1]), 0.0)]
    return float((squares / (squares + block.n_pre * block.zeta**2)).sum()) + intercept


def _take(outcome: Floats, rows: Ints, periods: Ints) -> Floats:
    return outcome[rows] if periods.size == outcome.shape[1] else outcome[np.ix_(rows, periods)]


def _predict(outcome: Floats, block: WeightedBlock) -> Floats:
    synthetic = np.asarray(block.unit @ _take(outcome, block.donors, block.periods))
    if block.time is None:
        return np.broadcast_to(synthetic, (block.treated.size, synthetic.size))
    before = _take(outcome, block.treated, block.periods)[:, : block.n_pre]
    return np.asarray(synthetic + ((before - synthetic[: block.n_pre]) @ block.time)[:, None])


def _listed(found: BlockWeights, part: BlockPart, suffix: str) -> Iterator[Weights]:
    supported = np.flatnonzero(found.unit)
    yield Weights(f"unit{suffix}", part.donors[supported], found.unit[supported])
    if found.time is not None and found.zeta_time is not None:
        supported = np.flatnonzero(found.time)
        yield Weights(f"time{suffix}", part.periods[supported], found.time[supported])


def block_cost(size: PanelSize, time_weights: bool) -> float:
    """Seconds of a fit of one cohort on one ordinary core: about ten pivots, each a product over the block."""
    n_controls = max(size.n_units - size.n_treated_units, 1)
    n_pre = max(size.n_periods - size.n_treated_cells // max(size.n_treated_units, 1), 1)
    pivots = 7e-10 * n_controls * n_pre * (min(n_controls, n_pre) + 50)
    return (2.0 if time_weights else 1.0) * (5e-4 + pivots)
