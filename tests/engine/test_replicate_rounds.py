"""Replicates of one long panel as tasks: variances are those of a whole run, and so are their failures."""

from __future__ import annotations

from typing import Any

import pytest

from causal_spark.engine import panel_parts, plan
from causal_spark.engine.work import GroupSize
from causal_spark.panel import replicates
from tests.engine.splitting import FRAME, split, whole, work_for
from tests.frames import long_panel

SIZE = GroupSize("{}", {}, len(FRAME), {"units": 14, "treated_units": 3, "treated_cells": 9})
VARIANCES = [
    {"name": "placebo", "replicates": 30},
    "jackknife",
    {"name": "bootstrap", "replicates": 30},
    {"name": "marginal", "replicates": 30, "starts": 2},
    {"name": "unit_time", "replicates": 30, "starts": 2},
]


@pytest.fixture(autouse=True)
def _spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small lists are spread, too, in small chunks."""
    monkeypatch.setattr(panel_parts, "REPLICATE_SECONDS", 0.0)
    monkeypatch.setattr(replicates, "MOST_PER_CHUNK", 4)


@pytest.mark.parametrize("n_parts", [1, 3, 50])
@pytest.mark.parametrize("name", ["did", "sdid", "mc"])
def test_variances_do_not_depend_on_how_replicates_are_spread(name: str, n_parts: int) -> None:
    work = work_for([name], variances=VARIANCES)
    rounds = work.rounds(SIZE)[name]
    assert [one.most_chunks > 1 for one in rounds] == [False, True]
    (found,), (wanted,) = split(FRAME, work, n_parts, len(rounds), name=name), whole(FRAME, work)
    assert found == wanted
    assert [row["std_error"] is not None for row in found["_panel_variances"]] == [True] * 5


def test_an_estimator_that_comes_in_pieces_has_one_more_round() -> None:
    grids = {"lambda_time": (0.0, 0.3), "lambda_unit": (0.0,), "lambda_nn": (1.0,)}
    work = work_for([{"name": "dwcp", "tuning": "loocv"} | grids], variances=[{"name": "bootstrap", "replicates": 10}])
    rounds = work.rounds(SIZE)["dwcp"]
    alone = work_for([{"name": "dwcp", "tuning": "loocv"} | grids]).rounds(SIZE)["dwcp"]
    assert len(rounds) == len(alone) + 1
    (found,), (wanted,) = split(FRAME, work, 5, len(rounds), name="dwcp"), whole(FRAME, work)
    assert found == wanted
    assert found["_panel_variances"][0]["n_replicates"] == 10


def test_a_list_that_cannot_be_made_declines_its_variance_alone() -> None:
    frame = long_panel(n_units=9, n_periods=12, n_treated=1)
    work = work_for(["sdid"], frame, variances=["bootstrap", {"name": "placebo", "replicates": 30}])
    (found,), (wanted,) = split(frame, work, 4, 2, name="sdid"), whole(frame, work)
    assert found == wanted
    assert [(row["stage"], row["error_class"]) for row in found["_failures"]] == [
        ("variance:bootstrap", "TooFewTreatedError")
    ]


def test_a_chunk_that_fails_fails_its_variance_as_it_would_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    original = replicates.run_chunk

    def broken(wanted: Any, of: Any, chunk: int) -> Any:
        if type(wanted).__name__ == "Bootstraps" and chunk == 2:
            raise ZeroDivisionError("a defect")
        return original(wanted, of, chunk)

    for module in (replicates, panel_parts):
        monkeypatch.setattr(module, "run_chunk", broken)
    work = work_for(["sdid"], variances=["bootstrap", "placebo"])
    (found,), (wanted,) = split(FRAME, work, 3, 2, name="sdid"), whole(FRAME, work)
    assert found == wanted
    (failure,) = found["_failures"]
    assert (failure["stage"], failure["kind"], failure["error_class"], failure["message"]) == (
        "variance:bootstrap",
        "failed",
        "ZeroDivisionError",
        "a defect",
    )
    assert {row["variance_estimator"]: row["std_error"] is not None for row in found["_panel_variances"]} == {
        "bootstrap": False,
        "placebo": True,
    }


def test_an_estimate_that_fails_says_so_once() -> None:
    frame = FRAME.assign(w=0)
    work = work_for(["sdid"], frame, variances=["placebo"])
    (found,), (wanted,) = split(frame, work, 3, 2, name="sdid"), whole(frame, work)
    assert found == wanted
    assert [(row["stage"], row["error_class"]) for row in found["_failures"]] == [("estimate", "NoTreatedCellsError")]
    assert found["_panel_variances"] == []


def test_many_bootstraps_of_one_panel_are_spread_evenly_and_few_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    size = GroupSize("{}", {}, 2000, {"units": 50, "treated_units": 5, "treated_cells": 40})
    many = work_for(["sdid"], variances=[{"name": "bootstrap", "replicates": 100_000}])
    made = plan.make_plan([size], many)
    fit, spread = made.rounds
    assert len(fit.parts) == 1
    assert len(spread.parts) >= 5
    assert spread.seconds / len(spread.parts) <= 2 * plan.PART_SECONDS
    assert many.rounds(size)["sdid"][1].most_chunks >= len(spread.parts)
    few = work_for(["sdid"], variances=["bootstrap"])
    assert few.rounds(size) == {}
    assert plan.make_plan([size], few).rounds == ()


def test_lists_that_variances_share_are_paid_for_once() -> None:
    one = work_for(["sdid"], variances=["unit_time"]).cost(SIZE)["sdid"]
    four = work_for(["sdid"], variances=["marginal", "unit", "time", "unit_time", "placebo"]).cost(SIZE)["sdid"]
    assert four == one
    assert work_for(["sdid"], variances=["unit_time", "bootstrap"]).cost(SIZE)["sdid"] > one
    held = work_for(["did"], variances=["unit_time"]).memory(SIZE).estimators["did"]
    assert held > work_for(["did"]).memory(SIZE).estimators["did"]


def test_an_earlier_start_that_fails_elsewhere_is_left_out_as_it_would_be_here() -> None:
    frame = long_panel(n_units=14, n_periods=20, n_treated=1, seed=5)
    # At some earlier starts too little of the panel is complete.
    gaps = (frame["unit"].isin(["u05", "u06", "u07", "u08"]) & frame["year"].lt(2007)) | (
        frame["unit"].eq("u09") & frame["year"].between(2009, 2011)
    )
    frame = frame.assign(y=frame["y"].mask(gaps))
    work = work_for([{"name": "difp", "min_balanced_share": 0.6}], frame, variances=["marginal", "unit_time"])
    (found,), (wanted,) = split(frame, work, 3, 2, name="difp"), whole(frame, work)
    assert found == wanted
    assert [row["std_error"] is not None for row in found["_panel_variances"]] == [True, True]
    assert found["_panel_variances"][0]["n_replicates"] < 13 * 7
