"""How far estimators err on simulated panels, and which errs least: root mean squared errors, compared draw by draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causal_spark.panel.types import Floats

#: Standard errors by which an estimator may miss the best and still count as no worse.
TIE = 2.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far one estimator errs, in units of the errors; Monte Carlo standard errors end in ``_mc_error``.

    n: draws with an estimate. normalised_rmse: RMSE over that of the best of all, on the draws that both have. place: 1
    for the smallest RMSE. tied: whether it is the best, or misses it by at most `TIE` standard errors of the ratio.
    """

    n: int
    rmse: float
    rmse_mc_error: float
    bias: float
    bias_mc_error: float
    normalised_rmse: float
    normalised_rmse_mc_error: float
    place: int
    tied: bool


def rmse(errors: Floats) -> tuple[float, float]:
    """Root mean square of (n,) errors, and its Monte Carlo standard error by the delta method."""
    squares = errors**2
    value = math.sqrt(float(squares.mean()))
    if errors.size < 2 or value == 0.0:
        return value, 0.0
    return value, float(squares.std(ddof=1)) / math.sqrt(errors.size) / (2.0 * value)


def log_ratio(errors: Floats, others: Floats) -> tuple[float, float]:
    """Logarithm of the ratio of two RMSEs on the same draws, (n,) each, and its standard error by the delta method."""
    squares, other_squares = errors**2, others**2
    mean, other_mean = float(squares.mean()), float(other_squares.mean())
    spread = squares / mean - other_squares / other_mean
    return 0.5 * math.log(mean / other_mean), 0.5 * float(spread.std(ddof=1)) / math.sqrt(errors.size)


def ratio(errors: Floats, others: Floats) -> tuple[float, float]:
    """The ratio itself and its standard error, on draws that both have, NaN elsewhere; NaN for fewer than two."""
    both = np.isfinite(errors) & np.isfinite(others)
    if both.sum() < 2 or not (errors[both].any() and others[both].any()):
        return math.nan, math.nan
    log, error = log_ratio(errors[both], others[both])
    return math.exp(log), math.exp(log) * error


def compare(errors: Mapping[str, Floats]) -> dict[str, Accuracy]:
    """Accuracy of estimators by name, the best first; those without an estimate in two draws are left out.

    errors: (n_draws,) of each, draw by draw of the same panels, NaN where an estimator gave none.
    """
    known = {name: one[np.isfinite(one)] for name, one in errors.items()}
    known = {name: one for name, one in known.items() if one.size > 1}
    order = sorted(known, key=lambda name: (rmse(known[name])[0], name))
    found = {}
    for place, name in enumerate(order, start=1):
        own = known[name]
        value, error = rmse(own)
        relative, relative_error = (1.0, 0.0) if place == 1 else ratio(errors[name], errors[order[0]])
        found[name] = Accuracy(
            own.size,
            value,
            error,
            float(own.mean()),
            float(own.std(ddof=1)) / math.sqrt(own.size),
            relative,
            relative_error,
            place,
            place == 1 or is_tied(relative, relative_error),
        )
    return found


def is_tied(relative: float, error: float) -> bool:
    """Whether a ratio is not above one by more than `TIE` of its standard errors; a ratio that is not known is not."""
    return relative > 0.0 and math.log(relative) <= TIE * error / relative
