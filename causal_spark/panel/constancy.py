"""Is the effect constant over time? What the estimates of a constant and of a free effect say, and how far they err.

At one fixed set of penalties three things are computed on the panel and on panels like it whose true effect is zero
(`causal_spark.panel.calibration_panels`): the constant effect c, the free effects by periods since the start of
treatment, summed up as linear and quadratic contrasts s and their mean over cells, and the synthetic
difference-in-differences S. Their errors on the calibration panels give the covariance V of (c, S, s). With a constant
effect c and the mean free effect have the same mean and s is zero: the quadratic form of these differences in the
inverse of their own covariance is the test statistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtrc

from causal_spark.errors import GroupError, NotIdentifiedError, UnsupportedCovariatesError
from causal_spark.panel.calibration_panels import CalibrationPanels, bootstrap_panels, join, placebo_panels
from causal_spark.panel.constant_effect import ConstantFits, TreatedPanels, constant_fits, contrasts, event_groups
from causal_spark.panel.did import require_targets
from causal_spark.panel.sdid import sdid
from causal_spark.panel.summary import att
from causal_spark.panel.tuning import scale_of
from causal_spark.panel.two_way import identified_cells
from causal_spark.panel.types import Bools, Constancy, Counts, Fit, Floats, Panel

# Size of the profile, in standard deviations, that is added to see how it moves the constant effect.
_PROFILE = 0.05


@dataclass(frozen=True, slots=True)
class ConstancyOptions:
    """At which penalties, and on what panels, constancy is judged.

    lambda_time: decay per period from the treated cells' middle. lambda_nn: nuclear-norm penalty, times `growth`.
    unit_placebos, time_placebos, bootstraps: calibration panels of each kind, at most. shrink: by what estimated
    covariances between estimates are multiplied, being noisy. tolerance: precision of the panel's own estimates, in
    standard deviations; those of calibration panels need less.
    """

    lambda_time: float = 0.6
    lambda_nn: float = 0.04
    unit_placebos: int = 16
    time_placebos: int = 8
    bootstraps: int = 32
    shrink: float = 0.7
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The treated cells of a panel, ready to be fitted with their effects in.

    standard: (n_units, n_periods) outcomes in standard deviations of the control cells; observed, treated: cells that
    enter, treated ones only where they are identified. centre, scale: of the outcome.
    """

    panel: Panel
    standard: Floats
    observed: Bools
    treated: Bools
    centre: float
    scale: float

    @property
    def panels(self) -> TreatedPanels:
        """The observed panel as a stack of one."""
        return TreatedPanels.one(self.standard, self.observed, self.treated)

    def untreated(self) -> Floats:
        """(n_units, n_periods): standardised outcomes less the free effects at pilot penalties."""
        options = ConstancyOptions()
        groups = event_groups(self.treated)
        effects = _free(self.panels, groups[None], int(groups.max()) + 1, options).effects
        return np.where(groups >= 0, self.standard - effects[0][np.maximum(groups, 0)], self.standard)

    def counterfactual(self, fitted: Floats, effect: float) -> Floats:
        """(n_units, n_periods): outcome less the effect at target cells, fitted values at others of treated units."""
        rows = np.asarray(self.treated.any(axis=1))
        found = np.where(self.observed & ~self.treated & rows[:, None], fitted, np.nan)
        found[self.treated] = self.standard[self.treated] - effect
        return found * self.scale + self.centre


