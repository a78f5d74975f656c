import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_spark.config import load_config, parse_config
from causal_spark.errors import ConfigError
from causal_spark.methods import estimator_tasks, variance_tasks
from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel_effects_job import PanelEffectsConfig

SHIPPED = Path(__file__).parent.parent / "conf" / "panel_effects.yaml"
MINIMAL: dict[str, Any] = {
    "input": {"location": "./panel"},
    "columns": {"unit": "u", "time": "t", "outcome": "y", "treatment": "w"},
    "output": {"location": "./out"},
}


def test_the_shipped_file_is_valid_and_has_every_key() -> None:
    tree = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    load_config(PanelEffectsConfig, str(SHIPPED))
    assert set(tree) == set(PanelEffectsConfig.model_fields)
    for section in ("input", "columns", "output"):
        model = PanelEffectsConfig.model_fields[section].annotation
        assert set(tree[section]) == set(model.model_fields)  # type: ignore[union-attr]


def test_settings_override_dotted_keys_with_yaml_values() -> None:
    config = load_config(
        PanelEffectsConfig,
        str(SHIPPED),
        ["output.location=./elsewhere", "estimators=[did, sc]", "seed=7", "columns.rename={a: b}"],
    )
    assert config.output.location == "./elsewhere"
    assert config.estimators == ("did", "sc")
    assert config.seed == 7
    assert config.columns.rename == {"a": "b"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"estimator": ["did"]}, r"estimator: unknown key\. Did you mean 'estimators'"),
        ({"columns": MINIMAL["columns"] | {"units": "u"}}, r"columns\.units: unknown key\. Did you mean 'unit'"),
        ({"columns": {"unit": "u"}}, r"columns\.time: Field required"),
        ({"seed": 2**63}, r"seed: .*less than"),
        ({"run_key": ""}, r"run_key"),
        ({"confidence_level": 95}, r"confidence_level: .*less than 1"),
        ({"worker_memory": 0}, r"worker_memory: .*greater than 0"),
        ({"worker_memory": "8g"}, r"worker_memory: .*number"),
        ({"estimators": ["ddi"]}, r"Unknown estimator 'ddi'\. Did you mean 'did'"),
        ({"estimators": ["did", "did"]}, r"'did' is listed twice"),
        ({"estimators": []}, r"No estimator"),
        ({"estimators": [{"where": {}}]}, r"has no name"),
        ({"estimators": [{"name": "sc", "rige": 1}]}, r"no option 'rige'\. Did you mean 'ridge'"),
        ({"estimators": [{"name": "sc", "ridge": "much"}]}, r"Options of estimator 'sc'.*ridge"),
        ({"estimators": [{"name": "sc", "ridge": -1.0}]}, r"Options of estimator 'sc'.*ridge"),
        ({"estimators": [{"name": "did", "where": {"region": "x"}}]}, r"where names 'region'"),
        ({"variances": ["plasebo"]}, r"Unknown variance 'plasebo'\. Did you mean 'placebo'"),
        ({"variances": [{"name": "placebo", "replicates": 1}]}, r"Options of variance 'placebo'.*replicates"),
        ({"input": {"location": "x", "format": "orc"}}, r"input\.format"),
        ({"output": {"location": "x", "cells": "some"}}, r"output\.cells"),
    ],
)
def test_mistakes_name_the_key_and_what_was_meant(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(PanelEffectsConfig, MINIMAL | change)


@pytest.mark.parametrize("setting", ["seed", "=1", "input.location.x=1", "seed=[1"])
def test_settings_that_are_not_key_value_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(PanelEffectsConfig, str(SHIPPED), [setting])


@pytest.mark.parametrize(("content", "says"), [("a: [", "not YAML"), ("", "holds no keys"), (None, "cannot be read")])
def test_files_that_are_no_configuration_are_refused(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        load_config(PanelEffectsConfig, str(path))


def test_where_keeps_an_estimator_to_some_groups() -> None:
    task = estimator_tasks([{"name": "did", "where": {"region": ["n", "s"]}}], ESTIMATORS, {"region": "STRING"})[0]
    assert task.wants({"region": "n"})
    assert not task.wants({"region": "w"})
    assert estimator_tasks(["did"], ESTIMATORS, {})[0].wants({})


def test_where_knows_an_instant_in_every_zone_and_in_local_time() -> None:
    task = estimator_tasks(
        [{"name": "did", "where": {"at": dt.datetime(2024, 7, 1, 12)}}], ESTIMATORS, {"at": "TIMESTAMP"}
    )[0]
    noon = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    for same in (noon, noon.astimezone(dt.timezone(dt.timedelta(hours=5))), noon.astimezone().replace(tzinfo=None)):
        assert task.wants({"at": same})
    assert not task.wants({"at": noon + dt.timedelta(seconds=1)})
    assert not task.wants({"at": None})


@pytest.mark.parametrize(("type_", "value"), [("INT", "1"), ("STRING", 1), ("STRING", False), ("BIGINT", True)])
def test_where_values_of_another_type_are_refused_rather_than_never_matched(type_: str, value: object) -> None:
    with pytest.raises(ConfigError, match="where 'region'"):
        estimator_tasks([{"name": "did", "where": {"region": value}}], ESTIMATORS, {"region": type_})


def test_options_reach_the_method() -> None:
    assert variance_tasks([{"name": "placebo", "replicates": 17, "retune": True}])[0].options.replicates == 17


def test_only_what_changes_results_makes_another_run() -> None:
    def identity(**changes: Any) -> str:
        return parse_config(PanelEffectsConfig, MINIMAL | changes).identity()

    assert identity(output={"location": "./other", "work_location": "./work"}) == identity()
    assert identity(seed=1) != identity()
    assert identity(output={"location": "./out", "cells": "all"}) != identity()


def test_no_secret_and_no_name_is_part_of_what_makes_runs_the_same() -> None:
    def identity(location: str, **names: str) -> str:
        return parse_config(PanelEffectsConfig, MINIMAL | {"input": {"location": location}} | names).identity()

    first = identity("s3a://key:hush@bucket/in")
    assert "hush" not in first
    # A password that was changed, or another name, is no reason to run again.
    assert identity("s3a://key:hush2@bucket/in", series="nightly", run_key="mine") == first
    assert identity("s3a://key:hush@bucket/other") != first
