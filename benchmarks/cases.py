"""What every library is asked, and what it lets one see of its answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """outcome: (n_units, n_periods), the last n_treated units treated in the last n_post periods."""

    outcome: Floats
    n_treated: int
    n_post: int

    @property
    def n_controls(self) -> int:
        """Units that are never treated; they come first."""
        return int(self.outcome.shape[0]) - self.n_treated

    @property
    def n_pre(self) -> int:
        """Periods before treatment."""
        return int(self.outcome.shape[1]) - self.n_post

    @property
    def treated(self) -> NDArray[np.bool_]:
        """(n_units, n_periods)."""
        mask = np.zeros(self.outcome.shape, dtype=bool)
        mask[self.n_controls :, self.n_pre :] = True
        return mask


@dataclass(frozen=True)
class Solution:
    """What a library lets one see of its answer.

    unit: (n_controls,) and time: (n_pre,) weights; predicted: (n_units, n_periods) untreated outcomes; path: (n_post,)
    their average over treated units; penalties: candidates for the penalty that mc chose, as factor of ||L||_* when
    squares are summed without 1/2, in outcome units.
    """

    att: float
    unit: Floats | None = None
    time: Floats | None = None
    predicted: Floats | None = None
    path: Floats | None = None
    penalties: Floats | None = None
