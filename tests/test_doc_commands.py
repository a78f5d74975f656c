"""Commands and examples of the documentation: each is run by something, and every example in Python runs here."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.fences import fenced
from tests.node_frames import incidents, services

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def try_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("try_docs", ROOT / "scripts" / "try_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_run_by_something(try_docs: ModuleType) -> None:
    assert try_docs.unknown() == []
    commands = [command for _, command in try_docs.commands()]
    assert {"make run", "make test", "causal-spark show output/panel_effects"} <= set(commands)


def test_every_target_of_make_that_is_named_is_there(try_docs: ModuleType) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {command.split()[1] for _, command in try_docs.commands() if command.startswith("make ")}
    assert named <= set(targets)


def policies() -> pd.DataFrame:
    """Two markets of ten states: the last two of each are treated late."""
    rng = np.random.default_rng(5)
    rows = [
        {"market": market, "state": f"s{state}", "year": year, "treated": int(state >= 8 and year >= 2008)}
        for market in ("west", "east")
        for state in range(10)
        for year in range(2000, 2012)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(packs=rng.normal(100, 3, len(frame)) - 5 * frame["treated"], region=frame["market"])


def buyers() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    offer = np.array(["none", "coupon", "gift"])[rng.integers(0, 3, 240)]
    age = rng.uniform(20, 70, 240)
    frame = pd.DataFrame({"customer": range(240), "offer": offer, "age": age, "region": np.where(age > 45, "n", "s")})
    return frame.assign(spend=30 + 0.2 * age + 4 * (offer == "coupon") + rng.normal(0, 2, 240))


def shoppers() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    income, season = rng.normal(50, 9, 200), rng.integers(0, 4, 200).astype(float)
    price = 5 + 0.02 * income + rng.normal(0, 1, 200)
    return pd.DataFrame(
        {
            "country": "north",
            "price": price,
            "income": income,
            "season": season,
            "units": 40 - 3 * price + 0.1 * income + rng.normal(0, 1, 200),
        }
    )


#: What each page's example finds there. Examples that say nothing of it are tested elsewhere.
GIVEN: dict[str, Any] = {
    "README.md": lambda: {"frame": policies()},
    "docs/index.md": lambda: {"frame": policies()},
    "docs/panel_effects.md": lambda: {"frame": policies()},
    "docs/estimator_study.md": lambda: {"frame": policies()},
    "docs/response_curves.md": lambda: {"frame": shoppers()},
    "docs/individual_effects.md": lambda: {"frame": buyers()},
    "docs/root_causes.md": lambda: {
        "normal": services(150, 1, "north"),
        "events": incidents(3, 2, "north"),
        "after_release": services(150, 3, push=1.0).assign(region="north"),
    },
}
#: Examples with these words are run by other tests, with Spark.
ELSEWHERE = {
    "tests/test_scoring.py": "spark.read.table",
    "tests/test_reading_tables.py": "delta",
    "tests/test_adding_an_estimator.py": "nearest",
}
#: A study of a thousand draws is for users.
_QUICK = "replicates=2, variance_replicates=1"
#: Lines that want a Spark session.
_ON_SPARK = re.compile(r"^(.*work_location=.*|result\.write\(.*)$", re.MULTILINE)


def examples(page: str) -> list[str]:
    return fenced((ROOT / page).read_text(encoding="utf-8"), "python")


def test_every_example_is_run_by_something() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        page = path.relative_to(ROOT).as_posix()
        for example in examples(page):
            assert page in GIVEN or any(word in example for word in ELSEWHERE.values()), f"{page}:\n{example}"


@pytest.mark.parametrize("page", GIVEN)
def test_examples_run(page: str) -> None:
    names: dict[str, Any] = GIVEN[page]()
    for example in examples(page):
        if not any(word in example for word in ELSEWHERE.values()):
            code = _ON_SPARK.sub("", example).replace("EstimatorStudy(", f"EstimatorStudy({_QUICK}, ")
            exec(code, names)  # noqa: S102 - they are our own pages
