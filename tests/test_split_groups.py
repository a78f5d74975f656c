"""One long panel among short ones: its estimator runs as tasks, and nobody can tell from the results."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import PanelEffects, panel_effects, panel_effects_job
from causal_spark.config import parse_config
from causal_spark.engine import panel_groups, panel_parts, panels, plan
from causal_spark.engine import run as running
from causal_spark.job import describe, run_job
from causal_spark.panel_effects_job import PANEL_EFFECTS, PanelEffectsConfig
from tests.engine.steps import GRID, with_steps
from tests.frames import ROLES, grouped, long_panel, tables_of

pytestmark = pytest.mark.spark
FRAME = grouped(
    long=long_panel(n_units=40, n_treated=4, seed=1),
    broken=long_panel(n_units=40, seed=2).assign(w=2),
    short=long_panel(seed=3),
)


class KilledError(BaseException):
    """Stands for a process that is gone: nothing in the job may catch it."""


def test_a_split_run_that_was_killed_goes_on_and_gives_what_a_whole_one_gives(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (panels, panel_groups, panel_effects, panel_effects_job):
        monkeypatch.setattr(module, "ESTIMATORS", with_steps())
    # Groups of 40 units cost 40 seconds each, of which 36 are in rounds: 20, 12, 4.
    monkeypatch.setattr(plan, "PART_SECONDS", 4.0)
    spark.createDataFrame(FRAME).write.format("delta").save(str(tmp_path / "input"))
    estimators = ["steps", "did", {"name": "sdid", "where": {"region": "short"}}]
    tree = {
        "input": {"location": str(tmp_path / "input")},
        "columns": ROLES | {"groups": ["region"]},
        "estimators": estimators,
        "variances": [],
        "output": {"location": str(tmp_path / "out"), "cells": "all"},
    }
    config = parse_config(PanelEffectsConfig, tree)
    text = describe(spark, PANEL_EFFECTS, config)
    assert text.count("steps 5+3+1 tasks") == 2
    assert "2 waves" in text

    rounds: list[int] = []
    original = running.round_rows

    def dies_in_the_third_round(packed: Any, pieces: Any, one: Any, work: Any) -> Any:
        rounds.append(one.number)
        if len(rounds) == 3:
            raise KilledError
        return original(packed, pieces, one, work)

    monkeypatch.setattr(running, "round_rows", dies_in_the_third_round)
    with pytest.raises(KilledError):
        run_job(spark, PANEL_EFFECTS, config)
    with caplog.at_level(logging.INFO, "causal_spark"):
        assert run_job(spark, PANEL_EFFECTS, config).new
    assert rounds == [0, 1, 2, 2]
    for said in ("wave 1/2: taken over", "round 2/3: taken over", "round 3/3: 2 tasks done", "steps 5+3+1 tasks"):
        assert said in caplog.text
    # Only the attempt that died leaves anything.
    assert len({path.name for path in (tmp_path / "out" / "_work").rglob("cs_attempt=*")}) == 1

    wanted = tables_of(PanelEffects(estimators, variances=[], cells="all").fit(FRAME, groups=["region"], **ROLES))
    for name, frame in wanted.items():
        table = name if name in ("failures", "tuning_path") else f"panel_{name}"
        found = spark.read.format("delta").load(str(tmp_path / "out" / table)).drop("run_id", "seconds").toPandas()
        by = [column for column in frame if column not in ("estimate", "std_error", "weight", "value")]
        left, right = (
            side.sort_values(by[:6], ignore_index=True)[list(frame)] for side in (found, frame.astype(found.dtypes))
        )
        pd.testing.assert_frame_equal(left, right, check_exact=True, obj=name)
    assert (wanted["tuning_path"]["estimator"] == "steps").sum() == 2 * 3 * GRID.size
    assert set(wanted["failures"]["error_class"]) == {"TreatmentValueError"}


def test_replicates_of_one_panel_run_as_tasks_and_give_what_they_give_in_one(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(panel_parts, "REPLICATE_SECONDS", 0.0)
    monkeypatch.setattr(plan, "SPLIT_SECONDS", 0.0)
    monkeypatch.setattr(plan, "PART_SECONDS", 1e-3)
    method = PanelEffects(
        ["sdid"], variances=[{"name": "bootstrap", "replicates": 350}, "jackknife", "unit_time"], cells="all"
    )
    frame = long_panel(n_units=30, n_periods=14, n_treated=4)
    with caplog.at_level(logging.INFO, "causal_spark"):
        result = method.fit(spark.createDataFrame(frame), **ROLES)
    # Bootstraps make four chunks, those of the jackknife and of each start one.
    assert re.search(r"is split: sdid 1\+([6-9]|\d\d) tasks", caplog.text)
    found, wanted = tables_of(result), tables_of(method.fit(frame, **ROLES))
    for name, table in wanted.items():
        pd.testing.assert_frame_equal(found[name], table.astype(found[name].dtypes), check_exact=True, obj=name)
    assert wanted["variances"]["std_error"].notna().all()
    assert wanted["cells"].loc[wanted["cells"]["treated"], "std_error"].notna().all()
    result.close()
