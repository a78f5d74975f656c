"""`IndividualEffects` on pandas frames: what users hand over, and what they get."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark import IndividualEffects
from causal_spark.errors import ConfigError, EmptyInputError
from tests.arm_frames import MEMENTO, ROLES, S_LEARNER, X_LEARNER, customers


def truth(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"mail": 1 + frame["z"], "call": 2.0 * (frame["z"] > 0)})


@pytest.mark.parametrize("estimator", [{"name": "x_learner"}, {"name": "memento", "weight_decays": [1e-2]}])
def test_effects_are_recovered_and_arms_chosen_by_them(estimator: Any) -> None:
    frame = customers(500, 3)
    result = IndividualEffects([estimator], control="none", abstain=False).fit(frame, **ROLES)
    effects = result.individual_effects.astype({"row_id": int}).pivot_table(
        index="row_id", columns="treatment", values="effect"
    )
    wanted = truth(frame)
    for arm in ("mail", "call"):
        error = effects[arm].to_numpy() - wanted[arm].to_numpy()
        assert np.sqrt(np.mean(error**2)) < 0.6
    mean = result.arm_effects.query("reference == 'none'").set_index("treatment")
    for arm in ("mail", "call"):
        assert mean.loc[arm, "conf_low"] < wanted[arm].mean() < mean.loc[arm, "conf_high"]
    # Who gets mail has a higher x: the difference of means is off by more than the interval is wide.
    assert mean.loc["mail", "difference_in_means"] > mean.loc["mail", "conf_high"]
    chosen = result.policies.astype({"row_id": int}).set_index("row_id")["recommended_treatment"].sort_index()
    regret = wanted.assign(none=0.0).max(axis=1) - [wanted.assign(none=0.0).loc[k, arm] for k, arm in chosen.items()]
    # Of giving nobody anything it is 1.2.
    assert regret.mean() < 0.2
    values = result.policy_values.set_index("policy")["value"]
    assert values["policy"] == values.max()


def test_order_of_rows_and_other_groups_do_not_matter() -> None:
    frame = customers(120)
    job = IndividualEffects([MEMENTO, S_LEARNER], control="none")
    alone = job.fit(frame, **ROLES)
    # The first is trained beside it, the others in bundles of their own.
    others = [customers(n_rows, 5, f"other{n_rows}") for n_rows in (123, 140, 400)]
    among = job.fit(pd.concat([frame, *others]).sample(frac=1, random_state=1), **ROLES)
    mine = among.individual_effects.query("region == 'r'")
    wanted = alone.individual_effects
    pd.testing.assert_frame_equal(mine.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True)


def test_seeds_differ() -> None:
    first, same, other = (
        IndividualEffects([X_LEARNER], control="none", seed=seed).fit(customers(), **ROLES).individual_effects
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, same)
    assert (first["effect"] != other["effect"]).any()


@pytest.mark.parametrize(
    ("settings", "fit", "says"),
    [
        ({"min_arm_rows": 1}, {}, "min_arm_rows is 1"),
        ({"min_propensity": 0.7}, {}, "min_propensity is 0.7"),
        ({"estimators": ["causal_forest"]}, {}, "causal_forest"),
        ({"estimators": [{"name": "memento", "alpha": 1}]}, {}, "no option 'alpha'"),
        ({}, {"costs": {"mail": float("nan")}}, "cost of arm 'mail'"),
        ({}, {"costs": {"mail": True}}, "cost of arm 'mail'"),
        ({"confidence_level": 1.0}, {}, "confidence_level"),
    ],
)
def test_what_cannot_be_is_refused(settings: Any, fit: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        IndividualEffects(**({"estimators": [X_LEARNER], "control": "none"} | settings)).fit(
            customers(), **ROLES, **fit
        )


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(EmptyInputError):
        IndividualEffects([X_LEARNER], control="none").fit(customers().iloc[:0], **ROLES)


def test_a_control_arm_that_is_nowhere_is_told_with_the_arms_there_are() -> None:
    result = IndividualEffects([X_LEARNER]).fit(customers(), **ROLES)
    assert result.individual_effects.empty
    told = result.failures.iloc[0]
    assert told["error_class"] == "NoControlRowsError"
    assert "call, mail, none" in told["message"]


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_whoever_lacks_a_package_is_told_what_to_install(missing: str) -> None:
    code = f"""
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(name, name=name.split(".")[0])

sys.meta_path.insert(0, Without())
try:
    from causal_spark import IndividualEffects
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"IndividualEffects needs {missing}: pip install 'causal_spark[neural]'" in said
