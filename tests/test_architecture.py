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
    "dose_response": {
        *("numpy", "scipy", "torch", "sklearn"),
        *("causal_spark.errors", "causal_spark.dose_response", "causal_spark.neural"),
    },
    "multi_treatment": {
        *("numpy", "scipy", "torch", "sklearn", "safetensors"),
        *("causal_spark.errors", "causal_spark.multi_treatment", "causal_spark.neural"),
    },
    "root_cause": {"numpy", "scipy", "causal_spark.errors", "causal_spark.root_cause"},
    "neural": {"torch", "causal_spark.neural"},
    "plots": {"numpy", "pandas", "matplotlib", "causal_spark.errors", "causal_spark.plots"},
    "tabular": {"numpy", "causal_spark.errors", "causal_spark.tabular"},
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
    "unpersist",
    "cacheTable",
    "toJavaRDD",
    "_jdf",
    "_sc",
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


@pytest.mark.parametrize(
    ("registry", "without", "n_methods"),
    [
        ("panel.registry import ESTIMATORS", "torch", 8),
        ("dose_response.registry import WEIGHTINGS", "causal_spark.panel", 7),
        ("multi_treatment.registry import ESTIMATORS", "causal_spark.dose_response", 7),
        ("root_cause.analysis import MOMENTS", "causal_spark.panel", 2),
    ],
)
def test_the_sciences_run_without_spark_pandas_or_files(registry: str, without: str, n_methods: int) -> None:
    code = (
        "import sys\n"
        f"for name in ('pyspark', 'pandas', 'pyarrow', 'deltalake', {without!r}):\n"
        "    sys.modules[name] = None\n"
        f"from causal_spark.{registry}\n"
        f"print(len({registry.split()[-1]}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(n_methods)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_used_that_spark_connect_lacks(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & BANNED


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_loaded_that_could_run_code(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports_of(module)} & {"pickle", "cloudpickle", "joblib", "dill"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "yaml.load", "eval", "exec"):
            raise AssertionError(f"line {node.lineno}: {ast.unparse(node)}")


def test_sessions_are_made_only_at_the_entry_point() -> None:
    makers = {m.name for m in MODULES if "getOrCreate" in m.read_text(encoding="utf-8")}
    assert makers == {"command.py"}
