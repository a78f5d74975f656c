"""What came of the groups of a run, counted as they come back: no table is read a second time for it."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from causal_spark.engine.keys import digest_of
from causal_spark.engine.stage import group_status, result_columns, staged_name
from causal_spark.engine.work import Row, Work
from causal_spark.lake.schemas.runs import FAILURES

log = logging.getLogger("causal_spark")

#: Failed groups a run names in its log; the table has all.
LOGGED_FAILURES = 20


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did, as ``runs`` tells it. row_counts: rows per result table."""

    started_at: dt.datetime
    finished_at: dt.datetime
    n_groups: int
    n_succeeded: int
    n_declined: int
    n_failed: int
    rows_read: int
    input_digest: str
    seconds: Mapping[str, float]
    row_counts: Mapping[str, int]

    def seconds_json(self) -> str:
        """Worker seconds per estimator as JSON."""
        return json.dumps({name: round(value, 3) for name, value in sorted(self.seconds.items())})


def counted_columns(work: Work) -> list[Column]:
    """What `Tally.add_staged` wants of staged rows: ids, failures, seconds, and how many rows of each table."""
    failures = staged_name(FAILURES.name)
    told = [F.col(f"{failures}.{name}").alias(name) for name in ("kind", "stage", "estimator", "error_class")]
    sizes = [F.size(staged_name(name)).alias(f"n_{name}") for name in result_columns(work)]
    return [F.col("_group_id"), F.col("_part"), F.col("_seconds"), *told, *sizes]


@dataclass(slots=True)
class Tally:
    """What has come back so far."""

    work: Work
    statuses: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    row_counts: Counter[str] = field(default_factory=Counter)
    n_logged: int = 0

    def add_staged(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count staged rows, reduced as `counted_columns` says."""
        for row in rows:
            for name in result_columns(self.work):
                self.row_counts[name] += row[f"n_{name}"]
            if row["_part"] == 0:
                group_id = row["_group_id"]
                self.statuses[group_id] = group_status(row[f"n_{self.work.tables[0]}"], row["kind"])
                self.seconds.update(dict(row["_seconds"]))
                causes = zip(row["kind"], row["stage"], row["estimator"], row["error_class"], strict=True)
                for kind, stage, estimator, error_class in causes:
                    if kind == "failed":
                        self._log_failure(group_id, stage, estimator, error_class)

    def add_absent(self, group_id: str, failure: Row) -> None:
        """Count a group that no task gave back, with its row of ``failures``."""
        self.statuses[group_id] = "failed"
        self.row_counts[FAILURES.name] += 1
        self._log_failure(group_id, failure["stage"], failure["estimator"], failure["error_class"])

    def _log_failure(self, group_id: str, stage: str, estimator: str | None, error_class: str) -> None:
        self.n_logged += 1
        if self.n_logged > LOGGED_FAILURES:
            if self.n_logged == LOGGED_FAILURES + 1:
                log.info("more groups failed: table failures has them all", extra={"event": "group_failed"})
            return
        where = stage if estimator is None else f"{stage} {estimator}"
        told = {"event": "group_failed", "group_id": group_id, "stage": stage, "estimator": estimator}
        log.info("group %s failed: %s, %s", group_id, where, error_class, extra={**told, "error_class": error_class})

    def count(self, status: str) -> int:
        """Groups of a status."""
        return sum(found == status for found in self.statuses.values())

    def line(self) -> str:
        """The counts, for people."""
        n_done, n_declined, n_failed = (self.count(status) for status in ("succeeded", "declined", "failed"))
        return f"{n_done} groups done, {n_declined} declined, {n_failed} failed"

    def summary(self, started_at: dt.datetime, rows_read: int, chunks: list[tuple[str, int, str]]) -> RunSummary:
        """The whole run. chunks: group id, number and digest of every packed row."""
        return RunSummary(
            started_at=started_at,
            finished_at=dt.datetime.now(dt.UTC),
            n_groups=len(self.statuses),
            n_succeeded=self.count("succeeded"),
            n_declined=self.count("declined"),
            n_failed=self.count("failed"),
            rows_read=rows_read,
            input_digest=digest_of(
                part for group, chunk, found in sorted(chunks) for part in (group, str(chunk), found)
            ),
            seconds=dict(self.seconds),
            row_counts={name: self.row_counts[name] for name in result_columns(self.work)},
        )
