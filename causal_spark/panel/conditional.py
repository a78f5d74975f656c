"""Variances given the unit, the period, or both, beside the one given neither: from an estimator's own placebo errors.

Untreated units stand in for the treated ones (`placebo.Placebos`), in the target's own periods and at earlier starts
with later periods left out, so that every error is made with the target's information: as far from the last untreated
period, with as little behind it, with as many units averaged. Correlation within units over time and the part that
units share are in the errors, and need no model.

``marginal`` pools all errors: how far the estimate errs on average over units and periods. ``time`` pools those of the
target's own periods. ``unit`` and ``unit_time`` take errors relative to the scale of the residuals of the units they
are made at, and scale them back by the target's own; how noisy periods are is then averaged over starts (``unit``) or
taken from the target's own periods (``unit_time``), there shrunk towards the earlier ones as far as these allow.

Ideas: Almeida, Athey, Imbens, Lestant, Olaizola, "Estimating Variances for Causal Panel Data Estimators",
arXiv 2510.11841; the scales are those of `noise_scales`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import chdtri

from causal_spark.errors import ConstantOutcomeError, GroupError, SolverError, TooFewControlsError, TooFewPeriodsError
from causal_spark.panel.assignments import lasting_treatment
from causal_spark.panel.inference import Details, ErrorBar, VarianceEstimate
from causal_spark.panel.noise_scales import (
    FEWEST_DF,
    Scales,
    SeriesScales,
    logarithm,
    mean_variance,
    series_scales,
    shrink,
    unit_variances,
)
from causal_spark.panel.placebo import (
    Placebos,
    earlier_starts,
    n_fitted_by,
    n_periods_before,
    squared_weights,
)
from causal_spark.panel.replicates import Replicates, ReplicateSet, Setting, event_times
from causal_spark.panel.stages import Arrays
from causal_spark.panel.summary import effect_cells
from causal_spark.panel.types import Floats, Ints, Panel

TimeScale = Literal["shrunk", "direct"]
#: Names of the variances, and what each is conditional on.
CONDITIONING = {"marginal": "none", "unit": "unit", "time": "time", "unit_time": "unit_time"}

# Residuals that tell a unit's scale, at least.
_FEWEST_RESIDUALS = 2
# Residuals this small beside the largest outcome are rounding.
_ROUNDING = 1e-13
# Assignments at each earlier start, at least.
_FEWEST_EARLIER = 25
# A prior of earlier starts is given up as misleading when it is this improbable.
_CONFLICT = 0.05


@dataclass(frozen=True, slots=True)
class ConditionalOptions:
    """How conditional variances, and the marginal one beside them, are computed.

    replicates: placebo assignments at most; with as many or fewer stand-ins for one treated unit each is used once.
    starts: earlier starts at most, 0 for none; each has a quarter of the assignments, 25 at least.
    time_scale: of ``unit_time``: ``direct`` takes the noise of the treated periods from their own placebos alone,
        ``shrunk`` draws it towards that of earlier starts, as far as these agree with one another and with it; with
        fewer than two earlier starts it is direct.
    retune: choose penalties anew in every replicate instead of keeping those of the estimate.
    """

    replicates: int = 200
    starts: int = 6
    time_scale: TimeScale = "shrunk"
    retune: bool = False

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError("replicates must be at least 2")
        if self.starts < 0:
            raise ValueError("starts must not be negative")
        if self.time_scale not in ("shrunk", "direct"):
            raise ValueError(f"time_scale must be shrunk or direct, not {self.time_scale!r}")


def conditional_sets(options: ConditionalOptions) -> tuple[ReplicateSet, ...]:
    """Placebos at the real start, and at each earlier one."""
    fewer = min(options.replicates, max(options.replicates // 4, _FEWEST_EARLIER))
    own = Placebos(options.replicates, options.retune, detail=True)
    earlier = [
        Placebos(fewer, options.retune, which, options.starts, detail=True) for which in range(1, options.starts + 1)
    ]
    return (own, *earlier)


def conditional_variance(name: str) -> Callable[[Setting, ConditionalOptions, Replicates], VarianceEstimate]:
    """The variance of that name, see `CONDITIONING`.

    It raises what placebos raise (TooFewControlsError above all: without spare control units nothing tells a period's
    noise), TooFewPeriodsError without an earlier start (``unit``) or without residuals of the treated units to take
    their scale from (``unit``, ``unit_time``), ConstantOutcomeError where all residuals are zero, and SolverError for
    errors that are not finite.
    """

    def estimate(of: Setting, options: ConditionalOptions, replicates: Replicates) -> VarianceEstimate:
        key = "conditional", options.replicates, options.starts, options.retune
        found = of.keep(key, lambda: _Analysis(of, options, replicates))
        return found.estimate(name, options.time_scale)

    return estimate


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
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
class _Family:
    """Scales of the contrasts of one kind: of whole groups of treated units, or of single ones.

    target_spread: (k,) sums of squared weights of the k targets; spread: per start (n,), those of the placebos.
    scales: of targets, None where they have no residuals; rows: per start (n,), of the placebos. series: per start, of
    the residuals, the targets' among those of the first. constant: whether all residuals are zero.
    """

    target_spread: Floats
    spread: tuple[Floats, ...]
    scales: Scales | None
    rows: tuple[Scales, ...]
    series: tuple[SeriesScales | None, ...]
    constant: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Variance:
    """(k,) variances and degrees of freedom. known_by: degrees of freedom of what of it is a mean of what the variance
    may be, and not an estimate of it: infinite where nothing is.
    """

    variance: Floats
    df: Floats
    known_by: Floats

    def bars(self) -> list[ErrorBar]:
        """Standard errors: what times quantiles of t gives intervals."""
        known_by = np.maximum(self.known_by, FEWEST_DF)
        std_error = np.sqrt(self.variance * (1.0 - 2.0 / known_by))
        return [ErrorBar(float(s), float(df)) for s, df in zip(std_error, self.df, strict=True)]


class _Analysis:
    """All four variances of one estimate; contrasts are worked out as they are asked for."""

    def __init__(self, of: Setting, options: ConditionalOptions, replicates: Replicates) -> None:
        self._panel, self._definition, self._fit = of.panel, of.definition, of.fit
        panel = of.panel
        n_pre = n_periods_before(panel)
        controls = panel.take_units(np.flatnonzero(~panel.ever_treated))
        self._starts = [
            _Start(**found, noise=_noise(controls, n_pre - shift), shift=shift, n_pre=n_pre - shift)
            for found, shift in _placebos(panel, options, replicates)
        ]
        self._treated = lasting_treatment(panel)
        self._errors = effect_cells(panel, of.fit)[panel.ever_treated]
        self._target = panel.target_cells[panel.ever_treated] & np.isfinite(self._errors)
        self._noise = _noise(panel, n_pre)
        self._rounding = _ROUNDING * float(np.abs(panel.outcome[panel.observed]).max())
        self._squares = squared_weights(panel, of.fit.blocks)
        self._fitted = n_fitted_by(panel, of.fit.blocks)
        self._n_stand_ins = np.unique(self._starts[0].places).size
        shares = self._target.sum(axis=1)
        self._group = self._family(shares / shares.sum())
        self._variances: dict[str, VarianceEstimate] = {}

    def estimate(self, name: str, time_scale: TimeScale) -> VarianceEstimate:
        """One of the four. Raises where it is undefined."""
        if name == "unit" and len(self._starts) < 2:
            raise TooFewPeriodsError(
                "The variance given the unit averages over starts before the real one, but there is none.",
                "Add periods before treatment, ask for starts, or use unit_time.",
            )
        if name.startswith("unit") and self._group.scales is None:
            raise TooFewPeriodsError(
                "The variance given the unit takes the treated units' scale from their residuals before treatment, but "
                "there are none, or fewer than two.",
                "Add periods before treatment, or use time or placebo.",
            )
        if name.startswith("unit") and self._group.constant:
            raise ConstantOutcomeError(
                "All residuals before treatment are zero, so that units have no scale.", "Use time or placebo."
            )
        n_periods = int(np.count_nonzero(self._target.any(axis=0)))
        att = self._variance(self._group, [start.att for start in self._starts], n_periods, name, time_scale)
        if not att.df[0] >= 1.0:
            raise TooFewControlsError(
                f"The placebo errors leave {att.df[0]:.2f} degrees of freedom, which no interval can be made of.",
                "Add untreated units, or use placebo.",
            )
        n_replicates = sum(start.att.size for start in self._starts)
        return VarianceEstimate(
            att.bars()[0],
            n_replicates,
            lambda: Details(self._event_times(name, time_scale), self._cells(name, time_scale)),
        )

    def _event_times(self, name: str, time_scale: TimeScale) -> dict[int, ErrorBar]:
        found = {}
        for k, event_time in enumerate(event_times(self._panel).tolist()):
            errors = [start.event_effects[:, k] for start in self._starts]
            if np.isfinite(errors[0]).all():
                found[event_time] = self._variance(self._group, errors, 1, name, time_scale).bars()[0]
        return found

    def _cells(self, name: str, time_scale: TimeScale) -> Floats:
        """(n_units, n_periods) standard errors of treated cells."""
        found = np.full(self._panel.outcome.shape, np.nan)
        units = np.flatnonzero(self._panel.ever_treated)
        patterns, of_unit = np.unique(self._treated, axis=0, return_inverse=True)
        for pattern in range(len(patterns)):
            members = np.flatnonzero(of_unit.ravel() == pattern)
            family = self._family(None, members)
            if name.startswith("unit") and family.scales is None:
                continue
            for t in np.flatnonzero(self._target[members].any(axis=0)).tolist():
                errors = [start.errors[:, members, t - start.shift].ravel() for start in self._starts]
                bars = self._variance(family, errors, 1, name, time_scale).bars()
                wanted = self._target[members, t]
                found[units[members[wanted]], t] = np.array([bar.std_error for bar in bars])[wanted]
        return found

    def _family(self, shares: Floats | None, members: Ints | None = None) -> _Family:
        """Of the average of all treated units with these shares, or of each of some members by itself."""
        n_treated = len(self._treated)
        squares = np.square(np.ones(1) if shares is None else shares)
        units = np.flatnonzero(self._panel.ever_treated)
        places = units[None] if members is None else units[members][:, None]
        target = _prior(self._noise, places, squares, self._squares[None])
        averaged = n_treated if members is None else 1
        target_series = self._series(self._errors[None], 0, shares, members, self._panel.n_units, averaged)
        rows, spread, series, constant = [], [], [], []
        n_controls = self._panel.n_units - n_treated
        targets = None
        for start in self._starts:
            placed = start.places if members is None else start.places[:, members].reshape(-1, 1)
            donors = start.squares if members is None else np.repeat(start.squares, members.size, axis=0)
            prior = _prior(start.noise, placed, squares, donors)
            mine = self._series(start.errors, start.shift, shares, members, n_controls, averaged)
            fitted = start.fitted if members is None else np.repeat(start.fitted, members.size)
            n_targets = 0
            if start is self._starts[0]:
                n_targets = len(target_series)
                fitted = np.concatenate([np.full(n_targets, self._fitted), fitted])
                mine = np.concatenate([target_series, mine])
                prior = Scales(np.concatenate([target.variance, prior.variance]), np.concatenate([target.df, prior.df]))
            scales, of_series = _scales(mine, fitted, prior, self._rounding)
            constant.append(_is_zero(mine, self._rounding))
            if start is self._starts[0]:
                lacking = np.isfinite(target_series).sum(axis=1) < _FEWEST_RESIDUALS
                variance = np.where(lacking, np.nan, scales.variance[:n_targets])
                targets = None if lacking.all() else Scales(variance, scales.df[:n_targets])
            rows.append(Scales(scales.variance[n_targets:], scales.df[n_targets:]))
            series.append(of_series)
            spread.append(squares.sum() + donors.sum(axis=1))
        target_spread = np.full(len(target_series), squares.sum() + self._squares.sum())
        return _Family(target_spread, tuple(spread), targets, tuple(rows), tuple(series), constant[0])

    def _series(
        self, errors: Floats, shift: int, shares: Floats | None, members: Ints | None, n_units: int, averaged: int
    ) -> Floats:
        """(n, n_periods) residuals of contrasts at untreated cells, NaN where there are none."""
        untreated = ~self._treated[:, shift:]
        residual = np.where(untreated, errors, np.nan)
        if members is not None:
            series = residual[:, members].reshape(-1, residual.shape[2])
        else:
            weight = np.where(np.isfinite(residual), np.ones(1) if shares is None else shares[:, None], 0.0)
            total = weight.sum(axis=1)
            series = np.full(total.shape, np.nan)
            sums = np.where(weight > 0.0, residual * weight, 0.0).sum(axis=1)
            np.divide(sums, total, out=series, where=total > 0.0)
        # Where treated units inform period effects, these follow them in part.
        return series / (1.0 - averaged / n_units) if self._definition.pools_periods else series

    def _variance(
        self, family: _Family, errors: list[Floats], n_periods: int, name: str, time_scale: TimeScale
    ) -> _Variance:
        """Of contrasts of targets over so many periods. errors: per start, of the placebos' contrasts."""
        which = [k for k, one in enumerate(errors) if np.isfinite(one).any()]
        squares = [np.square(errors[k]) for k in which]
        unscaled = [s / family.spread[k] for k, s in zip(which, squares, strict=True)]
        unknown = np.full(family.target_spread.shape, np.inf)
        if name == "time":
            drawn = 1.0 / len(squares[0]) if self._starts[0].places.shape[1] > 1 else 0.0
            df = np.full(unknown.shape, 1.0 / (1.0 / (self._n_stand_ins - 1.0) + drawn))
            return _Variance(float(np.nanmean(unscaled[0])) * family.target_spread, df, unknown)
        effective = self._effective(which, n_periods)
        if name == "marginal":
            # Starts count alike, however many assignments they have.
            longer = [self._longer_past(family, k, n_periods) for k in which]
            level = float(np.mean([f * np.nanmean(s) for f, s in zip(longer, unscaled, strict=True)]))
            fourth = float(np.mean([f * f * np.nanmean(np.square(s)) for f, s in zip(longer, unscaled, strict=True)]))
            kurtosis = fourth / max(level**2, np.finfo(float).tiny)
            df = np.full(unknown.shape, 2.0 * (1.0 + effective) * (self._n_stand_ins - 1.0) / max(kurtosis - 1.0, 1.0))
            return _Variance(level * family.target_spread, df, unknown)
        assert family.scales is not None  # noqa: S101 - declined before
        levels = np.array([np.nanmean(s / family.rows[k].variance) for k, s in zip(which, squares, strict=True)])
        levels *= [self._comparable(family, k, n_periods) for k in which]
        level_df = np.array([self._level_df(self._starts[k]) for k in which])
        scales = family.scales
        if name == "unit":
            df = 1.0 / (1.0 / scales.df + 1.0 / (level_df[0] * (1.0 + effective)))
            return _Variance(levels.mean() * scales.variance, df, df)
        if time_scale == "direct" or len(which) < 3 or family.series[0] is None:
            return _Variance(levels[0] * scales.variance, 1.0 / (1.0 / scales.df + 1.0 / level_df[0]), scales.df)
        changes = _changes(family.series[0], n_periods, level_df[0])
        shrunk = _shrunk_level(levels, level_df, changes, effective)
        df = 1.0 / (1.0 / scales.df + 1.0 / shrunk.df)
        return _Variance(shrunk.variance * scales.variance, df, df)

    def _effective(self, which: list[int], n_periods: int) -> float:
        """Earlier starts, as independent ones: blocks overlap."""
        shifts = [self._starts[k].shift for k in which if k > 0]
        return min(len(shifts), 1.0 + (shifts[-1] - shifts[0]) / n_periods) if shifts else 0.0

    def _level_df(self, start: _Start) -> float:
        """Degrees of freedom of a mean of squared errors over their own scales, which are known in part.

        Groups of several units share members, so that drawing some of all groups adds to the error.
        """
        n_units = np.unique(start.places).size
        df = float(np.median(start.noise.df))
        of_units = 2.0 * (n_units - 1.0) / (2.0 + 6.0 / (max(df, 5.0) - 4.0))
        drawn = start.places.shape[1] > 1
        return 1.0 / (1.0 / of_units + (1.0 / len(start.places) if drawn else 0.0))

    def _comparable(self, family: _Family, k: int, n_periods: int) -> float:
        """By what a level at the k-th start is to be multiplied, its pre-period being shorter than the real one."""
        own, other = family.series[0], family.series[k]
        if k == 0 or own is None or other is None:
            return 1.0
        return (1.0 - other.shrinkage) / (1.0 - own.shrinkage) * self._longer_past(family, k, n_periods)

    def _longer_past(self, family: _Family, k: int, n_periods: int) -> float:
        """By what squared errors at the k-th start are larger for its shorter pre-period, inverted."""
        own = family.series[0]
        if k == 0 or own is None or not self._averages_past():
            return 1.0
        n_own, n_other = self._starts[0].n_pre, self._starts[k].n_pre
        rho = own.autocorrelation
        return _contrast_variance(n_own, n_periods, rho) / _contrast_variance(n_other, n_periods, rho)

    def _averages_past(self) -> bool:
        decay = self._fit.penalties.lambda_time
        return self._definition.averages_past and (decay is None or decay == 0.0)


