"""The public face on pandas and on Spark: equal results, bad groups accounted for, nothing lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal_spark import PanelEffects
from causal_spark.engine import memory, panels
from causal_spark.engine.pack import CHUNK_ROWS
from causal_spark.engine.stage import PART_ROWS
from causal_spark.errors import ConfigError, EmptyInputError, InputError
from causal_spark.panel.registry import ESTIMATORS as REGISTRY
from causal_spark.panel.types import Notice
from causal_spark.panel_effects import PanelResult
from tests.frames import ROLES, grouped, long_panel, messy_panels, tables_of

ESTIMATORS = ("did", "sc", "difp", "sdid", {"name": "mc", "where": {"region": "north"}})
FRAME = grouped(north=long_panel(12, 10, seed=1), south=long_panel(14, 9, n_treated=2, seed=2), west=long_panel(seed=3))


@pytest.fixture(scope="module")
def local() -> dict[str, pd.DataFrame]:
    return tables_of(PanelEffects(ESTIMATORS, seed=5).fit(FRAME, groups=["region"], **ROLES))


def test_every_table_has_rows_for_every_group_and_estimator(local: dict[str, pd.DataFrame]) -> None:
    assert len(local["effects"]) == len(local["variances"]) == 3 * 4 + 1
    assert local["failures"].empty
    assert set(local["event_study"].groupby(["group_id", "estimator"]).size()) == {9, 10}
    assert len(local["cells"]) == 4 * (3 + 6 + 3) + 3
    assert (local["effects"]["estimate"] - 1).abs().max() < 0.6


DAYS = pd.to_datetime("2021-03-26") + pd.to_timedelta(FRAME["year"] - 2000, "D")
TIMES = {
    "date": DAYS.dt.date,
    "timestamp without zone": DAYS,
    "timestamp in UTC": DAYS.dt.tz_localize("UTC"),
    # The clock goes forward on the third day: steps of 24 and 23 hours.
    "timestamp across daylight saving": DAYS.dt.tz_localize("Europe/Berlin"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_time_can_be_a_date_or_a_timestamp(local: dict[str, pd.DataFrame], kind: str) -> None:
    found = tables_of(PanelEffects(ESTIMATORS, seed=5).fit(FRAME.assign(year=TIMES[kind]), groups=["region"], **ROLES))
    for table in ("effects", "variances", "event_study"):
        expected = local[table].drop(columns="seconds", errors="ignore")
        pd.testing.assert_frame_equal(found[table].drop(columns="seconds", errors="ignore"), expected)
    assert found["failures"].empty
    assert found["cells"]["time"].str.match(r"2021-0[34]-\d\d").all()


@pytest.mark.spark
def test_timestamps_on_spark_give_the_bits_of_pandas_and_gaps_are_warned_of(spark: SparkSession) -> None:
    gappy = FRAME.assign(year=TIMES["timestamp in UTC"] + pd.to_timedelta((FRAME["year"] > 2004) * 2, "D"))
    job = PanelEffects(["did", "sdid"], seed=5)
    expected = tables_of(job.fit(gappy, groups=["region"], **ROLES))
    result = job.fit(spark.createDataFrame(gappy), groups=["region"], **ROLES)
    found = tables_of(result)
    result.close()
    for table in ("effects", "cells", "failures"):
        without = {"columns": "seconds", "errors": "ignore"}
        pd.testing.assert_frame_equal(found[table].drop(**without), expected[table].drop(**without))
    assert set(found["failures"]["error_class"]) == {"UnevenPeriods"}
    assert set(found["failures"]["kind"]) == {"warned"}
    assert len(found["failures"]) == 3


@pytest.mark.spark
def test_a_panel_of_several_chunks_and_parts_comes_through_spark_whole(spark: SparkSession) -> None:
    frame = long_panel(210, 100, n_treated=2, seed=8)
    assert len(frame) > max(2 * CHUNK_ROWS, PART_ROWS)
    job = PanelEffects(["did", "sdid"], variances=[], cells="all")
    result = job.fit(spark.createDataFrame(frame).repartition(5), **ROLES)
    found, expected = tables_of(result), tables_of(job.fit(frame, **ROLES))
    result.close()
    assert len(found["cells"]) == 2 * len(frame)
    for table in ("effects", "cells", "weights"):
        pd.testing.assert_frame_equal(found[table], expected[table])


WANTED = {
    "good": {"did", "sc", "sdid"},
    "missing_null": {"did", "sc", "sdid"},
    "missing_row": {"did", "sc", "sdid"},
}
REASONS = {
    "missing_null": {("sc", "DroppedCells", "warned"), ("sdid", "DroppedCells", "warned")},
    "missing_row": {("sc", "DroppedCells", "warned"), ("sdid", "DroppedCells", "warned")},
    "duplicate": {(None, "DuplicateCellError", "failed")},
    "treatment_two": {(None, "TreatmentValueError", "failed")},
    "treatment_missing": {(None, "TreatmentValueError", "failed")},
    "infinite": {(None, "OutcomeValueError", "failed")},
    "unit_missing": {(None, "KeyValueError", "failed")},
    "no_controls": {
        ("did", "NotIdentifiedError", "declined"),
        ("sc", "NoControlUnitsError", "declined"),
        ("sdid", "NoControlUnitsError", "declined"),
    },
    "no_pre_periods": {
        ("did", "NotIdentifiedError", "declined"),
        ("sc", "NoPrePeriodsError", "declined"),
        ("sdid", "NoPrePeriodsError", "declined"),
    },
    "no_treated": {
        ("did", "NoTreatedCellsError", "declined"),
        ("sc", "NoTreatedCellsError", "declined"),
        ("sdid", "NoTreatedCellsError", "declined"),
    },
}


def check_messy(result: PanelResult) -> None:
    tables = tables_of(result)
    effects, failures = tables["effects"], tables["failures"]
    estimated = effects.groupby("region")["estimator"].agg(set).to_dict()
    assert estimated == WANTED
    regions = failures["group_id"].str.extract(r'"region":\{"string":"(\w+)"')[0]
    failures = failures.where(failures.notna(), None)
    found: dict[str, set[tuple[object, ...]]] = {}
    for region, *reason in zip(regions, failures["estimator"], failures["error_class"], failures["kind"], strict=True):
        found.setdefault(region, set()).add(tuple(reason))
    assert found == REASONS
    assert (failures["hint"].str.len() > 10).all()
    assert (failures["n_rows"] > 0).all()
    assert set(estimated) | set(found) == set(messy_panels()["region"])
    summary = result.summary
    assert (summary.n_groups, summary.n_succeeded, summary.n_declined, summary.n_failed) == (11, 3, 3, 5)


def test_bad_groups_end_in_failures_and_missing_cells_in_the_right_number() -> None:
    result = PanelEffects(["did", "sc", "sdid"]).fit(messy_panels(), groups=["region"], **ROLES)
    check_messy(result)
    effects = result.effects.set_index(["region", "estimator"])["estimate"]
    assert effects["missing_null", "did"] == effects["missing_row", "did"]
    good = long_panel().drop(index=long_panel().index[-1])
    dummies = pd.get_dummies(good[["unit", "year"]].astype(str), dtype=float)
    control = good["w"] == 0
    coefficients = np.linalg.lstsq(dummies[control], good["y"][control], rcond=None)[0]
    att = (good["y"] - dummies @ coefficients)[~control].mean()
    assert effects["missing_row", "did"] == pytest.approx(att, abs=1e-9)


@pytest.mark.spark
def test_bad_groups_end_in_failures_on_spark_too(spark: SparkSession) -> None:
    rows = spark.createDataFrame(messy_panels())
    check_messy(PanelEffects(["did", "sc", "sdid"]).fit(rows, groups=["region"], **ROLES))


def test_a_single_panel_needs_no_groups() -> None:
    result = PanelEffects(["did"], variances=[]).fit(long_panel(), **ROLES)
    assert result.effects["group_id"].tolist() == ["{}"]
    assert result.variances.empty


def test_groups_nobody_asked_for_and_numbers_out_of_range_are_accounted_for() -> None:
    huge = long_panel(seed=4).assign(y=lambda frame: frame["y"] + frame["w"] * 1.7e308)
    frame = grouped(north=long_panel(), south=long_panel(), huge=pd.concat([huge]))
    result = PanelEffects([{"name": "did", "where": {"region": ["north", "huge"]}}], variances=[]).fit(
        frame, groups=["region"], **ROLES
    )
    assert result.effects["region"].tolist() == ["north"]
    assert dict(zip(result.failures["error_class"], result.failures["kind"], strict=True)) == {
        "SolverError": "failed",
        "NoEstimatorError": "declined",
    }


@pytest.mark.parametrize("name", ["failures", "wave", "attempt", "units", "panel_effects", "n"])
@pytest.mark.spark
def test_group_columns_may_have_names_the_engine_uses(spark: SparkSession, name: str) -> None:
    frame = FRAME.rename(columns={"region": name})
    for data in (frame, spark.createDataFrame(frame)):
        result = PanelEffects(["did"], variances=[]).fit(data, groups=[name], **ROLES)
        assert result.summary.n_succeeded == 3
        assert name in result.effects.columns


def test_a_panel_of_scattered_cells_is_refused_before_it_fills_the_memory() -> None:
    n = 10_000
    frame = pd.DataFrame({"unit": range(n), "year": range(n), "y": 0.0, "w": 0})
    result = PanelEffects(["did"]).fit(frame, **ROLES)
    assert result.failures["error_class"].tolist() == ["GroupTooLargeError"]


def two_sizes() -> pd.DataFrame:
    return grouped(small=long_panel(20, 20), large=long_panel(200, 20))


#: GiB that hold everything but matrix completion of the large panel, and everything of the small one only.
SOME, LITTLE = 1.5e-3, 4e-4


def check_refusals(small: PanelResult, little: PanelResult) -> None:
    effects, failures = tables_of(small)["effects"], tables_of(small)["failures"]
    assert effects.groupby("region")["estimator"].agg(set).to_dict() == {"small": {"did", "mc"}, "large": {"did"}}
    assert failures[["stage", "estimator", "error_class", "kind"]].to_numpy().tolist() == [
        ["estimate", "mc", "GroupTooLargeError", "failed"]
    ]
    assert "Estimator mc takes about" in failures["message"][0]
    assert "200 units x 20 periods" in failures["message"][0]
    assert "worker_memory" in failures["hint"][0]
    assert (small.summary.n_succeeded, small.summary.n_failed) == (1, 1)
    effects, failures = tables_of(little)["effects"], tables_of(little)["failures"]
    assert set(effects["region"]) == {"small"}
    large = failures[failures["group_id"].str.contains("large")].astype(object)
    large = large.where(large.notna(), None)
    assert large[["stage", "estimator", "error_class", "kind", "n_rows"]].to_numpy().tolist() == [
        ["read", None, "GroupTooLargeError", "failed", 4000]
    ]
    assert "Arranging 4000 rows takes about" in large["message"].item()


def test_what_would_take_too_much_memory_is_refused_and_the_rest_goes_on() -> None:
    check_refusals(
        *(
            PanelEffects(["did", "mc"], variances=[], worker_memory=gib).fit(two_sizes(), groups=["region"], **ROLES)
            for gib in (SOME, LITTLE)
        )
    )


def test_memory_is_measured_in_this_process_where_it_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    job = PanelEffects(["did", "mc"], variances=[])
    monkeypatch.setattr(memory, "free_bytes", lambda: int(SOME * memory.GIB / 0.8))
    assert job.fit(two_sizes(), groups=["region"], **ROLES).failures.empty
    monkeypatch.setattr(memory, "SAFE_BYTES", 1000)
    failures = job.fit(two_sizes(), groups=["region"], **ROLES).failures
    assert failures[["estimator", "error_class"]].to_numpy().tolist() == [["mc", "GroupTooLargeError"]]


@pytest.mark.spark
def test_what_would_take_too_much_memory_is_refused_on_spark_before_it_runs(spark: SparkSession) -> None:
    rows = spark.createDataFrame(two_sizes())
    small, little = (
        PanelEffects(["did", "mc"], variances=[], worker_memory=gib).fit(rows, groups=["region"], **ROLES)
        for gib in (SOME, LITTLE)
    )
    check_refusals(small, little)
    nothing = PanelEffects(["did"], worker_memory=1e-6).fit(rows, groups=["region"], **ROLES)
    assert (nothing.summary.n_failed, nothing.summary.row_counts["failures"]) == (2, 2)
    assert nothing.effects.count() == 0


def test_a_variance_without_meaning_is_null_and_explained() -> None:
    result = PanelEffects(["did"]).fit(long_panel(n_units=4, n_treated=2), **ROLES)
    assert len(result.effects) == 1
    row = result.variances.iloc[0]
    assert np.isnan(row["std_error"])
    assert row["n_replicates"] == 0
    assert result.failures[["stage", "error_class", "kind"]].to_numpy().tolist() == [
        ["variance:placebo", "TooFewControlsError", "declined"]
    ]


@pytest.mark.parametrize(("cells", "n_rows"), [("treated", 3), ("all", 120), ("none", 0)])
def test_cells_are_kept_as_asked(cells: str, n_rows: int) -> None:
    result = PanelEffects(["did"], variances=[], cells=cells).fit(long_panel(), **ROLES)  # type: ignore[arg-type]
    assert len(result.cells) == n_rows


def test_seeds_matter_where_placebos_are_drawn_and_only_there() -> None:
    frame = long_panel(n_units=16, n_treated=3)
    one, same, other = (
        PanelEffects(["did"], variances=[{"name": "placebo", "replicates": 20}], seed=seed).fit(frame, **ROLES)
        for seed in (1, 1, 2)
    )
    assert one.variances.equals(same.variances)
    assert one.variances["std_error"][0] != other.variances["std_error"][0]
    assert one.effects["estimate"].equals(other.effects["estimate"])


def test_the_versions_of_dwcp_report_one_test_of_constancy() -> None:
    small = {"lambda_time": [0.0, 0.5], "lambda_unit": [0.0], "lambda_nn": [1.0]}
    names = [{"name": "dwcp", **small}, {"name": "dwcp_constant", **small}, "dwcp_adaptive"]
    effects = PanelEffects(names, variances=[]).fit(long_panel(14, 12, n_treated=2, seed=4), **ROLES).effects
    assert len(effects) == 3
    assert len(set(effects["constancy_p_value"])) == 1
    assert effects["constancy_p_value"].between(0, 1).all()
    assert effects.set_index("estimator")["constancy_weight"].notna().to_dict() == {
        "dwcp": False,
        "dwcp_constant": False,
        "dwcp_adaptive": True,
    }


@pytest.mark.parametrize(
    ("job", "frame", "error"),
    [
        (PanelEffects(), long_panel().iloc[:0], EmptyInputError),
        (PanelEffects(), long_panel().drop(columns="y"), InputError),
        (PanelEffects(["nope"]), long_panel(), ConfigError),
        (PanelEffects(confidence_level=1.0), long_panel(), ConfigError),
        (PanelEffects(worker_memory=0.0), long_panel(), ConfigError),
        (PanelEffects(cells="some"), long_panel(), ConfigError),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_run_is_refused_before_it_runs(job: PanelEffects, frame: pd.DataFrame, error: type) -> None:
    with pytest.raises(error):
        job.fit(frame, **ROLES)


def test_pandas_results_say_that_delta_needs_a_session() -> None:
    result = PanelEffects(["did"], variances=[]).fit(long_panel(), **ROLES)
    with pytest.raises(ConfigError, match="spark=spark"):
        result.write("./nowhere")


def test_gaps_in_time_are_warned_of_beside_an_estimate_and_change_no_status() -> None:
    gap = long_panel().assign(year=lambda frame: frame["year"].replace({2009: 2030}))
    frame = grouped(even=long_panel(), gap=gap, no_treated=gap.assign(w=0))
    result = PanelEffects(["did"], variances=[]).fit(frame, groups=["region"], **ROLES)
    found = result.failures.astype(object).where(result.failures.notna(), None)
    warned = found[found["kind"] == "warned"]
    assert warned[["group_id", "stage", "estimator", "error_class", "n_rows"]].to_numpy().tolist() == [
        ['{"region":{"string":"gap"}}', "read", None, "UnevenPeriods", 120]
    ]
    assert "from 2008 to 2030" in warned["message"].item()
    effects = result.effects.set_index("region")["estimate"]
    assert effects["even"] == effects["gap"]
    summary = result.summary
    assert (summary.n_groups, summary.n_succeeded, summary.n_declined, summary.n_failed) == (3, 2, 1, 0)


def test_what_an_estimator_says_of_its_estimate_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    did = REGISTRY["did"]
    said = (Notice("DroppedCells", "Two cells are left out.", "Look."), Notice("Other", "And more.", "Look again."))
    talks = dataclasses.replace(did, fit=lambda *arguments: dataclasses.replace(did.fit(*arguments), notices=said))
    monkeypatch.setattr(panels, "ESTIMATORS", {"did": talks})
    result = PanelEffects(["did"]).fit(
        grouped(good=long_panel(), bad=long_panel().assign(w=0)), groups=["region"], **ROLES
    )
    warned = result.failures[result.failures["kind"] == "warned"]
    assert warned[["stage", "estimator", "error_class", "message", "hint"]].to_numpy().tolist() == [
        ["estimate", "did", one.name, one.message, one.hint] for one in said
    ]
    assert warned["group_id"].str.contains("good").all()
    assert (result.summary.n_succeeded, result.summary.n_declined, result.summary.n_failed) == (1, 1, 0)


def test_rows_come_in_order_of_labels_though_estimators_know_no_labels() -> None:
    frame = long_panel(n_units=12, n_treated=2).assign(unit=lambda rows: 12 - rows["unit"].str[1:].astype(int))
    result = PanelEffects(["sdid"], variances=[], cells="all").fit(frame, **ROLES)
    cells = result.cells.assign(unit=result.cells["unit"].astype(int), time=result.cells["time"].astype(int))
    pd.testing.assert_frame_equal(cells, cells.sort_values(["unit", "time"], ignore_index=True))
    labels = result.weights.groupby("kind", sort=False)["label"].agg(lambda column: column.astype(int).tolist())
    assert list(labels.index) == ["unit", "time"]
    assert len(labels["unit"]) > 2
    for found in labels:
        assert found == sorted(found)
