"""The estimator study's work on one panel: draws of a model of it, estimators and variances on them, what they say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from causal_spark.engine.build_panel import build_panel, unit_flags
from causal_spark.engine.columns import POLICY
from causal_spark.engine.keys import seed_for
from causal_spark.engine.panel_groups import Chunks, PanelGroups
from causal_spark.engine.tasks import EstimatorTask, Notice, failure_of, wanted_tasks, warning_of
from causal_spark.engine.work import Failure, Group, GroupResult, GroupSize, Piece, RoundSize, Row
from causal_spark.errors import NoEstimateError
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.registry import ESTIMATORS, VarianceMethod, replicate_sets
from causal_spark.panel.replicates import ReplicateSet
from causal_spark.panel.simulation import Simulation, fit_simulation
from causal_spark.panel.stages import from_bytes
from causal_spark.panel.study import Study, StudyDraws, StudyOptions, study_chunks, study_seconds
from causal_spark.panel.study_summary import (
    Draws,
    accuracies,
    coverages,
    detectable_effect,
    recommend,
)
from causal_spark.panel.types import Panel, PanelSize


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWork(PanelGroups):
    """Simulations calibrated to one panel, and what estimators and variances do on them.

    effect: by which power is judged, in units of the outcome; None: what the best estimator detects. without_variances:
    estimators whose variances are not tried.
    """

    options: StudyOptions = field(default_factory=StudyOptions)
    effect: float | None = None
    without_variances: tuple[str, ...] = ()

    job = "estimator_study"
    tables = ("estimator_study", "variance_study", "recommendations")

    def drawn_size(self, size: PanelSize) -> PanelSize:
        """Dimensions of the panels that are drawn, about."""
        simulation = self.options.simulation
        n_treated = min(simulation.treated_units or max(size.n_treated_units, 1), size.n_units)
        n_post = simulation.treated_periods or round(size.n_treated_cells / max(size.n_treated_units, 1))
        return PanelSize(size.n_units, size.n_periods, n_treated, n_treated * max(n_post, 1))

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per estimator that is tried on the group, its variances included."""
        panel = self.drawn_size(self.panel_size(size))
        return {task.name: study_seconds(*self._planned(task, panel)) for task in self.fitting(size)}

    def _planned(
        self, task: EstimatorTask, size: PanelSize
    ) -> tuple[StudyOptions, PanelSize, EstimatorDefinition, Any, tuple[ReplicateSet, ...]]:
        """What tells cost and chunks of an estimator."""
        sets = replicate_sets(self._variances_of(task))
        return self.options, size, ESTIMATORS[task.name], task.options, sets

    def cell_rows(self, size: PanelSize, n_rows: int) -> int:
        """No table has a row per cell."""
        del size, n_rows
        return 0

    def rounds(self, size: GroupSize) -> Mapping[str, Sequence[RoundSize]]:
        """One round: draws depend on nothing but their number."""
        panel = self.drawn_size(self.panel_size(size))
        return {
            task.name: [RoundSize(study_seconds(*planned), len(study_chunks(*planned)))]
            for task in self.fitting(size)
            for planned in [self._planned(task, panel)]
        }

    def chunks(self, panel: Panel, group: Group, task: EstimatorTask, number: int, done: Sequence[Piece]) -> Chunks:
        """Chunks of draws; what fails unforeseen in one would in others."""
        del number, done
        study = self._study(self._simulation(panel, group), group, task)
        chunks = study.chunks()
        return Chunks(len(chunks), lambda k: study.run(chunks[k]), failing=True)

    def _simulation(self, panel: Panel, group: Group) -> Simulation:
        policy = None
        if any(column.name == POLICY for column in self.columns.values):
            policy = unit_flags(group.rows, panel, POLICY, "policy")
        return fit_simulation(panel, self.options.simulation, policy)

    def _study(self, simulation: Simulation, group: Group, task: EstimatorTask) -> Study:
        seed = partial(seed_for, self.seed, group.group_id)
        return Study(simulation, self.options, ESTIMATORS[task.name], task.options, self._variances_of(task), seed)

    def _variances_of(self, task: EstimatorTask) -> tuple[VarianceMethod, ...]:
        return () if task.name in self.without_variances else self.variances

    def run(self, group: Group, done: Sequence[Piece] = ()) -> GroupResult:
        """The study of one panel; estimators that give nothing become failures with a hint."""
        result = GroupResult({name: [] for name in self.tables})
        try:
            panel = build_panel(group.rows, self.memory_limit)
            tasks = wanted_tasks(self.estimators, group.key)
            simulation = self._simulation(panel, group)
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("read", None, error))
            return result
        draws: dict[str, dict[Any, StudyDraws]] = {}
        for task in tasks:
            pieces = [piece for piece in done if piece.estimator == task.name]
            started = time.perf_counter()
            try:
                self.require_memory(panel, group, task)
                found = self._draws(self._study(simulation, group, task), pieces, result)
                if found is not None:
                    draws[task.name] = found
            except Exception as error:  # noqa: BLE001 - one bad estimator must never fail a job
                result.failures.append(failure_of("estimate", task.name, error))
            result.seconds[task.name] = sum(piece.seconds for piece in pieces) + time.perf_counter() - started
        told = {name: by_design for name, by_design in draws.items() if self._tell_missing(name, by_design, result)}
        if told:
            self._tell(told, result)
        return result

    def _draws(self, study: Study, pieces: Sequence[Piece], result: GroupResult) -> dict[Any, StudyDraws] | None:
        """Draws by design; None where some failed elsewhere, which the result then tells."""
        failed = [piece.failure for piece in pieces if piece.failure is not None]
        if failed:
            result.failures.append(failed[0])
            return None
        known = {piece.chunk: piece.content for piece in pieces if piece.content is not None}
        results = []
        for number, chunk in enumerate(study.chunks()):
            content = known.get(number)
            results.append(study.run(chunk) if content is None else from_bytes(content))
        return dict(study.gather(results))

    def _tell_missing(self, name: str, by_design: Mapping[Any, StudyDraws], result: GroupResult) -> bool:
        """Add what is missing of an estimator to the result; False where it gave nothing at all."""
        some = False
        for design, draws in by_design.items():
            errors = draws.errors["constant"]
            n_missing = int(np.isnan(errors).sum())
            some |= n_missing < errors.size - 1
            if n_missing:
                message = f"No estimate in {n_missing} of {errors.size} draws ({design}): {draws.reasons.get('')}"
                result.failures.append(_missing("estimate", name, message, n_missing >= errors.size - 1))
            for variance, (std_error, _) in draws.bars.items():
                n_lost = int((np.isnan(std_error) & ~np.isnan(errors[: std_error.size])).sum())
                if n_lost:
                    message = f"No interval in {n_lost} of {std_error.size} draws ({design}): {draws.reasons[variance]}"
                    everything = n_lost >= std_error.size - 1
                    result.failures.append(_missing(f"variance:{variance}", name, message, everything))
        return some

    def _tell(self, draws: Draws, result: GroupResult) -> None:
        options = self.options
        try:
            rows: dict[str, list[Row]] = {name: [] for name in self.tables}
            for design in options.designs:
                for shape in options.effects:
                    rows["estimator_study"] += [
                        {
                            "design": design,
                            "effect_shape": shape,
                            "estimator": name,
                            "n_replicates": one.n,
                            "rmse": one.rmse,
                            "rmse_mc_error": one.rmse_mc_error,
                            "bias": one.bias,
                            "bias_mc_error": one.bias_mc_error,
                            "normalised_rmse": _known(one.normalised_rmse),
                            "normalised_rmse_mc_error": _known(one.normalised_rmse_mc_error),
                            "place": one.place,
                            "best_or_tied": one.tied,
                        }
                        for name, one in accuracies(draws, design, shape).items()
                    ]
                effect = detectable_effect(draws, design) if self.effect is None else self.effect
                for name, by_design in draws.items():
                    for variance in by_design[design].bars:
                        rows["variance_study"] += [
                            {
                                "design": design,
                                "estimator": name,
                                "variance_estimator": variance,
                                "noise_quartile": one.quartile,
                                "n_replicates": one.n,
                                "conf_level": self.confidence_level,
                                "coverage": one.coverage,
                                "coverage_mc_error": one.coverage_mc_error,
                                "power": one.power,
                                "power_effect": one.effect,
                                "mean_width": one.mean_width,
                            }
                            for one in coverages(by_design[design], variance, self.confidence_level, effect)
                        ]
            best = recommend(draws, options.designs, options.effects, self.confidence_level)
            if best is not None:
                rows["recommendations"] = [
                    {"estimator": best.estimator, "variance_estimator": best.variance, "reason": best.reason}
                ]
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("estimate", None, error))
            return
        result.tables |= rows


def _missing(stage: str, name: str, message: str, everything: bool) -> Failure:
    """A failure where nothing is left, else a warning."""
    if everything:
        return failure_of(stage, name, NoEstimateError(message, "Leave it out, or change how panels are drawn."))
    return warning_of(stage, name, Notice("LostDraws", message, "Figures are about the other draws."))


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
