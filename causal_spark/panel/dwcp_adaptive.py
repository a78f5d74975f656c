"""DWCP between a constant and a changing effect: as precise as the data allow, as safe as synthetic DiD.

Four estimates are combined (see `causal_spark.panel.constancy`): the constant effect c of DWCP, synthetic
difference-in-differences S, and the linear and quadratic contrasts s of the free effects over time. With a constant
effect c is the more precise; with a changing one it is biased, to first order by the contrasts times its slopes in
them. How much effects may change, sigma, is unknown, so generalised least squares means are taken for several sigma and
averaged by how well each explains what was found (its marginal likelihood). The weight of sigma = 0 is the weight of
constancy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from causal_spark.errors import SolverError
from causal_spark.panel.constancy import Assessment, ConstancyOptions, assess, growth, read_block
from causal_spark.panel.dwcp_constant import block_fit_cost
from causal_spark.panel.sdid import sdid_cost
from causal_spark.panel.tuning import check_grids, given_triple
from causal_spark.panel.types import Fit, Floats, Panel, PanelSize, Penalties

# Prior weight of no change at all; the other amounts of change share the rest.
_PRIOR_CONSTANT = 0.1
# Amounts of change that are weighed, in standard errors of the linear contrast.
_CHANGES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_MOST_CHANGES = 40


@dataclass(frozen=True, slots=True)
class DwcpAdaptiveOptions:
    """At which penalties the constant and free effects are fitted, and on how many panels their errors are measured.

    lambda_time: decay per period from the treated cells' middle, >= 0. lambda_nn: nuclear-norm penalty for panels of up
    to 100 units, at least `LAMBDA_NN_FLOOR`; with more it grows with the square root of their number.
    unit_placebos, time_placebos, bootstraps: calibration panels of each kind at most, >= 0.
    """

    lambda_time: float = 0.6
    lambda_nn: float = 0.04
    unit_placebos: int = 16
    time_placebos: int = 8
    bootstraps: int = 32

    def __post_init__(self) -> None:
        check_grids((self.lambda_time,), (0.0,), (self.lambda_nn,))
        if min(self.unit_placebos, self.time_placebos, self.bootstraps) < 0:
            raise ValueError("unit_placebos, time_placebos and bootstraps must not be negative.")
        if self.unit_placebos + self.time_placebos + self.bootstraps < 8:
            raise ValueError("unit_placebos, time_placebos and bootstraps must be 8 at least, taken together.")


_DEFAULTS = DwcpAdaptiveOptions()


def dwcp_adaptive(
    panel: Panel, options: DwcpAdaptiveOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0
) -> Fit:
    """Average DWCP's constant effect and synthetic DiD by how constant the effect appears to be.

    Lasting treatment, staggered or not, with missing cells; any number of treated units and periods. Nothing is tuned:
    ``penalties`` replace the options' lambda_time and lambda_nn. At treated cells ``counterfactual`` is that of
    synthetic DiD moved by one number, so that the mean effect is the estimate and effects may still differ by cell.
    Raises what `read_block` and `sdid` raise, SolverError when no calibration panel can be fitted, and ValueError for
    given penalties out of range.
    """
    block = read_block(panel)
    given = Penalties() if penalties is None else penalties
    time = options.lambda_time if given.lambda_time is None else given.lambda_time
    grown = growth(panel.n_units)
    nn = options.lambda_nn * grown if given.lambda_nn is None else given.lambda_nn
    time, _, nn = given_triple(Penalties(time, 0.0, nn))
    found = assess(
        block,
        ConstancyOptions(time, nn / grown, options.unit_placebos, options.time_placebos, options.bootstraps),
        seed,
        with_sdid=True,
    )
    estimate, weight = combine(found)
    if found.sdid is None:  # pragma: no cover - it was asked for
        raise SolverError("Synthetic DiD gave no fit.", "Report this as a defect of causal_spark.")
    shift = (found.estimates[1] - estimate) * block.scale
    return Fit(
        counterfactual=np.where(panel.treated, found.sdid.counterfactual + shift, found.sdid.counterfactual),
        penalties=Penalties(time, 0.0, nn),
        tuning="none",
        weights=found.sdid.weights,
        rank=found.rank,
        converged=found.converged and found.sdid.converged,
        notices=found.sdid.notices,
        constancy=replace(found.constancy, weight=weight),
    )


def combine(found: Assessment) -> tuple[float, float | None]:
    """The averaged effect in standard deviations, and the weight of constancy, None where it cannot be judged.

    Raises SolverError without calibration panels.
    """
    if found.n == 0:
        raise SolverError(
            "No panel like this one could be made to measure errors on.", "Use sdid or dwcp, or add untreated units."
        )
    y, covariance = found.estimates, found.covariance
    k = found.slopes.size
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():
        # Somewhere no errors are made at all, so there is nothing to weigh.
        return float(y[1] if scale[1] <= scale[0] else y[0]), None
    if k == 0:
        return gls(y, covariance)[0], None
    moves = np.zeros((y.size, k + 1))
    moves[0, :k], moves[0, k] = found.slopes, 1.0
    moves[2:, :k] = np.eye(k)
    # Changes of other shapes move c too, by about as much as linear and quadratic ones of their size do.
    unknown = float(np.linalg.norm(found.slopes * np.array([1.0, 0.5])[:k]))
    changes = _changes(y[2:], scale[2])
    means, logs = np.empty(len(changes)), np.empty(len(changes))
    for place, change in enumerate(changes):
        sigma = change * scale[2]
        spread = sigma * np.array([*[1.0, 0.5][:k], unknown])
        means[place], logs[place] = gls(y, covariance + (moves * spread**2) @ moves.T)
    prior = np.full(len(changes), (1.0 - _PRIOR_CONSTANT) / (len(changes) - 1))
    prior[0] = _PRIOR_CONSTANT
    weight = prior * np.exp(logs - logs.max())
    weight /= weight.sum()
    return float(weight @ means), float(weight[0])


def _changes(contrasts: Floats, unit: float) -> list[float]:
    """`_CHANGES`, and beyond them by doubling where the contrasts are larger still.

    Too small a sigma would take the slopes, which hold for small changes, at their word.
    """
    changes = list(_CHANGES)
    while changes[-1] * unit < 2.0 * float(np.abs(contrasts).max()) and len(changes) < _MOST_CHANGES:
        changes.append(2.0 * changes[-1])
    return changes


def gls(y: Floats, covariance: Floats) -> tuple[float, float]:
    """Mean of the first two of y, both unbiased, the rest having mean zero; log marginal likelihood, flat prior."""
    direction = np.zeros(y.size)
    direction[:2] = 1.0
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale) + 1e-10 * np.eye(y.size)
    solved = np.linalg.solve(correlation, np.column_stack([direction / scale, y / scale]))
    information = float(direction / scale @ solved[:, 0])
    mean = float(direction / scale @ solved[:, 1]) / information
    squares = float(y / scale @ solved[:, 1]) - mean**2 * information
    log_size = float(np.linalg.slogdet(correlation)[1]) + 2.0 * float(np.log(scale).sum())
    return mean, -0.5 * (log_size + math.log(information) + squares)


def dwcp_adaptive_cost(size: PanelSize, options: DwcpAdaptiveOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit: constant and free block fits, and synthetic DiD, on every calibration panel."""
    n = 4 + options.unit_placebos + options.time_placebos + options.bootstraps
    return 1e-2 + n * (3.5 * block_fit_cost(size) + sdid_cost(size))
