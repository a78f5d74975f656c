"""DWCP with treated cells kept in and one constant effect, the estimator behind the published simulations of TROP.

See `causal_spark.panel.constant_effect` for the formula. Where effects are constant it is the most precise of the
family, since the first treated periods, which are easiest to predict, tell of all; where effects change over time it is
biased, and `dwcp_adaptive` is the safe choice.

Penalties are tuned on panels like the observed one whose effect is zero: placebo blocks of the treated cells' shape and
draws of a model fitted to the panel, by the squared error of the ATT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causal_spark.panel.constancy import Block, ConstancyOptions, assess, calibration_panels, read_block
from causal_spark.panel.constant_effect import constant_at, constant_fits
from causal_spark.panel.tuning import (
    BlockSearch,
    Triple,
    block_search,
    check_grids,
    check_tolerances,
    given_triple,
    triple_of,
)
from causal_spark.panel.types import Fit, Floats, Ints, Panel, PanelSize, Penalties, TuningStep


@dataclass(frozen=True, slots=True)
class DwcpConstantOptions:
    """How the constant version of DWCP is tuned.

    lambda_time: candidates for the decay per period from the treated cells' middle, >= 0.
    lambda_unit: candidates for the decay per standard deviation of distance to the treated units' mean path, >= 0.
    lambda_nn: candidates for the nuclear-norm penalty, > 0; infinity stands for no low-rank part.
    unit_placebos, time_placebos, bootstraps: panels to tune on, each >= 0, one of them positive.
    tolerance: precision of the effect, in standard deviations of the control cells.
    """

    lambda_time: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.2)
    lambda_unit: tuple[float, ...] = (0.0, 0.3, 0.6, 1.5)
    lambda_nn: tuple[float, ...] = (math.inf, 3.0, 1.0, 0.3, 0.08, 0.02, 0.006)
    unit_placebos: int = 8
    time_placebos: int = 8
    bootstraps: int = 10
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_grids(self.lambda_time, self.lambda_unit, self.lambda_nn)
        check_tolerances(tolerance=self.tolerance)
        counts = (self.unit_placebos, self.time_placebos, self.bootstraps)
        if min(counts) < 0 or max(counts) == 0:
            raise ValueError("unit_placebos, time_placebos and bootstraps must not be negative, nor all zero.")


_DEFAULTS = DwcpConstantOptions()


def dwcp_constant(
    panel: Panel, options: DwcpConstantOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0
) -> Fit:
    """Estimate one effect for all identified treated cells.

    Any assignment pattern and missing cells. At treated cells ``counterfactual`` is the outcome less the effect, at
    untreated cells of treated units alpha + beta + L. ``criterion`` is the mean squared error of the ATT over placebos,
    over its median among the candidates, plus the same over bootstraps, see `BlockSearch`. ``constancy`` tests that the
    effect does not change over time; not where penalties are given.
    Raises NoTreatedCellsError, NotIdentifiedError, UnsupportedCovariatesError, ConstantOutcomeError, and ValueError for
    given penalties out of range.
    """
    block = read_block(panel)
    path: tuple[TuningStep, ...] = ()
    triple: Triple
    if penalties is None:
        triple, path = tune(block, options, seed)
    else:
        triple = given_triple(penalties)
    one = [np.array([value]) for value in triple]
    fits = constant_fits(block.panels, one[0], one[1], one[2], tolerance=options.tolerance, with_fitted=True)
    assert fits.fitted is not None  # noqa: S101 - asked for
    return Fit(
        counterfactual=block.counterfactual(fits.fitted[0], float(fits.effects[0, 0])),
        penalties=Penalties(*triple),
        tuning="fixed" if penalties is not None else "block" if path else "none",
        criterion=next((step.criterion for step in reversed(path) if triple_of(step) == triple), None),
        path=path,
        rank=int(fits.rank[0]),
        converged=bool(fits.converged.all()),
        constancy=assess(block, ConstancyOptions(), seed).constancy if penalties is None else None,
    )


def tune(block: Block, options: DwcpConstantOptions, seed: int) -> tuple[Triple, tuple[TuningStep, ...]]:
    """The triple with the smallest score, and all that were tried; without panels to tune on, no weighting at all.

    Free effects are taken out before bootstraps are drawn, so an effect that depends on the event group alone, see
    `event_groups`, changes nothing; with up to 12 treated periods that is any effect common to the treated units.
    """
    rng = np.random.default_rng([seed, 1])
    counts = options.unit_placebos, options.time_placebos, options.bootstraps
    everything = calibration_panels(block, block.untreated() if options.bootstraps else block.standard, counts, rng)
    if everything is None:
        return (0.0, min(options.lambda_unit), math.inf), ()

    def squares(triples: list[Triple], where: Ints) -> Floats:
        fits = constant_at(everything.panels.take(where), triples, tolerance=1e-3)
        errors = fits.effects[:, 0].reshape(len(triples), -1) * everything.inflation[where]
        return np.asarray(errors**2)

    grids = options.lambda_time, options.lambda_unit, options.lambda_nn
    return block_search(BlockSearch(tuple(everything.placebo.tolist()), *grids), squares)


def dwcp_constant_cost(size: PanelSize, options: DwcpConstantOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit: block fits for the estimate, for the test of constancy, and for tuning."""
    one = block_fit_cost(size)
    fits = 2.0 + 110.0
    if tune:
        panels = options.unit_placebos + options.time_placebos + options.bootstraps
        pairs = len(options.lambda_time) * len(options.lambda_nn)
        fits += 6 * pairs + (8 + len(options.lambda_unit)) * panels
    return 5e-3 + fits * one


def block_fit_cost(size: PanelSize) -> float:
    """Seconds of one low-rank fit of a whole panel with an effect in it, of moderate rank."""
    short, long = sorted((size.n_units, size.n_periods))
    width = 2.0 + short / 3.0
    sweep = 3e-5 + 2e-9 * long * short * width + 1e-9 * short**3 + 3e-10 * min(long, 600) ** 3
    return 2e-4 + 13.0 * sweep
