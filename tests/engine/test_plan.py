import math

import numpy as np
import pytest

from causal_spark.engine.plan import (
    BUNDLE_RATIO,
    MAX_WAVES,
    TASK_ROWS,
    TASK_SECONDS,
    WAVE_SECONDS,
    Plan,
    make_bundles,
    make_plan,
)
from causal_spark.engine.work import GroupSize, RoundSize


class FixedCost:
    """A science whose groups cost what their measure says, in seconds."""

    def companions(self, size: GroupSize) -> int:
        return 1

    def cost(self, size: GroupSize) -> dict[str, float]:
        return {"only": size.measures["seconds"]}

    def rounds(self, size: GroupSize) -> dict[str, list[RoundSize]]:
        return {}


def plan_of(seconds: list[float], n_rows: int = 0) -> Plan:
    sizes = [GroupSize(f"g{i:05d}", {}, n_rows, {"seconds": cost}) for i, cost in enumerate(seconds)]  # type: ignore[dict-item]
    return make_plan(sizes, FixedCost())  # type: ignore[arg-type]


def loads(plan: Plan) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for group in plan.groups:
        found[group.wave, group.task] = found.get((group.wave, group.task), 0.0) + group.seconds
    return found


def test_every_group_has_one_place_and_none_is_empty() -> None:
    plan = plan_of(np.random.default_rng(0).exponential(1.0, 500).tolist())
    assert len({group.group_id for group in plan.groups}) == len(plan.groups) == 500
    assert len(loads(plan)) == sum(wave.n_tasks for wave in plan.waves)
    assert sum(wave.n_groups for wave in plan.waves) == 500


def test_tasks_and_waves_cost_about_the_same() -> None:
    plan = plan_of(np.random.default_rng(1).exponential(0.2, 3000).tolist())
    waves = [wave.seconds for wave in plan.waves]
    assert len(waves) == min(MAX_WAVES // 2, math.ceil(sum(waves) / WAVE_SECONDS))
    assert max(waves) / min(waves) < 1.01
    assert max(loads(plan).values()) < TASK_SECONDS * 1.1


def test_many_small_groups_share_a_task_and_a_large_one_stands_alone() -> None:
    plan = plan_of([50.0] + [0.001] * 400)
    big = next(group for group in plan.groups if group.seconds > 10)
    assert [group for group in plan.groups if (group.wave, group.task) == (big.wave, big.task)] == [big]
    assert [wave.n_groups for wave in plan.waves] == [400, 1]
    assert big.wave == 1


def test_long_groups_do_not_pile_up_in_one_task() -> None:
    plan = plan_of([0.0] * 8, n_rows=TASK_ROWS // 2)
    assert plan.waves[0].n_tasks >= 4


def test_the_plan_does_not_depend_on_the_order_of_groups() -> None:
    costs = np.random.default_rng(2).exponential(1.0, 50).tolist()
    sizes = [GroupSize(f"g{i}", {}, 10, {"seconds": cost}) for i, cost in enumerate(costs)]
    assert make_plan(sizes, FixedCost()) == make_plan(sizes[::-1], FixedCost())  # type: ignore[arg-type]


def test_many_long_groups_come_last_in_waves_that_fill_a_cluster() -> None:
    plan = plan_of([60.0] * 300 + [1.0] * 150)
    n_groups = [wave.n_groups for wave in plan.waves]
    n_short = math.ceil(150 / WAVE_SECONDS)
    assert sum(n_groups[:n_short]) == 150
    assert len(n_groups) > n_short + 1
    assert min(n_groups[n_short:]) >= 64


@pytest.mark.parametrize("n_groups", [1, 2])
def test_few_groups_make_one_wave(n_groups: int) -> None:
    assert len(plan_of([0.1] * n_groups).waves) == 1


class Companions(FixedCost):
    """A science that runs groups of up to so many rows side by side, as many as fit."""

    def companions(self, size: GroupSize) -> int:
        return max(1, 1000 // size.n_rows)


def sizes_of(rows: list[int]) -> list[GroupSize]:
    return [GroupSize(f"g{i:05d}", {}, n, {"seconds": 1.0}) for i, n in enumerate(rows)]  # type: ignore[dict-item]


def test_bundles_hold_every_group_once_with_others_of_like_size_and_no_more_than_fit() -> None:
    sizes = sizes_of(np.random.default_rng(2).integers(20, 2000, 300).tolist())
    bundles = make_bundles(sizes, Companions())  # type: ignore[arg-type]
    assert sorted(size.group_id for bundle in bundles for size in bundle) == [size.group_id for size in sizes]
    assert max(map(len, bundles)) > 5
    for bundle in bundles:
        rows = [size.n_rows for size in bundle]
        assert max(rows) <= BUNDLE_RATIO * min(rows)
        assert len(bundle) == 1 or len(bundle) <= 1000 // min(rows)
        assert [size.group_id for size in bundle] == sorted(size.group_id for size in bundle)


def test_bundles_do_not_depend_on_the_order_in_which_groups_are_found() -> None:
    sizes = sizes_of(np.random.default_rng(3).integers(20, 400, 200).tolist())
    shuffled = [sizes[k] for k in np.random.default_rng(4).permutation(200)]
    assert make_bundles(shuffled, Companions()) == make_bundles(sizes, Companions())  # type: ignore[arg-type]


def test_a_bundle_is_one_piece_of_work() -> None:
    sizes = sizes_of(np.random.default_rng(5).integers(20, 400, 200).tolist())
    plan = make_plan(sizes, Companions())  # type: ignore[arg-type]
    places: dict[int, set[tuple[int, int]]] = {}
    members: dict[int, list[str]] = {}
    for group in plan.groups:
        places.setdefault(group.bundle, set()).add((group.wave, group.task))
        members.setdefault(group.bundle, []).append(group.group_id)
    assert {len(one) for one in places.values()} == {1}
    made = make_bundles(sizes, Companions())  # type: ignore[arg-type]
    wanted = {tuple(size.group_id for size in bundle) for bundle in made}
    assert {tuple(sorted(one)) for one in members.values()} == wanted
