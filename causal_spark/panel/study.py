"""One estimator and its variances on many panels drawn from a model of one: the raw results of an estimator study.

Athey, Imbens, Qu, Viviano (2025) recommend to choose among estimators by simulations closely matched to the data at
hand. Draws are numbered, and a number stands for the same treated units and the same noise in every design and for
every estimator (common random numbers), so that estimators are compared on the same panels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from causal_spark.errors import GroupError, SolverError
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.inference import ErrorBar
from causal_spark.panel.registry import VARIANCES, VarianceMethod, replicate_sets
from causal_spark.panel.replicates import Replicates, ReplicateSet, Setting
from causal_spark.panel.shaped import shaped_estimates
from causal_spark.panel.simulation import EffectShape, ModelVariant, Simulation, SimulationOptions, effect_of_shape
from causal_spark.panel.stages import Arrays
from causal_spark.panel.summary import att
from causal_spark.panel.types import Floats, Panel, PanelSize

#: Draws computed in one go: the seconds they take, and how many they are, at most.
_CHUNK_SECONDS, _CHUNK_DRAWS = 5.0, 50


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """What is tried.

    simulation: how panels are drawn. designs: variants of the model; recommendations rest on those that are like the
    panel. effects: how effects change over time, the first of them constant. effect_size: of those that do, in standard
    deviations of the untreated outcomes, see `effect_of_shape`. replicates: draws per design. variance_replicates:
    draws of them for which variances are computed, None: all.
    """

    simulation: SimulationOptions = field(default_factory=SimulationOptions)
    designs: tuple[ModelVariant, ...] = ("calibrated", "heteroskedastic")
    effects: tuple[EffectShape, ...] = ("constant", "ramp")
    effect_size: float = 0.2
    replicates: int = 200
    variance_replicates: int | None = None

    def __post_init__(self) -> None:
        if not self.designs or len(set(self.designs)) < len(self.designs):
            raise ValueError("designs must be there, each once.")
        if len(set(self.effects)) < len(self.effects) or self.effects[:1] != ("constant",):
            raise ValueError("effects must start with constant, and have each once.")
        if self.replicates < 2 or not 0 <= self.n_with_variances <= self.replicates:
            raise ValueError("replicates must be at least 2, and variance_replicates no more than that.")
        if not 0.0 < self.effect_size < math.inf:
            raise ValueError("effect_size must be positive.")

    @property
    def n_with_variances(self) -> int:
        """Draws for which variances are computed."""
        return self.replicates if self.variance_replicates is None else self.variance_replicates


@dataclass(frozen=True, slots=True)
class Chunk:
    """Draws ``start`` to ``stop`` of one design; either all with variances or none."""

    design: ModelVariant
    start: int
    stop: int
    with_variances: bool


@dataclass(frozen=True, slots=True, eq=False)
class StudyDraws:
    """What came of one estimator in one design.

    errors: effect to (n_draws,) errors of the ATT, in units of the outcome, NaN where there is no estimate. bars:
    variance to its error bars, (n_variance_draws,) each: standard error and degrees of freedom, infinite for the normal
    distribution; NaN where there is none. noise: (n_draws,) variances of the mean of noise over treated cells.
    reasons: what to say of draws without an estimate, or, by variance, without a standard error: the first's.
    """

    errors: Mapping[EffectShape, Floats]
    bars: Mapping[str, tuple[Floats, Floats]]
    noise: Floats
    reasons: Mapping[str, str]


class Study:
    """Draws of one estimator.

    seed: label of what is random -> its seed. It does not depend on the estimator.
    """

    def __init__(
        self,
        simulation: Simulation,
        options: StudyOptions,
        definition: EstimatorDefinition,
        estimator_options: Any,
        variances: Sequence[VarianceMethod],
        seed: Callable[[str], int],
    ) -> None:
        self._simulation, self._options = simulation, options
        self._definition, self._estimator_options = definition, estimator_options
        self._variances, self._seed = tuple(variances), seed
        self._sets = replicate_sets(variances)

    def chunks(self) -> list[Chunk]:
        """Of all designs, in order: what is computed in one go, a function of panel and options alone."""
        return study_chunks(
            self._options, PanelSize.of(self._example()), self._definition, self._estimator_options, self._sets
        )

    def _example(self) -> Panel:
        """A panel as large as those drawn, with as many treated units as there may be."""
        template = self._simulation.template
        if self._simulation.probability is None:
            return template
        treated = np.zeros(template.treated.shape, dtype=bool)
        treated[: self._simulation.n_treated, -self._simulation.n_post :] = True
        return template.with_treatment(treated)

    def run(self, chunk: Chunk) -> Arrays:
        """Results of a chunk's draws, one along the first axis each; see `gather`."""
        model = self._simulation.variant(chunk.design)
        shapes = self._options.effects
        numbers = range(chunk.start, chunk.stop)
        errors = np.full((len(numbers), len(shapes)), np.nan)
        bars = np.full((len(numbers), len(self._variances), 2), np.nan)
        noise = np.empty(len(numbers))
        reasons = [""] * len(numbers)
        why = [[""] * len(self._variances) for _ in numbers]
        size = self._options.effect_size * self._simulation.calibration.scale
        for place, number in enumerate(numbers):
            drawn = model.draw(self._seed(f"study:{number}"))
            noise[place] = drawn.noise_variance
            effects: dict[str, Floats] = {shape: effect_of_shape(drawn.panel, shape, size) for shape in shapes}
            try:
                if chunk.with_variances:
                    errors[place, 0], bars[place], why[place] = self._with_variances(drawn.panel, number)
                    self._fill(drawn.panel, number, effects, errors[place])
                else:
                    found = shaped_estimates(*self._arguments(drawn.panel, number), effects)
                    errors[place] = [found[shape].estimate for shape in shapes]
            except GroupError as error:
                reasons[place] = error.message
        return {"errors": errors, "bars": bars, "noise": noise, "reasons": np.array(reasons), "why": np.array(why)}

    def _fill(self, panel: Panel, number: int, effects: Mapping[str, Floats], errors: Floats) -> None:
        """Errors under effects that change, those under a constant one being there."""
        changing = {shape: effect for shape, effect in effects.items() if shape != "constant"}
        if not self._definition.reads_treated:
            errors[1:] = errors[0]
        elif changing:
            found = shaped_estimates(*self._arguments(panel, number), changing)
            errors[1:] = [found[shape].estimate for shape in changing]

    def _arguments(self, panel: Panel, number: int) -> tuple[Panel, EstimatorDefinition, Any, int]:
        shared = self._definition.draws or self._definition.name
        return panel, self._definition, self._estimator_options, self._seed(f"study:{number}:tune:{shared}")

    def _with_variances(self, panel: Panel, number: int) -> tuple[float, Floats, list[str]]:
        panel, definition, options, seed = self._arguments(panel, number)
        fit = definition.fit(panel, options, None, seed)
        labelled = partial(_labelled, self._seed, f"study:{number}")
        setting = Setting(panel, definition, options, fit, labelled)
        replicates = Replicates(setting, self._sets)
        bars, why = np.full((len(self._variances), 2), np.nan), [""] * len(self._variances)
        for place, variance in enumerate(self._variances):
            try:
                bars[place] = _numbers(VARIANCES[variance.name].estimate(setting, variance.options, replicates).att)
            except GroupError as error:
                why[place] = error.message
        return att(panel, fit), bars, why

    def gather(self, results: Sequence[Arrays]) -> dict[ModelVariant, StudyDraws]:
        """By design, from the results of all chunks, in order."""
        found: dict[ModelVariant, StudyDraws] = {}
        chunks = self.chunks()
        for design in self._options.designs:
            mine = [(chunk, arrays) for chunk, arrays in zip(chunks, results, strict=True) if chunk.design == design]
            with_variances = [arrays for chunk, arrays in mine if chunk.with_variances]
            errors = np.concatenate([arrays["errors"] for _, arrays in mine])
            reasons = {"": next((str(one) for _, arrays in mine for one in arrays["reasons"] if one), "")}
            bars: dict[str, tuple[Floats, Floats]] = {}
            for place, variance in enumerate(self._variances):
                own = np.concatenate([arrays["bars"][:, place] for arrays in with_variances] or [np.empty((0, 2))])
                bars[variance.name] = own[:, 0], own[:, 1]
                told = (str(one) for arrays in with_variances for one in arrays["why"][:, place] if one)
                reasons[variance.name] = next(told, "")
            found[design] = StudyDraws(
                {shape: errors[:, place] for place, shape in enumerate(self._options.effects)},
                bars,
                np.concatenate([arrays["noise"] for _, arrays in mine]),
                {name: reason for name, reason in reasons.items() if reason},
            )
        return found


