"""The bundle: valid by Databricks' own models, and its tasks are commands that this package understands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import Job

from causal_spark.config import load_config
from causal_spark.jobs import JOB_NAMES, load_job
from causal_spark.upkeep_job import UpkeepConfig

ROOT = Path(__file__).parents[1]
BUNDLE = yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))
JOBS = BUNDLE["resources"]["jobs"]
#: What a bundle may say at the top, by Databricks' reference of bundle settings.
TOP = {"artifacts", "bundle", "include", "permissions", "resources", "run_as", "sync", "targets", "variables"}


def filled(value: Any) -> Any:
    """The tree with its variables at their defaults."""
    if isinstance(value, dict):
        return {key: filled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one) for one in value]
    if not isinstance(value, str):
        return value
    known = {f"var.{name}": one["default"] for name, one in BUNDLE["variables"].items()}
    known |= {"workspace.file_path": str(ROOT), "bundle.name": BUNDLE["bundle"]["name"], "bundle.target": "dev"}
    found = re.sub(r"\$\{([\w.]+)\}", lambda match: known[match[1]], value)
    return filled(found) if "${" in found else found


def arguments(name: str) -> list[str]:
    (task,) = filled(JOBS[name])["tasks"]
    return list(task["python_wheel_task"]["parameters"])


def test_it_has_a_job_for_each_of_ours_and_one_for_upkeep() -> None:
    assert set(JOBS) == {*JOB_NAMES, "upkeep"}
    assert set(BUNDLE) <= TOP
    assert set(BUNDLE["targets"]) == {"dev", "prod"}
    assert BUNDLE["targets"]["dev"]["mode"] == "development"
    assert BUNDLE["targets"]["prod"]["mode"] == "production"


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_valid_by_databricks_own_models(name: str) -> None:
    job = Job.from_dict(filled(JOBS[name]))
    known = {one.environment_key for one in job.environments}
    assert {task.environment_key for task in job.tasks} <= known


def test_these_models_refuse_what_is_not_valid() -> None:
    wrong = filled(JOBS["upkeep"])
    wrong["tasks"][0]["python_wheel_task"]["entrypoint"] = "causal-spark"
    with pytest.raises(ValueError, match="entrypoint"):
        Job.from_dict(wrong)


@pytest.mark.parametrize("name", JOBS)
def test_tasks_are_commands_with_a_valid_configuration(name: str) -> None:
    (task,) = JOBS[name]["tasks"]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"{task["python_wheel_task"]["entry_point"]} = causal_spark.cli:' in setup
    command, config, *rest = arguments(name)
    assert command == name.replace("_", "-")
    settings = [one.removeprefix("--set=") for one in rest if one.startswith("--set=")]
    model = UpkeepConfig if name == "upkeep" else load_job(name).config
    found = load_config(model, config.removeprefix("--config="), settings)
    location = found.location if name == "upkeep" else found.output.location
    assert location == "main.causal_spark"
    assert [one for one in rest if not one.startswith("--set=")] == ["--log-format=json"]
    if name != "upkeep":
        assert found.output.work_location == "/Volumes/main/causal_spark/scratch"


def test_libraries_of_the_environments_are_those_of_the_package() -> None:
    """An environment lists by hand what extras say, as a path to a wheel takes no extras."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for job in JOBS.values():
        wheel, *others = job["environments"][0]["spec"]["dependencies"]
        assert wheel == "./dist/*.whl"
        assert all(f'"{one}"' in setup for one in others)
