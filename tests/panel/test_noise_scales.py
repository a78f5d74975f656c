"""Scales of series, their logarithms, and how they are shrunk, against simulations in which the truth is known."""

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import f as f_distribution

from causal_spark.panel.blocks import n_fitted
from causal_spark.panel.difp import difp
from causal_spark.panel.noise_scales import (
    Scales,
    inverse_trigamma,
    logarithm,
    mean_variance,
    series_scales,
    shrink,
    unit_variances,
)
from causal_spark.panel.sc import sc
from causal_spark.panel.sdid import SdidOptions, sdid
from tests.panel.panels import block_panel, panel_of


def noise(rng, scales, n_periods, ar=0.0, period_scales=1.0):
    """(n_rows, n_periods) a_j b_t e_jt, e stationary of variance 1."""
    e = rng.normal(size=(len(scales), n_periods))
    for t in range(1, n_periods):
        e[:, t] = ar * e[:, t - 1] + np.sqrt(1.0 - ar**2) * e[:, t]
    return np.asarray(scales)[:, None] * period_scales * e


def demeaned(series):
    return series - series.mean(axis=1, keepdims=True)


def alike(n, df=1e9):
    return Scales(np.ones(n), np.full(n, df))


def test_the_inverse_of_trigamma_inverts_it():
    x = np.geomspace(0.02, 1e7, 60)
    np.testing.assert_allclose(inverse_trigamma(polygamma(1, x)), x, rtol=1e-8)
    assert inverse_trigamma(np.array(np.pi**2 / 6)) == pytest.approx(1.0, rel=1e-9)
    # No error at all: so many degrees of freedom that nothing depends on their number.
    assert 1e6 < inverse_trigamma(np.zeros(1))[0] < np.inf


@pytest.mark.parametrize("df", [3.0, 8.0, 40.0])
def test_logarithms_of_mean_squares_are_unbiased_with_the_errors_they_say(df):
    n = 40_000
    variance = 2.5 * np.random.default_rng(0).chisquare(df, n) / df
    found, error = logarithm(variance, np.full(n, df))
    assert error == pytest.approx(np.full(n, polygamma(1, df / 2)))
    assert found.mean() == pytest.approx(np.log(2.5), abs=4.0 * np.sqrt(error[0] / n))
    assert found.var() == pytest.approx(error[0], rel=0.06)


@pytest.mark.parametrize("df", [5.0, 8.0, 40.0])
def test_the_mean_of_what_a_variance_may_be_is_that_of_an_inverse_chi_square_variable(df):
    """With a flat prior of the logarithm, variance x df / chi-square is what the true one may be."""
    found = mean_variance(*logarithm(np.array([2.5]), np.array([df])))
    assert found.df == pytest.approx([df], rel=1e-6)
    assert found.variance == pytest.approx([2.5 * df / (df - 2.0)], rel=1e-6)
    draws = 2.5 * df / np.random.default_rng(1).chisquare(df, 400_000)
    assert np.median(draws) < found.variance[0] == pytest.approx(draws.mean(), rel=0.03)


def test_means_of_what_variances_may_be_and_their_logarithms_invert_each_other():
    log_variance, error = np.array([-30.0, -1.0, 0.0, 4.0, 25.0]), np.array([1e-6, 0.01, 0.1, 0.3, 0.5])
    found = mean_variance(log_variance, error)
    assert np.all(np.diff(found.df) < 0.0)
    back, back_error = logarithm(found.variance, found.df, mean=True)
    np.testing.assert_allclose(back, log_variance, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back_error, error, rtol=1e-6)


def test_degrees_of_freedom_never_fall_to_where_the_mean_is_infinite():
    found = mean_variance(np.zeros(2), np.array([5.0, 1e6]))
    assert np.all(found.df > 4.0)
    assert np.all(np.isfinite(found.variance))


@pytest.mark.parametrize("df", [6.0, 20.0])
def test_t_with_these_degrees_of_freedom_covers_with_an_estimated_variance(df):
    """The rule intervals rest on: mean of what the variance may be, times (1 - 2 / df), is the mean square itself."""
    rng = np.random.default_rng(2)
    n = 20_000
    estimated = rng.chisquare(df, n) / df
    found = mean_variance(*logarithm(estimated, np.full(n, df)))
    statistic = rng.normal(size=n) ** 2 / (found.variance * (1.0 - 2.0 / found.df))
    assert np.mean(statistic < f_distribution.ppf(0.95, 1, df)) == pytest.approx(0.95, abs=0.007)


def test_alike_series_get_nearly_equal_scales():
    found = series_scales(demeaned(noise(np.random.default_rng(3), np.ones(100), 20)))
    shrunk = shrink(found, alike(100), 100)
    assert found.variance.max() / found.variance.min() > 3.0
    assert shrunk.variance.max() / shrunk.variance.min() < 1.35
    # They are known better together than any by itself.
    assert shrunk.df.min() > 2.0 * found.df.max()


