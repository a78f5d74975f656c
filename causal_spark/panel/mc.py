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
from causal_spark.panel.low_rank import LowRankFits, low_rank_fit
from causal_spark.panel.tuning import fold_of_cells, standardised
from causal_spark.panel.two_way import identified_cells, two_way_fit
from causal_spark.panel.types import Bools, Fit, Floats, Panel, PanelSize, Penalties, TuningStep

_SPARSE_BYTES = 2**26


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
        fits = low_rank_fit(outcome, weights[None], np.array([lambda_nn]), tolerance=options.tolerance, thorough=False)
        predicted, rank, converged = fits.predictions()[0], int(fits.rank[0]), bool(fits.converged[0])
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
    weights = training.astype(np.float64)
    # A held-out cell counts in every candidate's score or in none: identification does not depend on the penalty.
    scored = np.stack([controls & ~used & identified_cells(used) for used in training])
    top = smallest_null_penalty(outcome, controls.astype(np.float64))
    if not scored.any() or top <= 1e-10 * controls.sum():
        return np.inf, (TuningStep(None, None, np.inf, 0.0),) if scored.any() else (), True
    additive = np.stack([two_way_fit(outcome, one) for one in weights])
    path = [TuningStep(None, None, np.inf, float(np.mean((outcome - additive)[scored] ** 2)))]
    shares = weights.mean(axis=(1, 2)) / controls.mean()
    converged = True
    # Several candidates of the path are solved together, as many as fit the memory allowed.
    together = max(1, min(5, _SPARSE_BYTES // max(1, 8 * 6 * weights.size)))
    candidates = top * options.lambda_floor ** (np.arange(1, options.n_lambdas) / (options.n_lambdas - 1))
    for begin in range(0, candidates.size, together):
        batch = candidates[begin : begin + together]
        fits = _fit_folds(outcome, weights, batch, shares, options.cv_tolerance)
        errors = (outcome - fits.predictions()).reshape(batch.size, *weights.shape)
        solved = fits.converged.reshape(batch.size, -1)
        for candidate, error, good in zip(batch, errors, solved, strict=True):
            path.append(TuningStep(None, None, float(candidate), float(np.mean(error[scored] ** 2))))
            converged = converged and bool(good.all())
            best = min(range(len(path)), key=lambda k: path[k].criterion)
            if len(path) - 1 - best >= options.patience:
                return float(path[best].lambda_nn or 0.0), tuple(path), converged
    best = min(range(len(path)), key=lambda k: path[k].criterion)
    return float(path[best].lambda_nn or 0.0), tuple(path), converged


def _fit_folds(outcome: Floats, weights: Floats, candidates: Floats, shares: Floats, tolerance: float) -> LowRankFits:
    """All folds at several candidates, candidates outermost."""
    stacked = np.tile(weights, (candidates.size, 1, 1))
    penalties = (candidates[:, None] * shares[None, :]).ravel()
    return low_rank_fit(outcome, stacked, penalties, tolerance=tolerance, thorough=False)


def mc_cost(size: PanelSize, options: McOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit, from half steps on factors about a quarter as wide as the panel's shorter side."""
    short, long = sorted((size.n_units, size.n_periods))
    width = 2.0 + short / 4.0
    sweep = 2e-4 + 1.5e-9 * long * width**2 * (short + width) + 1e-10 * long * width * short**2
    solves = options.n_folds * min(options.n_lambdas, 15 + options.patience) if tune else 0
    return 2e-3 + sweep * (25 + 13 * solves)
