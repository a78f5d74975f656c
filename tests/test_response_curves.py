"""`ResponseCurves` on pandas frames: what users hand over, and what they get."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal_spark import ResponseCurves
from causal_spark.errors import ConfigError

QUICK = {"name": "e2b", "hidden": 4, "n_waves": 4, "max_steps": 30}
LOOKING = {"name": "e2b", "noise": "outcome"}
#: Weightings that nothing is drawn for.
CERTAIN = ["unweighted", "gps", "ebct1", "ebct2", "dcow"]
ROLES: dict[str, Any] = {"treatment": "dose", "outcome": "y", "covariates": ["x", "z"]}


def individuals(n_rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """The curve is the dose, confounded by x."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n_rows))
    dose = x + rng.normal(size=n_rows)
    return pd.DataFrame({"dose": dose, "y": dose + 2 * x + 0.5 * rng.normal(size=n_rows), "x": x, "z": z})


def curves(frame: pd.DataFrame, *estimators: Any, grid: Any = 5, roles: Any = ROLES, **settings: Any) -> pd.DataFrame:
    settings = {"replicates": 20, "second_stage": "line"} | settings
    result = ResponseCurves(list(estimators), **settings).fit(frame, grid=grid, **roles)
    assert result.failures.query("kind != 'warned'").empty, result.failures
    return result.curves


@pytest.mark.parametrize("name", ["ebct1", "ebct2", "e2b"])
def test_a_confounded_curve_is_recovered(name: str) -> None:
    found = curves(individuals(600), "unweighted", name)
    slopes = found.groupby("estimator")["slope"].first()
    assert slopes["unweighted"] > 1.8
    assert slopes[name] == pytest.approx(1.0, abs=0.15)
    mine = found[found["estimator"] == name]
    assert ((mine["conf_low"] < mine["dose"]) & (mine["dose"] < mine["conf_high"])).all()
    raw = found[found["estimator"] == "unweighted"]
    ends = [0, -1]
    assert (raw["expected_bias"].iloc[ends].to_numpy() > 5 * raw["std_error"].iloc[ends].to_numpy()).all()


def test_doses_nobody_received_are_left_out_and_told_of() -> None:
    result = ResponseCurves(["ebct1"], replicates=5).fit(individuals(), grid=[-99, 0, 1, 99, 98], **ROLES)
    assert result.curves["dose"].tolist() == [0.0, 1.0]
    told = result.failures.iloc[0]
    assert (told["kind"], told["error_class"]) == ("warned", "DosesOutOfRange")
    assert "3 doses" in told["message"]
    nowhere = ResponseCurves(["ebct1"], replicates=5).fit(individuals(), grid=[99.0], **ROLES)
    assert nowhere.curves.empty
    assert nowhere.failures["error_class"].tolist() == ["TreatmentSupportError"]


def test_a_number_of_doses_lies_between_the_quantiles_of_each_group() -> None:
    frame = pd.concat(
        [individuals().assign(region="a"), individuals().assign(region="b", dose=lambda f: 7 * f["dose"])]
    )
    found = curves(frame, "ebct1", roles=ROLES | {"groups": ["region"]})
    for region, scale in (("a", 1), ("b", 7)):
        doses = found.loc[found["region"] == region, "dose"]
        wanted = scale * np.linspace(*np.quantile(individuals()["dose"], [0.05, 0.95], method="hazen"), 5)
        np.testing.assert_allclose(doses, wanted, rtol=1e-9)


@pytest.mark.parametrize("name", CERTAIN)
def test_a_row_that_stands_for_three_is_as_three_rows(name: str) -> None:
    frame = individuals(240).assign(weight=np.where(np.arange(240) < 80, 3.0, 1.0))
    repeated = frame.loc[frame.index.repeat(frame["weight"].astype(int))]
    settings = {"grid": [-1, 0, 1], "min_effective_rows": 5}
    weighted = curves(frame, name, roles=ROLES | {"sample_weight": "weight"}, **settings)
    np.testing.assert_allclose(weighted["estimate"], curves(repeated, name, **settings)["estimate"], atol=2e-4)


