import datetime as dt
import subprocess
import sys

import pytest

from causal_spark.engine.keys import canonical_json, group_id, seed_for


@pytest.mark.parametrize(
    ("key", "types", "wanted"),
    [
        ({}, {}, "{}"),
        ({"b": 1, "a": "x"}, {"a": "STRING", "b": "BIGINT"}, '{"a":{"string":"x"},"b":{"bigint":1}}'),
        ({"a": None}, {"a": "INT"}, '{"a":{"int":null}}'),
        ({"a": dt.date(2020, 1, 2)}, {"a": "DATE"}, '{"a":{"date":"2020-01-02"}}'),
        (
            {"a": dt.datetime(2020, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))},
            {"a": "TIMESTAMP"},
            '{"a":{"timestamp":"2020-01-02T00:00:00+00:00"}}',
        ),
        ({"a": 'é"\n`'}, {"a": "STRING"}, '{"a":{"string":"é\\"\\n`"}}'),
    ],
)
def test_group_ids_are_canonical_and_type_tagged(key: dict, types: dict, wanted: str) -> None:
    assert group_id(key, types) == wanted


def test_values_of_different_types_are_different_groups() -> None:
    assert group_id({"a": "1"}, {"a": "STRING"}) != group_id({"a": 1}, {"a": "BIGINT"})


def test_seeds_differ_by_run_group_and_purpose_and_not_by_process() -> None:
    seeds = {seed_for(run, group, purpose) for run in (0, 1) for group in ("a", "b") for purpose in ("x", "y")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    code = "from causal_spark.engine.keys import seed_for; print(seed_for(0, 'a', 'x'))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(elsewhere.stdout) == seed_for(0, "a", "x")


def test_configurations_are_strict_json_and_tell_infinity_from_null() -> None:
    assert canonical_json({"b": (1, float("inf")), "a": None}) == '{"a": null, "b": [1, "inf"]}'
