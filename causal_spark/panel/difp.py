"""Synthetic control with an intercept (DIFP): donors match the treated units' path up to a constant.

Doudchenko, Imbens (2016); Ferman, Pinto (2021). Equal to SDID with uniform pre-period weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causal_spark.panel.blocks import Block, BlockWeights, block_cost, fit_blocks
from causal_spark.panel.cohorts import Donors, check_block_options
from causal_spark.panel.types import Fit, Panel, PanelSize, Penalties


@dataclass(frozen=True, slots=True)
class DifpOptions:
    """How DIFP is fitted.

    ridge: zeta over the standard deviation of the controls' first differences before treatment; the objective is
        ||Y_pre'omega + c - y||^2 + n_pre zeta^2 ||omega||^2. The default, that of the SDID authors' package, is
        negligible and only chooses the weights of least norm among equally good ones.
    donors: ``never_treated``, or ``not_yet_treated`` to let later cohorts' units be donors in the windows before their
        own start (see `cohorts`).
    min_balanced_share: the least share of a block's observed cells its balanced part must keep, from 0 to 1, where
        cells are missing (see `balance`); 1 fits complete blocks only.
    """

    ridge: float = 1e-6
    donors: Donors = "never_treated"
    min_balanced_share: float = 0.5

    def __post_init__(self) -> None:
        if not (0.0 <= self.ridge < math.inf):
            raise ValueError("ridge must be finite and not negative")
        check_block_options(self.donors, self.min_balanced_share)


_DEFAULTS = DifpOptions()


def difp(panel: Panel, options: DifpOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Synthetic control with an intercept, one block per cohort and window.

    The exact optimum gives -11.1090 on Proposition 99.

    Returns counterfactuals (n_units, n_periods) of treated units in all periods kept. ``seed`` is not used. Raises what
    `fit_blocks` raises.
    """
    ridge = options.ridge

    def weigh(block: Block, zeta_unit: float | None, _: float | None) -> BlockWeights:
        zeta = ridge * block.noise() if zeta_unit is None else zeta_unit
        unit = block.unit_weights(zeta, intercept=True)
        return BlockWeights(unit.x, np.full(block.n_pre, 1.0 / block.n_pre), zeta, None, unit.converged)

    return fit_blocks(panel, weigh, penalties, options.donors, options.min_balanced_share)


def difp_cost(size: PanelSize, options: DifpOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit on one ordinary core, to a factor of about three."""
    return block_cost(size, time_weights=False)
