import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from causal_spark import errors
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.dose_response.second_stage import StageOptions
from causal_spark.multi_treatment.registry import ESTIMATORS as EFFECTS
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.simulation import Assignment, EffectShape, ModelVariant, SimulationOptions
from causal_spark.panel.tuning import LAMBDA_NN_FLOOR
from causal_spark.root_cause.analysis import functional_of
from causal_spark.root_cause.components import KNOTS
from causal_spark.root_cause.outliers import Tail
from causal_spark.root_cause.types import MechanismKind

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
VARIANCES_TEXT = (ROOT / "docs" / "variances.md").read_text(encoding="utf-8")
CURVES_TEXT = (ROOT / "docs" / "response_curves.md").read_text(encoding="utf-8")
EFFECTS_TEXT = (ROOT / "docs" / "individual_effects.md").read_text(encoding="utf-8")
STUDY_TEXT = (ROOT / "docs" / "estimator_study.md").read_text(encoding="utf-8")
CAUSES_TEXT = (ROOT / "docs" / "root_causes.md").read_text(encoding="utf-8")
PAGES = (TEXT, VARIANCES_TEXT, CURVES_TEXT, EFFECTS_TEXT)
#: With those that no registry goes with.
ALL_PAGES = "".join((*PAGES, CAUSES_TEXT, STUDY_TEXT))
REGISTRIES = (ESTIMATORS, VARIANCES, WEIGHTINGS, EFFECTS)
METHODS = {**ESTIMATORS, **VARIANCES, **WEIGHTINGS, **EFFECTS}


def sections(text: str = "".join(PAGES)) -> dict[str, str]:
    """Text of each method's section, by the name in its heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    return {heading.strip("`"): text for heading, text in texts.items() if heading.startswith("`")}


def documented_options(section: str) -> dict[str, Any]:
    """Defaults by option, written as in a configuration, from a table `| option | default | meaning |`."""
    table = section.partition("| option | default | meaning |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", table, re.MULTILINE)
    return {option: yaml.safe_load(default) for option, default in rows}


def as_in_configuration(default: Any) -> Any:
    if dataclasses.is_dataclass(default):
        return {field.name: as_in_configuration(getattr(default, field.name)) for field in dataclasses.fields(default)}
    return list(default) if isinstance(default, tuple) else default


def default_of(field: Any) -> Any:
    return as_in_configuration(
        field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    )


@pytest.mark.parametrize(("text", "methods"), list(zip(PAGES, REGISTRIES, strict=True)))
def test_every_estimator_and_variance_has_a_section_in_the_order_of_the_registry(text: str, methods: Any) -> None:
    assert list(sections(text)) == list(methods)


def test_the_overviews_have_every_method_and_say_as_much_of_each() -> None:
    for text, methods in zip(PAGES, REGISTRIES, strict=True):
        table = text.partition("## Which to use when\n\n")[2].partition("\n\n")[0].splitlines()
        assert [line.split("|")[1].strip(" `") for line in table[2:]] == list(methods)
        assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    options = {field.name: default_of(field) for field in dataclasses.fields(METHODS[name].options)}
    documented = documented_options(sections()[name])
    assert documented == options
    assert [type(value) for value in documented.values()] == [type(value) for value in options.values()]


def test_options_of_second_stages_are_documented_with_their_defaults() -> None:
    section = CURVES_TEXT.partition("## Second stages\n")[2].partition("\n## ")[0]
    assert documented_options(section) == {field.name: field.default for field in dataclasses.fields(StageOptions)}


def test_the_floor_of_the_nuclear_norm_penalty_is_the_codes() -> None:
    stated = re.findall(r"(?:Candidates|up to 100 units), ≥ ([\d.e-]+)[;.] ?", "\n".join(sections().values()))
    stated += re.findall(r"The floor is ([\d.e-]+)\. ", sections()["dwcp"])
    assert len(stated) == 4
    assert {float(number) for number in stated} == {LAMBDA_NN_FLOOR}


def test_every_error_named_exists() -> None:
    named = set(re.findall(r"`(\w+Error)`", ALL_PAGES))
    assert named
    assert {name for name in named if not issubclass(getattr(errors, name, object), errors.GroupError)} == set()


@pytest.mark.parametrize("text", [TEXT, VARIANCES_TEXT])
def test_links_within_the_page_lead_to_a_heading(text: str) -> None:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links
    assert set(links) <= anchors


def test_pictures_are_shown_and_small() -> None:
    shown = {(ROOT / "docs" / path).resolve() for path in re.findall(r"!\[.+?\]\((.+?)\)", ALL_PAGES, re.DOTALL)}
    assert shown == {path.resolve() for path in (ROOT / "docs" / "images").iterdir()}
    assert max(path.stat().st_size for path in shown) < 150_000


def test_the_shipped_configuration_runs_every_estimator() -> None:
    config = yaml.safe_load((ROOT / "conf" / "panel_effects.yaml").read_text(encoding="utf-8"))
    assert [each if isinstance(each, str) else each["name"] for each in config["estimators"]] == list(ESTIMATORS)


def test_lines_fit_a_screen() -> None:
    assert [line for line in ALL_PAGES.splitlines() if len(line) > 130] == []


def test_every_functional_and_tail_of_root_causes_is_documented() -> None:
    for name in ("mean", "variance", "quantile:<level>", "kl"):
        functional_of(name.replace("<level>", "0.9"))
        assert f"`{name}`" in CAUSES_TEXT
    assert f"tail: {', '.join(get_args(Tail))}" in CAUSES_TEXT
    assert all(f"`{kind}`" in CAUSES_TEXT for kind in get_args(MechanismKind))
    assert f"{', '.join(map(str, KNOTS[:2]))} or {KNOTS[2]} knots" in CAUSES_TEXT


def test_every_way_to_simulate_is_documented() -> None:
    for names in (get_args(Assignment), get_args(ModelVariant), get_args(EffectShape)):
        assert all(f"`{name}`" in STUDY_TEXT for name in names)
    stated = {field.name for field in dataclasses.fields(SimulationOptions)} - {"rank"}
    assert all(name in STUDY_TEXT for name in stated)
