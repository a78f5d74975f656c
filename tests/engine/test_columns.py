from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark.engine.columns import PanelRoles, panel_columns, select_pandas
from causal_spark.engine.work import InputColumns
from causal_spark.errors import InputError
from tests.frames import ROLES, long_panel

FRAME = long_panel().assign(region="r")


def columns_of(frame: pd.DataFrame, **roles: Any) -> InputColumns:
    return panel_columns(frame, PanelRoles(**(ROLES | roles)))


@pytest.mark.parametrize(
    ("frame", "roles", "says"),
    [
        (FRAME, {"outcome": "yy"}, r"Column 'yy' \(outcome\).*Did you mean 'y'"),
        (FRAME, {"groups": ["regin"]}, r"'regin' \(group\).*Did you mean 'region'"),
        (FRAME, {"outcome": "unit"}, r"'unit' is given two roles"),
        (FRAME.assign(y="high"), {}, r"'y' \(outcome\) has type string.*Cast it to a double"),
        (FRAME.assign(unit=1.5), {}, r"'unit' \(unit\) has type double.*string or an integer"),
        (FRAME.assign(year="1999"), {}, r"'year' \(time\) has type string.*integer, a date or a timestamp"),
        (FRAME.assign(year=1999.0), {}, r"'year' \(time\) has type double"),
        (FRAME.assign(region=1.5), {"groups": ["region"]}, r"'region' \(group\) has type double"),
        (FRAME.rename(columns={"region": "estimate"}), {"groups": ["estimate"]}, r"columns\.rename.*group_estimate"),
        (FRAME.rename(columns={"region": "Region"}), {"groups": ["Region"]}, r"lower case.*columns\.rename"),
        (FRAME.rename(columns={"region": "a b`; --"}), {"groups": ["a b`; --"]}, r"columns\.rename"),
    ],
)
def test_columns_that_cannot_serve_are_named_with_a_remedy(frame: pd.DataFrame, roles: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        columns_of(frame, **roles)


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (np.int64(1), "BIGINT"),
        (np.int32(1), "INT"),
        (np.int8(1), "INT"),
        (np.uint16(1), "INT"),
        (True, "BOOLEAN"),
        ("a", "STRING"),
        (pd.Timestamp("2020-01-01"), "TIMESTAMP"),
        (pd.Timestamp("2020-01-01", tz="Europe/Paris"), "TIMESTAMP"),
    ],
)
def test_group_columns_have_contract_types(values: object, type_: str) -> None:
    frame = FRAME.assign(region=values)
    columns = columns_of(frame, groups=["region"])
    assert columns.group_types == {"region": type_}
    assert len(select_pandas(frame, columns)) == len(frame)


def test_naive_timestamps_are_utc_and_categories_are_their_labels() -> None:
    frame = FRAME.assign(region=pd.Categorical(FRAME["unit"]), year=pd.to_datetime(FRAME["year"], format="%Y"))
    table = select_pandas(frame, columns_of(frame, groups=["region"]))
    assert table["region"].to_pylist()[0] == "u00"
    assert table["_time"].to_pylist()[0].isoformat() == "2000-01-01T00:00:00+00:00"


def test_columns_that_are_not_used_may_hold_anything() -> None:
    frame = FRAME.assign(junk=[object()] * len(FRAME), mixed=[1, "a"] * (len(FRAME) // 2))
    columns_of(pd.concat([frame, frame[["junk"]]], axis=1))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (FRAME.assign(unit=[1, "a"] * (len(FRAME) // 2)), "'unit' has values of several types"),
        (pd.concat([FRAME, FRAME[["y"]]], axis=1), "'y' occurs 2 times"),
        (FRAME.assign(year=pd.Timestamp("2020-01-01") + pd.to_timedelta(1, "ns")), "'year' cannot be read"),
    ],
)
def test_columns_that_hold_several_things_are_refused(frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(InputError, match=says):
        select_pandas(frame, columns_of(frame))


def test_decimals_become_the_nearest_double() -> None:
    values = [Decimal(cents) / 100 for cents in range(700_000, 700_000 + len(FRAME))]
    frame = FRAME.assign(y=values)
    table = select_pandas(frame, columns_of(frame))
    assert sorted(table["_outcome"].to_pylist()) == [float(value) for value in values]
