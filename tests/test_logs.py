"""Log lines: of one run, on one line, free of secrets, in the format asked for."""

from __future__ import annotations

import json
import logging

import pytest
from pyspark.logger import PySparkLogger

from causal_spark.command import exit_code
from causal_spark.errors import InputError
from causal_spark.logs import about, logged

log = logging.getLogger("causal_spark")


def test_text_lines_have_the_run_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("text"), about(job="panel_effects", run_id="r1"):
        log.info("read %s\nand\x1b[2J%d", "s3a://me:secret@bucket/x", 3)
    line = capsys.readouterr().err
    assert line.endswith("[r1] read s3a://me:***@bucket/x\\nand\\x1b[2J3\n")
    log.info("nobody hears this")
    assert capsys.readouterr().err == ""


def test_json_lines_have_what_belongs_to_them(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("json"), about(job="panel_effects", run_id="r1"):
        log.info("group %s failed", "{}", extra={"event": "group_failed", "group_id": "{}"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "INFO",
        "message": "group {} failed",
        "job": "panel_effects",
        "run_id": "r1",
        "event": "group_failed",
        "group_id": "{}",
    }


def test_what_stops_a_job_is_logged_with_its_run_and_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def refuses() -> None:
        raise InputError("Nothing there.", "Look elsewhere.")

    def breaks() -> None:
        raise ZeroDivisionError

    assert exit_code(lambda: None, "upkeep", "r2", "json") == 0
    assert exit_code(refuses, "upkeep", "r2", "json") == 3
    with pytest.raises(ZeroDivisionError):
        exit_code(breaks, "upkeep", "r2", "json")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["run_id"], line["event"], line["level"]) for line in lines] == [("r2", "stopped", "ERROR")] * 2
    assert lines[0]["message"] == "InputError: Nothing there. Look elsewhere."


def test_loggers_are_left_as_they_were() -> None:
    before = (log.level, log.propagate, list(log.handlers))
    with logged("text"):
        assert log.handlers != before[2]
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_the_logger_of_sql_errors_stays_of_the_class_that_spark_needs() -> None:
    with logged("text"):
        errors_of_sql = logging.getLogger("SQLQueryContextLogger")
        assert isinstance(errors_of_sql, PySparkLogger)
        assert not errors_of_sql.isEnabledFor(logging.ERROR)
    assert errors_of_sql.isEnabledFor(logging.ERROR)
