"""Matrix completion with nuclear norm minimisation (MC-NNM).

Athey, Bayati, Doudchenko, Imbens, Khosravi, "Matrix Completion Methods for Causal Panel Data Models", JASA 2021:
two-way effects plus a low-rank part, equal weights, the penalty by K-fold cross-validation over control cells. The
member of the DWCP family with lambda_time = lambda_unit = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causal_spark.errors import UnsupportedCovariatesError
from causal_spark.panel.did import require_identified, require_targets
from causal_spark.panel.soft_impute import SoftImpute
from causal_spark.panel.tuning import fold_of_cells, standardised
from causal_spark.panel.two_way import identified_cells, two_way_fit
from causal_spark.panel.types import Bools, Fit, Floats, Panel, PanelSize, Penalties, TuningStep


@dataclass(frozen=True, slots=True)
class McOptions:
    """How MC-NNM chooses its penalty.

    n_folds: folds of control cells in cross-validation, at least 2.
    step: each candidate as a share of the one before, between 0.1 and 0.9. They fall from the smallest penalty that
        leaves no low-rank part.
    lambda_floor: the smallest candidate as a share of that penalty, between 1e-4 and 1. Without a penalty the low-rank
        part fits the controls perfectly and says nothing of other cells.
    patience: the descent ends after this many candidates in a row that score worse than the best so far.
    refinements: candidates tried after the descent, each at the vertex of the parabola through the scores of the best
        one and its neighbours, in logarithms.
    cv_tolerance, tolerance: precision of predictions, in standard deviations of the control cells, while scoring
        candidates and in the final fit.
    """

    n_folds: int = 5
    step: float = 0.5
    lambda_floor: float = 1e-3
    patience: int = 1
    refinements: int = 1
    cv_tolerance: float = 1e-2
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.n_folds < 2:
            raise ValueError(f"n_folds must be at least 2, not {self.n_folds}.")
        if not 0.1 <= self.step <= 0.9:
            raise ValueError(f"step must lie between 0.1 and 0.9, not {self.step}.")
        if not 1e-4 <= self.lambda_floor < 1:
            raise ValueError(f"lambda_floor must be at least 1e-4 and below 1, not {self.lambda_floor}.")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}.")
        if self.refinements < 0:
            raise ValueError(f"refinements must not be negative, not {self.refinements}.")
        for name in ("cv_tolerance", "tolerance"):
            if not 1e-10 <= getattr(self, name) <= 1e-2:
                raise ValueError(f"{name} must lie between 1e-10 and 1e-2, not {getattr(self, name)}.")


_DEFAULTS = McOptions()


def mc(panel: Panel, options: McOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Predict every identified cell by alpha_i + beta_t + L_it, fitted on control cells.

    Any assignment pattern and missing cells. ``lambda_nn`` (given, chosen, and in the path) is on the scale of the sum
    of squares of outcomes divided by the standard deviation of the control cells, without 1/2; infinity means L = 0.
    Folds depend on the control cells' mask and ``seed`` only; a fold is fitted with the penalty that is the same per
    cell (JASA 2021, section 4, where squares are averaged). ``criterion`` is the mean squared prediction error of
    held-out cells in squared standard deviations. Raises NoTreatedCellsError, NotIdentifiedError,
    UnsupportedCovariatesError, ConstantOutcomeError, and ValueError for a lambda_nn that is not positive.
    """
    require_targets(panel)
    if panel.covariates is not None:
        raise UnsupportedCovariatesError(
            "Matrix completion takes no covariates.", "Leave them out, or use did, which does."
        )
    controls = panel.control_cells
    identified = identified_cells(controls)
    require_identified(panel, np.where(identified, 0.0, np.nan))
    outcome, centre, scale = standardised(panel)
    if penalties is not None and penalties.lambda_nn is not None:
        lambda_nn, solved, tuning = float(penalties.lambda_nn), True, "fixed"
        path: tuple[TuningStep, ...] = ()
    else:
        lambda_nn, path, solved = _cross_validate(outcome, controls, options, seed)
        # No path: no held-out cell can be predicted, which leaves the additive fit.
        tuning = "cross_validation" if path else "none"
    weights = controls.astype(np.float64)
    if math.isinf(lambda_nn):
        predicted, rank, converged = two_way_fit(outcome, weights), 0, True
    else:
        # Where steps shrink slowly a prediction is still a few steps from its limit.
        tolerance = max(1e-10, options.tolerance / 5.0)
        fits = SoftImpute(outcome, controls[None]).solve(np.array([lambda_nn]), tolerance=tolerance)
        predicted, rank, converged = fits.predictions[0], int(fits.rank[0]), bool(fits.converged[0])
    return Fit(
        counterfactual=np.where(identified, predicted * scale + centre, np.nan),
        penalties=Penalties(lambda_nn=lambda_nn),
        tuning=tuning,
        criterion=min((step.criterion for step in path), default=None),
        path=path,
        rank=rank,
        converged=converged and solved,
    )


def smallest_null_penalty(outcome: Floats, weights: Floats) -> float:
    """The smallest lambda_nn that leaves L = 0: the spectral norm of twice the weighted two-way residuals.

    outcome, weights: (n_units, n_periods).
    """
    residual = np.where(weights > 0, outcome - two_way_fit(outcome, weights), 0.0)
    return 2.0 * float(np.linalg.norm(weights * residual, ord=2))


