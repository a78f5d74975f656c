"""`ResponseCurves`: mean outcomes at every level of a continuous treatment, from a pandas or a Spark frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.second_stage import SECOND_STAGES, StageName, StageOptions
from causal_spark.engine.columns import CurveRoles, curve_columns
from causal_spark.engine.curves import CurveWork
from causal_spark.engine.keys import canonical_json
from causal_spark.errors import ConfigError
from causal_spark.methods import Method, estimator_tasks, parse_method
from causal_spark.results import Frame, Result, fit_frame, memory_bytes, require_frame

DEFAULT_WEIGHTINGS = ("unweighted", "ebct1", "e2b")
#: Doses of a group where the user names none.
N_DOSES = 21


@dataclass(frozen=True, slots=True)
class _Stage:
    """A second stage as `parse_method` knows methods."""

    options: type[StageOptions] = field(default=StageOptions)


_STAGES = {name: _Stage() for name in SECOND_STAGES}


@dataclass(frozen=True)
class CurveResult(Result):
    """Response curves of a run, see `Result`."""

    pictures: ClassVar[Mapping[str, str]] = {
        "response_curves": "curves",
        "balance": "balance",
    }

    @property
    def curves(self) -> Frame:
        """One row per group, estimator and dose: estimate, slope, standard errors and interval."""
        return self._run.frame("response_curves")

    @property
    def balance(self) -> Frame:
        """Correlations of covariates with the treatment before and after weighting, and the effective sample size."""
        return self._run.frame("balance")


@dataclass(frozen=True)
class ResponseCurves:
    """Mean outcomes at every level of a continuous treatment, had all rows of a group received it.

    estimators: names of weightings, or mappings with ``name``, options and ``where`` (group columns to the values they
    are run for). second_stage: the regression of the outcome on the treatment that all of them enter: spline, line or
    local_linear, or a mapping with ``name`` and options. replicates: of the bootstrap behind standard errors.
    min_effective_rows: below so many, weights are declined. confidence_level: of every interval. seed: of everything
    random. worker_memory: GiB one task may use; None measures it where groups are large.

    >>> result = ResponseCurves().fit(
    ...     frame, treatment="price", outcome="units", covariates=["income", "season"], groups=["country"]
    ... )
    >>> result.curves
    """

    estimators: Sequence[Method] = DEFAULT_WEIGHTINGS
    second_stage: Method = "spline"
    replicates: int = 200
    min_effective_rows: float = 20.0
    confidence_level: float = 0.95
    seed: int = 0
    worker_memory: float | None = None

    def fit(
        self,
        data: Frame,
        *,
        treatment: str,
        outcome: str,
        covariates: Sequence[str],
        groups: Sequence[str] = (),
        grid: int | Sequence[float] = N_DOSES,
        sample_weight: str | None = None,
        work_location: str | None = None,
    ) -> CurveResult:
        """Estimate the curve of every group of a frame with one row per individual.

        covariates: what treatment and outcome may both depend on, numbers or strings (categories); NULL is a value of
        its own. grid: doses, or how many between the 5% and the 95% quantile of each group's treatment. sample_weight:
        how many individuals a row stands for. Groups that cannot be estimated end in ``.failures``. work_location: for
        Spark frames, a folder all workers can write to (default: a temporary folder of this machine; required on Spark
        Connect and on clusters).
        Raises `InputError` for columns that cannot serve, `EmptyInputError`, `ConfigError` for unknown methods.
        """
        require_frame(data)
        work = self.plan_work(data, CurveRoles(treatment, outcome, covariates, groups, sample_weight), grid)
        return fit_frame(data, work, self._identity(work), work_location, CurveResult)

    def plan_work(self, data: Frame, roles: CurveRoles, grid: int | Sequence[float] = N_DOSES) -> CurveWork:
        """The engine's description of this fit, its columns and methods checked. Raises as `fit` does."""
        memory_limit = memory_bytes(self.confidence_level, self.seed, self.worker_memory)
        if self.replicates < 2:
            raise ConfigError(f"replicates is {self.replicates}.", "A standard error takes at least 2.")
        if not 0 <= self.min_effective_rows < math.inf:
            raise ConfigError(f"min_effective_rows is {self.min_effective_rows}.", "It is a number of rows.")
        stage, stage_options = checked_stage(self.second_stage)
        columns = curve_columns(data, roles)
        return CurveWork(
            columns=columns,
            estimators=estimator_tasks(self.estimators, WEIGHTINGS, columns.group_types),
            stage=stage,
            stage_options=stage_options,
            grid=checked_grid(grid),
            n_replicates=int(self.replicates),
            least_effective=float(self.min_effective_rows),
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            memory_limit=memory_limit,
        )

    def _identity(self, work: CurveWork) -> str:
        return canonical_json(
            {
                "columns": {column.name: column.source for column in work.columns.all},
                "estimators": list(self.estimators),
                "second_stage": self.second_stage,
                "grid": work.grid,
                "replicates": self.replicates,
                "min_effective_rows": self.min_effective_rows,
                "confidence_level": self.confidence_level,
                "seed": int(self.seed),
                "worker_memory": self.worker_memory,
            }
        )


def checked_stage(second_stage: Method) -> tuple[StageName, StageOptions]:
    """Name and options of a second stage. Raises `ConfigError` for what is not known or not valid."""
    name, options, _ = parse_method(second_stage, _STAGES, "second_stage")
    return name, options  # type: ignore[return-value]


def checked_grid(grid: int | Sequence[float]) -> int | tuple[float, ...]:
    """A number of doses, or the doses. Raises `ConfigError` for what is neither."""
    if isinstance(grid, int) and not isinstance(grid, bool):
        if grid < 2:
            raise ConfigError(f"grid is {grid}.", "It is a number of doses, at least 2, or a list of doses.")
        return grid
    if isinstance(grid, bool | str):
        raise ConfigError(f"grid is {grid!r}.", "It is a number of doses or a list of doses.")
    doses = tuple(float(dose) for dose in grid)
    if not doses or not all(map(math.isfinite, doses)):
        raise ConfigError(f"grid is {list(doses)}.", "It is a number of doses or a list of finite doses.")
    return doses
