"""What may import what, and what no module may use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "causal_spark"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Folder to the top-level packages its modules may import, beside the standard library.
ALLOWED = {
    "panel": {"numpy", "scipy", "causal_spark.errors", "causal_spark.panel"},
    "lake": {"pyspark", "causal_spark.errors", "causal_spark.lake"},
}

#: Absent from Spark Connect, so absent from the package.
BANNED = {
    "sparkContext",
    "_jvm",
    "_jsc",
    "rdd",
    "cache",
    "persist",
    "accumulator",
    "DeltaTable",
    "broadcast_variable",
}


def imports_of(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_layers_import_only_what_lies_below(folder: str) -> None:
    for module in sorted((PACKAGE / folder).rglob("*.py")):
        for name in imports_of(module):
            if name.split(".")[0] not in sys.stdlib_module_names:
                assert any(name == ok or name.startswith(f"{ok}.") for ok in ALLOWED[folder]), f"{module.name}: {name}"


def test_the_science_runs_without_spark_pandas_or_files() -> None:
    code = (
        "import sys\n"
        "for name in ('pyspark', 'pandas', 'pyarrow', 'torch', 'deltalake'):\n"
        "    sys.modules[name] = None\n"
        "from causal_spark.panel.registry import ESTIMATORS\n"
        "print(len(ESTIMATORS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "8"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_used_that_spark_connect_lacks(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & BANNED


def test_sessions_are_made_only_at_the_entry_point() -> None:
    makers = {m.name for m in MODULES if "getOrCreate" in m.read_text(encoding="utf-8")}
    assert makers == {"panel_effects_job.py"}
