"""Scales of contrasts: of the treated units' average, of part of it, or of each unit, and of the placebos'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal_spark.panel.assignments import lasting_treatment
from causal_spark.panel.noise_scales import FEWEST_DF, Scales, SeriesScales, series_scales, shrink, unit_variances
from causal_spark.panel.placebo import n_fitted_by, n_periods_before, squared_weights
from causal_spark.panel.replicates import Setting
from causal_spark.panel.types import Floats, Ints, Panel

# Residuals that tell a unit's scale, at least.
_FEWEST_RESIDUALS = 2
# Residuals this small beside the largest outcome are rounding.
_ROUNDING = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Placebos of one start.

    errors, squares, fitted, places, att, event_effects: as of `Placebos`. noise: (n_controls,) relative variances of
    controls; shift: periods moved back; n_pre: periods before the first treated one.
    """

    errors: Floats
    squares: Floats
    fitted: Floats
    places: Ints
    att: Floats
    event_effects: Floats
    noise: Scales
    shift: int
    n_pre: int


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Scales of k targets and of the placebos that stand for them.

    target_spread: (k,) sums of squared weights of units in the targets; spread: per start (n,), in the placebos.
    scales: (k,) of the targets, NaN for those without residuals, None when none has any; rows: per start (n,), of the
    placebos. series: per start, of the residuals, the targets' among those of the first, None where they say nothing.
    constant: whether all placebos' residuals are zero.
    """

    target_spread: Floats
    spread: tuple[Floats, ...]
    scales: Scales | None
    rows: tuple[Scales, ...]
    series: tuple[SeriesScales | None, ...]
    constant: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Donors:
    """What donors add to n contrasts: to sums of squared weights, to variances, and to these variances' errors."""

    spread: Floats
    variance: Floats
    error: Floats

    @staticmethod
    def of(squares: Floats, noise: Scales) -> _Donors:
        """squares: (n, n_units) of weights."""
        error = np.square(squares) @ (np.square(noise.variance) / noise.df)
        return _Donors(squares.sum(axis=1), squares @ noise.variance, error)

    def each(self, times: int) -> _Donors:
        """The same for so many contrasts in place of each."""
        return _Donors(*(np.repeat(one, times) for one in (self.spread, self.variance, self.error)))


