from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark.engine.periods import uneven_periods


def dates(start: str, periods: int, freq: str) -> np.ndarray[Any, Any]:
    return pd.date_range(start, periods=periods, freq=freq).to_numpy().astype("datetime64[D]")


def local_midnights() -> np.ndarray[Any, Any]:
    """Days of a zone that changes its clocks, as UTC: two of them have 23 and 25 hours."""
    days = pd.date_range("2023-01-01", "2023-12-31", freq="D", tz="Europe/Paris")
    return days.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")


@pytest.mark.parametrize(
    "periods",
    [
        np.arange(1970, 2001),
        np.arange(0, 100, 7, dtype=np.int32),
        np.array([5]),
        np.array([5, 90]),
        np.array([0, 3, 5, 7]),
        np.array([-(2**63), 0, 2**63 - 1]),
        dates("2019-01-01", 40, "MS"),
        dates("2019-01-01", 40, "ME"),
        dates("2018-12-31", 12, "QE"),
        dates("2015-01-01", 9, "YS"),
        dates("2024-02-01", 60, "D"),
        local_midnights(),
    ],
    ids=lambda periods: f"{periods.dtype}-{len(periods)}",
)
def test_periods_of_a_calendar_are_even(periods: np.ndarray[Any, Any]) -> None:
    assert uneven_periods(periods) is None


@pytest.mark.parametrize(
    ("periods", "says"),
    [
        (np.array([2000, 2001, 2002, 2012, 2013]), ["1 of 4 steps", "from 2002 to 2012", "10 times"]),
        (np.array([0, 10, 20, 21, 31]), ["1 of 4 steps"]),
        (np.array([1, 3, 4]), ["1 of 2 steps"]),
        (np.array([0, 2, 4, 5]), ["1 of 3 steps", "from 4 to 5", "0.5 times"]),
        (np.array([-(2**63), -(2**63) + 1, -(2**63) + 2, 2**63 - 1]), ["1 of 3 steps", f"to {2**63 - 1}"]),
        (dates("2024-01-01", 60, "B"), ["11 of 59 steps", "from 2024-01-05 to 2024-01-08", "3 times"]),
        (
            np.array(["2024-01-01T00", "2024-01-01T01", "2024-01-01T02", "2024-01-01T05"], dtype="datetime64[us]"),
            ["from 2024-01-01T02:00:00 to 2024-01-01T05:00:00", "3 times"],
        ),
    ],
)
def test_gaps_are_counted_and_the_oddest_is_named(periods: np.ndarray[Any, Any], says: list[str]) -> None:
    notice = uneven_periods(periods)
    assert notice is not None
    assert "NULL outcome" in notice.hint
    for words in says:
        assert words in notice.message
