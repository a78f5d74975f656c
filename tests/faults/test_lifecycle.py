"""What may happen to a run, for every job: crashes, reruns, corrections, vanished and lost groups, two writers."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from causal_spark import job as jobs
from causal_spark.config import JobConfig
from causal_spark.engine import run as running
from causal_spark.errors import EmptyInputError
from causal_spark.job import run_job
from causal_spark.lake import tables as lake_tables
from causal_spark.lake.locations import output_location
from causal_spark.lake.runs import LATEST, newest_runs
from tests.job_cases import CASES, JobCase, comparable, read, save, seen, stored, visible

pytestmark = [pytest.mark.spark, pytest.mark.reruns]

#: Of every run here: folders differ from test to test, the analysis does not.
SERIES = "nightly"


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> JobCase:
    return CASES[request.param]


@pytest.fixture(scope="module")
def finished(spark: SparkSession, case: JobCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the job has run once, not to be written to."""
    folder = tmp_path_factory.mktemp(case.name)
    save(spark, case.good(), folder)
    run_job(spark, case.job, config_for(case, folder, folder))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of what was written there."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path


def config_for(case: JobCase, source: Path, target: Path, **changes: Any) -> JobConfig:
    """A quick configuration with its input below one folder and its output below another."""
    return case.config(target, input={"location": str(source / "input")}, **{"series": SERIES, **case.slim, **changes})


def contents(case: JobCase, folder: Path) -> dict[str, pd.DataFrame]:
    return {name: seen(folder, name) for name in case.tables if name != "runs"}


def assert_same(found: dict[str, pd.DataFrame], wanted: dict[str, pd.DataFrame]) -> None:
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(found[name], frame, check_exact=True, check_dtype=False, obj=name)


class KilledError(BaseException):
    """Stands for a process that is gone: nothing in the job may catch it."""


def test_a_crash_between_commits_shows_nothing_and_a_rerun_all_once(
    spark: SparkSession, case: JobCase, finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(case, folder)
    config = config_for(case, finished, folder, confidence_level=0.8)
    waves = count_calls(monkeypatch, running, "_run_wave")
    for name in (case.job_tables[0], "runs"):
        with monkeypatch.context() as patched:
            dying_at(name, patched)
            with pytest.raises(KilledError):
                run_job(spark, case.job, config)
        assert_same(contents(case, folder), before)
    written = run_job(spark, case.job, config)
    assert len(waves) == 1
    runs = stored(folder, "runs").query(f"run_id == '{written.run_id}'")
    assert len(runs) == 1
    after = contents(case, folder)
    assert runs["rows_written"].item() == sum(map(len, after.values()))
    assert {name: len(frame) for name, frame in after.items()} == {name: len(one) for name, one in before.items()}


def dying_at(name: str, patched: pytest.MonkeyPatch) -> None:
    """From now on the process goes when it comes to append to that table."""
    original = lake_tables.append_rows

    def dies(place: Any, rows: DataFrame, commit: Any) -> None:
        if place.address.endswith(f"/{name}"):
            raise KilledError
        original(place, rows, commit)

    patched.setattr(lake_tables, "append_rows", dies)
    # A process that is gone does not tidy up.
    patched.setattr(jobs, "_remove", lambda folder, used: None)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The last argument of every call of a function from now on."""
    original, calls = getattr(module, name), []

    def called(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(module, name, called)
    return calls


def test_what_was_changed_replaces_and_what_comes_back_shows_again(
    spark: SparkSession, case: JobCase, finished: Path, folder: Path
) -> None:
    config = config_for(case, finished, folder)
    assert not run_job(spark, case.job, config).new
    first = contents(case, folder)
    changed = run_job(spark, case.job, config_for(case, finished, folder, confidence_level=0.8))
    assert seen_ids(spark, case, folder) == {changed.run_id}
    back = run_job(spark, case.job, config)
    assert back.new
    assert seen_ids(spark, case, folder) == {back.run_id}
    assert_same(contents(case, folder), first)
    assert not run_job(spark, case.job, config).new


def seen_ids(spark: SparkSession, case: JobCase, folder: Path) -> set[str]:
    """Runs whose rows of the first table readers see."""
    runs = newest_runs(spark, output_location(str(folder / "out")), LATEST)
    return {row["run_id"] for row in read(spark, folder, case.job_tables[0]).join(runs, "run_id").collect()}


def test_a_group_that_vanished_leaves_no_stale_row_and_an_empty_input_changes_nothing(
    spark: SparkSession, case: JobCase, folder: Path
) -> None:
    config = config_for(case, folder, folder)
    assert set(seen(folder, case.job_tables[0])["region"]) == {"north", "south"}
    save(spark, case.frame("south", 2), folder)
    run_job(spark, case.job, config)
    after = contents(case, folder)
    for name in case.job_tables:
        assert set(after[name]["region"]) <= {"south"}
    assert len(after[case.job_tables[0]]) > 0
    assert set(visible(folder, case.job_tables[0])["region"]) == {"north", "south"}
    spark.read.format("delta").load(str(folder / "input")).limit(0).write.format("delta").mode("overwrite").save(
        str(folder / "input")
    )
    with pytest.raises(EmptyInputError):
        run_job(spark, case.job, config)
    assert_same(contents(case, folder), after)


def test_two_writers_at_once_both_land_and_estimate_once(
    spark: SparkSession, case: JobCase, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = count_calls(monkeypatch, running, "_run_wave")
    # They also meet where tables are made.
    configs = [config_for(case, finished, tmp_path, series=name) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run_job, spark.newSession(), case.job, config, force=True) for config in configs]
        written = [one.result() for one in both]
    assert all(one.new for one in written)
    assert len(waves) == 2
    wanted = contents(case, finished)
    for name in case.job_tables:
        rows = stored(tmp_path, name)
        for one in written:
            found = comparable(rows[rows["run_id"] == one.run_id])
            pd.testing.assert_frame_equal(found, wanted[name], check_exact=True, check_dtype=False, obj=name)


def test_a_lost_group_is_a_failure_and_not_a_silence(
    spark: SparkSession, case: JobCase, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = running._run_wave

    def forgets_south(planned: DataFrame, work: Any, wave: Any, path: str) -> None:
        original(planned.where("region <> 'south'"), work, wave, path)

    monkeypatch.setattr(running, "_run_wave", forgets_south)
    config = config_for(case, finished, tmp_path)
    rows = case.job.rows(config, spark.read.format("delta").load(str(finished / "input")))
    run = running.run_on_spark(rows, case.job.work(config, rows), running.Scratch(str(tmp_path), "one"))
    failures = run.frame("failures").where("kind = 'failed'").collect()
    assert [(row["group_id"], row["error_class"]) for row in failures] == [
        ('{"region":{"string":"south"}}', "LostGroupError")
    ]
    assert (run.summary.n_groups, run.summary.n_failed) == (2, 1)
    assert run.summary.row_counts["failures"] == run.frame("failures").count()
