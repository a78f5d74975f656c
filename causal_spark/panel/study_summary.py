"""What an estimator study says: who errs least, whose intervals can be trusted, and what to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from causal_spark.panel.comparison import TIE, Accuracy, compare
from causal_spark.panel.simulation import EffectShape, ModelVariant
from causal_spark.panel.study import StudyDraws
from causal_spark.panel.types import Bools, Floats

#: Effects are judged by power against one of so many times the smallest RMSE: a test of size .05 with the right
#: standard error finds it four times out of five.
_DETECTABLE = 2.8
#: An interval may cover so much less than it says, or two Monte Carlo errors, before it is not to be trusted.
_SHORTFALL = 0.02
#: Noise of draws that differs by less than this share is one.
_ALIKE = 1e-6
_N_QUARTERS = 4
#: Designs that recommendations rest on where they are there; others take a part of the panel away.
_LIKE_THE_PANEL = ("calibrated", "heteroskedastic")

#: Estimator to design to draws.
Draws = Mapping[str, Mapping[ModelVariant, StudyDraws]]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How one variance does in one design.

    quartile: 0 for all draws, 1 to 4 for quarters of them by how noisy their treated cells are, the quietest first. n:
    draws. coverage: share of intervals that hold the effect; power: share that exclude zero if the effect is
    ``effect``, in units of the outcome; mean_width: of the intervals. coverage_mc_error: Monte Carlo standard error.
    """

    quartile: int
    n: int
    coverage: float
    coverage_mc_error: float
    power: float
    effect: float
    mean_width: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """variance: None where none was studied or all failed."""

    estimator: str
    variance: str | None
    reason: str


def accuracies(draws: Draws, design: ModelVariant, effect: EffectShape) -> dict[str, Accuracy]:
    """Of every estimator that has two estimates, the best first."""
    return compare({name: by_design[design].errors[effect] for name, by_design in draws.items()})


def detectable_effect(draws: Draws, design: ModelVariant) -> float:
    """An effect that the best estimator finds four times out of five, in units of the outcome; NaN without one."""
    best = next(iter(accuracies(draws, design, "constant").values()), None)
    return math.nan if best is None else _DETECTABLE * best.rmse


def coverages(draws: StudyDraws, variance: str, level: float, effect: float) -> list[Coverage]:
    """Of all draws, and of quarters of them where their noise differs; nothing without two intervals.

    level: of confidence. effect: by which power is judged, in units of the outcome.
    """
    std_error, df = draws.bars[variance]
    n = std_error.size
    errors, noise = draws.errors["constant"][:n], draws.noise[:n]
    known = np.isfinite(std_error) & np.isfinite(errors)
    if known.sum() < 2:
        return []
    upper = 0.5 + level / 2.0
    finite = np.isfinite(df)
    critical = np.where(finite, stdtrit(np.where(finite, df, 1.0), upper), ndtri(upper))
    half = critical * std_error
    parts: list[tuple[int, Bools]] = [(0, known)]
    if np.ptp(noise[known]) > _ALIKE * noise[known].max():
        quarter = _quarters(noise, known)
        parts += [(k, quarter == k) for k in range(1, _N_QUARTERS + 1)]
    return [_coverage(k, errors[rows], half[rows], effect) for k, rows in parts if rows.any()]


def _quarters(noise: Floats, known: Bools) -> Floats:
    """(n,) 1 to 4 by rank among the known, 0 of others; draws alike in noise are told apart by their number."""
    found = np.zeros(noise.size)
    order = np.flatnonzero(known)[np.argsort(noise[known], kind="stable")]
    found[order] = 1 + np.arange(order.size) * _N_QUARTERS // order.size
    return found


def _coverage(quartile: int, errors: Floats, half: Floats, effect: float) -> Coverage:
    n = errors.size
    share = float((np.abs(errors) <= half).mean())
    # One interval more on either side, so that a share of one has an error too.
    drawn = (share * n + 1.0) / (n + 2.0)
    return Coverage(
        quartile,
        n,
        share,
        math.sqrt(drawn * (1.0 - drawn) / n),
        float((np.abs(effect + errors) > half).mean()),
        effect,
        2.0 * float(half.mean()),
    )


def recommend(
    draws: Draws, designs: Sequence[ModelVariant], effects: Sequence[EffectShape], level: float
) -> Recommendation | None:
    """Which estimator and which variance to use, and why.

    The estimator has the smallest RMSE in the geometric mean over effects and those designs that are like the panel. Of
    those that miss it by no more than two Monte Carlo errors, one with an interval that can be trusted is preferred:
    one that covers as it should in all draws and in every quarter of them, or falls short by at most .02 or two Monte
    Carlo errors. Of several such variances the most powerful is taken among those whose worst coverage is about as good
    as the best one's. None where no estimator has two estimates everywhere.
    """
    judged = [design for design in designs if design in _LIKE_THE_PANEL] or list(designs)
    scores = _scores(draws, judged, effects)
    if not scores:
        return None
    where = "heteroskedastic" if "heteroskedastic" in judged else judged[0]
    candidates = [name for name, (_, tied) in scores.items() if tied]
    power_against = detectable_effect(draws, where)
    variances = {name: _best_variance(draws[name][where], level, power_against) for name in candidates}
    trusted = [name for name, one in variances.items() if one is not None and one.trusted]
    chosen = (trusted or candidates)[0]
    choice = variances[chosen]
    parts = [_said_of_estimator(chosen, scores, accuracies(draws, judged[0], effects[0]))]
    parts += _said_of_effects(chosen, draws, judged[0], effects)
    parts += [_said_of_variance(choice, level)]
    if choice is None:
        parts += _said_of_others(draws, where, list(scores), level, power_against)
    return Recommendation(chosen, None if choice is None else choice.name, "; ".join(parts) + ".")