@pytest.mark.parametrize("seed", range(4))
def test_scales_are_known_no_better_than_by_all_series_together(seed):
    found = series_scales(demeaned(noise(np.random.default_rng(seed), np.ones(8), 20)))
    assert shrink(found, alike(8), 8).df.max() < 1.2 * found.df.sum()


@pytest.mark.parametrize("spread", [0.3, 0.5])
def test_shrunk_scales_are_as_spread_as_the_true_ones_unlike_posterior_means(spread):
    """Constrained empirical Bayes: logarithms of variances have the standard deviation 2 x spread."""
    rng = np.random.default_rng(4)
    true = 2.0 * spread * rng.normal(size=400)
    found = series_scales(demeaned(noise(rng, np.exp(true / 2.0), 10)))
    shrunk = shrink(found, alike(400), 400)
    logs, errors = logarithm(found.variance, found.df)
    kept = np.log(shrunk.variance).var()
    posterior = (true.var() / (true.var() + errors.mean())) ** 2 * logs.var()
    assert kept == pytest.approx(true.var(), rel=0.15)
    assert posterior < 0.87 * true.var()
    assert posterior < 0.95 * kept < 0.95 * logs.var()
    # So the noisiest are as noisy beside the rest as they should be, and the order stays.
    above = [np.quantile(logs, 0.9) - np.median(logs) for logs in (np.log(shrunk.variance), true)]
    assert above[0] == pytest.approx(above[1], rel=0.12)
    np.testing.assert_array_equal(np.argsort(shrunk.variance), np.argsort(found.variance))


def test_scales_are_shrunk_towards_a_prior_that_holds_up_to_a_common_factor():
    rng = np.random.default_rng(5)
    scales = np.exp(rng.normal(size=200))
    found = series_scales(demeaned(noise(rng, scales, 8)))
    prior = Scales(7.0 * scales**2, np.full(200, 1e9))
    informed, uninformed = (np.log(shrink(found, one, 200).variance / scales**2) for one in (prior, alike(200)))
    assert informed.std() < 0.1
    assert uninformed.std() > 0.3
    # At their own level, which demeaning lowers, not at that of the prior.
    assert informed.mean() == pytest.approx(np.log(7 / 8), abs=0.1)


def test_rows_without_a_series_get_the_prior_at_the_level_of_the_others():
    rng = np.random.default_rng(6)
    scales = 3.0 * np.exp(0.4 * rng.normal(size=60))
    series = demeaned(noise(rng, scales, 30))
    series[[4, 9]] = np.nan
    prior = np.where(np.arange(60) == 9, 5.0, 1.0)
    found = series_scales(series)
    assert np.isnan(found.variance[[4, 9]]).all()
    shrunk = shrink(found, Scales(prior, np.full(60, 1e9)), 60)
    # The mean of what they may be is that of the others' distribution, in its units, and they are known least of all.
    assert shrunk.variance[4] == pytest.approx(np.mean(scales**2), rel=0.2)
    assert shrunk.variance[9] == pytest.approx(5.0 * shrunk.variance[4], rel=1e-3)
    assert shrunk.df[4] == pytest.approx(shrunk.df[9])
    assert shrunk.df[4] < 0.5 * np.delete(shrunk.df, [4, 9]).min()


def test_unit_and_period_scales_are_told_apart():
    rng = np.random.default_rng(7)
    a, b = np.exp(0.5 * rng.normal(size=300)), np.exp(0.5 * rng.normal(size=40))
    found = series_scales(noise(rng, a, 40, period_scales=b))
    np.testing.assert_allclose(np.log(found.period / found.period.mean()), np.log(b**2 / np.mean(b**2)), atol=0.4)
    error = np.log(found.variance) - np.log(a**2)
    assert error.std() == pytest.approx(np.sqrt(2.0 / 40), rel=0.25)
    # Weighted by period scales, so that noisy periods do not decide alone.
    plain = np.log(np.mean(noise(np.random.default_rng(7), a, 40, period_scales=b) ** 2, axis=1)) - np.log(a**2)
    assert error.std() < plain.std()


def test_missing_residuals_count_neither_as_zeros_nor_as_degrees_of_freedom():
    rng = np.random.default_rng(8)
    a = np.exp(0.6 * rng.normal(size=200))
    series = noise(rng, a, 30)
    whole = series_scales(series)
    gappy = np.where(rng.random(series.shape) < 0.4, np.nan, series)
    found = series_scales(gappy)
    ratio = np.log(found.variance / whole.variance)
    assert abs(np.median(ratio)) < 0.06
    assert ratio.std() < 0.4
    n = np.isfinite(gappy).sum(axis=1)
    assert np.corrcoef(n, found.df)[0, 1] > 0.99
    assert np.all(found.df <= n)
    assert found.df.mean() == pytest.approx(0.6 * whole.df.mean(), rel=0.1)


