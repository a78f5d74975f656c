"""What must not matter does not, to the last bit: order of rows, names of units, other groups, engine and cores."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from causal_spark import PanelEffects
from causal_spark.panel_effects import PanelResult
from tests.frames import ROLES, TABLES, tables_of

ROOT = Path(__file__).parent.parent
ESTIMATORS = ("did", "sc", "difp", "mc", {"name": "sdid", "where": {"region": ["r0", "r2", "r3"]}})
JOB = PanelEffects(ESTIMATORS, variances=[{"name": "placebo", "replicates": 4}], seed=3, cells="all")
PATTERNS = ("block", "staggered", "on_off")
properties = settings(deadline=None, derandomize=True, max_examples=25)


def random_panel(n_units: int, n_periods: int, pattern: str, missing: float, seed: int) -> pd.DataFrame:
    """A long panel with one common factor; missing cells lack their row or have no outcome."""
    rng = np.random.default_rng(seed)
    outcome = rng.normal(size=(n_units, 1)) + rng.normal(size=n_periods) + rng.normal(size=(n_units, n_periods))
    n_treated = int(rng.integers(1, max(2, n_units // 2)))
    start = np.full(n_units, n_periods)
    latest = n_periods - 1
    start[:n_treated] = latest if pattern == "block" else rng.integers(1, latest + 1, n_treated)
    treated = np.arange(n_periods) >= start[:, None]
    if pattern == "on_off":
        treated &= rng.random(treated.shape) < 0.7
    frame = pd.DataFrame(
        {
            "unit": np.repeat([f"u{i}" for i in range(n_units)], n_periods),
            "year": np.tile(np.arange(1990, 1990 + n_periods), n_units),
            "y": (outcome + treated).ravel(),
            "w": treated.ravel().astype(int),
            "x": rng.normal(size=n_units * n_periods),
        }
    )
    lost = rng.random(len(frame)) < missing
    frame["y"] = frame["y"].mask(lost)
    return frame[~lost | (rng.random(len(frame)) < 0.5)]


panels = st.builds(
    random_panel,
    st.integers(4, 12),
    st.integers(4, 10),
    st.sampled_from(PATTERNS),
    st.sampled_from((0.0, 0.08)),
    st.integers(0, 2**32 - 1),
)
frames = st.lists(panels, min_size=1, max_size=3).map(
    lambda parts: pd.concat([part.assign(region=f"r{k}") for k, part in enumerate(parts)], ignore_index=True)
)
SEVERAL = pd.concat(
    [random_panel(8 + k, 9 - k, PATTERNS[k % 3], 0.05 * (k // 3), seed=k).assign(region=f"r{k}") for k in range(6)],
    ignore_index=True,
)


def fit(data: pd.DataFrame | DataFrame, covariates: tuple[str, ...] = ()) -> PanelResult:
    return JOB.fit(data, groups=["region"], covariates=covariates, **ROLES)


def assert_same(found: dict[str, pd.DataFrame], wanted: dict[str, pd.DataFrame]) -> None:
    for name, frame in wanted.items():
        columns = [column for column in frame if column in found[name]]
        assert name == "failures" or columns == list(frame)
        pd.testing.assert_frame_equal(
            found[name][columns], frame[columns], check_exact=True, check_dtype=False, obj=name
        )


@given(frame=frames, seed=st.integers(0, 2**32 - 1))
@properties
def test_the_order_of_rows_does_not_matter_nor_do_other_groups(frame: pd.DataFrame, seed: int) -> None:
    whole = tables_of(fit(frame))
    assert_same(tables_of(fit(frame.sample(frac=1, random_state=seed))), whole)
    alone = tables_of(fit(frame[frame["region"] == "r0"]))
    of_first = {
        name: table[table["group_id"].str.contains("r0")].reset_index(drop=True) for name, table in whole.items()
    }
    assert_same(alone, of_first)


def renamed(frame: pd.DataFrame, style: str, seed: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """The same panels under other names of units, in another order, and from the new names to the old."""
    old = frame["unit"].unique()
    order = np.random.default_rng(seed).permutation(len(old))
    new = [f"Z{k:03d}" if k % 2 else f"a{k}é" for k in order] if style == "text" else (order * 7 - 20).tolist()
    there = dict(zip(old, new, strict=True))
    return frame.assign(unit=frame["unit"].map(there)), {str(name): unit for unit, name in there.items()}


@given(frame=frames, style=st.sampled_from(["text", "number"]), adjusted=st.booleans(), seed=st.integers(0, 2**32 - 1))
@properties
def test_the_names_of_units_do_not_matter(frame: pd.DataFrame, style: str, adjusted: bool, seed: int) -> None:
    covariates = ("x",) if adjusted else ()
    other, names = renamed(frame, style, seed)
    assert_same(tables_of(fit(other, covariates), names), tables_of(fit(frame, covariates)))


def test_the_examples_exercise_every_estimator_and_every_pattern() -> None:
    effects = fit(SEVERAL).effects
    assert set(effects["estimator"]) == {"did", "sc", "difp", "mc", "sdid"}
    assert set(effects["region"]) == {f"r{k}" for k in range(6)}
    assert (effects["estimator"] == "mc").sum() == 6


@pytest.mark.spark
@pytest.mark.parametrize(("n_partitions", "style"), [(1, None), (3, "text"), (7, "number")])
def test_spark_gives_the_bits_of_pandas_however_rows_are_spread_and_units_named(
    spark: SparkSession, n_partitions: int, style: str | None
) -> None:
    frame, names = (SEVERAL, None) if style is None else renamed(SEVERAL, style, n_partitions)
    rows = spark.createDataFrame(frame.sample(frac=1, random_state=n_partitions)).repartition(n_partitions)
    result = fit(rows)
    assert isinstance(result.effects, DataFrame)
    assert_same(tables_of(result, names), tables_of(fit(SEVERAL)))
    assert (result.summary.n_groups, result.summary.rows_read) == (6, len(SEVERAL))
    result.close()


ONE_CORE = """
import sys
from pyspark.sql import SparkSession
from tests.frames import tables_of
from tests.test_invariance import SEVERAL, fit

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.sql.warehouse.dir", sys.argv[1])
    .config("spark.sql.codegen.wholeStage", "false")
    .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    .getOrCreate()
)
for name, table in tables_of(fit(spark.createDataFrame(SEVERAL))).items():
    table.to_parquet(f"{sys.argv[2]}/{name}.parquet")
