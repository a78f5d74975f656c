"""Rows move across the cluster twice, to their group and to their task, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

from causal_spark.engine import plan as planning
from causal_spark.engine.columns import PanelRoles
from causal_spark.engine.run import Scratch, run_on_spark
from causal_spark.panel_effects import PanelEffects
from tests.frames import grouped, long_panel

pytestmark = pytest.mark.spark


def plans_of(spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Path and physical plan of everything a run writes."""
    seen: list[tuple[str, str]] = []
    original = DataFrameWriter.parquet

    def noting(self: DataFrameWriter, path: str, *arguments: Any, **options: Any) -> None:
        frame: DataFrame = self._df
        seen.append((path, str(frame._jdf.queryExecution().executedPlan())))
        original(self, path, *arguments, **options)

    monkeypatch.setattr(DataFrameWriter, "parquet", noting)
    # As many waves as there are panels.
    monkeypatch.setattr(planning, "WAVE_SECONDS", 1e-4)
    panels = grouped(**{f"p{k}": long_panel(seed=k) for k in range(6)})
    data = spark.createDataFrame(panels)
    job = PanelEffects(["did"], variances=[])
    work = job.plan_work(data, PanelRoles("unit", "year", "y", "w", ["region"]))
    run_on_spark(data, work, Scratch(str(folder), "one"))
    return seen


def shuffles(plan: str) -> list[str]:
    return re.findall(r"(?<!Broadcast)Exchange (\w+)", plan)


def test_rows_are_shuffled_once_to_pack_and_once_to_run(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = plans_of(spark, tmp_path, monkeypatch)
    kinds = {path.removeprefix(str(tmp_path)).split("/")[1].split("_")[0]: plan for path, plan in plans}
    assert set(kinds) == {"packed", "planned", "staged"}
    assert shuffles(kinds["packed"]) == ["hashpartitioning"]
    assert shuffles(kinds["planned"]) == []
    waves = [plan for path, plan in plans if "/staged_" in path]
    assert len(waves) > 1
    for plan in waves:
        assert len(shuffles(plan)) == 1
        assert plan.count("Sort ") == 1
        # A wave reads its own rows and no others.
        assert re.search(r"PartitionFilters: \[.*cs_wave.* = \d", plan)