def _noise(panel: Panel, n_periods: int) -> Scales:
    before = panel.until(n_periods)
    return unit_variances(before.outcome, before.control_cells)


def _prior(noise: Scales, places: Ints, squares: Floats, donors: Floats) -> Scales:
    """Variances of contrasts from those of units: (n, k) places with squared weights (k,), and donors' (n, n_units).

    Degrees of freedom by Satterthwaite's approximation.
    """
    own = squares * noise.variance[places]
    others = donors * noise.variance
    variance = own.sum(axis=1) + others.sum(axis=1)
    error = (np.square(own) / noise.df[places]).sum(axis=1) + (np.square(others) / noise.df).sum(axis=1)
    return Scales(variance, np.maximum(np.square(variance) / error, FEWEST_DF))


def _placebos(
    panel: Panel, options: ConditionalOptions, replicates: Replicates
) -> Iterator[tuple[dict[str, Any], int]]:
    """Results of placebos and their shift, of the real start and of all earlier ones that can be had."""
    own, *earlier = conditional_sets(options)
    yield _finite(replicates.of(own)), 0
    for one, shift in zip(earlier, earlier_starts(panel, options.starts), strict=False):
        # Gaps in the data may leave a start without placebos; the others will do.
        with suppress(GroupError):
            yield _finite(replicates.of(one)), shift


