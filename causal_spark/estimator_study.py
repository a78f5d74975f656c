"""`EstimatorStudy`: which estimator and which variance to trust on one's own panels, from a pandas or a Spark frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from causal_spark.engine.columns import PanelRoles, panel_columns
from causal_spark.engine.keys import canonical_json
from causal_spark.engine.studies import StudyWork
from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.methods import Method, estimator_tasks, method_name, validated, variance_tasks
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.simulation import SimulationOptions
from causal_spark.panel.study import StudyOptions
from causal_spark.panel_effects import CLASSIC_ESTIMATORS
from causal_spark.results import Frame, Result, fit_frame, memory_bytes, require_frame

DEFAULTS = StudyOptions()


@dataclass(frozen=True)
class StudyResult(Result):
    """What an estimator study found, see `Result`."""

    pictures: ClassVar[Mapping[str, str]] = {
        "estimator_race": "estimators",
        "coverage_and_power": "variances",
    }

    @property
    def estimators(self) -> Frame:
        """One row per group, design, effect shape and estimator: RMSE, bias, place, with Monte Carlo errors."""
        return self._run.frame("estimator_study")

    @property
    def variances(self) -> Frame:
        """One row per group, design, estimator, variance and quarter by noise: coverage, power and width."""
        return self._run.frame("variance_study")

    @property
    def recommendations(self) -> Frame:
        """One row per group: estimator and variance to use, and why."""
        return self._run.frame("recommendations")


@dataclass(frozen=True)
class EstimatorStudy:
    """Which estimator errs least, and whose intervals cover, on panels drawn from a model of the ones given.

    estimators, variances: as in `PanelEffects`; without_variances: names of estimators whose variances are not tried,
    such as those that re-estimates take long. simulation: how panels are drawn: ``assignment`` (uniform, factors,
    synthetic_control, truly_treated, observed), ``rank``, ``treated_units``, ``treated_periods``, see
    `SimulationOptions`. designs: variants of the model: calibrated, heteroskedastic, and no_autocorrelation,
    no_interactive, no_additive, noise_only. effects: how effects change over time: constant, ramp, jump; effect_size:
    of those that do, in standard deviations of the untreated outcomes. effect: by which power is judged, in units of
    the outcome; None: 2.8 times the smallest RMSE. replicates: draws per design; variance_replicates: draws of them for
    which variances are computed, None for all. confidence_level: of the intervals. seed: of everything random.
    worker_memory: GiB one task may use; None measures it where panels are large.

    >>> found = EstimatorStudy(estimators=["did", "sc", "sdid"], variances=["placebo", "unit_time"]).fit(
    ...     frame, unit="state", time="year", outcome="packs", treatment="treated"
    ... )
    >>> found.recommendations
    """

    estimators: Sequence[Method] = CLASSIC_ESTIMATORS
    variances: Sequence[Method] = ("placebo", "unit_time")
    without_variances: Sequence[str] = ()
    simulation: dict[str, object] = field(default_factory=dict)
    designs: Sequence[str] = DEFAULTS.designs
    effects: Sequence[str] = DEFAULTS.effects
    effect_size: float = DEFAULTS.effect_size
    effect: float | None = None
    replicates: int = DEFAULTS.replicates
    variance_replicates: int | None = None
    confidence_level: float = 0.95
    seed: int = 0
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
        policy: str | None = None,
        work_location: str | None = None,
    ) -> StudyResult:
        """Study every panel of a long frame: one row per group, unit and time.

        treatment, outcome, work_location: as in `PanelEffects.fit`. policy: a column that is 1 in some row of the units
        that simulated treatments shall go by (``assignment: factors``); None: of those truly treated. Truly treated
        cells take no part. Groups that cannot be simulated end in ``.failures``.
        Raises `InputError` for columns that cannot serve, `EmptyInputError`, `ConfigError` for settings that are not
        valid.
        """
        require_frame(data)
        work = self.plan_work(data, PanelRoles(unit, time, outcome, treatment, groups, policy=policy))
        return fit_frame(data, work, self._identity(work), work_location, StudyResult)

    def plan_work(self, data: Frame, roles: PanelRoles) -> StudyWork:
        """The engine's description of this study, its columns and settings checked. Raises as `fit` does."""
        memory_limit = memory_bytes(self.confidence_level, self.seed, self.worker_memory)
        options = self.settings()
        if roles.policy is not None and options.simulation.assignment != "factors":
            raise ConfigError(
                f"A policy column is given, but assignment is {options.simulation.assignment}.",
                "Set assignment: factors, or leave the policy out.",
            )
        columns = panel_columns(data, roles)
        return StudyWork(
            columns=columns,
            estimators=estimator_tasks(self.estimators, ESTIMATORS, columns.group_types),
            variances=variance_tasks(self.variances),
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            memory_limit=memory_limit,
            options=options,
            effect=self.effect,
            without_variances=tuple(self.without_variances),
        )

    def settings(self) -> StudyOptions:
        """How panels are drawn, and how many. Raises `ConfigError` for what is not valid."""
        known = [one.name for one in dataclasses.fields(SimulationOptions)]
        for name in self.simulation:
            if name not in known:
                raise ConfigError(f"simulation has no option {name!r}.", did_you_mean(str(name), known))
        names = [method_name(method) for method in self.estimators]
        for name in self.without_variances:
            if name not in names:
                raise ConfigError(f"without_variances names {name!r}, which is not tried.", did_you_mean(name, names))
        if self.effect is not None and not 0 < abs(self.effect) < math.inf:
            raise ConfigError(f"effect is {self.effect}.", "It is a number other than 0: power is judged by it.")
        settings = {
            "simulation": dict(self.simulation),
            "designs": list(self.designs),
            "effects": list(self.effects),
            "effect_size": self.effect_size,
            "replicates": self.replicates,
            "variance_replicates": self.variance_replicates,
        }
        options: StudyOptions = validated(StudyOptions, settings, "the study")
        return options

    def _identity(self, work: StudyWork) -> str:
        return canonical_json(
            {
                "columns": {column.name: column.source for column in work.columns.all},
                "estimators": list(self.estimators),
                "variances": list(self.variances),
                "without_variances": list(self.without_variances),
                "options": dataclasses.asdict(work.options),
                "effect": self.effect,
                "confidence_level": self.confidence_level,
                "seed": int(self.seed),
                "worker_memory": self.worker_memory,
            }
        )