def _cross_validate(
    outcome: Floats, controls: Bools, options: McOptions, seed: int
) -> tuple[float, tuple[TuningStep, ...], bool]:
    """The penalty with the smallest held-out error, the path, and whether every solve converged."""
    fold = fold_of_cells(controls, options.n_folds, seed)
    training = np.stack([controls & (fold != k) for k in range(options.n_folds)])
    training = training[training.any(axis=(1, 2)) & (training.sum(axis=(1, 2)) < controls.sum())]
    # A held-out cell counts in every candidate's score or in none: identification does not depend on the penalty.
    scored = np.stack([controls & ~used & identified_cells(used) for used in training])
    top = smallest_null_penalty(outcome, controls.astype(np.float64))
    if not scored.any() or top <= 1e-10 * controls.sum():
        return np.inf, (TuningStep(None, None, np.inf, 0.0),) if scored.any() else (), True
    path = _Path(outcome, scored, SoftImpute(outcome, training), training.mean(axis=(1, 2)) / controls.mean(), top)
    candidate = top * options.step
    # Just below the top the low-rank part may follow one odd unit only, so that two candidates are tried at least.
    while candidate >= top * options.lambda_floor and (len(path.steps) < 3 or path.since_best < options.patience):
        path.try_below(candidate, options.cv_tolerance)
        candidate *= options.step
    for _ in range(options.refinements):
        path.refine(options.cv_tolerance)
    return path.best, tuple(path.steps), path.converged


class _Path:
    """Candidates tried so far and their folds' predictions, from which later ones start."""

    def __init__(self, outcome: Floats, scored: Bools, folds: SoftImpute, shares: Floats, top: float) -> None:
        self._outcome, self._scored, self._folds, self._shares = outcome, scored, folds, shares
        additive = folds.additive()
        # With the penalty that leaves no low-rank part predictions are additive: the upper end of every search.
        self._top, self._predictions = top, {top: additive}
        self._scores = {top: self._score(additive)}
        self.steps = [TuningStep(None, None, np.inf, self._scores[top])]
        self.converged = True

    def _score(self, predictions: Floats) -> float:
        return float(np.mean((self._outcome - predictions)[self._scored] ** 2))

    def _try(self, candidate: float, start: Floats, tolerance: float) -> None:
        fits = self._folds.solve(candidate * self._shares, start, tolerance)
        self.converged = self.converged and bool(fits.converged.all())
        self._predictions[candidate], self._scores[candidate] = fits.predictions, self._score(fits.predictions)
        self.steps.append(TuningStep(None, None, candidate, self._scores[candidate]))
        # Later candidates start from the lowest two, or from the best one's neighbours.
        order = sorted(self._scores)
        place = order.index(self._leader)
        needed = {*order[:2], *order[max(0, place - 1) : place + 2]}
        self._predictions = {tried: kept for tried, kept in self._predictions.items() if tried in needed}

    def try_below(self, candidate: float, tolerance: float) -> None:
        """Score a candidate below all others, started from the last two extrapolated linearly in the penalty."""
        *before, last = sorted(self._predictions, reverse=True)
        start = self._predictions[last]
        if before:
            slope = (start - self._predictions[before[-1]]) / (last - before[-1])
            start = start + (candidate - last) * slope
        self._try(candidate, start, tolerance)

    @property
    def _leader(self) -> float:
        return max(self._scores, key=lambda tried: (-self._scores[tried], tried))

    @property
    def best(self) -> float:
        """The candidate with the smallest score, infinity for the additive fit."""
        return np.inf if self._leader == self._top else self._leader

    @property
    def since_best(self) -> int:
        """Candidates below the best one."""
        return sum(tried < self._leader for tried in self._scores)

    def refine(self, tolerance: float) -> None:
        """Score the vertex of the parabola around the best candidate, started from its neighbours interpolated."""
        order = sorted(self._scores)
        place = order.index(self._leader)
        if place == 0:
            return
        if place == len(order) - 1:
            candidate = math.sqrt(order[-2] * order[-1])
        else:
            candidate = _vertex(order[place - 1 : place + 2], [self._scores[k] for k in order[place - 1 : place + 2]])
        above = min(tried for tried in order if tried > candidate)
        below = max(tried for tried in order if tried <= candidate)
        share = (candidate - below) / (above - below)
        start = (1.0 - share) * self._predictions[below] + share * self._predictions[above]
        self._try(candidate, start, tolerance)


def _vertex(candidates: list[float], scores: list[float]) -> float:
    """Minimum, in logarithms, of the parabola through three points of which the middle one is lowest.

    It stays off the middle point by a tenth of the shorter interval at least, or nothing would be learnt there.
    """
    low, middle, high = np.log(candidates)
    left, right = scores[0] - scores[1], scores[2] - scores[1]
    below, above = middle - low, high - middle
    bend = left * above + right * below
    step = 0.5 * (left * above**2 - right * below**2) / bend if bend > 0 else 0.0
    least = 0.1 * min(below, above)
    step = step if abs(step) >= least else math.copysign(least, step)
    return float(np.exp(middle + step))


def mc_cost(size: PanelSize, options: McOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit, from iterations of soft-impute, which work on the Gram matrix of the shorter side."""
    short, long = sorted((size.n_units, size.n_periods))
    iteration = 8e-5 + 3.5e-8 * long * short + 1.2e-7 * short**2 + 5e-11 * long * short**2
    # The best candidate is about an eighth of the first on data with factors.
    descent = min(math.log(8.0), -math.log(options.lambda_floor)) / -math.log(options.step)
    solves = options.n_folds * (1 + descent + options.patience + options.refinements) if tune else 0
    return 2e-3 + iteration * (13.0 + 4.3 * solves)


def mc_arrays(options: McOptions) -> float:
    """Arrays of the panel's shape held at the peak; measured: 42, 60, 97 and 178 with 2, 5, 10 and 20 folds."""
    return 30.0 + 9.0 * options.n_folds