def read_block(panel: Panel) -> Block:
    """The treated cells that a fit with effects in can tell something of.

    Those whose unit and period are linked through control cells. Other treated cells leave the fit.
    Raises NoTreatedCellsError, NotIdentifiedError, UnsupportedCovariatesError and ConstantOutcomeError.
    """
    require_targets(panel)
    if panel.covariates is not None:
        raise UnsupportedCovariatesError(
            "This estimator takes no covariates.", "Leave them out, or use did or dwcp, which do."
        )
    controls = panel.control_cells
    targets = panel.target_cells & identified_cells(controls)
    if not targets.any():
        raise NotIdentifiedError(
            "No treated cell's unit and period are linked through control cells.",
            "Add control units observed in the treated periods, and periods before treatment.",
        )
    origin, mean, scale = scale_of(panel)
    observed = controls | targets
    standard = np.where(observed, (np.where(observed, panel.outcome, origin) - origin - mean) / scale, 0.0)
    return Block(panel, standard, observed, targets, origin + mean, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """What the estimates say, in standard deviations.

    estimates: (2 + k,), c, S and k contrasts s; covariance of their errors; slopes: (k,) change of c per unit of each
    contrast; constancy: the test; n: calibration panels; converged: whether all fits reached their tolerance; sdid: the
    fit of S; rank: of the constant fit.
    """

    estimates: Floats
    covariance: Floats
    slopes: Floats
    constancy: Constancy
    n: int
    converged: bool
    sdid: Fit | None
    rank: int


def growth(n_units: int) -> float:
    """By what a nuclear-norm penalty that suits 100 units is multiplied for more: singular values of noise grow so."""
    return math.sqrt(max(n_units, 100) / 100.0)


def _penalties(panels: TreatedPanels, options: ConstancyOptions) -> tuple[Floats, Floats, Floats]:
    ones = np.ones(panels.n)
    nn = options.lambda_nn * growth(panels.outcome.shape[1])
    return options.lambda_time * ones, 0.0 * ones, nn * ones


def _constant(panels: TreatedPanels, options: ConstancyOptions) -> ConstantFits:
    return constant_fits(panels, *_penalties(panels, options), tolerance=options.tolerance)


def _free(panels: TreatedPanels, groups: Counts, n_groups: int, options: ConstancyOptions) -> ConstantFits:
    penalties = _penalties(panels, options)
    return constant_fits(panels, *penalties, groups=groups, n_groups=n_groups, tolerance=options.tolerance)


def calibration_panels(
    block: Block, untreated: Floats, counts: tuple[int, int, int], rng: np.random.Generator
) -> CalibrationPanels | None:
    """Panels like the block's without an effect, None where there are none.

    untreated: (n_units, n_periods), see `Block.untreated`; counts: unit placebos, time placebos and bootstraps at most.
    """
    placebos = placebo_panels(block.standard, block.observed, block.treated, *counts[:2], rng)
    parts = [] if placebos is None else [placebos]
    if counts[2]:
        parts.append(bootstrap_panels(untreated, block.observed, block.treated, counts[2], rng))
    return join(parts) if parts else None


def _profiles(block: Block, untreated: Floats, basis: Floats, groups: Counts) -> TreatedPanels:
    """The panel; without its effects; and so with each contrast's profile added to the treated cells.

    How c moves is asked of the panel without effects: a large change of the effect is taken up by the low-rank part, so
    that there the slopes are next to zero and say nothing of c's bias.
    """
    panels = block.panels.take(np.zeros(2 + len(basis) if len(basis) else 1, dtype=np.intp))
    panels.outcome[1:] = untreated
    for k, direction in enumerate(basis):
        shape = _PROFILE * direction.size * direction[np.maximum(groups, 0)]
        panels.outcome[2 + k] += np.where(groups >= 0, shape, 0.0)
    return panels


def assess(block: Block, options: ConstancyOptions, seed: int, *, with_sdid: bool = False) -> Assessment:
    """Estimates, their covariance and the test of constancy; without S unless ``with_sdid``.

    Raises what `sdid` raises on the panel itself; a calibration panel on which it fails is left out.
    """
    rng = np.random.default_rng([seed, 2])
    groups = event_groups(block.treated)
    n_groups = int(groups.max()) + 1
    basis = contrasts(n_groups) if n_groups > 1 else np.zeros((0, 1))
    untreated = block.untreated()
    counts = options.unit_placebos, options.time_placebos, options.bootstraps
    calibration = calibration_panels(block, untreated, counts, rng)
    profiles = _constant(_profiles(block, untreated, basis, groups), options)
    found, converged = _summed(block.panels, profiles.effects[:1, 0], groups[None], basis, options)
    converged = converged and bool(profiles.converged.all())
    fit = None
    if with_sdid:
        fit = sdid(block.panel)
        found[:, 1] = att(block.panel, fit) / block.scale
    errors = np.zeros((0, found.shape[1]))
    if calibration is not None:
        panels, rough = calibration.panels, replace(options, tolerance=1e-3)
        # Grouped together with the panel: some of these may lack a period since treatment that it has.
        together = event_groups(np.concatenate([block.treated[None], panels.treated]))[1:]
        constant = _constant(panels, rough)
        # By treatment, not by observed cells: a placebo unit may lack its first treated cell.
        in_groups = np.where(panels.targets, together, np.int32(-1))
        errors, good = _summed(panels, constant.effects[:, 0], in_groups, basis, rough)
        converged = converged and good and bool(constant.converged.all())
        inflation = calibration.inflation
        if with_sdid:
            synthetic = np.array([_sdid_att(panels, k) for k in range(panels.n)])
            errors[:, 1] = synthetic
            errors, inflation = errors[np.isfinite(synthetic)], inflation[np.isfinite(synthetic)]
        errors = errors * inflation[:, None]
    return Assessment(
        estimates=found[0, :-1],
        covariance=_covariance(errors[:, :-1], options.shrink),
        slopes=(profiles.effects[2:, 0] - profiles.effects[1:2, 0]) / _PROFILE,
        constancy=_test(found[0], errors, options.shrink),
        n=errors.shape[0],
        converged=converged,
        sdid=fit,
        rank=int(profiles.rank[0]),
    )


def _summed(
    panels: TreatedPanels, constant: Floats, groups: Counts, basis: Floats, options: ConstancyOptions
) -> tuple[Floats, bool]:
    """(n, 2 + k + 1): c, room for S, contrasts of the free effects, their mean; whether the free fits converged.

    constant: (n,) c; groups: (n, n_units, n_periods), -1 where not treated; basis: (k, n_groups).
    """
    effects, converged = constant[:, None], True
    if len(basis):
        free = _free(panels, groups, basis.shape[1], options)
        effects, converged = free.effects, bool(free.converged.all())
    counts = np.stack([(groups == g).sum(axis=(1, 2)) for g in range(basis.shape[1])], axis=1)
    mean = (effects * counts).sum(axis=1) / counts.sum(axis=1)
    return np.column_stack([constant, np.zeros(panels.n), effects @ basis.T, mean]), converged


def _covariance(errors: Floats, shrink: float) -> Floats:
    """Second moments about zero, which is the truth, those between different estimates shrunken."""
    if not errors.shape[0]:
        return np.zeros((errors.shape[1], errors.shape[1]))
    moments = errors.T @ errors / errors.shape[0]
    return np.asarray(np.where(np.eye(len(moments), dtype=bool), moments, shrink * moments))


def _test(found: Floats, errors: Floats, shrink: float) -> Constancy:
    """F test of (c - mean free effect, contrasts) = 0; NULL with one period or with too few calibration panels."""
    apart = np.r_[1.0, np.zeros(found.size - 2), -1.0]
    map_ = np.vstack([apart, np.eye(found.size)[2:-1]])
    k, n = map_.shape[0], errors.shape[0]
    if found.size <= 3 or n <= k:
        return Constancy(None, None, None)
    differences, spread = map_ @ found, errors @ map_.T
    covariance = _covariance(spread, shrink)
    scale = np.sqrt(np.diag(covariance))
    if not (scale > 0).all():
        return Constancy(None, None, None)
    correlation = covariance / np.outer(scale, scale)
    statistic = float(differences / scale @ np.linalg.solve(correlation, differences / scale))
    p_value = float(fdtrc(k, n - k + 1, statistic * (n - k + 1) / (n * k)))
    return Constancy(statistic, p_value, None)


def _sdid_att(panels: TreatedPanels, k: int) -> float:
    """The SDID effect on one calibration panel, NaN where it is undefined."""
    rows, columns = np.flatnonzero(panels.unit_on[k]), np.flatnonzero(panels.period_on[k])
    cells = np.ix_(rows, columns)
    observed = panels.observed[cells]
    outcome = np.where(observed, panels.outcome[k][cells], np.nan)
    panel = Panel(outcome, panels.treated[k][cells], observed, rows, columns)
    try:
        return att(panel, sdid(panel))
    except GroupError:
        return float("nan")
