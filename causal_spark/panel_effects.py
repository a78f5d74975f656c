"""`PanelEffects`: treatment effects of one or many panels, from a pandas or a Spark frame."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from causal_spark.config import CLASSIC_ESTIMATORS, Method, checked_run_key, estimator_tasks, variance_tasks
from causal_spark.engine.columns import PanelRoles, panel_columns
from causal_spark.engine.keys import canonical_json
from causal_spark.engine.memory import GIB
from causal_spark.engine.panels import Cells, PanelWork
from causal_spark.engine.publish import Origin, Written, find_written, make_run_key, new_run_id, publish
from causal_spark.engine.run import LocalRun, RunSummary, Scratch, SparkRun, require_rows, run_in_process, run_on_spark
from causal_spark.errors import ConfigError, LocationError, did_you_mean
from causal_spark.lake.locations import folder_address, output_location
from causal_spark.lake.schemas import FAILURES

Frame = pd.DataFrame | DataFrame


@dataclass(frozen=True)
class PanelResult:
    """Effects of a run. Every table is a frame of the kind that was given in (see docs/tables.md for the columns).

    summary: groups in, succeeded, declined and failed, rows read, seconds.
    A Spark result lies in a work location until it is written; `close` removes it when that was a temporary folder.
    """

    summary: RunSummary
    _run: SparkRun | LocalRun = field(repr=False)
    _config_json: str = field(repr=False)
    _discard: Callable[[], object] = field(repr=False, default=lambda: None)

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

    @property
    def failures(self) -> Frame:
        """What was declined or failed, why, and what to do; with kind ``warned``, what to know of an estimate."""
        return self._run.frame(FAILURES.name)

    def write(
        self,
        location: str,
        *,
        spark: SparkSession | None = None,
        run_key: str | None = None,
        force: bool = False,
        max_failed_fraction: float = 1.0,
    ) -> Written:
        """Append the results to the Delta tables at a folder or ``catalog.schema`` and make them visible at once.

        spark: needed for results of a pandas frame. run_key: names the run; a key that already has a visible run is
        left as it is unless ``force``. By default the key is a hash of the data, the configuration and the code.
        Raises `LocationError`, `ConfigError` without a session, `TableShapeError`, `WriteError`,
        `TooManyFailuresError`.
        """
        origin = Origin(self._config_json, "frame", f"content:{self.summary.input_digest}")
        return self.write_as(origin, location, spark, run_key, force, max_failed_fraction)

    def write_as(
        self,
        origin: Origin,
        location: str,
        spark: SparkSession | None,
        run_key: str | None,
        force: bool,
        max_failed_fraction: float,
    ) -> Written:
        """`write` for a caller who knows better where the data came from. Raises as `write` does."""
        place = output_location(location)
        session = self._run.spark if isinstance(self._run, SparkRun) else spark
        if session is None:
            raise ConfigError(
                "Results of a pandas frame need a Spark session to be written to Delta.",
                "Call write(..., spark=spark).",
            )
        job = self._run.work.job
        key = make_run_key(job, origin) if run_key is None else checked_run_key(run_key)
        earlier = None if force else find_written(session, place, job, key)
        if earlier is not None:
            return earlier
        names = [FAILURES.name, *self._run.work.tables]
        frames = {name: self._spark_frame(session, name) for name in names}
        return publish(
            session, place, frames, self._run.work, self.summary, origin, new_run_id(), key, max_failed_fraction
        )

    def _spark_frame(self, spark: SparkSession, name: str) -> DataFrame:
        if isinstance(self._run, SparkRun):
            return self._run.frame(name)
        return spark.createDataFrame(self._run.table(name))

    def close(self) -> None:
        """Remove the temporary folder of a Spark result; its frames cannot be read afterwards."""
        self._discard()


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
        if isinstance(data, pd.DataFrame):
            require_rows(len(data))
        work = self.plan_work(data, PanelRoles(unit, time, outcome, treatment, groups, covariates))
        config = self._identity(work)
        if isinstance(data, pd.DataFrame):
            local = run_in_process(data, work)
            return PanelResult(local.summary, local, config)
        folder, discard = _scratch(data.sparkSession, work_location)
        run = run_on_spark(data, work, Scratch(folder, new_run_id()))
        return PanelResult(run.summary, run, config, discard)

    def plan_work(self, data: Frame, roles: PanelRoles) -> PanelWork:
        """The engine's description of this fit, its columns and methods checked. Raises as `fit` does."""
        if self.cells not in get_args(Cells):
            raise ConfigError(f"cells is {self.cells!r}.", did_you_mean(str(self.cells), get_args(Cells)))
        if not 0 < self.confidence_level < 1:
            raise ConfigError(f"confidence_level is {self.confidence_level}.", "It lies between 0 and 1, such as 0.95.")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}.", "It is an integer of 64 bits.")
        if self.worker_memory is not None and not 0 < self.worker_memory < math.inf:
            raise ConfigError(f"worker_memory is {self.worker_memory}.", "It is a number of GiB, such as 4, or None.")
        columns = panel_columns(data, roles)
        return PanelWork(
            columns=columns,
            estimators=estimator_tasks(self.estimators, columns.group_types),
            variances=variance_tasks(self.variances),
            confidence_level=self.confidence_level,
            seed=int(self.seed),
            cells=self.cells,
            memory_limit=None if self.worker_memory is None else int(self.worker_memory * GIB),
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


def _scratch(spark: SparkSession, work_location: str | None) -> tuple[str, Callable[[], object]]:
    if work_location is not None:
        return folder_address(work_location), lambda: None
    remote = "connect" in type(spark).__module__
    if remote or not str(spark.conf.get("spark.master", "")).startswith("local"):
        raise LocationError(
            "Spark Connect and clusters need a work location that driver and workers share.",
            "Pass work_location=: a folder, a volume or a URL.",
        )
    folder = tempfile.mkdtemp(prefix="causal_spark_")
    # Frames read from it may outlive the result object, so it goes with the process at the latest.
    discard = partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(discard)
    return f"file://{folder}", discard
