"""docs/adding_an_estimator.md, taken at its word: its steps in a copy of the tree, and the estimator it adds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fences import fenced

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding_an_estimator.md").read_text(encoding="utf-8")
USE = """
from causal_spark import PanelEffects
from causal_spark.examples import load_example

policies = load_example("policies")
california = policies[policies["source"] == "prop99"]
result = PanelEffects(["nearest"], variances=[{"name": "placebo", "replicates": 20}]).fit(
    california, unit="unit", time="year", outcome="outcome", treatment="treated"
)
assert len(result.weights) == 5, result.weights
assert -40 < result.effects["estimate"].item() < 0
assert result.variances["std_error"].item() > 0
"""


def put(path: Path, text: str, before: str) -> None:
    """Insert a text before the only place where another stands."""
    old = path.read_text(encoding="utf-8")
    assert old.count(before) == 1, f"{path}: {before!r}"
    path.write_text(old.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's steps taken."""
    tree = tmp_path_factory.mktemp("project")
    for name in ("benchmarks", "causal_spark", "conf", "docs", "studies", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    module, imported, definition, tests = fenced(PAGE, "python")
    row, section = fenced(PAGE, "text")
    (line,) = fenced(PAGE, "yaml")
    (tree / "causal_spark" / "panel" / "nearest.py").write_text(module, encoding="utf-8")
    (tree / "tests" / "panel" / "test_nearest.py").write_text(tests, encoding="utf-8")
    registry = tree / "causal_spark" / "panel" / "registry.py"
    put(registry, imported, "from causal_spark.panel.placebo import ")
    put(registry, textwrap.indent(definition.rstrip(), " " * 12) + ",\n", "        )\n    }\n)\n\n_CONDITIONAL = (")
    estimators = tree / "docs" / "estimators.md"
    put(estimators, row, "\nThe last three are versions of one estimator")
    estimators.write_text(estimators.read_text(encoding="utf-8") + "\n" + section, encoding="utf-8")
    put(tree / "conf" / "panel_effects.yaml", line, "\n# Variance estimators, run for every point estimator;")
    placebo = tree / "tests" / "panel" / "test_placebo.py"
    put(placebo, ', "nearest"', "]\n    for name, definition in ESTIMATORS.items():")
    return tree


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(
        [sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_commands_of_the_page_pass(tree: Path) -> None:
    (commands,) = fenced(PAGE, "")
    lines = commands.splitlines()
    assert len(lines) == 2
    for line in lines:
        done = run(tree, *line.removeprefix("python ").split(), "-q", "-p", "no:cacheprovider")
        assert done.returncode == 0, done.stdout[-3000:]
        assert " passed" in done.stdout
    # The suites that hold for all did take it up.
    listed = run(tree, "-m", "pytest", "tests/panel", "-k", "nearest", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert {"test_nearest.py", "test_conditional.py", "test_study.py"} <= set(
        re.findall(r"test_\w+\.py", listed.stdout)
    )


def test_the_registry_is_tested_whole(tree: Path) -> None:
    done = run(tree, "-m", "pytest", "tests/panel/test_placebo.py", "-q", "-k", "registry", "-p", "no:cacheprovider")
    assert "1 passed" in done.stdout, done.stdout[-3000:]


def test_it_runs_with_variances_by_its_name(tree: Path) -> None:
    done = run(tree, "-c", USE)
    assert done.returncode == 0, done.stderr[-3000:]


def test_its_code_is_as_the_projects_is(tree: Path) -> None:
    files = ["causal_spark/panel/nearest.py", "causal_spark/panel/registry.py", "tests/panel/test_nearest.py"]
    for command in (["check"], ["format", "--check"]):
        done = run(tree, "-m", "ruff", *command, *files)
        assert done.returncode == 0, done.stdout
