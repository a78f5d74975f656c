"""Panels like one that was observed, with treatments whose effect is known: what to try estimators and variances on.

Arkhangelsky, Athey, Hirshberg, Imbens, Wager, "Synthetic Difference-in-Differences" (AER 2021), section 3; Athey,
Imbens, Qu, Viviano, "Triply Robust Panel Estimators" (2025), section 5: a low-rank matrix plus AR(2) noise is fitted to
the untreated outcomes (`causal_spark.panel.calibration`), and units are treated in the last periods as a rule says.
Cells that were truly treated are left out of the fit and filled with what it says of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from causal_spark.errors import ConstantOutcomeError, NoControlUnitsError, NoTreatedCellsError, TooFewPeriodsError
from causal_spark.panel.calibration import Calibration, calibrate, draw_treated, logit_probabilities
from causal_spark.panel.cohorts import first_treated
from causal_spark.panel.noise_scales import Scales, series_scales, shrink
from causal_spark.panel.sc import sc
from causal_spark.panel.types import Bools, Floats, Ints, Panel

Assignment = Literal["uniform", "factors", "synthetic_control", "truly_treated", "observed"]
ModelVariant = Literal[
    "calibrated", "heteroskedastic", "no_autocorrelation", "no_interactive", "no_additive", "noise_only"
]
EffectShape = Literal["constant", "ramp", "jump"]

#: Periods before treatment that are left at least.
_FEWEST_BEFORE = 2
#: Untreated units that are left at least.
_FEWEST_CONTROLS = 2
#: Residuals this small, in standard deviations of the outcome, are rounding.
_NO_NOISE = 1e-9
#: A sample of variances known without error.
_CERTAIN = 1e9


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """How panels are drawn.

    assignment: who is treated. ``uniform``: units at random. ``factors``: by a logit of a policy (of being truly
        treated, unless one is given) on the units' factors. ``synthetic_control``: by the weights that synthetic
        control gives to the donors of the truly treated units. ``truly_treated``: those units, in the last of the
        periods before treatment. ``observed``: the assignment as it was.
    rank: of the low-rank matrix.
    treated_units: treated at most, None: as many as truly are. In ``factors`` and ``synthetic_control`` there may be
        fewer, and where a draw has none, so many units are treated at random.
    treated_periods: of a treated unit, None: as many as truly are in the mean of the treated units; in
        ``truly_treated`` at most half of the periods before treatment.
    """

    assignment: Assignment = "uniform"
    rank: int = 4
    treated_units: int | None = None
    treated_periods: int | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "treated_units", "treated_periods"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPanel:
    """A panel whose effect is zero. noise_variance: of the mean of noise over its treated cells, in squared units of
    the outcome.
    """

    panel: Panel
    noise_variance: float


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A model fitted to a panel, and a rule of who is treated.

    calibration: of (n_units, n_periods) cells. noise_scale: (n_units, n_periods), by what their noise is multiplied in
    draws, ones at first; uneven: the same as noisy as units and periods look, see `noise_scales`. template: the panel
    that draws are like: cells that are missing there are missing in draws. probability: (n_units,) of being treated,
    None where ``template.treated`` says who is. n_treated: units at most, n_post: periods.
    """

    calibration: Calibration
    noise_scale: Floats
    uneven: Floats
    template: Panel
    probability: Floats | None
    n_treated: int
    n_post: int

    def variant(self, name: ModelVariant) -> Simulation:
        """The same with a part of the model taken out, or, ``heteroskedastic``, with noise as uneven as it looks.

        ``noise_only`` keeps the noise's autocorrelation.
        """
        if name == "heteroskedastic":
            return replace(self, noise_scale=self.uneven)
        calibration = self.calibration.without(
            additive=name in ("no_additive", "noise_only"),
            interactive=name in ("no_interactive", "noise_only"),
            autocorrelation=name == "no_autocorrelation",
        )
        return replace(self, calibration=calibration)

    def of_units(self, units: Ints) -> Simulation:
        """The same of some units, each as often as its position is among ``units`` (n,)."""
        calibration = self.calibration
        parts = ("additive", "interactive", "unit_factors", "residual")
        template = self.template.take_units(units)
        return replace(
            self,
            calibration=replace(calibration, **{name: getattr(calibration, name)[units] for name in parts}),
            noise_scale=self.noise_scale[units],
            uneven=self.uneven[units],
            template=replace(template, units=np.arange(len(units))),
            probability=None if self.probability is None else self.probability[units],
        )

    def draw(self, seed: int) -> DrawnPanel:
        """One panel, in units of the outcome. Raises ValueError where the rule leaves no untreated unit."""
        rng = np.random.default_rng(seed)
        outcome = self.calibration.draw(rng, 1, self.noise_scale)[0]
        treated = self.template.treated
        if self.probability is not None:
            treated = np.zeros(outcome.shape, dtype=bool)
            treated[draw_treated(self.probability, self.n_treated, rng), -self.n_post :] = True
        observed = self.template.observed
        outcome = np.where(observed, outcome, np.nan)
        panel = replace(self.template, outcome=outcome, treated=treated)
        return DrawnPanel(panel, self._noise_variance(panel.target_cells))

    def _noise_variance(self, cells: Bools) -> float:
        weights = np.where(cells, self.noise_scale, 0.0) / max(int(cells.sum()), 1)
        rows = weights[cells.any(axis=1)]
        return float(np.einsum("it,ts,is->", rows, self.calibration.covariance, rows)) * self.calibration.scale**2


