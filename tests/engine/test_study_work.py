"""The estimator study's work: the same however it is split, and what cannot be studied says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark import EstimatorStudy
from causal_spark.engine.build_panel import build_panel, unit_flags
from causal_spark.engine.columns import PanelRoles, select_pandas
from causal_spark.engine.studies import StudyWork
from causal_spark.engine.work import Group, GroupSize
from causal_spark.errors import TreatmentValueError
from causal_spark.panel import study
from causal_spark.panel.registry import ESTIMATORS
from tests.engine.splitting import FRAME, split, whole
from tests.frames import ROLES, long_panel

VARIANCES: list[Any] = [{"name": "placebo", "replicates": 8}, {"name": "jackknife"}]
SIZE = GroupSize("{}", {}, len(FRAME), {"units": 14, "treated_units": 3, "treated_cells": 9})


def work_for(estimators: list[Any], frame: pd.DataFrame = FRAME, **more: Any) -> StudyWork:
    settings = {"variances": VARIANCES, "replicates": 6, "variance_replicates": 4, "seed": 2} | more
    return EstimatorStudy(estimators, **settings).plan_work(frame, PanelRoles(**ROLES))


@pytest.mark.parametrize("n_parts", [1, 3, 50])
@pytest.mark.parametrize("name", ["did", "sdid"])
def test_a_study_does_not_depend_on_how_it_is_split(monkeypatch: pytest.MonkeyPatch, name: str, n_parts: int) -> None:
    monkeypatch.setattr(study, "_CHUNK_DRAWS", 2)
    work = work_for(["did", "sdid"])
    (round_,) = work.rounds(SIZE)[name]
    assert round_.most_chunks == 6
    (found,), (wanted,) = split(FRAME, work, n_parts, 1, name=name), whole(FRAME, work)
    assert found == wanted
    assert found["_failures"] == []
    assert len(found["_estimator_study"]) == 2 * 2 * 2
    assert len(found["_recommendations"]) == 1
    # Here chance explains all that units and periods differ by, so that no quarter is noisier than another.
    assert {row["noise_quartile"] for row in found["_variance_study"]} == {0}


def test_quarters_are_there_where_noise_differs() -> None:
    noise = np.where(FRAME["unit"] < "u07", 0.2, 3.0) * np.random.default_rng(1).normal(size=len(FRAME))
    frame = FRAME.assign(y=FRAME["y"] + noise)
    (found,) = whole(frame, work_for(["did"], frame))
    quarters = {(row["design"], row["noise_quartile"]) for row in found["_variance_study"]}
    assert quarters == {("calibrated", 0), *(("heteroskedastic", k) for k in range(5))}


def test_variances_can_be_left_out_for_some() -> None:
    work = work_for(["did", "sdid"], without_variances=["sdid"])
    (found,) = whole(FRAME, work)
    assert {row["estimator"] for row in found["_variance_study"]} == {"did"}
    assert {row["estimator"] for row in found["_estimator_study"]} == {"did", "sdid"}
    costs = work.cost(SIZE)
    assert costs["sdid"] == pytest.approx(
        12 * ESTIMATORS["sdid"].cost(work.drawn_size(work.panel_size(SIZE)), None, True)
    )
    assert work_for(["sdid"]).cost(SIZE)["sdid"] > 5 * costs["sdid"]


def test_a_variance_without_intervals_and_draws_without_estimates_are_told() -> None:
    frame = long_panel(n_units=9, n_periods=12, n_treated=1)
    (found,) = whole(frame, work_for(["did"], frame))
    told = {(row["stage"], row["kind"], row["error_class"]) for row in found["_failures"]}
    assert told == {("variance:jackknife", "declined", "NoEstimateError")}
    assert "No interval in 4 of 4 draws" in found["_failures"][0]["message"]
    assert {row["variance_estimator"] for row in found["_variance_study"]} == {"placebo"}


@pytest.mark.parametrize(
    ("frame", "more", "error"),
    [
        (FRAME.assign(w=0), {}, "NoTreatedCellsError"),
        (FRAME.assign(w=2), {}, "TreatmentValueError"),
        (FRAME.assign(y=1.0), {}, "ConstantOutcomeError"),
        (FRAME, {"simulation": {"treated_units": 13}}, "NoControlUnitsError"),
        (FRAME, {"simulation": {"treated_periods": 11}}, "TooFewPeriodsError"),
    ],
)
def test_panels_that_cannot_be_simulated_end_in_failures(frame: pd.DataFrame, more: Any, error: str) -> None:
    (found,) = whole(frame, work_for(["did"], frame, **more))
    assert [(row["stage"], row["error_class"]) for row in found["_failures"]] == [("read", error)]
    assert not found["_estimator_study"]


def test_a_defect_in_one_estimator_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("no")

    original = study.Study.run
    monkeypatch.setattr(
        study.Study, "run", lambda self, chunk: (broken if self._definition.name == "sc" else original)(self, chunk)
    )
    (found,) = whole(FRAME, work_for(["sc", "did"]))
    assert [(row["estimator"], row["error_class"]) for row in found["_failures"]] == [("sc", "ZeroDivisionError")]
    assert {row["estimator"] for row in found["_estimator_study"]} == {"did"}
    (parts,) = split(FRAME, work_for(["sc", "did"]), 2, 1, name="sc")
    assert parts == found


def test_treatments_go_by_the_policy() -> None:
    frame = FRAME.assign(p=FRAME["unit"].isin(["u03", "u07", "u09"]).astype(int) * (FRAME["year"] == 2005))
    job = EstimatorStudy(["did"], variances=[], replicates=20, simulation={"assignment": "factors"})
    work = job.plan_work(frame, PanelRoles(**ROLES, policy="p"))
    rows = select_pandas(frame, work.columns)
    panel = build_panel(rows)
    flags = unit_flags(rows, panel, "_policy", "policy")
    assert sorted(panel.units[flags].tolist()) == ["u03", "u07", "u09"]
    found = work.run(Group("{}", {}, rows))
    assert not found.failures
    without = EstimatorStudy(["did"], variances=[], replicates=20, simulation={"assignment": "factors"}).plan_work(
        frame, PanelRoles(**ROLES)
    )
    other = without.run(Group("{}", {}, select_pandas(frame, without.columns)))
    assert found.tables["estimator_study"] != other.tables["estimator_study"]
    wrong = rows.set_column(rows.column_names.index("_policy"), "_policy", pa.array(np.full(len(rows), 3.0)))
    with pytest.raises(TreatmentValueError, match="The policy is 3"):
        unit_flags(wrong, panel, "_policy", "policy")