def study_chunks(
    options: StudyOptions,
    size: PanelSize,
    definition: EstimatorDefinition,
    estimator_options: Any,
    sets: Sequence[ReplicateSet],
) -> list[Chunk]:
    """Chunks of a study's draws; size: of the panels drawn."""
    plain, full = _draw_seconds(options, size, definition, estimator_options, sets)
    n_full = _n_full(options, sets)
    chunks = []
    for design in options.designs:
        for start, stop, seconds, with_variances in (
            (0, n_full, full, True),
            (n_full, options.replicates, plain, False),
        ):
            n = max(1, min(_CHUNK_DRAWS, int(_CHUNK_SECONDS / max(seconds, 1e-9))))
            chunks += [Chunk(design, k, min(k + n, stop), with_variances) for k in range(start, stop, n)]
    return chunks


def study_seconds(
    options: StudyOptions,
    size: PanelSize,
    definition: EstimatorDefinition,
    estimator_options: Any,
    sets: Sequence[ReplicateSet],
) -> float:
    """Core seconds of all draws of an estimator; size: of the panels drawn."""
    plain, full = _draw_seconds(options, size, definition, estimator_options, sets)
    n_full = _n_full(options, sets)
    return len(options.designs) * (n_full * full + (options.replicates - n_full) * plain)


def _n_full(options: StudyOptions, sets: Sequence[ReplicateSet]) -> int:
    """Draws of a design with variances."""
    return options.n_with_variances if sets else 0


def _draw_seconds(
    options: StudyOptions,
    size: PanelSize,
    definition: EstimatorDefinition,
    estimator_options: Any,
    sets: Sequence[ReplicateSet],
) -> tuple[float, float]:
    """Core seconds of a draw without variances, and with them."""
    plain = definition.cost(size, estimator_options, True)
    again = plain if definition.reads_treated and len(options.effects) > 1 else 0.0
    return plain, plain + again + sum(
        one.n_fits(size) * one.seconds(size, definition, estimator_options) for one in sets
    )


def _labelled(seed: Callable[[str], int], of: str, label: str) -> int:
    return seed(f"{of}:{label}")


def _numbers(bar: ErrorBar) -> tuple[float, float]:
    if not bar.is_usable:
        raise SolverError("The standard error is not finite.", "Look for extreme outcomes.")
    return bar.std_error, math.inf if bar.df is None else bar.df
