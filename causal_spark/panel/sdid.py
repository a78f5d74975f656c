"""Synthetic difference-in-differences (Arkhangelsky, Athey, Hirshberg, Imbens, Wager, AER 2021, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from causal_spark.panel.blocks import Block, BlockWeights, block_cost, fit_blocks
from causal_spark.panel.cohorts import Donors, check_block_options
from causal_spark.panel.types import Fit, Panel, PanelSize, Penalties


@dataclass(frozen=True, slots=True)
class SdidOptions:
    """How SDID is fitted; ridge levels in multiples of the controls' first differences' standard deviation.

    ridge_unit: zeta of the unit weights; None is the paper's (n_treated n_post)^(1/4), by block.
    ridge_time: zeta of the time weights; the paper's 1e-6 only makes them unique.
    donors: ``never_treated``, or ``not_yet_treated`` to let later cohorts' units be donors in the windows before their
        own start (see `cohorts`).
    min_balanced_share: the least share of a block's observed cells its balanced part must keep, from 0 to 1, where
        cells are missing (see `balance`); 1 fits complete blocks only.
    """

    ridge_unit: float | None = None
    ridge_time: float = 1e-6
    donors: Donors = "never_treated"
    min_balanced_share: float = 0.5

    def __post_init__(self) -> None:
        if self.ridge_unit is not None and not (0.0 <= self.ridge_unit < math.inf):
            raise ValueError("ridge_unit must be finite and not negative")
        if not (0.0 <= self.ridge_time < math.inf):
            raise ValueError("ridge_time must be finite and not negative")
        check_block_options(self.donors, self.min_balanced_share)


_DEFAULTS = SdidOptions()


def sdid(panel: Panel, options: SdidOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Synthetic difference-in-differences, one block per cohort and window.

    Unit and time weights are least squares over the simplex with intercepts (equations 2.1 to 2.3), solved to the
    optimum: -15.6054 on Proposition 99, where the authors' early-stopped Frank-Wolfe prints -15.6038.

    Returns counterfactuals (n_units, n_periods) of treated units in all periods kept. ``seed`` is not used. Raises what
    `fit_blocks` raises.
    """

    def weigh(block: Block, zeta_unit: float | None, zeta_time: float | None) -> BlockWeights:
        if zeta_unit is None or zeta_time is None:
            noise = block.noise()
            multiple = (block.n_treated * block.n_post) ** 0.25 if options.ridge_unit is None else options.ridge_unit
            zeta_unit = multiple * noise if zeta_unit is None else zeta_unit
            zeta_time = options.ridge_time * noise if zeta_time is None else zeta_time
        unit = block.unit_weights(zeta_unit, intercept=True)
        time = block.time_weights(zeta_time)
        return BlockWeights(unit.x, time.x, zeta_unit, zeta_time, unit.converged and time.converged)

    return fit_blocks(panel, weigh, penalties, options.donors, options.min_balanced_share)


def sdid_cost(size: PanelSize, options: SdidOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit on one ordinary core, to a factor of about three."""
    return block_cost(size, time_weights=True)