class Families:
    """Families of contrasts of one estimate.

    errors: (n_treated, n_periods) effects and residuals of the treated units; unit: by what everything is divided.
    """

    def __init__(self, of: Setting, starts: Sequence[Start], errors: Floats, unit: float) -> None:
        panel = of.panel
        self._starts, self._errors = starts, errors
        self._treated = lasting_treatment(panel)
        self._units = np.flatnonzero(panel.ever_treated)
        self._n_units = panel.n_units
        self._pools_periods = of.definition.pools_periods
        self._noise = unit_noise(panel, n_periods_before(panel), unit)
        self._fitted = n_fitted_by(panel, of.fit.blocks)
        self._rounding = _ROUNDING * float(np.abs(panel.outcome[panel.observed]).max()) / unit
        self._own_donors = _Donors.of(squared_weights(panel, of.fit.blocks)[None], self._noise)
        self._donors = [_Donors.of(start.squares, start.noise) for start in starts]

    def of_average(self, shares: Floats) -> Family:
        """Of the treated units' average with these shares (n_treated,), which sum to one."""
        averaged = int(np.count_nonzero(shares))
        target = self._average(self._errors[None], 0, shares, self._n_units, averaged)
        n_controls = self._n_units - self._units.size
        rows = [self._average(start.errors, start.shift, shares, n_controls, averaged) for start in self._starts]
        places = [self._units[None], *(start.places for start in self._starts)]
        return self._family(target, rows, places, np.square(shares), 1)

    def of_each(self, members: Ints) -> Family:
        """Of each of some treated units, whose placebos are all those of any of them."""
        target = self._single(self._errors[None], 0, members, self._n_units)
        n_controls = self._n_units - self._units.size
        rows = [self._single(start.errors, start.shift, members, n_controls) for start in self._starts]
        places = [self._units[members][:, None], *(start.places[:, members].reshape(-1, 1) for start in self._starts)]
        return self._family(target, rows, places, np.ones(1), members.size)

    def _family(
        self, target: Floats, rows: Sequence[Floats], places: Sequence[Ints], squares: Floats, times: int
    ) -> Family:
        """target: (k, n_periods) series; rows: per start (n, n_periods); places: (k, m), then per start (n, m), of the
        units in each contrast, with squared weights (m,); times: contrasts per assignment.
        """
        own = self._own_donors.each(len(target))
        target_prior = _prior(self._noise, places[0], squares, own)
        n = len(target)
        found, scales_of_rows, spread = [], [], []
        scales: Scales | None = None
        for k, start in enumerate(self._starts):
            donors = self._donors[k].each(times)
            prior, series = _prior(start.noise, places[k + 1], squares, donors), rows[k]
            fitted = np.repeat(start.fitted, times)
            if k == 0:
                series, fitted = np.concatenate([target, series]), np.concatenate([np.full(n, self._fitted), fitted])
                both = zip((target_prior.variance, target_prior.df), (prior.variance, prior.df), strict=True)
                prior = Scales(*(np.concatenate(pair) for pair in both))
            n_units = np.unique(start.places).size + (self._units.size if k == 0 else 0)
            shrunk, of_series = _scales(series, fitted, prior, self._rounding, n_units)
            if k == 0:
                lacking = np.isfinite(target).sum(axis=1) < _FEWEST_RESIDUALS
                if not lacking.all():
                    scales = Scales(np.where(lacking, np.nan, shrunk.variance[:n]), shrunk.df[:n])
                shrunk = Scales(shrunk.variance[n:], shrunk.df[n:])
            found.append(of_series)
            scales_of_rows.append(shrunk)
            spread.append(squares.sum() + donors.spread)
        constant = is_zero(rows[0], self._rounding)
        return Family(squares.sum() + own.spread, tuple(spread), scales, tuple(scales_of_rows), tuple(found), constant)

    def _average(self, errors: Floats, shift: int, shares: Floats, n_units: int, averaged: int) -> Floats:
        """(n, n_periods) residuals at untreated cells, averaged over the units that have one, NaN without any."""
        known = ~self._treated[:, shift:] & np.isfinite(errors) & (shares > 0.0)[:, None]
        sums = np.einsum("bit,i->bt", np.where(known, errors, 0.0), shares)
        total = np.einsum("bit,i->bt", known.astype(float), shares)
        series = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0.0)
        return self._full_size(series, averaged, n_units)

    def _single(self, errors: Floats, shift: int, members: Ints, n_units: int) -> Floats:
        """(n x members, n_periods) residuals at untreated cells, NaN elsewhere."""
        residual = np.where(~self._treated[members, shift:], errors[:, members], np.nan)
        return self._full_size(residual.reshape(-1, residual.shape[2]), 1, n_units)

    def _full_size(self, series: Floats, averaged: int, n_units: int) -> Floats:
        # Where treated units inform period effects, these follow them in part.
        return series * attenuation(averaged, n_units) ** -1.0 if self._pools_periods else series


def attenuation(averaged: int, n_units: int) -> float:
    """What is left of residuals of a mean of so many units when they inform period effects like all others."""
    return 1.0 - averaged / n_units


def unit_noise(panel: Panel, n_periods: int, unit: float) -> Scales:
    """Relative variances of a panel's units in its first periods, outcomes divided by ``unit``."""
    before = panel.until(n_periods)
    return unit_variances(before.outcome / unit, before.control_cells)


def is_zero(series: Floats, rounding: float) -> bool:
    """Whether all residuals that there are are rounding."""
    return not bool((np.abs(series[np.isfinite(series)]) > rounding).any())


def _prior(noise: Scales, places: Ints, squares: Floats, donors: _Donors) -> Scales:
    """Variances of contrasts from those of units: (n, m) places with squared weights (m,), and n contrasts' donors.

    Degrees of freedom by Satterthwaite's approximation.
    """
    own = squares * noise.variance[places]
    variance = own.sum(axis=1) + donors.variance
    error = (np.square(own) / noise.df[places]).sum(axis=1) + donors.error
    return Scales(variance, np.maximum(np.square(variance) / error, FEWEST_DF))


def _scales(
    series: Floats, fitted: Floats, prior: Scales, rounding: float, n_units: int
) -> tuple[Scales, SeriesScales | None]:
    """Shrunk scales of rows; the prior's where the series say nothing, being too short, fitted too well, or zero."""
    known = np.isfinite(series).sum(axis=1) - fitted >= _FEWEST_RESIDUALS
    if not known.any() or is_zero(series[known], rounding):
        return prior, None
    found = series_scales(series, fitted)
    return shrink(found, prior, min(n_units, len(series))), found
