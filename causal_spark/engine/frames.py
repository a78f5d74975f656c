"""Names and schemas of Spark frames."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from causal_spark.lake.locations import quoted


def ddl(fields: Iterable[tuple[str, str]]) -> str:
    """A schema from names and SQL types."""
    return ", ".join(f"{quoted(name)} {type_}" for name, type_ in fields)


def escaped(name: str) -> str:
    """A user's name as part of an engine column's: pyspark takes dots and backticks for syntax, quoted or not."""
    return name.replace("%", "%25").replace(".", "%2E").replace("`", "%60")


def unescaped(name: str) -> str:
    """The user's name again."""
    return unquote(name)