@pytest.mark.parametrize("name", CERTAIN)
@pytest.mark.parametrize("stage", ["line", "spline", "local_linear"])
def test_units_are_the_users(name: str, stage: str) -> None:
    frame = individuals(150)
    moved = frame.assign(dose=10 + 5 * frame["dose"], y=3 - 100 * frame["y"], x=1e3 * frame["x"], z=7 + frame["z"])
    base = curves(frame, name, second_stage=stage, grid=[-1, 0, 1])
    found = curves(moved, name, second_stage=stage, grid=[5, 10, 15])
    np.testing.assert_allclose(found["estimate"], 3 - 100 * base["estimate"], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(found["slope"], -20 * base["slope"], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found["std_error"], 100 * base["std_error"], rtol=1e-3)


def mass_at_zero(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dose=frame["dose"].clip(lower=0.3) - 0.3)


def heavy_tails(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dose=np.exp(2 * frame["dose"]))


def few_doses(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dose=frame["dose"].round().clip(-1, 2))


def rare_levels(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(z=["common", *["rare"] * 2, *[None] * 7, *[f"only {k}" for k in range(40)], *["other"] * 250])


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(z=np.nan, x=frame["x"].where(frame.index % 3 > 0))


def short(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:50]


def binary(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(x=frame["x"] > 0, z=np.arange(len(frame)) % 2)


@pytest.mark.parametrize("change", [mass_at_zero, heavy_tails, few_doses, rare_levels, gaps, short, binary])
def test_hard_data_give_curves(change: Any) -> None:
    names = ("unweighted", "gps", "ebct1", "permutation", "dcow", QUICK)
    found = curves(change(individuals()), *names, second_stage="spline", min_effective_rows=3)
    assert found["estimator"].nunique() == 6
    numbers = found[["estimate", "slope", "std_error", "conf_low", "conf_high", "expected_bias"]]
    assert np.isfinite(numbers.to_numpy(dtype=float)).all()


def test_a_covariate_made_from_the_treatment_is_told_of() -> None:
    frame = individuals(100).assign(z=lambda one: 2 * one["dose"] - 1)
    result = ResponseCurves(["gps", "ebct1", QUICK], replicates=5, second_stage="line").fit(frame, **ROLES)
    told = result.failures.groupby("estimator")["error_class"].agg(set)
    assert told["gps"] == told["ebct1"] == {"PositivityError"}
    assert "ImbalanceLeft" in told["e2b"]


def test_neither_the_order_of_rows_nor_other_groups_matter() -> None:
    frame = pd.concat([individuals(80, seed).assign(region=f"r{seed}") for seed in range(3)], ignore_index=True)
    roles = ROLES | {"groups": ["region"]}
    whole = curves(frame, "ebct1", "permutation", QUICK, roles=roles)
    shuffled = curves(frame.sample(frac=1, random_state=3), "ebct1", "permutation", QUICK, roles=roles)
    pd.testing.assert_frame_equal(shuffled, whole)
    alone = curves(frame[frame["region"] == "r1"], "ebct1", "permutation", QUICK, roles=roles)
    mine = whole[whole["region"] == "r1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.reset_index(drop=True), mine, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"replicates": 1}, "replicates is 1"),
        ({"min_effective_rows": -1.0}, "min_effective_rows"),
        ({"min_effective_rows": float("inf")}, "min_effective_rows"),
        ({"confidence_level": 1.0}, "confidence_level"),
        ({"second_stage": "splien"}, "Did you mean 'spline'"),
        ({"second_stage": {"name": "spline", "n_knots": 2}}, "n_knots is 2"),
        ({"second_stage": {"name": "local_linear", "bandwidth": 0.0}}, "bandwidth is 0"),
        ({"estimators": ["e2bb"]}, "Did you mean 'e2b'"),
        ({"estimators": [{"name": "gps", "trim": 0.2}]}, "trim is 0.2"),
        ({"estimators": [{"name": "e2b", "noise": "outcom"}]}, "noise"),
        ({"estimators": [{"name": "e2b", "noise": 0}]}, "noise is 0"),
        (
            {"estimators": [{"name": "e2b", "noise": "outcome", "link": "logistic", "loss": "sampled"}]},
            "noise: outcome",
        ),
        ({"estimators": [{"name": "e2b", "device": "gpu"}]}, "device"),
        ({"estimators": ["gps", "gps"]}, "listed twice"),
        ({"grid": 1}, "grid is 1"),
        ({"grid": True}, "grid is True"),
        ({"grid": "ten"}, "grid is 'ten'"),
        ({"grid": []}, r"grid is \[\]"),
        ({"grid": [1.0, float("nan")]}, "finite doses"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_remedy(settings: dict[str, Any], says: str) -> None:
    grid = settings.pop("grid", 5)
    with pytest.raises(ConfigError, match=says):
        ResponseCurves(**settings).fit(individuals(60), grid=grid, **ROLES)


def test_panels_need_no_torch_and_curves_say_that_they_do() -> None:
    code = """
import sys
sys.modules["torch"] = None
from causal_spark import PanelEffects
try:
    from causal_spark import ResponseCurves
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'causal_spark[neural]'" in said
