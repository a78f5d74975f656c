"""What every job's public class gives back, and how it comes by it from a pandas or a Spark frame."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from causal_spark.engine.memory import GIB
from causal_spark.engine.publish import Origin, Written, find_written, make_run_key, make_series, new_run_id, publish
from causal_spark.engine.run import LocalRun, Scratch, SparkRun, require_rows, run_in_process, run_on_spark
from causal_spark.engine.tally import RunSummary
from causal_spark.engine.work import Work
from causal_spark.errors import ConfigError, LocationError, did_you_mean
from causal_spark.lake.locations import folder_address, output_location
from causal_spark.lake.schemas.runs import FAILURES
from causal_spark.methods import checked_run_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frame = pd.DataFrame | DataFrame


@dataclass(frozen=True)
class Result:
    """Results of a run. Every table is a frame of the kind that was given in (see docs/tables.md for the columns).

    summary: groups in, succeeded, declined and failed, rows read, seconds.
    A Spark result lies in a work location until it is written; `close` removes it when that was a temporary folder.
    """

    #: Pictures it has, each with the table it is drawn from.
    pictures: ClassVar[Mapping[str, str]] = {}

    summary: RunSummary
    _run: SparkRun | LocalRun = field(repr=False)
    _config_json: str = field(repr=False)
    _discard: Callable[[], object] = field(repr=False, default=lambda: None)

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
        series: str | None = None,
    ) -> Written:
        """Append the results to the Delta tables at a folder or ``catalog.schema`` and make them visible at once.

        spark: needed for results of a pandas frame. run_key: names the run; a key that already has a visible run is
        left as it is unless ``force``. By default the key is a hash of the data, the configuration and the code.
        series: names the analysis, whose newest run is the latest for readers. By default all frames with the same
        columns in the same roles are one: name those that are not.
        Raises `LocationError`, `ConfigError` without a session, `TableShapeError`, `WriteError`,
        `TooManyFailuresError`.
        """
        series = make_series(self._run.work, "frame") if series is None else series
        origin = Origin(self._config_json, "frame", f"content:{self.summary.input_digest}", series)
        return self.write_as(origin, location, spark, run_key, force, max_failed_fraction)

    def write_as(
        self,
        origin: Origin,
        location: str,
        spark: SparkSession | None,
        run_key: str | None,
        force: bool,
        max_failed_fraction: float,
        run_id: str | None = None,
    ) -> Written:
        """`write` for a caller who knows better where the data came from. Raises as `write` does.

        run_id: of the attempt, where it has one already; never given twice.
        """
        place = output_location(location)
        session = self._run.spark if isinstance(self._run, SparkRun) else spark
        if session is None:
            raise ConfigError(
                "Results of a pandas frame need a Spark session to be written to Delta.",
                "Call write(..., spark=spark).",
            )
        job = self._run.work.job
        key = make_run_key(job, origin) if run_key is None else checked_run_key(run_key)
        earlier = None if force else find_written(session, place, job, key, origin.series if run_key is None else None)
        if earlier is not None:
            return earlier
        names = [FAILURES.name, *self._run.work.tables]
        frames = {name: self._spark_frame(session, name) for name in names}
        attempt = run_id or new_run_id()
        return publish(session, place, frames, self._run.work, self.summary, origin, attempt, key, max_failed_fraction)

    def _spark_frame(self, spark: SparkSession, name: str) -> DataFrame:
        if isinstance(self._run, SparkRun):
            return self._run.frame(name)
        return spark.createDataFrame(self._run.table(name))

    def plot(self, kind: str | None = None, **options: Any) -> Figure:
        """Draw a picture of the results; without a kind, the first of those that this result has.

        Kinds and their options (``group``, ``estimators``, labels) are the functions of `causal_spark.plots` and what
        they take beside the table. Needs matplotlib. Raises `ConfigError` for another kind, and as these functions do.
        """
        chosen = next(iter(self.pictures)) if kind is None else kind
        if chosen not in self.pictures:
            raise ConfigError(f"There is no picture {kind!r} of this.", did_you_mean(str(kind), self.pictures))
        try:
            from causal_spark import plots
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("matplotlib"):
                raise
            raise ModuleNotFoundError(
                "Pictures need matplotlib: pip install 'causal_spark[plots]'.", name=error.name
            ) from error
        figure: Figure = getattr(plots, chosen)(getattr(self, self.pictures[chosen]), **self._told(chosen) | options)
        return figure

    def _told(self, kind: str) -> dict[str, Any]:
        """Options of a picture that the fit itself knows."""
        del kind
        return {}

    def close(self) -> None:
        """Remove the temporary folder of a Spark result; its frames cannot be read afterwards."""
        self._discard()


_Kind = TypeVar("_Kind", bound=Result)


def fit_frame(data: Frame, work: Work, config_json: str, work_location: str | None, kind: type[_Kind]) -> _Kind:
    """Run a science over a frame: in this process for pandas, else on Spark.

    config_json: how, as `Result.write` records it. Raises `EmptyInputError`, and `LocationError` where Spark needs a
    work location.
    """
    if isinstance(data, pd.DataFrame):
        local = run_in_process(data, work)
        return kind(local.summary, local, config_json)
    folder, discard = _scratch(data.sparkSession, work_location)
    run = run_on_spark(data, work, Scratch(folder, new_run_id()))
    return kind(run.summary, run, config_json, discard)


def require_frame(data: Frame) -> None:
    """Raise `EmptyInputError` for a pandas frame without rows, whose columns may have lost their types."""
    if isinstance(data, pd.DataFrame):
        require_rows(len(data))


def memory_bytes(confidence_level: float, seed: int, worker_memory: float | None) -> int | None:
    """Bytes one task may use, None where that was not said.

    Raises `ConfigError` for a confidence level, a seed or a memory that cannot be.
    """
    if not 0 < confidence_level < 1:
        raise ConfigError(f"confidence_level is {confidence_level}.", "It lies between 0 and 1, such as 0.95.")
    if not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed is {seed}.", "It is an integer of 64 bits.")
    if worker_memory is not None and not 0 < worker_memory < math.inf:
        raise ConfigError(f"worker_memory is {worker_memory}.", "It is a number of GiB, such as 4, or None.")
    return None if worker_memory is None else int(worker_memory * GIB)


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
