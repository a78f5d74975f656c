"""The command ``causal-spark``: it teaches, hands on to jobs, and shows results without Spark."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import write_deltalake

from causal_spark import cli
from causal_spark.jobs import JOB_NAMES
from causal_spark.show import latest_runs, show


def run_row(run_id: str, hour: int, **changes: Any) -> dict[str, Any]:
    row = {
        "run_id": run_id,
        "run_key": f"key {run_id}",
        "job": "panel_effects",
        "status": "succeeded",
        "finished_at": dt.datetime(2026, 1, 1, hour, tzinfo=dt.UTC),
        "input": "/data/panels",
        "n_groups": 2,
        "n_succeeded": 1,
        "n_declined": 0,
        "n_failed": 1,
        "series": "nightly",
    }
    return row | changes


def effect(run_id: str, region: str, estimate: float) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "group_id": f'{{"region":{{"string":"{region}"}}}}',
        "region": region,
        "estimator": "sdid",
        "estimate": estimate,
    }


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Two runs of one analysis, a failed one, and one of another analysis of an older contract."""
    runs = [
        run_row("a", 1),
        run_row("b", 2),
        run_row("c", 3, status="failed"),
        run_row("d", 1, series=None, run_key="old"),
    ]
    rows = [effect("a", "north", 1.0), effect("b", "north", 2.0), effect("c", "north", 3.0), effect("d", "south", 4.0)]
    bars = [
        {**effect("b", "north", 0), "variance_estimator": name, "std_error": error, "conf_low": -1.0, "conf_high": 5.0}
        for name, error in (("placebo", 0.5), ("unit_time", 0.25), ("jackknife", None))
    ]
    failure = {
        "run_id": "b",
        "group_id": "{}",
        "stage": "read",
        "estimator": None,
        "kind": "failed",
        "message": "A cell occurs twice.",
        "hint": "Aggregate.",
    }
    frames = {
        "runs": pd.DataFrame(runs),
        "panel_effects": pd.DataFrame(rows),
        "panel_variances": pd.DataFrame(bars).drop(columns="estimate").assign(p_value=0.01),
        "failures": pd.DataFrame([failure]).astype({"estimator": "string"}),
    }
    for name, frame in frames.items():
        write_deltalake(str(tmp_path / name), frame)
    return str(tmp_path)


def test_latest_runs_are_the_newest_of_each_series(lake: str) -> None:
    assert latest_runs(lake)["run_id"].tolist() == ["b", "d"]


def test_show_tells_latest_effects_with_the_preferred_error_bar_and_failures(
    lake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", lake]) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert ["north", "sdid", "2", "0.25", "-1", "5", "0.01", "unit_time"] in lines
    assert ["south", "sdid", "4", "-", "-", "-", "-", "-"] in lines
    assert "panel_effects: latest of 2 series" in said
    assert "A cell occurs twice." in said
    assert "Aggregate." in said


def test_show_tells_one_table_and_says_what_is_left_out(lake: str) -> None:
    text = show(lake, table="panel_effects", n_rows=1)
    assert "... and 1 more rows" in text
    assert "key" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--table", "panel_effect"], "Did you mean 'panel_effects'"), (["--table", "balance"], "has no table balance")],
)
def test_what_is_not_there_is_said(
    lake: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", lake, *arguments]) == 3
    assert says in capsys.readouterr().err


def test_show_needs_no_spark(lake: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['pyspark'] = None\n"
        "from causal_spark.cli import main\n"
        f"sys.exit(main(['show', {lake!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unit_time" in done.stdout


def test_help_teaches_and_every_job_has_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert "First steps" in said
    for name in JOB_NAMES:
        command = name.replace("_", "-")
        assert command in said
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert f"conf/{name}.yaml" in capsys.readouterr().out


def test_a_job_gets_its_arguments_and_a_local_session_gets_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Recorder:
        def main(self, arguments: list[str]) -> int:
            seen.append(arguments)
            return 4

    monkeypatch.setattr("causal_spark.jobs.load_job", lambda name: Recorder())
    for name in cli._CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["root-causes", "--config", "x.yaml", "--force"]) == 4
    assert seen == [["--config", "x.yaml", "--force"]]
    import os

    assert "DeltaSparkSessionExtension" in os.environ["PYSPARK_SUBMIT_ARGS"]
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "mine")
    cli.main(["root-causes"])
    assert os.environ["PYSPARK_SUBMIT_ARGS"] == "mine"