def test_rows_and_periods_without_residuals_do_not_touch_the_others():
    rng = np.random.default_rng(9)
    series = noise(rng, np.exp(rng.normal(size=20)), 12)
    whole = series_scales(series)
    padded = series_scales(np.pad(series, ((0, 1), (0, 1)), constant_values=np.nan))
    np.testing.assert_allclose(padded.variance[:20], whole.variance, rtol=1e-9)
    np.testing.assert_allclose(padded.period[:12], whole.period, rtol=1e-9)
    assert np.isnan(padded.variance[20])
    assert np.isnan(padded.period[12])


def test_parameters_fitted_to_a_series_are_no_degrees_of_freedom_of_it():
    series = noise(np.random.default_rng(17), np.ones(120), 20)
    fitted = np.tile([0.0, 5.0, 17.9, 18.5, 25.0, 0.0], 20)
    plain, found = series_scales(series), series_scales(series, fitted)
    # Those that leave nothing to go by tell nothing, and do not count among the others.
    told = fitted < 18.0
    np.testing.assert_array_equal(np.isfinite(found.variance), told)
    np.testing.assert_allclose(series_scales(series[told], fitted[told]).variance, found.variance[told])
    ratio = (found.variance / plain.variance).reshape(20, 6).mean(axis=0)
    np.testing.assert_allclose(ratio[1:3] / ratio[0], [20 / 15, 20 / 2.1], rtol=0.1)
    df = found.df.reshape(20, 6)[0]
    assert df[0] == df[5] > df[1] > df[2] >= 1.0


@pytest.mark.parametrize("fitted", [5.0, 12.0])
def test_parameters_fitted_to_all_series_alike_raise_all_mean_squares_by_their_share(fitted):
    """And no more: levels are compared between starts, whose shares differ."""
    series = noise(np.random.default_rng(17), np.exp(np.linspace(-1.0, 1.0, 9)), 20)
    plain, found = series_scales(series), series_scales(series, np.full(9, fitted))
    np.testing.assert_allclose(found.variance, plain.variance * 20 / (20 - fitted), rtol=0.02)
    np.testing.assert_allclose(found.period, plain.period, rtol=0.02)


@pytest.mark.parametrize("method", [sc, difp], ids=lambda f: f.__name__)
def test_parameters_of_weights_are_counted_so_that_residuals_tell_the_noise(method):
    """Treated units are averages of six donors plus noise: five free weights, and an intercept but for SC."""
    rng = np.random.default_rng(18)
    treated = block_panel(7, 31, 1, 1).treated
    mean_squares, corrected, counts = [], [], []
    for _ in range(80):
        donors = 3.0 * np.cumsum(rng.normal(size=(6, 31)), axis=1)
        panel = panel_of(np.vstack([donors, donors.mean(axis=0) + rng.normal(size=31)]), treated)
        (block,) = (fit := method(panel)).blocks
        residual = (panel.outcome - fit.counterfactual)[-1, :30]
        mean_squares.append(np.mean(residual**2))
        counts.append(n_fitted(panel.outcome, block))
        corrected.append(mean_squares[-1] * 30 / (30 - counts[-1]))
    n_parameters = 5 if method is sc else 6
    assert n_parameters - 0.5 < np.mean(counts) <= n_parameters
    assert np.mean(corrected) == pytest.approx(1.0, rel=0.1)
    assert np.mean(mean_squares) < 0.87


def test_a_strong_ridge_leaves_the_intercept_as_the_only_parameter():
    panel = block_panel(9, 12, 1, 2)
    fits = [sdid(panel, SdidOptions(ridge_unit=ridge)) for ridge in (0.0, 1.0, 1e5)]
    counts = [n_fitted(panel.outcome, fit.blocks[0]) for fit in fits]
    assert counts[0] == pytest.approx(np.count_nonzero(fits[0].blocks[0].unit))
    assert counts[0] > counts[1] > counts[2] == pytest.approx(1.0, abs=1e-6)


def test_series_scale_with_their_squares():
    series = demeaned(noise(np.random.default_rng(10), np.exp(np.linspace(-1.0, 1.0, 30)), 15, ar=0.3))
    found, scaled = series_scales(series), series_scales(1e-7 * series)
    np.testing.assert_allclose(scaled.variance, 1e-14 * found.variance, rtol=1e-9)
    np.testing.assert_allclose(scaled.df, found.df, rtol=1e-9)
    np.testing.assert_allclose(scaled.autocorrelation, found.autocorrelation, atol=1e-9)


