"""One small case of every job, groups told apart by column ``region``, for suites that are about all jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from causal_spark.config import JobConfig, parse_config
from causal_spark.job import Job
from causal_spark.jobs import load_job
from causal_spark.lake.locations import output_location
from causal_spark.lake.runs import LATEST, newest_runs
from tests.arm_frames import ROLES as ARM_ROLES
from tests.arm_frames import S_LEARNER, customers
from tests.frames import ROLES, long_panel
from tests.node_frames import EDGES, QUICK, incidents, services

#: Columns that are measured or drawn anew by every attempt.
TIMES = ("run_id", "seconds")


@dataclass(frozen=True)
class JobCase:
    """A job on little data.

    frame: (region, seed) -> a group on which it succeeds. spoil: makes such a group one that fails, with ``error``.
    outcome: a column of numbers. tree: configuration less input and output. slim: what to change for less work.
    """

    name: str
    frame: Callable[[str, int], pd.DataFrame]
    spoil: Callable[[pd.DataFrame], pd.DataFrame]
    error: str
    outcome: str
    tree: Mapping[str, Any]
    slim: Mapping[str, Any] = field(default_factory=dict)

    @property
    def job(self) -> Job[Any]:
        """The job itself."""
        return load_job(self.name)

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables it writes."""
        return ("runs", "failures", *self.job_tables)

    @property
    def job_tables(self) -> tuple[str, ...]:
        """Result tables."""
        from causal_spark.engine.arms import ArmWork
        from causal_spark.engine.curves import CurveWork
        from causal_spark.engine.panels import PanelWork
        from causal_spark.engine.root_causes import RootCauseWork
        from causal_spark.engine.studies import StudyWork

        works: tuple[Any, ...] = (PanelWork, StudyWork, CurveWork, ArmWork, RootCauseWork)
        return tuple(next(work.tables for work in works if work.job == self.name))

    def good(self) -> pd.DataFrame:
        """Two groups on which it succeeds."""
        return pd.concat([self.frame("north", 1), self.frame("south", 2)], ignore_index=True)

    def bad(self) -> pd.DataFrame:
        """A group that fails."""
        return self.spoil(self.frame("bad", 3))

    def config(self, folder: Path, **changes: Any) -> JobConfig:
        """A configuration with input and output below a folder."""
        tree = {
            "input": {"location": str(folder / "input")},
            "output": {"location": str(folder / "out")},
            **self.tree,
        }
        return parse_config(self.job.config, tree | changes)


def _doubled(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[0]]], ignore_index=True)


def _infinite(name: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{name: frame[name].where(frame.index != 0, np.inf)})

    return spoil


def _panel(region: str, seed: int) -> pd.DataFrame:
    return long_panel(n_units=8, n_periods=8, n_treated=2, seed=seed).assign(region=region)


def _doses(region: str, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=80)
    dose = x + rng.normal(size=80)
    return pd.DataFrame({"region": region, "x": x, "dose": dose, "y": 2 * dose + x + rng.normal(size=80)})


def _people(region: str, seed: int) -> pd.DataFrame:
    return customers(90, seed, region)


def _services(region: str, seed: int) -> pd.DataFrame:
    normal = services(100, seed, region).assign(kind=0, incident=None)
    events = incidents(2, seed + 50, region).assign(kind=1)
    events["incident"] = events["incident"].astype(str)
    return pd.concat([normal.astype({"incident": "object"}), events], ignore_index=True)


