"""Small commits run without compiled plans, and leave a session as they found it."""

from __future__ import annotations

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from causal_spark.lake.tables import few_rows

MODE, WHOLE_STAGE = "spark.sql.codegen.factoryMode", "spark.sql.codegen.wholeStage"


class Session:
    """Settings of a session; ``refused`` ones cannot be set, as on a managed service."""

    def __init__(self, settings: dict[str, str], refused: tuple[str, ...] = ()) -> None:
        self.settings, self.refused, self.conf = dict(settings), refused, self

    def get(self, key: str, default: str | None) -> str | None:
        return self.settings.get(key, default)

    def set(self, key: str, value: str) -> None:
        if key in self.refused:
            raise PySparkException("CANNOT_MODIFY_CONFIG")
        self.settings[key] = value

    def unset(self, key: str) -> None:
        del self.settings[key]


@pytest.mark.parametrize("before", [{}, {WHOLE_STAGE: "true", MODE: "CODEGEN_ONLY"}])
def test_settings_are_put_back_also_after_an_error(before: dict[str, str]) -> None:
    session = Session(before)

    def commit() -> None:
        with few_rows(session, 5):  # type: ignore[arg-type]
            seen.append(dict(session.settings))
            raise ZeroDivisionError

    seen: list[dict[str, str]] = []
    with pytest.raises(ZeroDivisionError):
        commit()
    assert seen == [{WHOLE_STAGE: "false", MODE: "NO_CODEGEN"}]
    assert session.settings == before


@pytest.mark.parametrize("refused", [(WHOLE_STAGE,), (MODE,), (WHOLE_STAGE, MODE)])
def test_a_session_that_refuses_settings_goes_on_as_it_is(refused: tuple[str, ...]) -> None:
    session = Session({}, refused)
    with few_rows(session, 5):  # type: ignore[arg-type]
        pass
    assert session.settings == {}


def test_many_rows_keep_compiled_plans() -> None:
    session = Session({})
    with few_rows(session, 10_000_000):  # type: ignore[arg-type]
        assert session.settings == {}


@pytest.mark.spark
def test_a_real_session_takes_the_settings(spark: SparkSession) -> None:
    before = spark.conf.get(MODE)
    spark.conf.set(MODE, "FALLBACK")
    with few_rows(spark, 5):
        assert spark.conf.get(MODE) == "NO_CODEGEN"
    assert spark.conf.get(MODE) == "FALLBACK"
    spark.conf.set(MODE, before)
