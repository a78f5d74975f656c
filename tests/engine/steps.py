"""A small estimator in three rounds, which workers get to know when its options are sent to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causal_spark.engine import panel_groups, panels
from causal_spark.errors import NoTreatedCellsError, UnsupportedPatternError
from causal_spark.panel.registry import ESTIMATORS, EstimatorDefinition
from causal_spark.panel.stages import Arrays, StagedDefinition, run_in_process
from causal_spark.panel.types import Fit, Panel, PanelSize, Penalties, TuningStep

GRID = np.array([0.0, 0.1, 0.3, 1.0, 3.0])


@dataclass(frozen=True)
class StepsOptions:
    """seconds: cost of a round per unit of the panel; fails: (round, chunk) pairs that raise, an odd chunk a defect."""

    seconds: float = 1.0
    fails: tuple[tuple[int, int], ...] = ()

    def __reduce__(self) -> Any:
        return _received, (self.seconds, self.fails)


def _received(*arguments: Any) -> StepsOptions:
    panels.ESTIMATORS = panel_groups.ESTIMATORS = with_steps()
    return StepsOptions(*arguments)


class Steps:
    """Decay of time weights: a grid, a finer grid around its two best, predictions by treated unit."""

    def __init__(self, panel: Panel, options: StepsOptions, penalties: Penalties | None, seed: int) -> None:
        if not panel.treated.any():
            raise NoTreatedCellsError("Nothing is treated.", "Look elsewhere.")
        self.panel, self.options = panel, options
        self.rows = np.flatnonzero(panel.ever_treated)
        self.noise = np.random.default_rng(seed).normal(size=panel.n_periods)

    def n_chunks(self, state: Arrays) -> int:
        return [GRID.size, 2 * GRID.size, self.rows.size, 0][int(state["round"]) if state else 0]

    def candidates(self, state: Arrays) -> Any:
        if not state:
            return GRID
        best = state["tried"][np.argsort(state["score"], kind="stable")[:2]]
        return np.concatenate([value + 0.01 + GRID / 7 for value in best])

    def run(self, state: Arrays, chunk: int) -> Arrays:
        stage = int(state["round"]) if state else 0
        if (stage, chunk) in self.options.fails:
            if chunk % 2:
                raise ZeroDivisionError(f"chunk {chunk}")
            raise UnsupportedPatternError(f"Chunk {chunk} of round {stage}.", "Take another.")
        if stage == 2:
            return {"row": self.predict(self.rows[chunk], state["best"])}
        value = self.candidates(state)[chunk]
        errors = [self.panel.outcome[i] - self.predict(i, value) for i in np.flatnonzero(~self.panel.ever_treated)]
        # Not in C order, and in part of another array, as results often are.
        return {"file": np.asfortranarray(np.stack(errors)[:, ::2] ** 2), "value": value}

    def predict(self, row: int, decay: float) -> Any:
        others = np.delete(np.arange(self.panel.n_units), self.rows)
        others = others[others != row]
        mean = self.panel.outcome[others].mean(axis=0) + 1e-3 * self.noise
        free = ~self.panel.treated[row]
        gaps = np.abs(np.subtract.outer(np.arange(free.size), np.flatnonzero(free)))
        weights = np.exp(-decay * gaps)
        return mean + weights @ (self.panel.outcome[row] - mean)[free] / weights.sum(axis=1)

    def fold(self, state: Arrays, results: Sequence[Arrays]) -> Arrays:
        if state and state["round"] == 2:
            return {**state, "round": np.array(3), "rows": np.stack([result["row"] for result in results])}
        before = (state["tried"], state["score"]) if state else ([], [])
        tried = np.concatenate([before[0], [float(result["value"]) for result in results]])
        score = np.concatenate([before[1], [result["file"].sum() for result in results]])
        number = int(state["round"]) + 1 if state else 1
        return {"round": np.array(number), "tried": tried, "score": score, "best": tried[np.argmin(score)]}

    def finish(self, state: Arrays) -> Fit:
        counterfactual = np.full(self.panel.outcome.shape, np.nan)
        counterfactual[self.rows] = state["rows"]
        return Fit(
            counterfactual,
            Penalties(lambda_time=float(state["best"])),
            "block",
            float(state["score"].min()),
            tuple(
                TuningStep(value, None, None, score)
                for value, score in zip(state["tried"].tolist(), state["score"].tolist(), strict=True)
            ),
        )


def _fit(panel: Panel, options: Any, penalties: Penalties | None, seed: int) -> Fit:
    return run_in_process(Steps(panel, options, penalties, seed))


def _seconds(size: PanelSize, options: StepsOptions) -> tuple[float, ...]:
    return tuple(share * options.seconds * size.n_units for share in (0.5, 0.3, 0.1))


def _most_chunks(size: PanelSize, options: StepsOptions) -> tuple[int, ...]:
    return GRID.size, 2 * GRID.size, size.n_treated_units


def _cost(size: PanelSize, options: StepsOptions, tune: bool) -> float:
    return options.seconds * size.n_units


def with_steps() -> dict[str, EstimatorDefinition]:
    """All estimators and this one."""
    staged = StagedDefinition(Steps, _seconds, _most_chunks)
    return {**ESTIMATORS, "steps": EstimatorDefinition("steps", _fit, StepsOptions, _cost, lambda _: 4.0, "", staged)}
