"""From the results of a run to the lake: all of it once, visible at the end or not at all."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from pyspark.sql import DataFrame, SparkSession

from causal_spark import __version__
from causal_spark.engine.keys import digest_of
from causal_spark.engine.tally import RunSummary
from causal_spark.engine.work import Work
from causal_spark.errors import TooManyFailuresError
from causal_spark.lake.contract import Column
from causal_spark.lake.locations import Location
from causal_spark.lake.runs import RunRecord, append_run, succeeded_run
from causal_spark.lake.schemas import group_columns
from causal_spark.lake.schemas.runs import FAILURES, RUNS
from causal_spark.lake.tables import Commit, append_tables, few_rows
from causal_spark.lake.views import ensure_views

log = logging.getLogger("causal_spark")

_LOGGED = ("status", "n_groups", "n_succeeded", "n_declined", "n_failed", "rows_read", "rows_written")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where results come from. config_json: how they were made; input_version: a version or fingerprint; series: of
    which analysis they are the next.
    """

    config_json: str
    input: str
    input_version: str
    series: str


@dataclass(frozen=True, slots=True)
class Written:
    """What `publish` did. run_id: the attempt readers see; new: False when an earlier attempt was kept."""

    location: str
    run_id: str
    run_key: str
    new: bool


def new_run_id() -> str:
    """A name no other attempt has; names sort by time."""
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@cache
def code_version() -> str:
    """Hash of the package's source, so that corrected code is never taken for the old one."""
    parts: list[tuple[str, str]] = []

    def walk(folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            if item.is_dir():
                walk(item, f"{prefix}{item.name}/")
            elif item.name.endswith(".py"):
                parts.append((prefix + item.name, item.read_text(encoding="utf-8")))

    walk(resources.files("causal_spark"), "")
    return digest_of(text for part in sorted(parts) for text in part)


def make_run_key(job: str, origin: Origin) -> str:
    """Hash of job, input, its version, configuration and code."""
    return digest_of((job, origin.input, origin.input_version, origin.config_json, code_version()))


def make_series(work: Work, place: str, condition: str | None = None) -> str:
    """Name of the analysis for who gave it none: a hash of job, input and which columns play which role.

    So runs replace one another in the latest results when data, methods or code change, not when another outcome is
    looked at. place, condition: where the rows are read, and which of them.
    """
    roles = (f"{column.name}={column.source}" for column in work.columns.all)
    return digest_of((work.job, place, condition or "", *roles))


def find_written(
    spark: SparkSession, location: Location, job: str, run_key: str, series: str | None = None
) -> Written | None:
    """The visible attempt of that job and key, if there is one and, given a series, it is the latest of that."""
    found = succeeded_run(spark, location, job, run_key, series)
    return None if found is None else Written(location.address, found, run_key, new=False)


def contract_groups(work: Work) -> tuple[Column, ...]:
    """The group columns of a job's result tables."""
    return group_columns(tuple((column.name, column.type) for column in work.columns.groups))


def publish(
    spark: SparkSession,
    location: Location,
    frames: Mapping[str, DataFrame],
    work: Work,
    summary: RunSummary,
    origin: Origin,
    run_id: str,
    run_key: str,
    max_failed_fraction: float,
) -> Written:
    """Append every result table, then the row in ``runs`` that makes them visible.

    frames: result tables and ``failures``, without ``run_id``. run_id: a name of its own for every call.
    Raises `TooManyFailuresError` after writing ``failures`` and a failed run, results left out; `WriteError` and
    `TableShapeError` as `append_tables` does.
    """
    fraction = summary.n_failed / summary.n_groups
    accepted = fraction <= max_failed_fraction
    wanted = {name: frame for name, frame in frames.items() if accepted or name == FAILURES.name}
    commit = Commit(run_id, run_key, __version__)
    n_rows = sum(summary.row_counts[name] for name in wanted)
    log.info("appending %d rows to %d tables", n_rows, len(wanted), extra={"event": "appending"})
    with few_rows(spark, n_rows):
        append_tables(spark, location, wanted, summary.row_counts, contract_groups(work), commit)
    log.info("all rows landed", extra={"event": "landed"})
    record = RunRecord(
        run_id=run_id,
        run_key=run_key,
        job=work.job,
        status="succeeded" if accepted else "failed",
        started_at=summary.started_at,
        finished_at=dt.datetime.now(dt.UTC),
        config_json=origin.config_json,
        input=origin.input,
        input_version=origin.input_version,
        package_version=__version__,
        n_groups=summary.n_groups,
        n_succeeded=summary.n_succeeded,
        n_declined=summary.n_declined,
        n_failed=summary.n_failed,
        rows_read=summary.rows_read,
        rows_written=n_rows,
        seconds_by_estimator=summary.seconds_json(),
        seed=work.seed,
        series=origin.series,
    )
    with few_rows(spark, 1):
        append_run(spark, location, record)
    log.info(
        "%s: %d groups (%d succeeded, %d declined, %d failed), %d rows read, %d written; seconds per estimator %s",
        record.status,
        summary.n_groups,
        summary.n_succeeded,
        summary.n_declined,
        summary.n_failed,
        summary.rows_read,
        n_rows,
        record.seconds_by_estimator,
        extra={
            "event": "finished",
            **{name: value for name, value in asdict(record).items() if name in _LOGGED},
            "seconds_by_estimator": dict(summary.seconds),
        },
    )
    if not accepted:
        raise TooManyFailuresError(
            f"{summary.n_failed} of {summary.n_groups} groups failed, more than max_failed_fraction allows "
            f"({max_failed_fraction:g}).",
            f"See table failures of run {run_id}; results were not made visible.",
        )
    ensure_views(spark, location, (RUNS.name, *wanted), contract_groups(work))
    return Written(location.address, run_id, run_key, new=True)
