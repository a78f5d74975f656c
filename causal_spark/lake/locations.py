"""Where tables lie: a folder of Delta tables, or a schema of a catalog."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameReader, DataFrameWriter, SparkSession

from causal_spark.errors import LocationError

_PATH = re.compile(r"([a-z][a-z0-9+.-]*:/|/|\./|\.\./|~/|[A-Za-z]:\\).*", re.DOTALL)
_PART = r"[A-Za-z_][A-Za-z0-9_-]*"
_TABLE = re.compile(rf"{_PART}(\.{_PART}){{1,2}}")
_SCHEMA = re.compile(rf"{_PART}\.{_PART}")
# abfss://container@account has a user without a password: no secret.
_PASSWORD = re.compile(r"(://[^/\s:@]+:)[^\s@]+(?=@)")
_PARAMETER = re.compile(
    r"([?&;][^=&;\s]*(?:sig|token|passw|pwd|secret|key|credential)[^=&;\s]*=)[^&;\s'\"]+", re.IGNORECASE
)


def quoted(identifier: str) -> str:
    """An identifier safe inside SQL, whatever it contains."""
    return "`" + identifier.replace("`", "``") + "`"


def text_literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def without_secrets(text: str) -> str:
    """The text with passwords and tokens in the URLs it holds overwritten."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***", text))


@dataclass(frozen=True, slots=True)
class Place:
    """One table, by path or by name."""

    address: str
    is_path: bool

    @property
    def sql(self) -> str:
        """How SQL names it, as a Delta table."""
        if self.is_path:
            return f"delta.{quoted(self.address)}"
        return ".".join(quoted(part) for part in self.address.split("."))

    def load(self, reader: DataFrameReader) -> DataFrame:
        """Read it with the reader's options."""
        return reader.format("delta").load(self.address) if self.is_path else reader.table(self.address)

    def save(self, writer: DataFrameWriter) -> None:
        """Write it with the writer's mode and options."""
        if self.is_path:
            writer.format("delta").save(self.address)
        else:
            writer.format("delta").saveAsTable(self.address)

    def exists(self, spark: SparkSession) -> bool:
        """Whether a table is there."""
        if not self.is_path:
            return spark.catalog.tableExists(self.address)
        try:
            spark.sql(f"DESCRIBE DETAIL {self.sql}").collect()
        except AnalysisException:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Location:
    """Where a family of tables lies: a folder or URL (``is_path``), or ``catalog.schema``."""

    address: str
    is_path: bool

    def table(self, name: str) -> Place:
        """The table of that name."""
        if not self.is_path:
            return Place(f"{self.address}.{name}", is_path=False)
        return Place(self.address.rstrip("/") + "/" + name, is_path=True)


def _absolute(path: str) -> str:
    # Spark resolves relative paths against the JVM's working directory, which on Connect is the server's.
    if "://" in path or ":/" in path[:12]:
        return path
    return Path(path).expanduser().absolute().as_posix()


def is_path(text: str) -> bool:
    """Whether the text names a path: absolute, starting with ``./``, ``../`` or ``~/``, or a URL."""
    return _PATH.fullmatch(text) is not None


def output_location(text: str) -> Location:
    """Parse ``output.location``. Raises `LocationError` quoting a value that is neither form."""
    if is_path(text):
        return Location(_absolute(text), is_path=True)
    if _SCHEMA.fullmatch(text):
        return Location(text, is_path=False)
    raise LocationError(
        f"Output location {text!r} is neither a folder nor catalog.schema.",
        f"Write ./{text} for a folder, or name a catalog and a schema: spark_catalog.{text}.",
    )


def folder_address(text: str) -> str:
    """Parse a scratch folder. Raises `LocationError` quoting a value that is no path."""
    if is_path(text):
        return _absolute(text)
    raise LocationError(f"Work location {text!r} is not a folder.", "Name a folder, a volume or a URL.")


def input_place(text: str) -> Place:
    """Parse a table to read. Raises `LocationError` quoting a value that is neither form."""
    if is_path(text):
        return Place(_absolute(text), is_path=True)
    if _TABLE.fullmatch(text):
        return Place(text, is_path=False)
    raise LocationError(
        f"Input location {text!r} is neither a path nor a two- or three-part table name.",
        f"Write ./{text} for a path, schema.table or catalog.schema.table for a table, or example:NAME.",
    )