def _finite(found: Arrays) -> dict[str, Any]:
    if not np.isfinite(found["att"]).all():
        raise SolverError("A placebo estimate is not finite.", "Look for extreme outcomes.")
    return dict(found)


def _is_zero(series: Floats, rounding: float) -> bool:
    return not bool((np.abs(series[np.isfinite(series)]) > rounding).any())


def _scales(series: Floats, fitted: Floats, prior: Scales, rounding: float) -> tuple[Scales, SeriesScales | None]:
    """Shrunk scales of rows; the prior's where the series say nothing, being too short, fitted too well, or zero."""
    known = np.isfinite(series).sum(axis=1) - fitted >= _FEWEST_RESIDUALS
    if not known.any() or _is_zero(series[known], rounding):
        return prior, None
    found = series_scales(series, fitted)
    return shrink(found, prior), found


def _contrast_variance(n_pre: int, n_post: int, rho: Floats) -> float:
    """Variance of the mean of n_post values less that of n_pre before them, with these autocorrelations from lag 1."""
    contrast = np.concatenate([np.full(n_pre, -1.0 / n_pre), np.full(n_post, 1.0 / n_post)])
    own, *lagged = np.correlate(contrast, contrast, "full")[contrast.size - 1 :].tolist()
    n = min(len(lagged), rho.size)
    return float(max(own + 2.0 * float(rho[:n] @ np.array(lagged[:n])), 0.1 * own))


