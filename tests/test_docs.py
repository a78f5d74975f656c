import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_spark import errors
from causal_spark.panel.registry import ESTIMATORS, VARIANCES

TEXT = (Path(__file__).parents[1] / "docs" / "estimators.md").read_text(encoding="utf-8")
METHODS = {**ESTIMATORS, **VARIANCES}


def sections() -> dict[str, str]:
    """Text of each method's section, by the name in its heading."""
    parts = re.split(r"^## `(\w+)`$", TEXT.split("\n## Proposition 99\n")[1], flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def documented_options(section: str) -> dict[str, Any]:
    """Defaults by option, written as in a configuration, from a table `| option | default | meaning |`."""
    table = section.partition("| option | default | meaning |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", table, re.MULTILINE)
    return {option: yaml.safe_load(default) for option, default in rows}


def as_in_configuration(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def test_every_estimator_and_variance_has_a_section_in_the_order_of_the_registry() -> None:
    assert list(sections()) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    options = {field.name: as_in_configuration(field.default) for field in dataclasses.fields(METHODS[name].options)}
    documented = documented_options(sections()[name])
    assert documented == options
    assert [type(value) for value in documented.values()] == [type(value) for value in options.values()]


def test_every_error_named_exists() -> None:
    named = set(re.findall(r"`(\w+Error)`", TEXT))
    assert named
    assert {name for name in named if not issubclass(getattr(errors, name, object), errors.GroupError)} == set()


def test_lines_fit_a_screen() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 130] == []
