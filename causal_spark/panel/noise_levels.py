"""How noisy the treated periods are, and variances of contrasts made of that.

A level is a mean of squared placebo errors over the scales of the units they are made at, at one start of treatment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from causal_spark.panel.contrast_scales import Family, Start
from causal_spark.panel.inference import ErrorBar
from causal_spark.panel.noise_scales import FEWEST_DF, Scales, SeriesScales, beyond_chance, logarithm, mean_variance
from causal_spark.panel.types import Floats

# A prior of earlier starts is given up as misleading when it is this improbable.
_CONFLICT = 0.01
# A level this small beside the largest is none.
_NO_LEVEL = 1e-12
# Earlier starts towards which a level is shrunk, at least.
_FEWEST_PRIOR = 2


@dataclass(frozen=True, slots=True, eq=False)
class ContrastVariance:
    """(k,) variances and degrees of freedom. known_by: degrees of freedom of what of it is a mean of what the variance
    may be, and not an estimate of it: infinite where nothing is.
    """

    variance: Floats
    df: Floats
    known_by: Floats

    def bars(self, unit: float) -> list[ErrorBar]:
        """Standard errors, errors having been divided by ``unit``: what times quantiles of t gives intervals."""
        known_by = np.maximum(self.known_by, FEWEST_DF)
        std_error = unit * np.sqrt(self.variance * (1.0 - 2.0 / known_by))
        return [ErrorBar(float(s), float(df)) for s, df in zip(std_error, self.df, strict=True)]


class Levels:
    """Variances of contrasts, from placebo errors at several starts, the real one first.

    averages_past: whether errors are the larger the shorter the pre-period, as those of a mean over it are.
    """

    def __init__(self, starts: Sequence[Start], averages_past: bool) -> None:
        self._starts, self._averages_past = starts, averages_past
        self._n_stand_ins = np.unique(starts[0].places).size

    def variance(
        self, family: Family, errors: Sequence[Floats], n_periods: int, name: str, shrink: bool
    ) -> ContrastVariance:
        """Of contrasts of the family's targets over so many periods.

        errors: per start, of the placebos' contrasts, NaN where there are none. name: of the variance. shrink: whether
        that given both draws on earlier starts. NaN where the target's own periods have no errors but need some.
        """
        which = [k for k, one in enumerate(errors) if np.isfinite(one).any()]
        unknown = np.full(family.target_spread.shape, np.inf)
        if not which or (which[0] > 0 and name in ("time", "unit_time")):
            return ContrastVariance(np.full(unknown.shape, np.nan), np.full(unknown.shape, np.nan), unknown)
        if name == "time":
            df = np.full(unknown.shape, 1.0 / (1.0 / (self._n_stand_ins - 1.0) + self._drawn(self._starts[0])))
            level = float(np.nanmean(np.square(errors[0]) / family.spread[0]))
            return ContrastVariance(level * family.target_spread, df, unknown)
        if name == "marginal":
            return self._marginal(family, which, errors, n_periods)
        assert family.scales is not None  # noqa: S101 - the caller has seen to that
        # Scales from residuals and scales from the prior alone have not one unit.
        which = [k for k in which if (family.series[k] is None) == (family.series[which[0]] is None)]
        levels = np.array([np.nanmean(np.square(errors[k]) / family.rows[k].variance) for k in which])
        levels *= [self._comparable(family, k, n_periods) for k in which]
        level_df = np.array([self._level_df(self._starts[k]) for k in which])
        drawn = np.array([self._drawn(self._starts[k]) for k in which])
        scales = family.scales
        effective = self._effective(which, n_periods)
        if name == "unit":
            of_level = 1.0 / (level_df[0] * (1.0 + effective)) + drawn.mean() / drawn.size
            df = 1.0 / (1.0 / scales.df + of_level)
            return ContrastVariance(levels.mean() * scales.variance, df, df)
        some = levels > _NO_LEVEL * levels.max()
        if not (shrink and some[0] and np.count_nonzero(some) > _FEWEST_PRIOR) or family.series[0] is None:
            df = 1.0 / (1.0 / scales.df + 1.0 / level_df[0] + drawn[0])
            return ContrastVariance(levels[0] * scales.variance, df, scales.df)
        changes = _changes(family.series[0], n_periods, level_df[0])
        shrunk = _shrunk_level(levels[some], level_df[some], drawn[some], changes, effective)
        df = 1.0 / (1.0 / scales.df + 1.0 / shrunk.df)
        return ContrastVariance(shrunk.variance * scales.variance, df, df)

    def _marginal(
        self, family: Family, which: Sequence[int], errors: Sequence[Floats], n_periods: int
    ) -> ContrastVariance:
        """Starts count alike, however many assignments they have."""
        squares = [self._longer_past(family, k, n_periods) * np.square(errors[k]) / family.spread[k] for k in which]
        level = float(np.mean([np.nanmean(s) for s in squares]))
        fourth = float(np.mean([np.nanmean(np.square(s)) for s in squares]))
        kurtosis = fourth / max(level**2, np.finfo(float).tiny)
        n = (1.0 + self._effective(which, n_periods)) * (self._n_stand_ins - 1.0)
        df = np.full(family.target_spread.shape, 2.0 * n / max(kurtosis - 1.0, 1.0))
        return ContrastVariance(level * family.target_spread, df, np.full(df.shape, np.inf))

    def _effective(self, which: Sequence[int], n_periods: int) -> float:
        """Earlier starts, as independent ones: blocks overlap."""
        shifts = [self._starts[k].shift for k in which if k > 0]
        return min(len(shifts), 1.0 + (shifts[-1] - shifts[0]) / n_periods) if shifts else 0.0

    def _level_df(self, start: Start) -> float:
        """Degrees of freedom of a mean of squared errors over their own scales, which are known in part."""
        n_units = np.unique(start.places).size
        df = float(np.median(start.noise.df))
        return 2.0 * (n_units - 1.0) / (2.0 + 6.0 / (max(df, 5.0) - 4.0))

    def _drawn(self, start: Start) -> float:
        """What drawing some of all groups adds to the inverse of these degrees of freedom."""
        return 1.0 / len(start.places) if start.places.shape[1] > 1 else 0.0

    def _comparable(self, family: Family, k: int, n_periods: int) -> float:
        """By what a level at the k-th start is to be multiplied, its pre-period being shorter than the real one."""
        own, other = family.series[0], family.series[k]
        if k == 0 or own is None or other is None:
            return 1.0
        return (1.0 - other.shrinkage) / (1.0 - own.shrinkage) * self._longer_past(family, k, n_periods)

    def _longer_past(self, family: Family, k: int, n_periods: int) -> float:
        """By what squared errors at the k-th start are larger for its shorter pre-period, inverted."""
        own = family.series[0]
        if k == 0 or own is None or not self._averages_past:
            return 1.0
        n_own, n_other = self._starts[0].n_pre, self._starts[k].n_pre
        rho = own.autocorrelation
        return _contrast_variance(n_own, n_periods, rho) / _contrast_variance(n_other, n_periods, rho)


def _contrast_variance(n_pre: int, n_post: int, rho: Floats) -> float:
    """Variance of the mean of n_post values less that of n_pre before them, with these autocorrelations from lag 1."""
    contrast = np.concatenate([np.full(n_pre, -1.0 / n_pre), np.full(n_post, 1.0 / n_post)])
    own, *lagged = np.correlate(contrast, contrast, "full")[contrast.size - 1 :].tolist()
    n = min(len(lagged), rho.size)
    return float(max(own + 2.0 * float(rho[:n] @ np.array(lagged[:n])), 0.1 * own))


def _changes(series: SeriesScales, n_periods: int, df: float) -> float:
    """Variance of the logarithm of how noisy a block of periods is, from how noisy single ones before treatment are.

    df: degrees of freedom of a period's scale, whose sampling error is taken out.
    """
    period = series.period[np.isfinite(series.period)]
    n = period.size
    if n < 3:
        return 0.0
    deviation = period / period.mean() - 1.0
    lags = min(n_periods, max(n // 3, 1))
    moments = np.array([deviation[k:] @ deviation[: n - k] / (n - k) for k in range(lags)])
    noise = 2.0 / df * float(np.mean(np.square(1.0 + deviation)))
    moments[0] = beyond_chance(moments[0] * n / (n - 1.0), noise, n) / (1.0 + 2.0 / df)
    later = np.clip(moments[1:], -moments[0], moments[0])
    # Single autocovariances of so few periods are mostly noise.
    later[np.abs(later) <= 2.0 * moments[0] / np.sqrt(n)] = 0.0
    lag = np.arange(1, lags)
    total = moments[0] + 2.0 * float(((1.0 - lag / n_periods) * later).sum())
    return float(np.log1p(max(total, 0.0) / n_periods))


def _shrunk_level(levels: Floats, df: Floats, drawn: Floats, changes: float, effective: float) -> Scales:
    """The first of the levels, shrunk towards the others in logarithms.

    df: degrees of freedom of each; drawn: what drawing groups adds to their inverse, independently at each start.
    changes: variance of the true logarithms about their mean; taken from the levels themselves where it is too small to
    explain how they differ. effective: how many independent levels the others are.
    """
    logs, errors = logarithm(levels, df)
    of_drawing = 2.0 * drawn
    own, own_error, others, error = logs[0], errors[0] + of_drawing[0], logs[1:], float(errors[1:].mean())
    n = max(effective, 1.5)
    centre, of_centre = float(others.mean()), float(of_drawing[1:].mean()) / others.size
    squares = float(np.mean(np.square(others - centre))) * n
    gap = float(np.square(own - centre))
    each = error + float(of_drawing[1:].mean())
    statistic = squares / (changes + each) + gap / (changes + own_error + (changes + error) / n + of_centre)
    if statistic > chdtri(n, _CONFLICT):
        changes = max(changes, (squares + gap / (1.0 + 1.0 / n)) / n - each)
    prior_error = changes + (changes + error) / n + of_centre
    share = np.sqrt(prior_error / (prior_error + own_error))
    remaining = (1.0 - share) ** 2 * prior_error + share**2 * own_error
    return mean_variance(np.asarray(centre + share * (own - centre)), np.asarray(remaining))