def fit_simulation(panel: Panel, options: SimulationOptions, policy: Bools | None = None) -> Simulation:
    """Fit the model to the untreated cells of a panel.

    policy: (n_units,), units that have a policy which the truly treated share in ``factors``; None: the truly treated.
    Units and periods without an untreated observed outcome are left out.

    Raises `NoTreatedCellsError` where the rule needs treated units and there are none, `NoControlUnitsError` or
    `TooFewPeriodsError` where it leaves fewer than two untreated units or periods before treatment,
    `ConstantOutcomeError` for outcomes that do not vary.
    """
    truly, n_truly = panel.ever_treated, _mean_treated_periods(panel)
    if options.assignment == "truly_treated":
        panel = panel.until(_n_before(panel))
    rows, columns = np.asarray(panel.control_cells.any(axis=1)), np.asarray(panel.control_cells.any(axis=0))
    panel, truly = _cut(panel, rows, columns), truly[rows]
    used = panel.control_cells
    if not used.any() or not np.ptp(panel.outcome[used]) > 0.0:
        raise ConstantOutcomeError("The untreated outcomes do not vary.", "There is nothing to simulate.")
    calibration = calibrate(np.where(used, panel.outcome, 0.0), used, options.rank)
    n_treated, n_post = options.treated_units or int(truly.sum()), options.treated_periods or n_truly
    if options.assignment == "truly_treated":
        n_post = options.treated_periods or min(n_truly, panel.n_periods // 2)
        assigned = np.zeros(panel.treated.shape, dtype=bool)
        assigned[truly, max(panel.n_periods - n_post, 0) :] = True
        panel = panel.with_treatment(assigned)
    found = Simulation(
        calibration,
        np.ones(panel.outcome.shape),
        np.multiply.outer(*noise_scales(calibration.residual, options.rank)),
        panel,
        _probability(panel, options.assignment, calibration, truly, None if policy is None else policy[rows]),
        n_treated,
        n_post,
    )
    _check(found)
    return found


def noise_scales(residual: Floats, fitted: int) -> tuple[Floats, Floats]:
    """How noisy units (n_units,) and periods (n_periods,) are, the mean square of their products one.

    residual: (n_units, n_periods), NaN where there is none. fitted: parameters fitted to each row. Scales are shrunk
    so that their spread is what is left beyond sampling error (`causal_spark.panel.noise_scales`).
    """
    found = []
    for series, parameters in ((residual, fitted), (residual.T, 0)):
        n = len(series)
        variance = np.ones(n)
        if n > 2 and np.nanmax(np.abs(residual), initial=0.0) > _NO_NOISE:
            rows = series_scales(series, float(parameters))
            if np.isfinite(rows.variance).sum() > 2:
                variance = shrink(rows, Scales(np.ones(n), np.full(n, _CERTAIN)), n).variance
        found.append(np.sqrt(variance / variance.mean()))
    return found[0], found[1]


def effect_of_shape(panel: Panel, shape: EffectShape, size: float) -> Floats:
    """(n_units, n_periods) effects, zero of untreated cells, with mean zero over treated, observed ones.

    ``ramp`` rises evenly by 2 size from the first period of treatment to the last of the longest treated unit;
    ``jump`` does so at once, halfway. To any of these a constant may be added.
    """
    effect = np.zeros(panel.outcome.shape)
    if shape == "constant" or not panel.target_cells.any():
        return effect
    since = np.maximum(np.arange(panel.n_periods) - first_treated(panel.treated)[:, None], 0)
    last = max(int(since[panel.treated].max(initial=0)), 1)
    along = 2.0 * since / last - 1.0
    raw = along if shape == "ramp" else np.sign(along)
    effect[panel.treated] = size * raw[panel.treated]
    effect[panel.treated] -= effect[panel.target_cells].mean()
    return effect


def _cut(panel: Panel, rows: Bools, columns: Bools) -> Panel:
    """The panel of some units and periods, without covariates."""
    at = np.ix_(rows, columns)
    return Panel(panel.outcome[at], panel.treated[at], panel.observed[at], panel.units[rows], panel.periods[columns])


def _n_before(panel: Panel) -> int:
    """Periods before anybody is treated."""
    if not panel.treated.any():
        raise NoTreatedCellsError("No unit is treated.", "Choose another assignment.")
    return int(first_treated(panel.treated).min())


def _mean_treated_periods(panel: Panel) -> int:
    n_treated = int(panel.ever_treated.sum())
    return max(1, round(int(panel.treated.sum()) / n_treated)) if n_treated else 0


def _probability(
    panel: Panel, assignment: Assignment, calibration: Calibration, truly: Bools, policy: Bools | None
) -> Floats | None:
    if assignment == "uniform":
        return np.ones(panel.n_units)
    if assignment == "factors":
        chosen = truly if policy is None else policy
        if not chosen.any() or chosen.all():
            raise NoTreatedCellsError(
                "Units that have the policy cannot be told from others: all have it, or none.",
                "Choose another policy column, or another assignment.",
            )
        return logit_probabilities(calibration.unit_factors, chosen)
    if not truly.any():
        raise NoTreatedCellsError("No unit is treated.", "Choose another assignment.")
    return _weights_of_donors(panel) if assignment == "synthetic_control" else None


def _weights_of_donors(panel: Panel) -> Floats:
    """(n_units,) probabilities: of a donor, its synthetic control weights, summed over treated units."""
    found = np.zeros(panel.n_units)
    for block in sc(panel).blocks:
        found[block.donors] += block.treated.size * block.unit
    return np.minimum(found, 1.0)


def _check(found: Simulation) -> None:
    n_units, n_periods = found.template.outcome.shape
    if found.n_treated < 1 or found.n_post < 1:
        raise NoTreatedCellsError(
            "No unit is treated, so nothing says how many are to be.", "Set treated_units and treated_periods."
        )
    if found.n_treated > n_units - _FEWEST_CONTROLS:
        raise NoControlUnitsError(
            f"{found.n_treated} treated units leave fewer than {_FEWEST_CONTROLS} of {n_units} untreated.",
            "Set treated_units to fewer.",
        )
    n_before = n_periods - found.n_post
    if found.probability is None:
        n_before = int(first_treated(found.template.treated)[found.template.ever_treated].min())
    if n_before < _FEWEST_BEFORE:
        raise TooFewPeriodsError(
            f"Treatment leaves {n_before} periods before it; {_FEWEST_BEFORE} are needed.",
            "Set treated_periods to fewer, or choose another assignment.",
        )