CASES = {
    case.name: case
    for case in (
        JobCase(
            "panel_effects",
            _panel,
            _doubled,
            "DuplicateCellError",
            "y",
            {"columns": {**ROLES, "groups": ["region"]}, "estimators": ["did", "sdid"]},
            {"estimators": ["did"], "variances": []},
        ),
        JobCase(
            "estimator_study",
            _panel,
            _doubled,
            "DuplicateCellError",
            "y",
            {
                "columns": {**ROLES, "groups": ["region"]},
                "estimators": ["did", "sdid"],
                "variances": [{"name": "placebo", "replicates": 4}],
                "simulation": {"rank": 2},
                "replicates": 4,
            },
            {"variances": []},
        ),
        JobCase(
            "response_curves",
            _doses,
            _infinite("y"),
            "OutcomeValueError",
            "y",
            {
                "columns": {"treatment": "dose", "outcome": "y", "covariates": ["x"], "groups": ["region"]},
                "estimators": ["unweighted", "ebct1"],
                "grid": 3,
                "replicates": 5,
            },
        ),
        JobCase(
            "individual_effects",
            _people,
            _doubled,
            "DuplicateRowError",
            "y",
            {"columns": ARM_ROLES, "control": "none", "estimators": [S_LEARNER]},
        ),
        JobCase(
            "root_causes",
            _services,
            _infinite("latency"),
            "NodeValueError",
            "latency",
            {
                "columns": {"groups": ["region"], "event_id": "incident"},
                "rows": {"normal": "kind = 0", "events": "kind = 1"},
                **QUICK,
                "graph": [list(edge) for edge in EDGES],
            },
        ),
    )
}


def save(spark: SparkSession, frame: pd.DataFrame, folder: Path) -> None:
    """Write the input of a case."""
    # NaN in a column of text would be the text of it.
    rows = spark.createDataFrame(frame.astype(object).where(frame.notna(), None), _schema(frame))
    rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(str(folder / "input"))


def _schema(frame: pd.DataFrame) -> str:
    kinds = {"i": "bigint", "f": "double", "b": "boolean"}
    return ", ".join(f"`{name}` {kinds.get(dtype.kind, 'string')}" for name, dtype in frame.dtypes.items())


def read(spark: SparkSession, folder: Path, name: str) -> DataFrame:
    """All rows of a table."""
    return spark.read.format("delta").load(str(folder / "out" / name))


def seen_by_spark(spark: SparkSession, folder: Path, name: str) -> pd.DataFrame:
    """Rows of a table that readers of the latest results see, by the rule in the package."""
    runs = newest_runs(spark, output_location(str(folder / "out")), LATEST)
    return comparable(read(spark, folder, name).join(runs, "run_id").toPandas())


def seen(folder: Path, name: str) -> pd.DataFrame:
    """The same, read and chosen without Spark, which takes a tenth of the time."""
    runs = _succeeded(folder)
    return _of_newest(folder, name, runs, runs["series"].fillna(runs["run_key"]))


def visible(folder: Path, name: str) -> pd.DataFrame:
    """Rows of a table that belong to any visible run, likewise."""
    runs = _succeeded(folder)
    return _of_newest(folder, name, runs, runs["run_key"])


def stored(folder: Path, name: str) -> pd.DataFrame:
    """All rows of a table, read without Spark."""
    return DeltaTable(str(folder / "out" / name)).to_pandas()


def _succeeded(folder: Path) -> pd.DataFrame:
    runs = stored(folder, "runs")
    return runs[runs["status"] == "succeeded"].sort_values(["finished_at", "run_id"], ascending=False)


def _of_newest(folder: Path, name: str, runs: pd.DataFrame, told_apart_by: pd.Series) -> pd.DataFrame:
    newest = runs["run_id"][~(runs["job"] + "\n" + told_apart_by).duplicated()]
    rows = stored(folder, name)
    return comparable(rows[rows["run_id"].isin(newest)])


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, without what differs between attempts."""
    kept = frame.drop(columns=[name for name in frame if name in TIMES])
    for name in kept:
        if kept[name].map(lambda one: isinstance(one, bytes | bytearray)).any():
            kept[name] = kept[name].map(lambda one: None if one is None else bytes(one).hex())
    return kept.sort_values(list(kept.columns), ignore_index=True, key=lambda one: one.astype(str))
