"""What becomes of groups that are run side by side: a bad one is nobody else's trouble."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark import ResponseCurves
from causal_spark.dose_response import inference
from causal_spark.dose_response.registry import WEIGHTINGS
from causal_spark.engine import curves
from causal_spark.engine.columns import CurveRoles, select_pandas
from causal_spark.engine.curves import CurveWork
from causal_spark.engine.work import Group, GroupResult, GroupSize
from causal_spark.errors import PositivityError, SolverError

QUICK = {"name": "e2b", "hidden": 4, "n_waves": 4, "max_steps": 30}
ROLES = {"treatment": "dose", "outcome": "y", "covariates": ["x", "z"], "groups": ["region"]}


def individuals(n_rows: int = 80, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n_rows))
    dose = x + rng.normal(size=n_rows)
    return pd.DataFrame({"region": "r", "dose": dose, "y": dose + x + rng.normal(size=n_rows), "x": x, "z": z})


def work_of(*estimators: Any, grid: Any = 5, **settings: Any) -> CurveWork:
    roles = CurveRoles(**ROLES)  # type: ignore[arg-type]
    return ResponseCurves(list(estimators), replicates=20, **settings).plan_work(individuals(), roles, grid)


def group_of(work: CurveWork, frame: pd.DataFrame, name: str = "r") -> Group:
    rows = select_pandas(frame, work.columns).drop_columns(["region"])
    return Group(f'{{"region":"{name}"}}', {"region": name}, rows)


def groups_of(work: CurveWork, *frames: pd.DataFrame) -> list[Group]:
    return [group_of(work, frame, f"r{k}") for k, frame in enumerate(frames)]


def without_times(result: GroupResult) -> GroupResult:
    return replace(result, seconds=dict.fromkeys(result.seconds, 0.0))


def classes(result: GroupResult) -> list[tuple[str, str | None, str, str]]:
    return [(one.stage, one.estimator, one.kind, one.error_class) for one in result.failures]


@pytest.mark.parametrize("estimators", [("ebct1",), (QUICK, "unweighted")])
def test_groups_side_by_side_are_as_each_alone(estimators: Any) -> None:
    work = work_of(*estimators)
    groups = groups_of(work, *(individuals(80 + 7 * seed, seed) for seed in range(4)))
    together = work.run_bundle(groups)
    for group, found in zip(groups, together, strict=True):
        alone = work.run(group)
        for table in ("response_curves", "balance"):
            mine, theirs = pd.DataFrame(found.tables[table]), pd.DataFrame(alone.tables[table])
            assert len(mine) > 0
            pd.testing.assert_frame_equal(mine, theirs, rtol=1e-6)


def test_a_bad_group_does_not_touch_the_others_of_its_bundle() -> None:
    work = work_of("ebct1", QUICK)
    good, bad = individuals(80, 1), individuals(80, 2).assign(dose=1.0)
    groups = groups_of(work, good, bad, individuals(90, 3))
    with_bad = work.run_bundle(groups)
    assert classes(with_bad[1]) == [("read", None, "declined", "TreatmentSupportError")]
    assert with_bad[1].tables == {"response_curves": [], "balance": []}
    without = work.run_bundle([groups[0], groups[2]])
    assert [without_times(one) for one in (with_bad[0], with_bad[2])] == [without_times(one) for one in without]


def test_where_a_stack_cannot_be_trained_only_the_guilty_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def together(*given: Any) -> Any:
        raise SolverError("Nobody knows who it was.", "Look.")

    def alone(problem: Any, options: Any, seed: int) -> Any:
        if problem.segment.n_rows == 90:
            raise PositivityError("It was me.", "Drop me.")
        return WEIGHTINGS["e2b"].fit(problem, options, seed)

    stacking = replace(WEIGHTINGS["e2b"].stacking, fit=together)  # type: ignore[type-var]
    monkeypatch.setattr(curves, "WEIGHTINGS", {"e2b": replace(WEIGHTINGS["e2b"], fit=alone, stacking=stacking)})
    work = work_of(QUICK)
    found = work.run_bundle(groups_of(work, individuals(80), individuals(90), individuals(85)))
    assert [len(one.tables["response_curves"]) for one in found] == [5, 0, 5]
    assert ("estimate", "e2b", "declined", "PositivityError") in classes(found[1])
    assert "PositivityError" not in str([classes(found[0]), classes(found[2])])


def test_estimators_are_run_on_the_groups_they_are_for() -> None:
    work = work_of("unweighted", {"name": "ebct1", "where": {"region": "r1"}})
    found = work.run_bundle(groups_of(work, individuals(60, 0), individuals(60, 1)))
    assert [sorted({row["estimator"] for row in one.tables["response_curves"]}) for one in found] == [
        ["unweighted"],
        ["ebct1", "unweighted"],
    ]
    nowhere = work_of({"name": "ebct1", "where": {"region": "elsewhere"}})
    assert [one[3] for one in classes(nowhere.run(group_of(nowhere, individuals())))] == ["NoEstimatorError"]


def test_weights_that_leave_too_few_rows_are_declined_and_others_are_told() -> None:
    work = work_of("unweighted", "ebct1", min_effective_rows=75.0)
    found = work.run(group_of(work, individuals(80)))
    assert {row["estimator"] for row in found.tables["response_curves"]} == {"unweighted"}
    assert classes(found) == [("estimate", "ebct1", "declined", "TooFewEffectiveRowsError")]


def test_a_curve_without_standard_errors_is_there_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: Any) -> Any:
        raise SolverError("Replicates were lost.", "Use larger segments.")

    monkeypatch.setattr(inference, "_replicates", lost)
    work = work_of("unweighted")
    found = work.run(group_of(work, individuals()))
    table = pd.DataFrame(found.tables["response_curves"])
    assert table[["estimate", "slope", "expected_bias"]].notna().all(axis=None)
    assert table[["std_error", "slope_std_error", "conf_low", "conf_high"]].isna().all(axis=None)
    assert (table["n_replicates"] == 0).all()
    assert classes(found) == [("variance:bootstrap", "unweighted", "failed", "SolverError")]


def test_intervals_hold_standard_error_and_expected_bias() -> None:
    work = work_of("unweighted", confidence_level=0.9)
    table = pd.DataFrame(work.run(group_of(work, individuals())).tables["response_curves"])
    reach = 1.6448536 * np.hypot(table["std_error"], table["expected_bias"])
    np.testing.assert_allclose(table["conf_high"] - table["estimate"], reach, rtol=1e-6)
    np.testing.assert_allclose(table["estimate"] - table["conf_low"], reach, rtol=1e-6)
    assert (table["expected_bias"] > 0).all()


def test_a_group_beyond_memory_is_refused_and_an_estimator_that_is_runs_nowhere_near_it() -> None:
    work = work_of("unweighted", "dcow")
    size = GroupSize("g", {"region": "r"}, 80, {})
    needed = work.memory(size)
    assert needed.estimators["dcow"] > needed.estimators["unweighted"] > needed.base
    refused = work.within(needed.base - 1).refusal(size)
    assert refused is not None
    assert "memory" in (refused.message + refused.hint).lower()
    tight = work.within(needed.estimators["dcow"] - 1)
    assert tight.refusal(size) is None
    assert set(tight.cost(size)) == {"unweighted"}
    found = tight.run(group_of(tight, individuals()))
    assert {row["estimator"] for row in found.tables["response_curves"]} == {"unweighted"}
    assert ("estimate", "dcow", "failed", "GroupTooLargeError") in classes(found)


def test_e2b_looks_at_an_outcome_where_it_is_asked_to_and_nowhere_else() -> None:
    frame = individuals(100)
    other = frame.assign(y=np.random.default_rng(9).normal(size=100))
    moved = frame.assign(y=3 + 10 * frame["y"])

    def effective_rows(outcome: pd.DataFrame, **options: Any) -> float:
        work = work_of(QUICK | options)
        return float(work.run(group_of(work, outcome)).tables["balance"][0]["effective_sample_size"])

    assert effective_rows(other) == effective_rows(frame)
    looking = effective_rows(frame, noise="outcome")
    assert effective_rows(other, noise="outcome") != pytest.approx(looking, rel=1e-4)
    assert effective_rows(moved, noise="outcome") == pytest.approx(looking, rel=1e-4)


def test_an_outcome_beyond_doubles_fails_its_group_with_a_remedy() -> None:
    work = work_of("unweighted")
    found = work.run(group_of(work, individuals().assign(y=lambda one: 1e308 * np.sign(one["y"]))))
    assert found.tables["response_curves"] == []
    assert [one[3] for one in classes(found)] == ["SolverError"]
    assert "Rescale" in found.failures[0].hint


def test_costs_and_memory_grow_with_rows_and_small_groups_come_in_company() -> None:
    work = work_of("unweighted", "e2b")
    sizes = [GroupSize("g", {"region": "r"}, n, {}) for n in (100, 1000, 10_000, 1_000_000)]
    costs = [work.cost(size)["e2b"] for size in sizes]
    assert costs == sorted(costs)
    companions = [work.companions(size) for size in sizes]
    assert companions[0] > companions[1] > companions[2] == companions[3] == 1
    assert work_of("unweighted").companions(sizes[0]) == 1
    assert work.memory(sizes[3]).base > 5 * 8 * 1_000_000
    assert work.rounds(sizes[0]) == {}
    assert list(work.run_part(group_of(work, individuals()), (), None)) == []  # type: ignore[arg-type]
