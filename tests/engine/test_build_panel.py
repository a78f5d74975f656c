import datetime as dt
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark.engine.build_panel import build_panel
from causal_spark.errors import (
    CovariateValueError,
    DuplicateCellError,
    GroupError,
    KeyValueError,
    OutcomeValueError,
    TreatmentValueError,
)
from causal_spark.panel.labels import label
from causal_spark.panel.types import Panel


def rows(unit: list, time: list, outcome: list, treatment: list, **covariates: list) -> pa.Table:
    columns = {"_unit": unit, "_time": time, "_outcome": pa.array(outcome, pa.float64()), "_treatment": treatment}
    columns["_treatment"] = pa.array(treatment, pa.float64())
    return pa.table(
        columns | {f"_covariate_{name}": pa.array(values, pa.float64()) for name, values in covariates.items()}
    )


def test_cells_land_at_their_unit_and_sorted_period_whatever_the_row_order() -> None:
    panel = build_panel(rows(["b", "a", "b", "a"], [9, 10, 10, 9], [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 0]))
    assert panel.periods.tolist() == [9, 10]
    by_label = dict(
        zip(panel.units.tolist(), zip(panel.outcome.tolist(), panel.treated.tolist(), strict=True), strict=True)
    )
    assert by_label == {"a": ([4.0, 2.0], [False, False]), "b": ([1.0, 3.0], [False, True])}


@pytest.mark.parametrize("labels", [["c", "a", "d", "b", "e"], [3, -1, 20, 100, 4]])
@pytest.mark.parametrize("covariate", [False, True])
def test_units_come_in_an_order_that_their_names_have_no_part_in(labels: list, covariate: bool) -> None:
    outcome = [0.0, 2.0, float("nan"), 3.0, -0.0, 2.0, 1.0, -5.0, 1.0, -5.0]
    treatment = [0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    x = {"x": [float(k) for k in range(10)]} if covariate else {}

    def panel_of(names: list) -> Panel:
        return build_panel(rows([name for name in names for _ in range(2)], [1, 2] * 5, outcome, treatment, **x))

    one, other = panel_of([1, 2, 3, 4, 5]), panel_of(labels)
    assert one.outcome.tobytes() == other.outcome.tobytes()
    assert one.treated.tobytes() == other.treated.tobytes()
    assert (one.covariates is None) == (other.covariates is None) == (not covariate)
    if one.covariates is not None and other.covariates is not None:
        assert one.covariates.tobytes() == other.covariates.tobytes()
    assert [labels[unit - 1] for unit in one.units] == other.units.tolist()


def test_units_come_by_size_of_outcomes_whatever_the_units_of_measurement() -> None:
    values = np.array([[5.0, 1.0], [np.nan, 0.0], [-1e-300, 2.0], [0.0, 7.0], [-3.0, 4.0], [5.0, -1.0], [-20.0, 4.0]])
    for scale, shift in ((1.0, 0.0), (1e-9, 0.0), (1e12, 0.0), (3.0, 2.0**20)):
        outcome = (values * scale + shift).ravel().tolist()
        unit = np.repeat(np.arange(7), 2).tolist()
        panel = build_panel(rows(unit, [1, 2] * 7, outcome, [0] * 14))
        order = [6, 4, 2, 3, 5, 0, 1]
        assert panel.units.tolist() == order
        np.testing.assert_array_equal(panel.outcome, (values * scale + shift)[order])


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
def test_rows_alike_but_for_the_sign_of_zero_or_of_nan_are_one_content_in_order_of_label(names: list) -> None:
    unit = [names[0], names[0], names[1], names[1]]
    panel = build_panel(rows(unit, [1, 2, 1, 2], [0.0, float("nan"), -0.0, -float("nan")], [0, 0, 0, 0]))
    assert panel.units.tolist() == ["a", "b"]
    assert panel.outcome[0].tobytes() == panel.outcome[1].tobytes()


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_null_nan_and_absent_rows_are_all_missing_cells(missing: float | None) -> None:
    panel = build_panel(rows(["a", "a", "b"], [1, 2, 1], [1.0, missing, 3.0], [0, 0, 1]))
    np.testing.assert_array_equal(panel.observed, [[True, False], [True, False]])
    assert np.isnan(panel.outcome[~panel.observed]).all()
    assert panel.target_cells.sum() == 1


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (rows(["a", "a"], [1, 1], [1.0, 2.0], [0, 0]), DuplicateCellError, "unit a, time 1"),
        (rows(["a", "a"], [1, 2], [1.0, 2.0], [0, 2]), TreatmentValueError, "treatment is 2 at unit a, time 2"),
        (rows(["a", "a"], [1, 2], [1.0, 2.0], [0, None]), TreatmentValueError, "treatment is missing"),
        (rows(["a", "a"], [1, 2], [1.0, np.inf], [0, 0]), OutcomeValueError, "infinite at unit a, time 2"),
        (rows(["a", None], [1, 2], [1.0, 2.0], [0, 0]), KeyValueError, "unit is missing in 1 rows"),
        (rows(["a", "a"], [1, None], [1.0, 2.0], [0, 0]), KeyValueError, "time is missing"),
        (rows(["a", "a"], [1, 2], [1.0, 2.0], [0, 0], x=[1.0, None]), CovariateValueError, "'x' is missing"),
    ],
)
def test_bad_rows_are_named_with_a_remedy(bad: pa.Table, error: type[GroupError], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)) as caught:
        build_panel(bad)
    assert caught.value.hint


def test_covariates_may_be_missing_only_where_the_outcome_is() -> None:
    panel = build_panel(rows(["a", "a"], [1, 2], [1.0, None], [0, 0], x=[5.0, None]))
    assert panel.covariates is not None
    assert panel.covariates[0, 0, 0] == 5.0


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pa.array([2, 1], pa.int64()), ["1", "2"]),
        (pa.array([dt.date(2020, 2, 1), dt.date(2020, 1, 1)]), ["2020-01-01", "2020-02-01"]),
        (
            pa.array(pd.to_datetime(["2020-01-01 06:30", "2020-01-01 00:00"]).as_unit("us").tz_localize("UTC")),
            ["2020-01-01T00:00:00", "2020-01-01T06:30:00"],
        ),
    ],
)
def test_times_keep_their_meaning_as_labels(values: pa.Array, labels: list[str]) -> None:
    table = pa.table({"_unit": ["a", "a"], "_time": values, "_outcome": [1.0, 2.0], "_treatment": pa.array([0.0, 0.0])})
    assert [label(period) for period in build_panel(table).periods] == labels
