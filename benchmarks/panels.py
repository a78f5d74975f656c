"""Seeded panels for benchmarks: low rank plus two-way effects plus noise, a block of treated cells, a known effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Added to every treated cell, so the ATT in each panel is this number exactly.
EFFECT = 1.0
NOISE = 0.5
RANK = 4


@dataclass(frozen=True, slots=True)
class Size:
    """A block design: the last ``n_treated`` units are treated in the last ``n_post`` periods."""

    n_units: int
    n_periods: int
    n_treated: int
    n_post: int

    @property
    def name(self) -> str:
        """As the tables show it."""
        return f"{self.n_units} x {self.n_periods}"


def generate(size: Size, seed: int) -> tuple[Floats, Floats]:
    """Outcomes and noise-free untreated outcomes, both (n_units, n_periods).

    Unit effects are N(0, 1), the time effect a random walk of step .3, the low-rank part 4 normal loadings times 4
    random walks of variance 1 at their end, the noise independent N(0, .25).
    """
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(size.n_units, RANK))
    factors = np.cumsum(rng.normal(size=(size.n_periods, RANK)), axis=0) / np.sqrt(size.n_periods)
    unit = rng.normal(size=size.n_units)
    time = 0.3 * np.cumsum(rng.normal(size=size.n_periods))
    untreated = unit[:, None] + time + loadings @ factors.T
    outcome = untreated + NOISE * rng.normal(size=untreated.shape)
    outcome[size.n_units - size.n_treated :, size.n_periods - size.n_post :] += EFFECT
    return outcome, untreated
