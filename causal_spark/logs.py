"""Log lines of a run: text for people or JSON for machines, each with job and run id, free of secrets.

Lines name groups and causes, never values of the data. What else a line tells is in its ``extra`` fields.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from causal_spark.lake.locations import without_secrets

LOG_FORMATS = ("text", "json")

_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("causal_spark_context", default=MappingProxyType({}))


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """What every line logged meanwhile is about: ``job`` and ``run_id``."""
    token = _CONTEXT.set(MappingProxyType({**_CONTEXT.get(), **fields}))
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def one_line(text: str) -> str:
    """The text with whatever could end a line or steer a terminal escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class _Context(logging.Filter):
    """Renders each record's message, clean, and adds what it is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(without_secrets(record.getMessage())), ()
        for name, value in _CONTEXT.get().items():
            setattr(record, name, value)
        record.prefix = "".join(f"[{value}] " for name, value in _CONTEXT.get().items() if name == "run_id")
        return True


def _formatter(log_format: str) -> logging.Formatter:
    if log_format == "text":
        return logging.Formatter("%(asctime)s %(prefix)s%(message)s", "%H:%M:%S")
    return JsonFormatter(
        "%(levelname)s %(message)s",
        rename_fields={"levelname": "level"},
        timestamp="time",
        reserved_attrs=[*RESERVED_ATTRS, "prefix"],
    )


def _errors_of_sql() -> logging.Logger:
    """Spark's logger of them. Where Spark is, it has to be of Spark's class: who asks first decides for the process."""
    name = "SQLQueryContextLogger"
    try:
        from pyspark.logger import PySparkLogger
    except ImportError:
        return logging.getLogger(name)
    return PySparkLogger.getLogger(name)


@contextmanager
def logged(log_format: str) -> Iterator[None]:
    """Send this package's lines to stderr in the given format, and nowhere else, meanwhile."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Context())
    handler.setFormatter(_formatter(log_format))
    ours, errors_of_sql = logging.getLogger("causal_spark"), _errors_of_sql()
    before = ours.level, ours.propagate, errors_of_sql.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    # pyspark logs every SQL error as a page of JSON, those that are expected and handled too.
    errors_of_sql.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before[0])
        ours.propagate = before[1]
        errors_of_sql.setLevel(before[2])