@dataclass(frozen=True, slots=True)
class _Variance:
    name: str
    trusted: bool
    overall: Coverage
    worst: Coverage


def _best_variance(draws: StudyDraws, level: float, effect: float) -> _Variance | None:
    """One that can be trusted; without any that which falls short least."""
    found = []
    for name in draws.bars:
        parts = coverages(draws, name, level, effect)
        if not parts:
            continue
        worst = min(parts, key=lambda one: one.coverage + TIE * one.coverage_mc_error)
        holds = all(one.coverage >= level - max(_SHORTFALL, TIE * one.coverage_mc_error) for one in parts)
        found.append(_Variance(name, holds, parts[0], worst))
    if not found:
        return None
    trusted = [one for one in found if one.trusted]
    if not trusted:
        return max(found, key=lambda one: one.worst.coverage)
    # Intervals that cover too little have more power: only those that cover about as well as the best are compared.
    least = max(_fallen_short(one, level) for one in trusted)
    alike = [one for one in trusted if _fallen_short(one, level) >= least - one.worst.coverage_mc_error]
    return max(alike, key=lambda one: one.overall.power)


def _fallen_short(one: _Variance, level: float) -> float:
    return min(one.worst.coverage - level, 0.0)


def _scores(
    draws: Draws, designs: Sequence[ModelVariant], effects: Sequence[EffectShape]
) -> dict[str, tuple[float, bool]]:
    """Estimator to the geometric mean of its RMSE over the best one's, and whether it is as good; the best first.

    Draws of several designs and effects have numbers in common, so errors of means are those of sums by number.
    """
    cells = [(design, effect) for design in designs for effect in effects]
    names = [
        name
        for name, by_design in draws.items()
        if all(np.isfinite(by_design[design].errors[effect]).sum() > 1 for design, effect in cells)
    ]
    logs: dict[str, float] = {}
    influence: dict[str, Floats] = {}
    for name in names:
        squares = [np.square(draws[name][design].errors[effect]) for design, effect in cells]
        means = [float(np.nanmean(one)) for one in squares]
        if min(means) <= 0.0:
            logs[name], influence[name] = -math.inf, np.zeros(squares[0].size)
            continue
        logs[name] = float(np.mean([0.5 * math.log(one) for one in means]))
        influence[name] = np.mean([0.5 * one / mean for one, mean in zip(squares, means, strict=True)], axis=0)
    order = sorted(names, key=lambda name: (logs[name], name))
    found = {}
    for name in order:
        best = order[0]
        spread = influence[name] - influence[best]
        spread = spread[np.isfinite(spread)]
        gap = logs[name] - logs[best] if logs[name] > -math.inf else 0.0
        error = float(spread.std(ddof=1)) / math.sqrt(spread.size) if spread.size > 1 else 0.0
        found[name] = (math.exp(gap) if gap < math.inf else math.inf, gap <= TIE * error)
    return found


def _said_of_estimator(name: str, scores: Mapping[str, tuple[float, bool]], accuracy: Mapping[str, Accuracy]) -> str:
    own = accuracy[name]
    said = f"{name}: RMSE {_digits(own.rmse)} +- {_digits(own.rmse_mc_error, 2)}"
    equals = [other for other, (_, tied) in scores.items() if tied and other != name]
    if equals:
        return f"{said}, as good as {', '.join(equals)} within Monte Carlo error"
    others = [(score, other) for other, (score, _) in scores.items() if other != name]
    if not others:
        return said
    score, following = min(others)
    return f"{said}, {1.0 - 1.0 / score:.0%} below the next ({following})"


def _said_of_effects(name: str, draws: Draws, design: ModelVariant, effects: Sequence[EffectShape]) -> list[str]:
    said = []
    for effect in effects[1:]:
        own = accuracies(draws, design, effect)[name]
        said.append(f"if effects change ({effect}) {_digits(own.rmse)}, place {own.place}")
    return said


def _said_of_others(draws: Draws, design: ModelVariant, names: Sequence[str], level: float, effect: float) -> list[str]:
    """The best of those that have an interval. names: the best first."""
    for name in names:
        choice = _best_variance(draws[name][design], level, effect)
        if choice is not None:
            own = accuracies(draws, design, "constant")[name]
            return [f"the best with one is {name}: RMSE {_digits(own.rmse)}, {_said_of_variance(choice, level)}"]
    return []


def _said_of_variance(choice: _Variance | None, level: float) -> str:
    if choice is None:
        return "no interval was tried"
    said = f"the {choice.name} interval covers {choice.overall.coverage:.0%}"
    if choice.worst.quartile:
        place = ("", "quietest", "second", "third", "noisiest")[choice.worst.quartile]
        said += f" ({choice.worst.coverage:.0%} in the {place} quarter)"
    if choice.trusted:
        return f"{said}, power {choice.overall.power:.0%} against {_digits(choice.overall.effect)}"
    return f"no interval covers {level:.0%}: {said}, the nearest to it"


def _digits(value: float, n: int = 3) -> str:
    return f"{value:.{n}g}" if abs(value) < 1e5 else f"{value:.{n - 1}e}"
