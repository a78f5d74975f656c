"""Single draws of the study of response curves: what is drawn, which methods see it, and a row for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from causal_spark.dose_response.dcow import DcowOptions
from causal_spark.dose_response.e2b import e2b, e2b_stacked, trained_rows
from causal_spark.dose_response.e2b_options import E2bOptions
from causal_spark.dose_response.ebct import EbctOptions
from causal_spark.dose_response.expected_bias import expected_bias, fit_outcome
from causal_spark.dose_response.gps import GpsOptions
from causal_spark.dose_response.inference import estimate_curve
from causal_spark.dose_response.permutation import PermutationOptions
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.second_stage import StageOptions, curve_problem
from causal_spark.dose_response.types import CurveProblem, Floats, Segment, Weighting, normalised
from causal_spark.dose_response.unweighted import UnweightedOptions
from causal_spark.errors import GroupError
from studies.designs import seed_of
from studies.dose_designs import DESIGNS

Kind = Literal["curves", "coverage", "retraining"]
_T = TypeVar("_T")

STUDY_SEED = 20261126
N_GRID = 21
#: Quantiles of the treatment between which curves are wanted.
_ENDS = (0.05, 0.95)
#: Rows of the draw whose quantiles are the grid of all draws of a design.
_LARGE = 200_000
#: Rows of the draws whose accuracy is compared.
SIZES = (500, 2000)
BOOTSTRAP_REPLICATES = 200
RETRAINED_REPLICATES = 60

#: By name in the tables: a weighting and its options.
METHODS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "unweighted": ("unweighted", UnweightedOptions()),
        "gps": ("gps", GpsOptions()),
        "ebct1": ("ebct1", EbctOptions()),
        "ebct2": ("ebct2", EbctOptions()),
        "permutation": ("permutation", PermutationOptions()),
        "permutation_boosted": ("permutation", PermutationOptions(classifier="boosted")),
        "dcow": ("dcow", DcowOptions()),
        "e2b": ("e2b", E2bOptions()),
        "e2b_free": ("e2b", E2bOptions(weights="free")),
        "e2b_noise_outcome": ("e2b", E2bOptions(noise="outcome")),
    }
)
_WRONG: dict[str, tuple[float, ...]] = {
    "spread": (0.0, 100.0),
    "by_treatment": (0.0, 1.0),
    "curvature": (0.0, 10.0),
    "noise": (0.005, 50.0),
    "n_waves": (4,),
}
#: Badly wrong priors of the made-up responses: an option of e2b and its value.
PRIORS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {f"e2b_{option}_{value:g}": (option, value) for option, values in _WRONG.items() for value in values}
)


@dataclass(frozen=True, slots=True)
class Cell:
    """Draws of a design of one size for one method. kind: of the draws, each with seeds of its own."""

    kind: Kind
    design: str
    n_rows: int
    method: str


@dataclass(frozen=True, slots=True)
class Task:
    """Some of a cell's draws."""

    cell: Cell
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One draw. outcome: (n_rows,). truth: (n_grid,) the true curve. seed: of the draw, from which others are made."""

    problem: CurveProblem
    outcome: Floats
    truth: Floats
    seed: int


def seed_of_draw(kind: Kind, design: str, n_rows: int, number: int) -> int:
    """The same for every method, so that all see the same draws."""
    return seed_of(STUDY_SEED, kind, design, n_rows, number)


@cache
def fixed_grid(design: str) -> Floats:
    """(n_grid,) doses that are the same in all draws, so that estimates of different draws can be compared."""
    drawn = DESIGNS[design].draw(_LARGE, np.random.default_rng(seed_of(STUDY_SEED, "grid", design)))
    return _between_ends(drawn.treatment)


def _between_ends(treatment: Floats) -> Floats:
    low, high = np.quantile(treatment, _ENDS)
    return np.linspace(low, high, N_GRID)


def make(kind: Kind, design: str, n_rows: int, number: int) -> Made:
    """One draw with its second stage. Raises `GroupError` where the treatment does not bear it."""
    seed = seed_of_draw(kind, design, n_rows, number)
    drawn = DESIGNS[design].draw(n_rows, np.random.default_rng(seed))
    names = tuple(f"x{k}" for k in range(drawn.covariates.shape[1]))
    segment = Segment(drawn.covariates, drawn.treatment, np.full(n_rows, 1.0 / n_rows), names)
    grid = _between_ends(drawn.treatment) if kind == "curves" else fixed_grid(design)
    problem = curve_problem(segment, grid, DESIGNS[design].second_stage, StageOptions())
    return Made(problem, drawn.outcome, drawn.curve(grid), seed)


def method_of(name: str) -> tuple[str, Any]:
    """Weighting and options of a method or of a wrong prior."""
    if name in PRIORS:
        option, value = PRIORS[name]
        changed: dict[str, Any] = {option: value}
        return "e2b", E2bOptions(**changed)
    return METHODS[name]


def is_stacked(cell: Cell) -> bool:
    """Whether its draws are trained side by side."""
    return method_of(cell.method)[0] == "e2b" and trained_rows(cell.n_rows) == cell.n_rows


def run(task: Task) -> list[dict[str, object]]:
    """A row per draw; ``seconds``: of CPU, for weights (draws trained side by side share theirs), in one thread."""
    torch.set_num_threads(1)
    cell = task.cell
    made = [_attempt(make, cell.kind, cell.design, cell.n_rows, number) for number in task.numbers]
    if cell.kind == "retraining":
        outcomes = [_given(one, _retrained) for one in made]
        return [
            {"draw": number} | _told(found, ("fixed", "anew"))
            for number, found in zip(task.numbers, outcomes, strict=True)
        ]
    start = time.process_time()
    weightings = _weightings(cell, made)
    seconds = (time.process_time() - start) / len(made)
    rows = []
    for number, one, weighting in zip(task.numbers, made, weightings, strict=True):
        row: dict[str, object] = {"draw": number, "seconds": round(seconds, 5)}
        if cell.kind == "curves":
            rows.append(row | _accuracy(one, weighting))
        else:
            rows.append(row | _told(_interval(one, weighting), ("estimate", "std_error", "bias")))
    return rows


def _weightings(cell: Cell, made: Sequence[Made | Exception]) -> list[Weighting | Exception]:
    name, options = method_of(cell.method)

    def alone(one: Made) -> Weighting:
        return WEIGHTINGS[name].fit(seen(one), options, seed_of(one.seed, "method"))

    def seen(one: Made) -> CurveProblem:
        return WEIGHTINGS[name].look(one.problem, one.outcome, options, seed_of(one.seed, "method"))

    sound = [one for one in made if isinstance(one, Made)]
    if is_stacked(cell) and sound:
        seeds = [seed_of(one.seed, "method") for one in sound]
        together = _attempt(e2b_stacked, [seen(one) for one in sound], options, seeds)
        # One that cannot be trained must not take the others with it.
        if not isinstance(together, Exception):
            found = iter(together)
            return [next(found) if isinstance(one, Made) else one for one in made]
    return [_given(one, alone) for one in made]


def _accuracy(one: Made | Exception, weighting: Weighting | Exception) -> dict[str, object]:
    """Mean squared error over the grid and effective sample size, empty with the error's class where there are none."""
    empty: dict[str, object] = {"mse": "", "effective_rows": "", "notices": "", "declined": ""}
    if isinstance(one, Exception) or isinstance(weighting, Exception):
        return empty | {"declined": type(one if isinstance(one, Exception) else weighting).__name__}
    curve = _attempt(one.problem.stage.curves, weighting.weights[None, :], one.outcome)
    if isinstance(curve, Exception):
        return empty | {"declined": type(curve).__name__}
    return empty | {
        "mse": float(np.mean((curve[0][0] - one.truth) ** 2)),
        "effective_rows": round(weighting.effective_sample_size, 2),
        "notices": " ".join(notice.name for notice in weighting.notices),
    }


