"""Standard errors and the intervals made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from causal_spark.panel.types import Floats


@dataclass(frozen=True, slots=True)
class ErrorBar:
    """A standard error in outcome units, finite and not negative, and what its intervals are made with.

    df: degrees of freedom of Student's t, None for the normal distribution.
    """

    std_error: float
    df: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether intervals can be made of it."""
        return 0.0 <= self.std_error < math.inf and (self.df is None or 0.0 < self.df < math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """Error bars of parts of an estimate.

    event_times: by event time, those that can be estimated. cells: (n_units, n_periods) standard errors of single
    effects, NaN where there are none; None if the variance has none at all.
    """

    event_times: Mapping[int, ErrorBar]
    cells: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VarianceEstimate:
    """What a variance estimator says of an estimate.

    att: of the ATT; n_replicates: re-estimates it rests on. details: works out the parts. permutation_p_value: of the
    sharp null hypothesis of no effect, where every assignment was tried.
    """

    att: ErrorBar
    n_replicates: int
    details: Callable[[], Details]
    permutation_p_value: float | None = None


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
