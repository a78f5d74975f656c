"""The package shipped to executors as the README says, none of which has it installed."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


def test_executors_run_what_py_files_brings(tmp_path: Path) -> None:
    package = shutil.make_archive(str(tmp_path / "causal_spark"), "zip", ROOT, "causal_spark")
    # Without the site module the editable install of the test environment is out of reach, its libraries are not.
    python = tmp_path / "python"
    libraries = ":".join(site.getsitepackages())
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{libraries}:$PYTHONPATH" exec {sys.executable} -S "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    job = shutil.copy(ROOT / "jobs" / "panel_effects.py", tmp_path)
    command = [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--master", "local-cluster[2,1,1024]"),
        *("--conf", "spark.jars.packages="),
        *("--py-files", package),
        *(str(job), "--config", str(ROOT / "conf" / "panel_effects.yaml")),
        *("--set", "estimators=[did, sdid]", "--set", f"output.location={tmp_path}/out"),
    ]
    environment = {**os.environ, "SPARK_CONF_DIR": str(ROOT / "conf"), "PYSPARK_PYTHON": str(python)}
    alone = subprocess.run([python, "-c", "import causal_spark"], cwd=tmp_path, capture_output=True, check=False)
    assert b"No module named 'causal_spark'" in alone.stderr
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    effects = DeltaTable(f"{tmp_path}/out/panel_effects").to_pandas()
    sdid = effects[(effects["source"] == "prop99") & (effects["estimator"] == "sdid")]["estimate"].item()
    assert sdid == pytest.approx(-15.6054, abs=0.005)
    assert len(effects) == 14
