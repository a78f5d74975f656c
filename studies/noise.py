"""Panels of pure noise whose scale differs by unit and by period, and how an ATT on them truly varies.

Y_it = a_i b_t e_it with e of variance 1, independent or AR(1) over time, and log a_i, log b_t normal. The effect is
zero. Given the scales, the variance of difference-in-differences follows from them; it ranks draws from quiet to noisy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.types import Floats, Panel

N_UNITS, N_PERIODS = 50, 40
#: Standard deviations of the logarithms of scales.
UNIT_SPREAD, PERIOD_SPREAD = 0.5, 0.35
#: Treated units and periods: a cell, a unit, a block.
TARGETS = {"cell": (1, 1), "unit": (1, 8), "block": (10, 8)}
VARYING = ("none", "unit", "time", "both")


@dataclass(frozen=True, slots=True)
class NoiseDesign:
    """target: see `TARGETS`; varying: what the scale varies by; ar: autocorrelation at lag 1.

    factor: standard deviation of a rank-one part l_i f_t, f a random walk of unit variance at its end, which two-way
    effects miss.
    """

    target: str
    varying: str
    ar: float
    factor: float = 0.0

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return f"{self.target}_{self.varying}_ar{self.ar:g}" + (f"_factor{self.factor:g}" if self.factor else "")


#: Every combination, for estimators that are fast.
GRID = tuple(NoiseDesign(target, varying, ar) for target in TARGETS for varying in VARYING for ar in (0.0, 0.5))
#: One design for each target, for the others.
ANCHORS = tuple(NoiseDesign(target, "both", 0.5) for target in TARGETS)
#: Beyond what variances are made for: noise that is nearly a random walk, and a factor.
HARD = tuple(NoiseDesign(target, "both", 0.95) for target in TARGETS) + tuple(
    NoiseDesign(target, "both", 0.5, factor=0.5) for target in TARGETS
)
DESIGNS = {design.name: design for design in (*GRID, *HARD)}


def draw(design: NoiseDesign, seed: int) -> tuple[Panel, float]:
    """A panel, and the variance of difference-in-differences on it given the scales and the factor's path."""
    rng = np.random.default_rng(seed)
    n_treated, n_post = TARGETS[design.target]
    by_unit, by_period = design.varying in ("unit", "both"), design.varying in ("time", "both")
    a = np.exp(UNIT_SPREAD * rng.standard_normal(N_UNITS)) if by_unit else np.ones(N_UNITS)
    b = np.exp(PERIOD_SPREAD * rng.standard_normal(N_PERIODS)) if by_period else np.ones(N_PERIODS)
    noise = rng.standard_normal((N_UNITS, N_PERIODS))
    for t in range(1, N_PERIODS):
        noise[:, t] = design.ar * noise[:, t - 1] + math.sqrt(1.0 - design.ar**2) * noise[:, t]
    outcome = a[:, None] * b * noise
    path = np.cumsum(rng.standard_normal(N_PERIODS)) / math.sqrt(N_PERIODS)
    outcome += design.factor * rng.standard_normal((N_UNITS, 1)) * path
    treated = np.zeros(outcome.shape, dtype=bool)
    treated[:n_treated, N_PERIODS - n_post :] = True
    panel = Panel(outcome, treated, np.ones_like(treated), np.arange(N_UNITS), np.arange(N_PERIODS))
    return panel, true_variance(design, a, b, design.factor * path)


def true_variance(design: NoiseDesign, a: Floats, b: Floats, path: Floats) -> float:
    """Of difference-in-differences, given scales of units (n_units,) and periods (n_periods,) and the factor's path."""
    n_treated, n_post = TARGETS[design.target]
    contrast = np.concatenate([np.full(N_PERIODS - n_post, -1.0 / (N_PERIODS - n_post)), np.full(n_post, 1.0 / n_post)])
    lag = np.abs(np.subtract.outer(np.arange(N_PERIODS), np.arange(N_PERIODS)))
    over_time = float((contrast * b) @ (design.ar**lag) @ (contrast * b))
    weight = np.concatenate(
        [np.full(n_treated, 1.0 / n_treated), np.full(N_UNITS - n_treated, 1.0 / (N_UNITS - n_treated))]
    )
    own = float(np.square(weight * a).sum())
    return over_time * own + float(contrast @ path) ** 2 * float(np.square(weight).sum())


def homoskedastic_error(design: NoiseDesign) -> float:
    """Standard error of difference-in-differences when no scale varies: the unit in which effects are stated."""
    plain = replace(design, varying="none", factor=0.0)
    ones = np.ones(N_UNITS), np.ones(N_PERIODS), np.zeros(N_PERIODS)
    return math.sqrt(true_variance(plain, *ones))
