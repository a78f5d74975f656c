import pytest

from causal_spark.errors import LocationError
from causal_spark.lake.locations import folder_address, input_place, output_location, quoted, without_secrets


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/data/out", "/data/out"),
        ("/data/o`ut", "/data/o`ut"),
        ("s3://bucket/out", "s3://bucket/out"),
        ("dbfs:/out", "dbfs:/out"),
    ],
)
def test_paths_are_kept(text: str, address: str) -> None:
    location = output_location(text)
    assert location.is_path
    assert location.address == address
    assert location.table("runs").address == f"{address}/runs"


def test_relative_paths_are_made_absolute_since_the_jvm_may_run_elsewhere(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert output_location("./out").address == f"{tmp_path}/out"


def test_catalog_schemas_name_tables() -> None:
    assert output_location("main.effects").table("runs").sql == "`main`.`effects`.`runs`"
    assert input_place("main.raw.panels").sql == "`main`.`raw`.`panels`"
    assert input_place("raw.panels").sql == "`raw`.`panels`"


@pytest.mark.parametrize("text", ["results", "a.b.c", "a.b; DROP TABLE x", "", "a..b", "a.`b`"])
def test_other_output_locations_are_quoted_back(text: str) -> None:
    with pytest.raises(LocationError) as caught:
        output_location(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["panels", "a.b.c.d", "a.b c"])
def test_other_input_locations_are_quoted_back(text: str) -> None:
    with pytest.raises(LocationError, match="neither a path nor"):
        input_place(text)


@pytest.mark.parametrize("text", ["work", "main.scratch", ""])
def test_scratch_folders_are_paths(text: str) -> None:
    assert folder_address("/data/work") == "/data/work"
    with pytest.raises(LocationError, match="is not a folder"):
        folder_address(text)


def test_identifiers_cannot_end_early() -> None:
    assert quoted("a`b") == "`a``b`"
    assert output_location("/a`; DROP").table("t").sql == "delta.`/a``; DROP/t`"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3a://AKIA123:s3c/r3t@bucket/in", "s3a://AKIA123:***@bucket/in"),
        ("s3a://AKIA123:s3cr3t@bucket/in", "s3a://AKIA123:***@bucket/in"),
        ("jdbc:postgresql://me:pa55@host/db and more", "jdbc:postgresql://me:***@host/db and more"),
        ("abfss://container@account.dfs.core.windows.net/in", "abfss://container@account.dfs.core.windows.net/in"),
        ("https://a.blob/x?sv=2024&sig=abc%2F&se=1", "https://a.blob/x?sv=2024&sig=***&se=1"),
        ("jdbc:sqlserver://h;user=me;password=pa55;x=1", "jdbc:sqlserver://h;user=me;password=***;x=1"),
        ("https://x?access_token=abc", "https://x?access_token=***"),
        ("/data/key=1/token=2", "/data/key=1/token=2"),
    ],
)
def test_passwords_and_tokens_in_urls_are_overwritten(text: str, clean: str) -> None:
    assert without_secrets(text) == clean
