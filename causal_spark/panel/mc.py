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
    n_lambdas: candidates between the smallest penalty that leaves no low-rank part and ``lambda_floor`` times it,
        evenly spaced in logarithms.
    lambda_floor: the smallest candidate as a share of the largest, between 1e-4 and 1. Without a penalty the low-rank
        part fits the controls perfectly and says nothing of other cells.
    patience: the path ends after this many candidates in a row that score worse than the best so far.
    cv_tolerance, tolerance: precision of predictions, in standard deviations of the control cells, while scoring
        candidates and in the final fit.
    """

    n_folds: int = 5
    n_lambdas: int = 31
    lambda_floor: float = 1e-3
    patience: int = 5
    cv_tolerance: float = 1e-3
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.n_folds < 2:
            raise ValueError(f"n_folds must be at least 2, not {self.n_folds}.")
        if self.n_lambdas < 2:
            raise ValueError(f"n_lambdas must be at least 2, not {self.n_lambdas}.")
        if not 1e-4 <= self.lambda_floor < 1:
            raise ValueError(f"lambda_floor must be at least 1e-4 and below 1, not {self.lambda_floor}.")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}.")
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
    additive = np.stack([two_way_fit(outcome, one) for one in training.astype(np.float64)])
    path = [TuningStep(None, None, np.inf, float(np.mean((outcome - additive)[scored] ** 2)))]
    shares = training.mean(axis=(1, 2)) / controls.mean()
    converged = True
    folds, predictions, start = SoftImpute(outcome, training), additive, additive
    ratio = options.lambda_floor ** (1.0 / (options.n_lambdas - 1))
    for candidate in top * options.lambda_floor ** (np.arange(1, options.n_lambdas) / (options.n_lambdas - 1)):
        # Each fold starts from its predictions at the two penalties before, extrapolated linearly in the penalty.
        fits = folds.solve(candidate * shares, start, options.cv_tolerance)
        start = fits.predictions + ratio * (fits.predictions - predictions)
        predictions = fits.predictions
        converged = converged and bool(fits.converged.all())
        path.append(TuningStep(None, None, float(candidate), float(np.mean((outcome - predictions)[scored] ** 2))))
        best = min(range(len(path)), key=lambda k: path[k].criterion)
        if len(path) - 1 - best >= options.patience:
            break
    best = min(range(len(path)), key=lambda k: path[k].criterion)
    return float(path[best].lambda_nn or 0.0), tuple(path), converged


def mc_cost(size: PanelSize, options: McOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit, from iterations of soft-impute, which work on the Gram matrix of the shorter side."""
    short, long = sorted((size.n_units, size.n_periods))
    iteration = 8e-5 + 3.5e-8 * long * short + 1.2e-7 * short**2 + 5e-11 * long * short**2
    solves = options.n_folds * min(options.n_lambdas, 10 + options.patience) if tune else 0
    return 2e-3 + iteration * (18.0 + 8.5 * solves)