@pytest.mark.parametrize("ar", [0.0, 0.5])
@pytest.mark.parametrize("n_periods", [15, 30])
def test_autocorrelations_are_corrected_for_demeaning(ar, n_periods):
    """Taking means out of rows of T values lowers all autocovariances by the variance of such a mean.

    That rows are scaled by their own mean squares lowers those at lag 1 by some ar / T, which is corrected at that lag.
    """
    series = noise(np.random.default_rng(11), np.exp(np.linspace(-1.0, 1.0, 1500)), n_periods, ar)
    found, not_demeaned = series_scales(demeaned(series)), series_scales(series)
    lag = np.arange(1, 4)
    within = 0.02 + ar / n_periods
    np.testing.assert_allclose(found.autocorrelation[:3], ar**lag, atol=within)
    standard = demeaned(series) / np.sqrt(found.variance[:, None] * found.period)
    raw = np.array([np.mean(standard[:, k:] * standard[:, :-k]) for k in lag])
    assert np.all(np.abs(raw - ar**lag) > 1.5 * np.abs(found.autocorrelation[:3] - ar**lag))
    of_mean = np.array([(1.0 - k / n_periods) * ar**k for k in range(1, n_periods)])
    assert found.shrinkage == pytest.approx((1.0 + 2.0 * of_mean.sum()) / n_periods, rel=0.25)
    # Rows that have their own means are left as they are.
    np.testing.assert_allclose(not_demeaned.autocorrelation[:3], ar**lag, atol=within)
    assert not_demeaned.shrinkage < 0.01


@pytest.mark.parametrize("ar", [0.0, 0.6])
def test_degrees_of_freedom_are_those_of_the_sampling_error(ar):
    """Trigamma of half of them is the variance of log mean squares of alike rows, which is larger when persistent."""
    n_periods = 24
    found = series_scales(demeaned(noise(np.random.default_rng(12), np.ones(3000), n_periods, ar)))
    assert np.log(found.variance).var() == pytest.approx(polygamma(1, np.median(found.df) / 2.0), rel=0.2)
    if ar == 0.0:
        np.testing.assert_allclose(found.df, n_periods - 1, rtol=0.03)
    else:
        assert found.df.max() < 0.6 * n_periods


def test_noise_of_units_comes_from_residuals_of_two_way_effects():
    rng = np.random.default_rng(13)
    a = np.exp(0.6 * rng.normal(size=60))
    outcome = 50.0 * rng.normal(size=(60, 1)) + 20.0 * rng.normal(size=25) + noise(rng, a, 25)
    observed = rng.random(outcome.shape) > 0.1
    found = unit_variances(outcome, observed)
    error = np.log(found.variance) - np.log(a**2)
    assert error.std() < 0.45
    assert np.log(found.variance).std() == pytest.approx(np.log(a**2).std(), rel=0.25)
    # Up to a factor, neither effects nor the unit of measurement matter, nor what is written where nothing is observed.
    other = unit_variances(np.where(observed, 1e3 * (outcome + np.arange(25.0)), np.nan), observed)
    np.testing.assert_allclose(other.variance, 1e6 * found.variance, rtol=1e-6)


def test_the_share_of_a_noisy_unit_in_period_means_is_not_taken_for_noise_of_the_others():
    """Of residuals' variances the ratio would be 10; that of 16 is not quite reached, as period scales follow it."""
    rng = np.random.default_rng(14)
    scales = np.where(np.arange(10) == 3, 4.0, 1.0)
    found = [unit_variances(noise(rng, scales, 400), np.ones((10, 400), dtype=bool)).variance for _ in range(4)]
    ratio = np.mean([one[3] / np.delete(one, 3).mean() for one in found])
    assert 0.7 * 16.0 < ratio < 1.05 * 16.0


@pytest.mark.parametrize(
    ("shape", "value"),
    [((6, 0), 1.0), ((6, 1), None), ((2, 9), None), ((1, 9), None), ((6, 9), 0.0), ((6, 9), 0.1), ((6, 9), -3e8)],
    ids=["no period", "one period", "two units", "one unit", "zero", "constant", "large constant"],
)
def test_units_are_taken_as_alike_where_nothing_tells_them_apart(shape, value):
    outcome = np.random.default_rng(15).normal(size=shape) if value is None else np.full(shape, value)
    found = unit_variances(outcome, np.ones(shape, dtype=bool))
    np.testing.assert_array_equal(found.variance, found.variance[0])
    assert found.variance[0] > 0.0
    assert np.all(found.df == found.df[0])


@pytest.mark.parametrize("level", [1.0, 1e9])
def test_rounding_about_two_way_effects_is_no_noise(level):
    rng = np.random.default_rng(16)
    outcome = level * (rng.normal(size=(6, 1)) + rng.normal(size=9))
    np.testing.assert_array_equal(unit_variances(outcome, np.ones((6, 9), dtype=bool)).variance, np.ones(6))
