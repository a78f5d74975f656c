import math

import numpy as np
import pytest

from causal_spark.engine.plan import MAX_WAVES, TASK_ROWS, TASK_SECONDS, WAVE_SECONDS, Plan, make_plan
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