def _interval(one: Made | Exception, weighting: Weighting | Exception) -> tuple[Floats, Floats, Floats] | Exception:
    """(n_grid,) estimate, standard error and expected bias."""
    if isinstance(one, Exception):
        return one
    if isinstance(weighting, Exception):
        return weighting
    # The least number of effective rows is a setting of whoever runs the estimator: here all are to be seen.
    least, seed = 0.0, seed_of(one.seed, "bootstrap")
    found = _attempt(estimate_curve, one.problem, weighting, one.outcome, least, BOOTSTRAP_REPLICATES, seed)
    if isinstance(found, Exception):
        return found
    if found.failure is not None:
        return found.failure
    model = fit_outcome(one.problem, one.outcome, seed_of(one.seed, "bias"))
    return found.estimate, found.std_error, expected_bias(model, one.problem, weighting.weights)


def _retrained(one: Made) -> tuple[Floats, Floats]:
    """(n_grid,) standard errors of e2b with the network kept, and with one trained anew in each replicate.

    Both from the same multipliers, and all networks from the same seed: what a new start changes is no sampling error.
    """
    problem, options, seed = one.problem, E2bOptions(), seed_of(one.seed, "method")
    rng = np.random.default_rng(seed_of(one.seed, "bootstrap"))
    multipliers = rng.exponential(size=(RETRAINED_REPLICATES, problem.segment.n_rows))
    kept = e2b(problem, options, seed).resolve(multipliers)
    resampled = [
        replace(problem, segment=replace(problem.segment, sample_weights=weights))
        for weights in normalised(multipliers)
    ]
    anew = np.stack([each.weights for each in e2b_stacked(resampled, options, [seed] * len(resampled))])
    usable = np.isfinite(kept).all(axis=1)
    fixed_curves, anew_curves = (problem.stage.curves(weights[usable], one.outcome)[0] for weights in (kept, anew))
    return fixed_curves.std(axis=0, ddof=1), anew_curves.std(axis=0, ddof=1)


def _told(found: tuple[Floats, ...] | Exception, names: tuple[str, ...]) -> dict[str, object]:
    """Arrays over the grid as columns, empty with the error's class where there are none."""
    if isinstance(found, Exception):
        columns: dict[str, object] = {f"{name}_{k}": "" for name in names for k in range(N_GRID)}
        return columns | {"declined": type(found).__name__}
    pairs = zip(names, found, strict=True)
    return {f"{name}_{k}": float(one) for name, values in pairs for k, one in enumerate(values)} | {"declined": ""}


def _attempt(do: Callable[..., _T], *given: object) -> _T | Exception:
    """What it gives, or the reason why it declines; weights on too few rows make a regression singular."""
    try:
        return do(*given)
    except (GroupError, np.linalg.LinAlgError) as error:
        return error


def _given(one: Any, do: Callable[[Any], _T]) -> _T | Exception:
    return one if isinstance(one, Exception) else _attempt(do, one)
