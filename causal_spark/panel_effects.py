"""`PanelEffects`: treatment effects of one or many panels, from a pandas or a Spark frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from causal_spark.engine.columns import PanelRoles, panel_columns
from causal_spark.engine.keys import canonical_json
from causal_spark.engine.panels import Cells, PanelWork
from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.methods import Method, estimator_tasks, variance_tasks
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.results import Frame, Result, fit_frame, memory_bytes, require_frame

CLASSIC_ESTIMATORS = ("did", "sc", "difp", "mc", "sdid")


@dataclass(frozen=True)
class PanelResult(Result):
    """Effects of a run, see `Result`."""

    pictures: ClassVar[Mapping[str, str]] = {
        "counterfactual": "cells",
        "event_study": "event_study",
        "weights": "weights",
    }

    def _told(self, kind: str) -> dict[str, Any]:
        return {"event_study": self.event_study} if kind == "counterfactual" else {}

    @property
    def effects(self) -> Frame:
        """One row per group and estimator: the ATT, sizes, fit and tuning."""
        return self._run.frame("panel_effects")

    @property
    def variances(self) -> Frame:
        """One row per group, estimator and variance: standard error, test and interval."""
        return self._run.frame("panel_variances")

    @property
    def event_study(self) -> Frame:
        """Effects by periods since treatment, pre-period placebos included."""
        return self._run.frame("panel_event_study")

    @property
    def cells(self) -> Frame:
        """Outcome, counterfactual and effect per unit and time."""
        return self._run.frame("panel_cells")

    @property
    def weights(self) -> Frame:
        """Unit and time weights above 1e-6."""
        return self._run.frame("panel_weights")

    @property
    def tuning_path(self) -> Frame:
        """Every penalty candidate tried and its score."""
        return self._run.frame("tuning_path")


@dataclass(frozen=True)
class PanelEffects:
    """Effects of a binary treatment on panels: point estimates, variances, event studies, weights.

    estimators, variances: names, or mappings with ``name`` and that method's options (and ``where`` for estimators:
    group columns to the values they are run for). cells: which cells ``.cells`` holds (treated, all, none).
    confidence_level: of every interval. seed: of everything random. worker_memory: GiB one task may use; None measures
    it where panels are large. What would take more ends in ``.failures`` before it runs.

    >>> result = PanelEffects(estimators=["did", "sdid"]).fit(
    ...     frame, unit="state", time="year", outcome="packs", treatment="treated"
    ... )
    >>> result.effects
    """

    estimators: Sequence[Method] = CLASSIC_ESTIMATORS
    variances: Sequence[Method] = ("placebo",)
    confidence_level: float = 0.95
    seed: int = 0
    cells: Cells = "treated"
    worker_memory: float | None = None

    def fit(
        self,
        data: Frame,
        *,
        unit: str,
        time: str,
        outcome: str,
        treatment: str,
        groups: Sequence[str] = (),
        covariates: Sequence[str] = (),
        work_location: str | None = None,
    ) -> PanelResult:
        """Estimate every panel of a long frame: one row per group, unit and time.

        treatment: 1 where the unit is treated in that period, else 0. outcome: NULL or NaN means missing. Groups that
        cannot be estimated end in ``.failures``. work_location: for Spark frames, a folder all workers can write to
        (default: a temporary folder of this machine; required on Spark Connect and on clusters).
        Raises `InputError` for columns that cannot serve, `EmptyInputError`, `ConfigError` for unknown methods.
        """
        require_frame(data)
        work = self.plan_work(data, PanelRoles(unit, time, outcome, treatment, groups, covariates))
        return fit_frame(data, work, self._identity(work), work_location, PanelResult)

    def plan_work(self, data: Frame, roles: PanelRoles) -> PanelWork:
        """The engine's description of this fit, its columns and methods checked. Raises as `fit` does."""
        if self.cells not in get_args(Cells):
            raise ConfigError(f"cells is {self.cells!r}.", did_you_mean(str(self.cells), get_args(Cells)))
        memory_limit = memory_bytes(self.confidence_level, self.seed, self.worker_memory)
        columns = panel_columns(data, roles)
        return PanelWork(
            columns=columns,
            estimators=estimator_tasks(self.estimators, ESTIMATORS, columns.group_types),
            variances=variance_tasks(self.variances),
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            cells=self.cells,
            memory_limit=memory_limit,
        )

    def _identity(self, work: PanelWork) -> str:
        return canonical_json(
            {
                "columns": {column.name: column.source for column in work.columns.all},
                "estimators": list(self.estimators),
                "variances": list(self.variances),
                "confidence_level": self.confidence_level,
                "seed": int(self.seed),
                "cells": self.cells,
                "worker_memory": self.worker_memory,
            }
        )
