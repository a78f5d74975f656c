"""How noisy units are relative to one another: scales of residual series, shrunk by constrained empirical Bayes.

Noise is taken as a_j b_t e_jt, with e stationary over time. Logarithms of estimated variances are moments of
log-gamma variables, digamma and trigamma at half the degrees of freedom. They are shrunk so that the spread of what
results is that of the true ones (Louis 1984; Ghosh 1992): posterior means are too alike, and would make intervals of
the noisiest units too short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from causal_spark.panel.two_way import equal_two_way_fit
from causal_spark.panel.types import Bools, Floats

# Alternations between unit and period scales; more change nothing that can be seen.
_ALTERNATIONS = 4
# The mean of an inverse-gamma variable, and what is made of it, need more than two degrees of freedom.
FEWEST_DF = 4.5
_MOST_DF = 1e9
#: Standard errors by which something must exceed what chance explains, one-sided at the 5% level.
NOTICED = 1.645
# What fitted parameters must leave of a series to say anything.
_LEAST_FREEDOM = 2.0
# A mean square this small beside the largest is that of a row fitted exactly.
_EXACT = 1e-8
# A variance this small beside the others is rounding.
_LEAST = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class SeriesScales:
    """Variances of residual series.

    variance: (n_rows,) mean squares after period scales are taken out, NaN for rows without a residual; period:
    (n_periods,) relative variances of periods, NaN without a residual; df: (n_rows,) degrees of freedom of
    ``variance``; autocorrelation: (n_lags,) from lag 1 on, pooled; shrinkage: by what demeaning lowers mean squares.
    """

    variance: Floats
    period: Floats
    df: Floats
    autocorrelation: Floats
    shrinkage: float


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Shrunk variances: (n_rows,) means of what they may be, and degrees of freedom of that knowledge."""

    variance: Floats
    df: Floats


