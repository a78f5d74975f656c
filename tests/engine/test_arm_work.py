"""What becomes of groups whose effects are estimated side by side, and what is told of each."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark import IndividualEffects
from causal_spark.engine import arms
from causal_spark.engine.arms import ArmWork
from causal_spark.engine.columns import select_pandas
from causal_spark.engine.work import Group, GroupResult, GroupSize
from causal_spark.errors import SolverError
from causal_spark.individual_effects import Assignment
from causal_spark.multi_treatment.registry import ESTIMATORS
from tests.arm_frames import MEMENTO, ROLES, S_LEARNER, X_LEARNER, customers

SMALL = ("arm_effects", "policy_values", "overlap", "models")


def work_of(*estimators: Any, costs: Any = None, **settings: Any) -> ArmWork:
    given = Assignment(**(ROLES | {"costs": costs or {}}))
    return IndividualEffects(list(estimators), control="none", **settings).plan_work(customers(), given)


def group_of(work: ArmWork, frame: pd.DataFrame, name: str = "r") -> Group:
    rows = select_pandas(frame, work.columns).drop_columns(["region"])
    return Group(f'{{"region":{{"string":"{name}"}}}}', {"region": name}, rows)


def groups_of(work: ArmWork, *frames: pd.DataFrame) -> list[Group]:
    return [group_of(work, frame, f"r{k}") for k, frame in enumerate(frames)]


def classes(result: GroupResult) -> list[tuple[str, str | None, str, str]]:
    return [(one.stage, one.estimator, one.kind, one.error_class) for one in result.failures]


def tables_of(result: GroupResult) -> dict[str, pd.DataFrame]:
    small = {name: pd.DataFrame(result.tables[name]) for name in SMALL}
    return small | {name: pieces[0].to_pandas() for name, pieces in result.large.items()}


def size_of(n_rows: int, n_arms: int = 3) -> GroupSize:
    return GroupSize("g", {"region": "r"}, n_rows, {"arms": n_arms})


def test_groups_side_by_side_are_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from causal_spark.multi_treatment import networks

    monkeypatch.setattr(networks, "_TRAINING", replace(networks._TRAINING, max_steps=30))
    work = work_of(MEMENTO)
    groups = groups_of(work, *(customers(100 + 7 * seed, seed) for seed in range(3)))
    for group, found in zip(groups, work.run_bundle(groups), strict=True):
        mine, theirs = tables_of(found), tables_of(work.run(group))
        assert set(mine) == set(work.tables)
        for name in work.tables:
            assert len(mine[name]) > 0
            pd.testing.assert_frame_equal(mine[name], theirs[name], check_exact=True)


def test_a_bad_group_does_not_touch_the_others_of_its_bundle() -> None:
    work = work_of(S_LEARNER)
    bad = customers(90, 2).assign(offer="mail")
    found = work.run_bundle(groups_of(work, customers(90, 1), bad, customers(90, 3)))
    assert classes(found[1]) == [("read", None, "declined", "NoControlRowsError")]
    assert not any(found[1].tables.values())
    assert not found[1].large
    for place in (0, 2):
        assert [one for one in classes(found[place]) if one[2] != "warned"] == []
        assert len(found[place].large["policies"][0]) == 90


def test_where_a_stack_cannot_be_fitted_only_the_guilty_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(samples: Any, chances: Any, options: Any, seeds: Any) -> Any:
        if any(one.n_rows == 95 for one in samples):
            raise SolverError("It was one of us.", "Look.")
        return ESTIMATORS["s_learner"].fit(samples, chances, options, seeds)

    monkeypatch.setattr(arms, "ESTIMATORS", {"s_learner": replace(ESTIMATORS["s_learner"], fit=fit)})
    work = work_of(S_LEARNER)
    found = work.run_bundle(groups_of(work, customers(90), customers(95, 1), customers(92, 2)))
    assert ["policies" in one.large for one in found] == [True, False, True]
    assert ("estimate", "s_learner", "failed", "SolverError") in classes(found[1])
    assert "SolverError" not in str([classes(found[0]), classes(found[2])])


def test_estimators_are_run_on_the_groups_they_are_for() -> None:
    work = work_of(S_LEARNER, {**X_LEARNER, "where": {"region": "r1"}})
    found = work.run_bundle(groups_of(work, customers(80, 0), customers(80, 1)))
    assert [sorted({row["estimator"] for row in one.tables["models"]}) for one in found] == [
        ["s_learner"],
        ["s_learner", "x_learner"],
    ]
    nowhere = work_of({**S_LEARNER, "where": {"region": "elsewhere"}})
    assert [one[3] for one in classes(nowhere.run(group_of(nowhere, customers())))] == ["NoEstimatorError"]


@pytest.mark.parametrize("is_binary", [False, True])
def test_tables_agree_with_each_other(is_binary: bool) -> None:
    work = work_of(X_LEARNER, costs={"mail": 0.5, "call": "price"}, confidence_level=0.9, abstain=True)
    frame = customers(200, 4, is_binary=is_binary)
    found = tables_of(work.run(group_of(work, frame)))
    effects = found["individual_effects"]
    assert len(effects) == 600
    wide = effects.pivot_table(index="row_id", columns="treatment", values="outcome_estimate")
    joined = effects.merge(wide["none"].rename("base"), on="row_id")
    np.testing.assert_allclose(joined["effect"], joined["outcome_estimate"] - joined["base"], atol=1e-12)
    control = effects["treatment"] == "none"
    assert effects.loc[control, ["std_error", "conf_low", "conf_high"]].isna().all(axis=None)
    np.testing.assert_allclose(
        effects["conf_high"] - effects["effect"], 1.6448536 * effects["std_error"], rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(effects.groupby("row_id")["propensity"].sum(), 1)
    pairs = found["arm_effects"].set_index(["treatment", "reference"])
    assert len(pairs) == 6
    assert pairs.loc[("mail", "none"), "estimate"] == -pairs.loc[("none", "mail"), "estimate"]
    means = frame.groupby("offer")["y"].mean()
    assert pairs.loc[("mail", "call"), "difference_in_means"] == pytest.approx(means["mail"] - means["call"])
    values = found["policy_values"].set_index("policy")
    assert set(values.index) == {"policy", "none", "all:mail", "all:call"}
    # What mail is worth for all is its effect less its cost.
    assert values.loc["all:mail", "gain"] == pytest.approx(pairs.loc[("mail", "none"), "estimate"] - 0.5)
    mean_price = frame["price"].mean()
    assert values.loc["all:call", "gain"] == pytest.approx(pairs.loc[("call", "none"), "estimate"] - mean_price)
    assert (values["gain"] == values["value"] - values.loc["none", "value"]).sum() >= 1
    np.testing.assert_allclose(values["gain"], values["value"] - values.loc["none", "value"], atol=1e-12)
    policies = found["policies"].merge(frame.assign(row_id=frame["id"].astype(str)), on="row_id")
    assert (policies.loc[policies["recommended_treatment"] == "none", "expected_gain"] == 0).all()
    chosen = policies.merge(effects, left_on=["row_id", "recommended_treatment"], right_on=["row_id", "treatment"])
    cost = chosen["recommended_treatment"].map({"none": 0.0, "mail": 0.5}).fillna(chosen["price"])
    np.testing.assert_allclose(chosen["expected_gain"], chosen["effect"] - cost, atol=1e-12)
    taken = chosen[chosen["recommended_treatment"] != "none"]
    assert (taken["conf_low"] > cost[taken.index]).all()
    assert taken["in_support"].all()
    assert not taken["abstained"].any()
    hesitant, bold = (
        policies["abstained"].sum(),
        tables_of(work_of(X_LEARNER, abstain=False).run(group_of(work, frame))),
    )
    assert hesitant > 0
    assert not bold["policies"]["abstained"].any()
    overlap = found["overlap"]
    assert set(overlap["covariate"]) >= {"x", "x=(missing)", "z"}
    assert overlap.groupby("treatment")["n_rows"].first().to_dict() == frame["offer"].value_counts().to_dict()


def test_rows_that_could_not_have_received_an_arm_are_flagged() -> None:
    frame = customers(400, 5)
    frame["offer"] = np.where(frame["z"] > 0.5, "none", frame["offer"])
    work = work_of(S_LEARNER, min_propensity=0.05)
    result = work.run(group_of(work, frame))
    assert ("read", None, "warned", "LittleSupport") in classes(result)
    found = tables_of(result)
    mail = (
        found["individual_effects"]
        .query("treatment == 'mail'")
        .merge(frame.assign(row_id=frame["id"].astype(str))[["row_id", "z"]], on="row_id")
    )
    assert mail.loc[mail["z"] > 1, "in_support"].mean() < 0.1
    assert mail.loc[mail["z"] < 0, "in_support"].mean() > 0.9
    share = found["overlap"].query("treatment == 'mail'")["share_in_support"].iloc[0]
    assert share == pytest.approx(mail["in_support"].mean())
    outside = found["policies"].merge(mail.loc[~mail["in_support"], ["row_id"]], on="row_id")
    assert (outside["recommended_treatment"] != "mail").all()


@pytest.mark.parametrize("n_arms", [2, 20])
def test_few_arms_and_many(n_arms: int) -> None:
    rng = np.random.default_rng(0)
    frame = customers(40 * n_arms).assign(offer=lambda f: rng.permutation(np.arange(len(f)) % n_arms).astype(str))
    given = Assignment(**ROLES)
    work = IndividualEffects([S_LEARNER], control=0).plan_work(frame, given)
    found = tables_of(work.run(group_of(work, frame)))
    assert len(found["individual_effects"]) == len(frame) * n_arms
    assert len(found["arm_effects"]) == n_arms * (n_arms - 1)
    assert len(found["policy_values"]) == n_arms + 1


def test_arms_that_a_group_lacks_are_no_trouble() -> None:
    work = work_of(S_LEARNER, costs={"visit": 1.0})
    frame = customers(120)
    found = tables_of(work.run(group_of(work, frame[frame["offer"] != "call"])))
    assert set(found["individual_effects"]["treatment"]) == {"none", "mail"}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_outcomes_near_the_largest_double_fail_with_a_remedy() -> None:
    work = work_of(S_LEARNER)
    found = work.run(group_of(work, customers().assign(y=lambda f: f["y"] * 1e307)))
    assert next(one for one in classes(found) if one[2] == "failed")[1] == "s_learner"


def test_a_group_too_large_for_a_task_is_refused_and_one_for_an_estimator_only_there() -> None:
    work = work_of(MEMENTO, S_LEARNER)
    needs = work.memory(size_of(200_000))
    assert needs.base < needs.estimators["s_learner"] < needs.estimators["memento"]
    tight = work.within(needs.estimators["s_learner"])
    assert tight.refusal(size_of(200_000)) is None
    assert list(tight.cost(size_of(200_000))) == ["s_learner"]
    refused = work.within(needs.base - 1).refusal(size_of(200_000))
    assert refused is not None
    assert refused.error_class == "GroupTooLargeError"
    assert "score the others" in refused.hint


def test_costs_grow_with_rows_and_arms_and_companions_share() -> None:
    work = work_of(MEMENTO, X_LEARNER)
    small, large, more = (work.cost(size) for size in (size_of(1000), size_of(8000), size_of(1000, 8)))
    for name in ("memento", "x_learner"):
        assert small[name] < large[name]
        assert small[name] < more[name]
    assert work.companions(size_of(200)) == 64
    assert work.companions(size_of(4000)) < 8
    assert work_of(S_LEARNER).companions(size_of(200)) == 1


def test_slices_of_a_group_are_counted_as_arms_once_at_least() -> None:
    work = work_of(S_LEARNER)
    rows = group_of(work, customers()).rows
    assert work.measure(rows) == (3,)
    assert work.sample_size(size_of(100, 900)).n_arms == 20
    assert work.sample_size(size_of(100, 1)).n_arms == 2
