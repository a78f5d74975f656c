"""Standard errors and the intervals made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from scipy.special import ndtr, ndtri, stdtr, stdtrit


@dataclass(frozen=True, slots=True)
class VarianceEstimate:
    """What a variance estimator says of an ATT.

    conditioning: what the variance is conditional on (``none``, ``unit``, ``time``, ``unit_time``).
    std_error: in outcome units, finite and not negative. df: degrees of freedom, None for the normal distribution.
    n_replicates: re-estimates it rests on. event_std_errors: by event time, those that can be estimated.
    """

    std_error: float
    n_replicates: int
    df: float | None = None
    conditioning: str = "none"
    event_std_errors: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided test of no effect and a confidence interval.

    statistic, p_value: None when the standard error is zero, where neither is defined.
    """

    statistic: float | None
    p_value: float | None
    conf_low: float
    conf_high: float


def interval(estimate: float, std_error: float, df: float | None = None, confidence_level: float = 0.95) -> Interval:
    """Wald interval by the normal distribution, or by Student's t when df is given.

    A zero standard error gives the point interval. Raises ValueError for a level outside (0, 1), df <= 0, or a standard
    error that is negative or not finite.
    """
    if not 0.0 < confidence_level < 1.0:
        raise ValueError("confidence_level must lie between 0 and 1")
    if df is not None and not df > 0.0:
        raise ValueError("df must be positive")
    if not 0.0 <= std_error < float("inf"):
        raise ValueError("std_error must be finite and not negative")
    if std_error == 0.0:
        return Interval(None, None, estimate, estimate)
    upper = 0.5 + confidence_level / 2.0
    critical = float(ndtri(upper) if df is None else stdtrit(df, upper))
    statistic = estimate / std_error
    tail = float(ndtr(-abs(statistic)) if df is None else stdtr(df, -abs(statistic)))
    return Interval(statistic, 2.0 * tail, estimate - critical * std_error, estimate + critical * std_error)
