"""A split estimator gives what it gives whole, bit for bit, and its failures are the same."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark import panel_effects
from causal_spark.engine import panel_groups, panels, plan
from causal_spark.engine.columns import select_pandas
from causal_spark.engine.pack import pack
from causal_spark.engine.rounds import run_finishing, run_parts
from causal_spark.engine.work import GroupSize, Part, RoundSize
from causal_spark.panel.stages import from_bytes, run_in_process, state_after, to_bytes
from tests.engine.splitting import FRAME, sent, split, whole, work_for
from tests.engine.steps import GRID, Steps, StepsOptions, with_steps
from tests.panel.panels import block_panel


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (panels, panel_groups, panel_effects):
        monkeypatch.setattr(module, "ESTIMATORS", with_steps())


@pytest.mark.parametrize("n_parts", [1, 2, 3, 40])
@pytest.mark.parametrize("n_rounds", [1, 3, 5])
def test_results_do_not_depend_on_how_a_group_is_split(
    monkeypatch: pytest.MonkeyPatch, n_parts: int, n_rounds: int
) -> None:
    # So that one group has several packed rows.
    monkeypatch.setattr("causal_spark.engine.pack.CHUNK_ROWS", 50)
    work = work_for(["steps", "sdid"], cells="all")
    (found,), (wanted,) = split(FRAME, work, n_parts, n_rounds), whole(FRAME, work)
    assert found == wanted
    assert {row["estimator"] for row in found["_panel_effects"]} == {"steps", "sdid"}
    assert len(found["_tuning_path"]) == 3 * GRID.size
    assert found["_failures"] == []


@pytest.mark.parametrize("tuning", ["block", "loocv"])
def test_dwcp_does_not_depend_on_how_it_is_split(tuning: str) -> None:
    grids = {"lambda_time": (0.0, 0.3), "lambda_unit": (0.0, 1.0), "lambda_nn": (math.inf, 1.0)}
    work = work_for([{"name": "dwcp", "tuning": tuning, "unit_placebos": 3, "time_placebos": 3} | grids])
    size = GroupSize("{}", {}, len(FRAME), {"units": 14, "treated_units": 3, "treated_cells": 9})
    rounds = work.rounds(size)["dwcp"]
    assert sum(one.seconds for one in rounds) <= work.cost(size)["dwcp"]
    wanted = whole(FRAME, work)
    assert wanted[0]["_panel_effects"][0]["tuning"] == tuning
    for n_parts in (2, 60):
        assert split(FRAME, work, n_parts, len(rounds), name="dwcp") == wanted


@pytest.mark.parametrize(
    ("fails", "error", "kind"),
    [
        (((0, 2), (0, 1), (1, 0)), "ZeroDivisionError", "failed"),
        (((1, 8), (1, 9)), "UnsupportedPatternError", "declined"),
        (((2, 2),), "UnsupportedPatternError", "declined"),
    ],
)
def test_the_first_chunk_that_fails_is_the_groups_failure_and_costs_no_other_estimator(
    fails: tuple[tuple[int, int], ...], error: str, kind: str
) -> None:
    work = work_for([{"name": "steps", "fails": fails}, "did"])
    (found,) = split(FRAME, work, 3)
    assert [found] == whole(FRAME, work)
    assert [row["estimator"] for row in found["_panel_effects"]] == ["did"]
    assert [(row["error_class"], row["kind"]) for row in found["_failures"]] == [(error, kind)]


@pytest.mark.parametrize(
    ("frame", "more"),
    [
        (FRAME.assign(w=0), {}),
        (FRAME.assign(w=2), {}),
        (FRAME, {"worker_memory": 2e-5}),
    ],
    ids=["nothing to start with", "no panel", "no memory"],
)
def test_what_is_wrong_before_the_first_chunk_is_told_once(frame: pd.DataFrame, more: dict[str, Any]) -> None:
    work = work_for(["steps"], frame, **more)
    (found,) = split(frame, work, 2)
    assert [found] == whole(frame, work)
    assert len(found["_failures"]) == 1
    assert found["_panel_effects"] == []


def test_lost_chunks_are_a_failure() -> None:
    (found,) = split(FRAME, work_for(["steps"]), 2, lose=4)
    (failure,) = found["_failures"]
    assert (failure["kind"], failure["error_class"]) == ("failed", "LostChunksError")
    assert failure["message"].startswith("1 of 5 pieces of round 1")
    assert failure["hint"].startswith("Run again")


def test_seconds_are_those_of_all_tasks() -> None:
    work = dataclasses.replace(work_for(["steps"]))
    packed = list(pack(select_pandas(FRAME, work.columns).to_batches(), work))
    place = {"_for": "steps", "_mine": 0, "_n_parts": 1, "_task": 0}
    pieces = [
        batch.set_column(
            batch.schema.get_field_index("_seconds"), "_seconds", pa.array([100.0] * batch.num_rows, pa.float64())
        )
        for batch in run_parts(sent(packed, [], place), 0, work)
    ]
    (batch,) = run_finishing(sent(packed, pieces, {}), work)
    (row,) = batch.to_pylist()
    assert 100 * (GRID.size + 1) <= dict(row["_seconds"])["steps"] < 100 * (GRID.size + 1) + 50
    assert row["_panel_effects"][0]["seconds"] >= 100 * (GRID.size + 1)


def test_a_part_is_one_share_of_the_chunks() -> None:
    shares = [panel_groups._share(23, Part("g", "steps", 0, k, 5, k)) for k in range(5)]
    assert sorted(chunk for share in shares for chunk in share) == list(range(23))
    assert {len(share) for share in shares} == {4, 5}
    assert all(share == sorted(share) for share in shares)
    # Neighbours differ in cost as a rule: no share is a stretch or a comb of them.
    assert all(len(set(np.diff(share).tolist())) > 1 for share in shares)


def test_arrays_travel_exactly_and_never_as_objects() -> None:
    arrays = {
        "file": np.array([np.nan, -0.0, 5e-324, np.inf]),
        "allow_pickle": np.array(3),
        "": np.arange(6).reshape(2, 3).T[:, ::-1],
        "none": np.zeros((0, 4), dtype=bool),
    }
    found = from_bytes(to_bytes(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    with pytest.raises(ValueError, match="Object arrays"):
        to_bytes({"a": np.array([None])})


def test_rounds_that_ran_elsewhere_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = block_panel(12, 9)
    staged = Steps(panel, StepsOptions(), None, 3)
    first = {chunk: staged.run({}, chunk) for chunk in range(GRID.size)}
    wanted = run_in_process(Steps(panel, StepsOptions(), None, 3))
    assert state_after(staged, [first])["round"] == 1
    ran: list[int] = []
    original = Steps.run
    monkeypatch.setattr(
        Steps, "run", lambda self, state, chunk: ran.append(int(state["round"])) or original(self, state, chunk)
    )
    found = run_in_process(staged, [first])
    np.testing.assert_array_equal(found.counterfactual, wanted.counterfactual)
    assert set(ran) == {1, 2}


class Fixed:
    """A science whose groups cost what their measure says, and can be split in rounds of half and a quarter of it."""

    def __init__(self, most_chunks: tuple[int, int]) -> None:
        self.most_chunks = most_chunks

    def companions(self, size: GroupSize) -> int:
        return 1

    def cost(self, size: GroupSize) -> dict[str, float]:
        return {"long": float(size.measures["seconds"]), "other": 0.5}

    def rounds(self, size: GroupSize) -> dict[str, list[RoundSize]]:
        shares = zip((0.5, 0.25), self.most_chunks, strict=True)
        return {"long": [RoundSize(share * size.measures["seconds"], most) for share, most in shares]}


def plan_of(*seconds: float, n_rows: int = 0, most_chunks: tuple[int, int] = (10_000, 10_000)) -> plan.Plan:
    sizes = [GroupSize(f"g{i:05d}", {}, n_rows, {"seconds": cost}) for i, cost in enumerate(seconds)]  # type: ignore[dict-item]
    return plan.make_plan(sizes, Fixed(most_chunks))  # type: ignore[arg-type]


def test_a_long_group_is_split_and_finished_last() -> None:
    made = plan_of(1.0, 1000.0, 30.0, 0.1)
    assert [(wave.n_groups, wave.finishes) for wave in made.waves] == [(2, False), (1, False), (1, True)]
    assert made.waves[-1].seconds == pytest.approx(250.5, rel=1e-3)
    n_parts = [500 / plan.PART_SECONDS, 250 / plan.PART_SECONDS]
    assert [len(one.parts) for one in made.rounds] == n_parts
    assert all(part.group_id == "g00001" and part.estimator == "long" for one in made.rounds for part in one.parts)
    for one in made.rounds:
        assert [part.task for part in one.parts] == list(range(len(one.parts)))
        assert {part.n_parts for part in one.parts} == {len(one.parts)}
    assert made.seconds == pytest.approx(1000 + 31.1 + 4 * 0.5, rel=1e-3)
    assert made.splits == {"g00001": f"long {n_parts[0]:.0f}+{n_parts[1]:.0f} tasks"}
    assert made.n_tasks == sum(n_parts) + sum(wave.n_tasks for wave in made.waves)


def test_many_long_groups_keep_cores_at_work_as_they_are() -> None:
    assert not plan_of(*[100.0] * 500).rounds
    assert len(plan_of(*[100.0] * 50).splits) == 50
    assert set(plan_of(*[100.0] * 500, 2000.0).splits) == {"g00500"}


def test_no_task_is_without_a_chunk_and_nothing_is_split_that_is_one_chunk() -> None:
    assert [len(one.parts) for one in plan_of(1000.0, most_chunks=(7, 1)).rounds] == [7, 1]
    assert [len(one.parts) for one in plan_of(1000.0, most_chunks=(1, 9000)).rounds] == [1, 25]
    assert not plan_of(1000.0, most_chunks=(1, 1)).rounds
    assert not plan_of(110.0, most_chunks=(1, 9000)).rounds


def test_what_is_sent_bounds_the_number_of_tasks() -> None:
    n_rows = 4_000_000
    made = plan_of(10_000.0, n_rows=n_rows)
    assert len(made.rounds[0].parts) == math.ceil(5000 / (plan.PART_ROW_SECONDS * n_rows))
    assert all(len(one.parts) <= plan.MAX_TASKS + 3 for one in plan_of(1e6, 1e6, 1e6).rounds)


def test_tasks_of_a_split_group_are_counted() -> None:
    sizes = [GroupSize(f"g{i}", {}, 10, {"seconds": seconds}) for i, seconds in enumerate((100, 1000))]
    assert plan.most_parts(sizes, Fixed((30, 10_000))) == 5 + 30  # type: ignore[arg-type]
    assert plan.most_parts(sizes[:0], Fixed((1, 1))) == 1  # type: ignore[arg-type]


def test_another_split_is_another_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(1000.0)
    monkeypatch.setattr(plan, "PART_SECONDS", 7.0)
    assert plan_of(1000.0).digest != before.digest
