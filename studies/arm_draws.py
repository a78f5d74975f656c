"""Single draws of the study of individual effects: what is drawn, which methods see it, and a row for each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from causal_spark.multi_treatment.intervals import effect_errors
from causal_spark.multi_treatment.memento import MementoOptions, Stacked, stacked
from causal_spark.multi_treatment.predictor import Predictor
from causal_spark.multi_treatment.propensity import PropensityModel, fit_propensities
from causal_spark.multi_treatment.registry import ESTIMATORS
from causal_spark.multi_treatment.types import ArmSample, FittedModel, Floats
from studies.arm_designs import ARM_DESIGNS, ArmDraw
from studies.designs import seed_of

STUDY_SEED = 20261127
N_ARMS = (2, 4, 8)
#: What the method has to stand beside.
PREDECESSORS = ("s_learner", "t_learner", "x_learner", "dr_learner", "tarnet", "cfr")
#: Variants of memento that need a fit of their own, on draws with this number of arms only.
ABLATED_ARMS = 4
VARIANTS: Mapping[str, MementoOptions] = MappingProxyType(
    {
        "memento_unmatched": MementoOptions(matchings=()),
        "memento_networks_published": MementoOptions(
            heads=("shared",), matchings=("pairwise",), divergence="sinkhorn", trees_from=10**9, calibrate=False
        ),
    }
)
LEAST_CHANCE = 0.02
_N_FOLDS_OF_PROPENSITIES = 5
_QUANTILE = float(ndtri(0.975))
_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Task:
    """One draw of a design with so many arms."""

    design: str
    n_arms: int
    draw: int


def make(task: Task) -> tuple[ArmDraw, ArmDraw]:
    """Rows that estimators see, and as many others of the same draw."""
    design = ARM_DESIGNS[task.design]
    rng = np.random.default_rng(seed_of(STUDY_SEED, task.design, str(task.n_arms), task.draw))
    every = design.draw(2 * design.n_rows, task.n_arms, rng)
    return every.of_rows(slice(0, design.n_rows)), every.of_rows(slice(design.n_rows, None))


def run(task: Task) -> list[dict[str, object]]:
    """A row per method."""
    seen, fresh = make(task)
    sample = ArmSample(seen.covariates, seen.arm, seen.outcome, task.n_arms, False)
    seed = task.draw
    with threadpool_limits(1):
        chances, propensity = fit_propensities(sample, _N_FOLDS_OF_PROPENSITIES, seed)
        return [
            {"design": task.design, "n_arms": task.n_arms, "draw": task.draw, "method": name}
            | told(model, sample, propensity, seen, fresh)
            | {"seconds": "" if took is None else f"{took:.2f}"}
            for name, model, took in _fitted(sample, chances, seed, task.n_arms == ABLATED_ARMS)
        ]


def _fitted(
    sample: ArmSample, chances: Floats, seed: int, is_ablated: bool
) -> Iterator[tuple[str, FittedModel, float | None]]:
    """Methods, their models, and seconds of those that were fitted for themselves alone."""
    options = MementoOptions()
    own, took = _timed("memento", options, sample, chances, seed)
    yield "memento", own, took
    if not isinstance(own, Stacked):
        raise TypeError("memento is no stack")
    yield "memento_uncalibrated", replace(own, shifts=np.zeros(sample.n_arms)), None
    ensemble = own.models[0]
    bare = stacked(ensemble, sample, chances, seed, replace(options, trees_from=10**9))  # type: ignore[arg-type]
    yield "memento_networks", bare, None
    for name in PREDECESSORS:
        if name == "x_learner" and len(own.models) > 1:
            # It is in there, fitted as it would be by itself.
            yield name, own.models[1], None
        else:
            yield name, *_timed(name, ESTIMATORS[name].options(), sample, chances, seed)
    for name, variant in VARIANTS.items() if is_ablated else ():
        yield name, *_timed("memento", variant, sample, chances, seed)


def _timed(name: str, options: Any, sample: ArmSample, chances: Floats, seed: int) -> tuple[FittedModel, float]:
    started = time.perf_counter()
    model = ESTIMATORS[name].fit([sample], [chances], options, [seed])[0]
    return model, time.perf_counter() - started


def told(
    model: FittedModel, sample: ArmSample, propensity: PropensityModel, seen: ArmDraw, fresh: ArmDraw
) -> dict[str, object]:
    """Errors on rows not seen, and on those seen; how often intervals cover, by arm and quartile of its propensity.

    pehe: mean over pairs of arms and rows of squared errors of effects. ate_error: mean over pairs of absolute errors
    of mean effects. covered: shares by arm, ``;`` between arms, from the lowest quartile of propensities on.
    """
    predictor = Predictor(model, propensity, effect_errors(sample, model.cross_fitted(sample)), LEAST_CHANCE)
    of_fresh, of_seen = predictor.predict(fresh.covariates), predictor.predict(seen.covariates)
    reach = _QUANTILE * of_fresh.std_errors[:, 1:]
    truth = (fresh.means - fresh.means[:, :1])[:, 1:]
    covered = np.abs(of_fresh.effects[:, 1:] - truth) <= reach
    seen_truth = (seen.means - seen.means[:, :1])[:, 1:]
    seen_covered = np.abs(of_seen.effects[:, 1:] - seen_truth) <= _QUANTILE * of_seen.std_errors[:, 1:]
    return {
        "pehe": f"{pehe(of_fresh.outcomes, fresh.means):.6f}",
        "pehe_seen": f"{pehe(of_seen.outcomes, seen.means):.6f}",
        "ate_error": f"{ate_error(of_fresh.outcomes, fresh.means):.6f}",
        "coverage": f"{covered.mean():.4f}",
        "coverage_seen": f"{seen_covered.mean():.4f}",
        "width": f"{2 * reach.mean():.4f}",
        "spread": f"{truth.std():.4f}",
        "covered": ";".join(_by_quartile(covered[:, k], fresh.propensities[:, k + 1]) for k in range(truth.shape[1])),
    }


def _by_quartile(covered: np.ndarray, propensity: Floats) -> str:
    places = np.searchsorted(np.quantile(propensity, _QUARTILES), propensity)
    return " ".join(f"{covered[places == place].mean():.3f}" for place in range(len(_QUARTILES) + 1))


def _pairs(outcomes: Floats, means: Floats) -> Sequence[Floats]:
    """(n_rows,) errors of the effect of each pair of arms."""
    errors = outcomes - means
    n_arms = errors.shape[1]
    return [errors[:, k] - errors[:, j] for k in range(n_arms) for j in range(k)]


def pehe(outcomes: Floats, means: Floats) -> float:
    """Precision in estimation of heterogeneous effects (Hill 2011), averaged over pairs of arms."""
    return float(np.mean([np.mean(one**2) for one in _pairs(outcomes, means)]))


def ate_error(outcomes: Floats, means: Floats) -> float:
    """Mean over pairs of arms of absolute errors of mean effects."""
    return float(np.mean([abs(one.mean()) for one in _pairs(outcomes, means)]))
