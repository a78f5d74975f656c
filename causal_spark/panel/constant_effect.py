"""The weighted low-rank fit with treated cells kept in and their effect a parameter, many panels at once.

    min over alpha, beta, L, tau of  sum_js omega_j theta_s (Y_js - alpha_j - beta_s - L_js - tau_e(js) W_js)^2
                                     + lambda_nn ||L||_*

One tau for all treated cells is the estimator that the simulations of Athey, Imbens, Qu, Viviano (arXiv 2508.21536)
ran, with theta_s = exp(-lambda_time |s - middle of the treated cells|), omega_j = exp(-lambda_unit d_j) and d_j the
root mean square distance to the treated units' mean path where they are untreated. A tau of its own for every period
since a unit's first treated one is its free counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from causal_spark.panel.low_rank import low_rank_fit
from causal_spark.panel.product_weights import ProductWeights, decayed
from causal_spark.panel.tuning import Triple
from causal_spark.panel.types import Bools, Counts, Floats, Ints

#: Periods since the start of treatment are joined to no more groups than this, each with its own free effect.
MAX_GROUPS = 12
# Numbers of one array of a batch: a few hundred MB in all.
_NUMBERS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class TreatedPanels:
    """n panels of one shape; parts of a smaller panel are switched off rather than cut out.

    outcome: (n, n_units, n_periods) in standard deviations, read where observed; observed: (n_units, n_periods), of all
    panels; treated: (n, n_units, n_periods); unit_on: (n, n_units), period_on: (n, n_periods), what a panel has.
    """

    outcome: Floats
    observed: Bools
    treated: Bools
    unit_on: Bools
    period_on: Bools

    @staticmethod
    def one(outcome: Floats, observed: Bools, treated: Bools) -> TreatedPanels:
        """A single panel, nothing switched off; all arrays (n_units, n_periods)."""
        n_units, n_periods = outcome.shape
        on = np.ones((1, n_units), dtype=bool), np.ones((1, n_periods), dtype=bool)
        return TreatedPanels(outcome[None], observed, treated[None], *on)

    @property
    def n(self) -> int:
        """Number of panels."""
        return int(self.outcome.shape[0])

    @property
    def cells(self) -> Bools:
        """(n, n_units, n_periods): observed cells that are switched on."""
        return np.asarray(self.observed & self.unit_on[:, :, None] & self.period_on[:, None, :])

    @property
    def targets(self) -> Bools:
        """(n, n_units, n_periods): treated ones among them."""
        return self.cells & self.treated

    def take(self, kept: Ints) -> TreatedPanels:
        """Some of the panels, possibly repeated."""
        return replace(
            self,
            outcome=self.outcome[kept],
            treated=self.treated[kept],
            unit_on=self.unit_on[kept],
            period_on=self.period_on[kept],
        )

    @staticmethod
    def concatenate(parts: list[TreatedPanels]) -> TreatedPanels:
        """Several stacks of panels of one shape and one mask of observed cells."""
        return TreatedPanels(
            np.concatenate([part.outcome for part in parts]),
            parts[0].observed,
            np.concatenate([part.treated for part in parts]),
            np.concatenate([part.unit_on for part in parts]),
            np.concatenate([part.period_on for part in parts]),
        )


def block_weights(panels: TreatedPanels, lambda_time: Floats, lambda_unit: Floats) -> ProductWeights:
    """Omega (n, n_units) and theta (n, n_periods), each of maximum 1; lambda_time, lambda_unit: (n,)."""
    targets, periods = panels.targets, np.arange(panels.outcome.shape[2])
    middle = targets.sum(axis=1) @ periods / targets.sum(axis=(1, 2))
    decay = np.abs(periods - middle[:, None])
    decay -= np.where(panels.period_on, decay, np.inf).min(axis=1, keepdims=True)
    theta = decayed(lambda_time[:, None] * decay) * panels.period_on
    omega = panels.unit_on.astype(np.float64)
    apart = np.flatnonzero(lambda_unit > 0)
    if apart.size:
        distance = _distances(panels.take(apart))
        omega[apart] *= decayed(lambda_unit[apart, None] * distance)
    return ProductWeights(omega, theta, panels.observed[None])


def _distances(panels: TreatedPanels) -> Floats:
    """(n, n_units): d_j, 0 for treated units; the largest one found for units without a period in common."""
    cells = panels.cells & ~panels.treated
    ever_treated = np.asarray(panels.targets.any(axis=2))
    own = cells & ever_treated[:, :, None]
    count = own.sum(axis=1)
    path = np.where(own, panels.outcome, 0.0).sum(axis=1) / np.maximum(count, 1)
    both = cells & (count > 0)[:, None, :]
    squares = np.where(both, (panels.outcome - path[:, None, :]) ** 2, 0.0).sum(axis=2)
    n_common = both.sum(axis=2)
    distance = np.sqrt(squares / np.maximum(n_common, 1))
    distance = np.where(n_common > 0, distance, distance.max(axis=1, keepdims=True))
    return np.where(ever_treated, 0.0, distance)


@dataclass(frozen=True, slots=True, eq=False)
class ConstantFits:
    """effects: (n, k) tau, of all cells (k = 1) or by group; fitted: (n, n_units, n_periods) alpha + beta + L, the
    untreated outcome, if asked for; converged: (n,); rank: (n,).
    """

    effects: Floats
    fitted: Floats | None
    converged: Bools
    rank: Ints


def constant_fits(
    panels: TreatedPanels,
    lambda_time: Floats,
    lambda_unit: Floats,
    lambda_nn: Floats,
    groups: Counts | None = None,
    n_groups: int = 1,
    tolerance: float = 1e-4,
    with_fitted: bool = False,
) -> ConstantFits:
    """Fit every panel with its own penalties, (n,) each, lambda_nn > 0 and perhaps infinite.

    groups: (n, n_units, n_periods) number below ``n_groups`` of the group of each treated cell, -1 elsewhere, for an
    effect per group, 0 for one without a cell; None: one effect. Effects are right to about ``tolerance`` standard
    deviations.
    """
    n, n_units, n_periods = panels.outcome.shape
    effects = np.zeros((n, n_groups))
    fitted = np.zeros((n, n_units, n_periods)) if with_fitted else None
    converged, rank = np.zeros(n, dtype=bool), np.zeros(n, dtype=np.intp)
    for part in _chunks(n, n_units * n_periods * (2 + n_groups)):
        some = panels.take(part)
        if groups is None:
            indicators = some.targets[:, None]
        else:
            indicators = (groups[part][:, None] == np.arange(n_groups)[:, None, None]) & some.targets[:, None]
        covariates = indicators.astype(np.float64)
        weights = block_weights(some, lambda_time[part], lambda_unit[part])
        fits = low_rank_fit(
            some.outcome,
            weights,
            lambda_nn[part],
            covariates=covariates,
            targets="coefficients",
            tolerance=tolerance,
        )
        effects[part], converged[part], rank[part] = fits.coefficients, fits.converged, fits.rank
        if fitted is not None:
            fitted[part] = replace(fits, covariates=None).predictions()
    return ConstantFits(effects, fitted, converged, rank)


def _chunks(n: int, numbers: int) -> Iterator[Ints]:
    step = max(1, _NUMBERS_AT_ONCE // numbers)
    for begin in range(0, n, step):
        yield np.arange(begin, min(begin + step, n))


def constant_at(panels: TreatedPanels, triples: list[Triple], tolerance: float) -> ConstantFits:
    """Every panel under every triple of penalties: fits in order of triple, then panel."""
    chosen = np.tile(np.arange(panels.n), len(triples))
    time, unit, nn = (np.repeat([triple[axis] for triple in triples], panels.n) for axis in range(3))
    return constant_fits(panels.take(chosen), time, unit, nn, tolerance=tolerance)


def event_groups(treated: Bools) -> Counts:
    """(..., n_units, n_periods): group of the periods since a unit's first treated one, -1 where untreated.

    Numbers of periods since then are joined to at most `MAX_GROUPS` groups of neighbours, of about as many numbers.
    """
    n_periods = treated.shape[-1]
    # Small numbers: there may be as many as in dozens of panels.
    start = treated.argmax(axis=-1).astype(np.int32)
    since = np.where(treated, np.arange(n_periods, dtype=np.int32) - start[..., None], np.int32(-1))
    found = np.unique(since[treated])
    group = np.full(n_periods + 1, -1, dtype=np.int32)
    # The last place is that of -1.
    group[found] = (np.arange(found.size) * min(found.size, MAX_GROUPS)) // max(found.size, 1)
    return np.asarray(group[since])


def contrasts(n_groups: int) -> Floats:
    """(k, n_groups): orthonormal linear and quadratic contrasts over the square root of the groups' number.

    None with one group, the linear one alone with two. A profile sqrt(n_groups) times a contrast's direction, which has
    a root mean square of 1, moves that contrast by 1.
    """
    position = np.arange(n_groups) - (n_groups - 1) / 2.0
    powers = np.stack([np.ones(n_groups), position, position**2][: min(3, n_groups)], axis=1)
    directions, _ = np.linalg.qr(powers)
    sign = np.sign(directions[-1])
    return np.asarray((directions * sign).T[1:] / np.sqrt(n_groups))
