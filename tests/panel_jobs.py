"""Runs of the panel job that tests share: its input, its configuration, and what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from causal_spark.config import parse_config
from causal_spark.lake.locations import output_location
from causal_spark.lake.runs import VISIBLE, newest_runs
from causal_spark.panel_effects_job import PanelEffectsConfig
from tests.frames import ROLES, grouped, long_panel

FRAME = grouped(north=long_panel(seed=1), south=long_panel(seed=2))


def config_for(folder: Path, **changes: Any) -> PanelEffectsConfig:
    tree: dict[str, Any] = {
        "input": {"location": str(folder / "input")},
        "columns": ROLES | {"groups": ["region"]},
        "estimators": ["did", "sdid"],
        "output": {"location": str(folder / "out")},
    }
    return parse_config(PanelEffectsConfig, tree | changes)


def save(spark: SparkSession, frame: pd.DataFrame, folder: Path, file_format: str = "delta") -> None:
    rows = spark.createDataFrame(frame)
    rows.write.format(file_format).mode("overwrite").option("header", "true").option("overwriteSchema", "true").save(
        str(folder / "input")
    )


def read(spark: SparkSession, folder: Path, name: str) -> DataFrame:
    return spark.read.format("delta").load(str(folder / "out" / name))


def visible(spark: SparkSession, folder: Path, name: str) -> pd.DataFrame:
    location = output_location(str(folder / "out"))
    return read(spark, folder, name).join(newest_runs(spark, location, VISIBLE), "run_id").toPandas()
