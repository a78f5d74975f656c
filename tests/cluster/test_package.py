"""Wheel and sdist: built, installed into a clean environment, and used there as a new user would."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
USE = """
import numpy as np
import pandas as pd

import causal_spark
from causal_spark import PanelEffects

assert "site-packages" in causal_spark.__file__, causal_spark.__file__
rng = np.random.default_rng(1)
frame = pd.DataFrame(
    [{"unit": f"u{i}", "year": 2000 + t, "treated": int(i > 7 and t > 6)} for i in range(10) for t in range(10)]
)
frame["y"] = rng.normal(size=100) + 3 * frame["treated"]
result = PanelEffects(["did", "sdid"], variances=["placebo", "unit_time"], cells="all").fit(
    frame, unit="unit", time="year", outcome="y", treatment="treated"
)
assert len(result.effects) == 2
assert result.effects["estimate"].between(1, 5).all()
assert result.variances["std_error"].gt(0).all()
result.plot().savefig("picture.png")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel, and a wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    copied = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in copied.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(source))
    return folder


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_wheel_and_sdist_hold_the_same_package(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "causal_spark").rglob("*.py")}
    assert {one for one in inside if one.endswith(".py")} == modules
    assert "causal_spark/py.typed" in inside
    assert any(one.endswith("licenses/LICENSE") for one in inside)
    with tarfile.open(sdist) as archive:
        names = {one.partition("/")[2] for one in archive.getnames()}
    assert modules | {"LICENSE", "README.md", "setup.py", "pyproject.toml"} <= names


def test_it_works_in_a_clean_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    constraints = str(ROOT / "constraints.txt")
    run(str(python), "-m", "pip", "install", "--quiet", "-c", constraints, f"{wheel}[spark,plots,readers]")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYSPARK", "SPARK"))}
    run(str(python), "-c", USE, cwd=tmp_path, env=clean)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    command = str(python.parent / "causal-spark")
    assert "First steps" in run(command, "--help", cwd=tmp_path, env=clean)
    assert "conf/panel_effects.yaml" in run(command, "panel-effects", "--help", cwd=tmp_path, env=clean)
    assert run(str(python), "-m", "pip", "check", cwd=tmp_path, env=clean).startswith("No broken requirements")