def _changes(series: SeriesScales | None, n_periods: int, df: float) -> float:
    """Variance of the logarithm of how noisy a block of periods is, from how noisy single ones before treatment are.

    df: degrees of freedom of a period's scale, whose sampling error is taken out.
    """
    assert series is not None  # noqa: S101 - else nothing is shrunk
    period = series.period[np.isfinite(series.period)]
    n = period.size
    if n < 3:
        return 0.0
    deviation = period / period.mean() - 1.0
    lags = min(n_periods, max(n // 3, 1))
    moments = np.array([deviation[k:] @ deviation[: n - k] / (n - k) for k in range(lags)])
    noise = 2.0 / df * float(np.mean(np.square(1.0 + deviation)))
    moments[0] = max(0.0, (moments[0] * n / (n - 1.0) - noise) / (1.0 + 2.0 / df))
    later = np.clip(moments[1:], -moments[0], moments[0])
    # Single autocovariances of so few periods are mostly noise.
    later[np.abs(later) <= 2.0 * moments[0] / np.sqrt(n)] = 0.0
    lag = np.arange(1, lags)
    total = moments[0] + 2.0 * float(((1.0 - lag / n_periods) * later).sum())
    return float(np.log1p(max(total, 0.0) / n_periods))


def _shrunk_level(levels: Floats, df: Floats, changes: float, effective: float) -> Scales:
    """The first of the levels, shrunk towards the others in logarithms.

    changes: variance of the true logarithms about their mean; taken from the levels themselves where it is too small to
    explain how they differ. effective: how many independent levels the others are.
    """
    logs, errors = logarithm(levels, df)
    own, own_error, others, error = logs[0], errors[0], logs[1:], float(errors[1:].mean())
    n = max(effective, 1.5)
    centre = float(others.mean())
    squares = float(np.mean(np.square(others - centre))) * n
    gap = float(np.square(own - centre))
    statistic = squares / (changes + error) + gap / (changes + own_error + (changes + error) / n)
    if statistic > chdtri(n, _CONFLICT):
        changes = max(changes, (squares + gap / (1.0 + 1.0 / n)) / n - error)
    prior_error = changes + (changes + error) / n
    share = np.sqrt(prior_error / (prior_error + own_error))
    remaining = (1.0 - share) ** 2 * prior_error + share**2 * own_error
    return mean_variance(np.asarray(centre + share * (own - centre)), np.asarray(remaining))
