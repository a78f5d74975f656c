"""One Spark session with Delta in a temporary folder, shared by every test that needs one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf"))
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    session = (
        SparkSession.builder.master("local[2]")
        .appName("causal_spark tests")
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        # Tests run many plans over few rows: compiling each took twice as long as interpreting it.
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .getOrCreate()
    )
    # A real metastore would keep tables of one test run for the next.
    assert session.conf.get("spark.sql.catalogImplementation") == "in-memory"
    yield session
    session.stop()