spark.stop()
"""


@pytest.mark.spark
def test_one_core_gives_the_bits_of_two(tmp_path: Path) -> None:
    # The session of the tests has two cores and is held to the same tables above.
    command = [sys.executable, "-c", ONE_CORE, str(tmp_path / "warehouse"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in TABLES}
    assert_same(found, tables_of(fit(SEVERAL)))


EVERY: list[Any] = [
    "did",
    "sc",
    "difp",
    "mc",
    "sdid",
    {"name": "dwcp", "lambda_time": [0.0, 0.2], "lambda_unit": [0.5], "lambda_nn": [math.inf, 1.0]},
]


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e12, 0.0), (1.0, 1e3), (1e-9, 1e-6), (1e12, -1e15)])
def test_estimates_and_their_errors_move_with_the_units_of_measurement(scale: float, shift: float) -> None:
    frame = random_panel(9, 8, "block", 0.0, seed=11)
    job = PanelEffects(EVERY, variances=[{"name": "placebo", "replicates": 4}], cells="all")
    plain, moved = job.fit(frame, **ROLES), job.fit(frame.assign(y=frame["y"] * scale + shift), **ROLES)
    assert len(plain.effects) == len(EVERY)
    assert plain.failures.empty
    assert moved.failures.empty
    # Of outcomes a thousand spreads away from zero, three digits are lost.
    atol = 2e-6 * abs(scale) * float(frame["y"].std())
    for table, column, wanted in (
        ("effects", "estimate", scale * plain.effects["estimate"]),
        ("variances", "std_error", scale * plain.variances["std_error"]),
        ("event_study", "estimate", scale * plain.event_study["estimate"]),
        ("cells", "counterfactual", scale * plain.cells["counterfactual"] + shift),
        ("effects", "lambda_nn", plain.effects["lambda_nn"]),
    ):
        close = {"rtol": 1e-6, "atol": 0.0} if column == "lambda_nn" else {"rtol": 0.0, "atol": atol}
        np.testing.assert_allclose(getattr(moved, table)[column], wanted, **close, err_msg=f"{table}.{column}")