def series_scales(series: Floats, fitted: Floats | float = 0.0) -> SeriesScales:
    """Scales of residual series (n_rows, n_periods), NaN where there is none; some residual must not be zero.

    fitted: (n_rows,) parameters that were fitted to each series; where they leave no freedom, nothing is known.
    """
    seen = np.isfinite(series)
    free = seen.sum(axis=1) - fitted
    seen &= (free >= _LEAST_FREEDOM)[:, None]
    # A row that is fitted exactly has no scale of its own, and its logarithm would swamp all others.
    mean_square = np.where(seen, np.square(series), 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    seen &= (mean_square > _EXACT * mean_square.max(initial=0.0))[:, None]
    n_row, n_period = seen.sum(axis=1), seen.sum(axis=0)
    known = n_row > 0
    # Each residual stands for itself and for its share of what the fit took away.
    squares = np.where(seen, np.square(series), 0.0) * np.where(known, n_row / np.maximum(free, 1.0), 1.0)[:, None]
    period = np.ones(series.shape[1])
    variance = np.ones(series.shape[0])
    for step in range(_ALTERNATIONS + 1):
        variance[known] = _floored((squares[known] / period).sum(axis=1) / n_row[known])
        if step < _ALTERNATIONS:
            sums = (squares / variance[:, None]).sum(axis=0)
            period[n_period > 0] = _floored(sums[n_period > 0] / n_period[n_period > 0])
    standard = np.where(seen, series / np.sqrt(variance[:, None] * period), 0.0)
    # Columns without residuals are no periods of these series: treated ones, above all.
    rho, shrinkage = _autocorrelation(standard[:, n_period > 0], seen[:, n_period > 0])
    lag = np.arange(1, rho.size + 1)
    inflation = 1.0 + 2.0 * (np.maximum(1.0 - lag / np.maximum(n_row, 1)[:, None], 0.0) * np.square(rho)).sum(axis=1)
    # A period scale, too, is estimated from these rows.
    share = 1.0 - 1.0 / max(int(np.count_nonzero(known)), 2)
    df = np.maximum((free - (shrinkage > 0.0)) * share / inflation, 1.0)
    variance[~known], period[n_period == 0] = np.nan, np.nan
    return SeriesScales(variance, period, df, rho, shrinkage)


def _floored(variance: Floats) -> Floats:
    return np.maximum(variance, _LEAST * variance.mean()) if variance.size else variance


def _autocorrelation(standard: Floats, seen: Bools) -> tuple[Floats, float]:
    """Pooled autocorrelations, and what taking means out of the rows, if that was done, took from their mean squares.

    The means' share of the mean square, V = (1 + 2 sum_k (1 - k/T) rho_k) / T, is added to all autocovariances as far
    as it is missing from the rows: their own means are zero where the estimator has fitted an intercept to them. That
    rows are divided by their own mean squares pulls rho towards zero, by about rho / T at lag 1 (Marriott, Pope 1954).
    """
    n_periods = standard.shape[1]
    n_lags = max(n_periods // 3, 1) if n_periods > 2 else 0
    lag = np.arange(1, n_lags + 1)
    products, pairs = standard.T @ standard, seen.T.astype(float) @ seen
    moments = np.array([products.trace(offset=k) / max(float(pairs.trace(offset=k)), 1.0) for k in range(n_lags + 1)])
    if not moments[0] > 0.0:
        return np.zeros(n_lags), 0.0
    moments /= moments[0]
    n_row = np.maximum(seen.sum(axis=1), 1)
    kept = float(np.mean(np.square(standard.sum(axis=1) / n_row)))
    mean, rho = 1.0 / n_periods, moments[1:]
    for _ in range(50):
        missing = min(max(mean - kept, 0.0), 0.9)
        rho = (moments[1:] * (1.0 - missing) + missing) * (1.0 + 1.0 / n_periods)
        rho = np.minimum(np.maximum(rho, -0.99), 0.99)
        wanted = (1.0 + 2.0 * float(((1.0 - lag / n_periods) * rho).sum())) / n_periods
        wanted = min(max(wanted, 0.3 / n_periods), 0.9)
        if abs(wanted - mean) < 1e-6:
            break
        mean = 0.5 * (mean + wanted)
    return rho, missing


def shrink(found: SeriesScales, prior: Scales, n_independent: int) -> Scales:
    """Scales of rows, between what their series say and a prior for each.

    The prior holds up to a common factor. How far rows differ from it in truth is what their logarithms differ by
    beyond sampling error, nothing where chance explains it (at the 5% level): what little is there would be mostly
    noise. Rows without a series get the prior. n_independent: rows, those made of the same units counted once.
    """
    log_prior, prior_error = logarithm(prior.variance, prior.df, mean=True)
    log_found, error = logarithm(found.variance, found.df)
    known = np.isfinite(log_found)
    difference = np.where(known, log_found - log_prior, 0.0)
    common = float(difference[known].mean())
    n = int(np.count_nonzero(known))
    spread = float(difference[known].var(ddof=1)) if n > 1 else 0.0
    true = beyond_chance(spread, float(error[known].mean()), n_independent)
    share = np.where(known, np.sqrt(true / (true + error)) if true > 0.0 else 0.0, 0.0)
    log_scale = log_prior + common + share * (difference - common)
    of_common = (true + float(error[known].mean())) / n
    remaining = np.square(1.0 - share) * (true + prior_error + of_common)
    remaining += np.square(share) * np.where(known, error, 0.0)
    return mean_variance(log_scale, remaining)


def beyond_chance(variance: float, error: float, n: int) -> float:
    """Excess of a variance of n values over that of their sampling error, 0 where chance explains it (5% level)."""
    return variance - error if variance > error * (1.0 + NOTICED * np.sqrt(2.0 / max(n, 1))) else 0.0


def logarithm(variance: Floats, df: Floats, mean: bool = False) -> tuple[Floats, Floats]:
    """Estimates of log variances, and their error variances.

    variance, df: mean squares and their degrees of freedom; with ``mean``, means of what a variance may be, as
    `mean_variance` gives them.
    """
    half = np.asarray(df, dtype=float) / 2.0
    shift = digamma(half) - np.log(half)
    if mean:
        shift = shift + np.log(half / (half - 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(variance) - shift, np.asarray(polygamma(1, half))


def mean_variance(log_variance: Floats, error: Floats) -> Scales:
    """Means of variances whose logarithms are known with these error variances, and the degrees of freedom of that."""
    df = np.maximum(2.0 * inverse_trigamma(np.asarray(error, dtype=float)), FEWEST_DF)
    half = df / 2.0
    return Scales(np.exp(log_variance + digamma(half) - np.log(half)) * half / (half - 1.0), df)


def inverse_trigamma(value: Floats) -> Floats:
    """Solution x > 0 of trigamma(x) = value, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    value = np.maximum(value, 1.0 / _MOST_DF)
    x = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1.0 - trigamma / value) / polygamma(2, x)
        x = x + step
        if np.all(np.abs(step) <= 1e-10 * x):
            break
    return np.asarray(x)


def unit_variances(outcome: Floats, observed: Bools) -> Scales:
    """Relative noise variances of units, from residuals of two-way effects; all alike where these say nothing.

    outcome, observed: (n_units, n_periods), untreated cells only. Of the residuals' variances
    A_j (1 - 2/N) + mean(A) / N, the share that all units have in a period's mean is taken out again.
    """
    n = outcome.shape[0]
    residual = np.where(observed, outcome - equal_two_way_fit(outcome, observed), np.nan) if outcome.size else outcome
    size = float(np.nanmax(np.abs(outcome))) if observed.any() else 0.0
    known = np.isfinite(residual)
    mean_square = float(np.square(residual[known]).mean()) if known.any() else 0.0
    varies = mean_square > (1e-12 * size) ** 2
    alike = Scales(np.full(n, mean_square if varies else 1.0), np.full(n, FEWEST_DF))
    if outcome.shape[1] < 2 or n < 3 or not varies:
        return alike
    found = series_scales(residual)
    if not np.isfinite(found.variance).any():
        return alike
    shrunk = shrink(found, Scales(np.ones(n), np.full(n, 2.0 * _MOST_DF)), n)
    common = float(shrunk.variance.mean()) / (1.0 - 1.0 / n)
    own = np.maximum((shrunk.variance - common / n) / (1.0 - 2.0 / n), 0.05 * shrunk.variance)
    return Scales(own, shrunk.df)
