"""Run the notebooks as scripts, with a ``display`` that keeps what it is shown."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from causal_spark.show import latest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: Pictures of each, and the table that others will read.
RUNS = {
    "panel_effects": (3, "panel_effects"),
    "estimator_study": (2, "recommendations"),
    "response_curves": (2, "response_curves"),
    "individual_effects": (2, "policy_values"),
    "root_causes": (2, "root_causes"),
}


def run_notebook(name: str, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """The names a notebook leaves and what it displayed, its pictures drawn into the folder."""
    shown: list[Any] = []
    os.environ["NOTEBOOK_FOLDER"] = str(folder)
    try:
        names = runpy.run_path(str(NOTEBOOKS / f"{name}.py"), init_globals={"display": shown.append})
    finally:
        del os.environ["NOTEBOOK_FOLDER"]
    for place, figure in enumerate(one for one in shown if isinstance(one, Figure)):
        figure.savefig(folder / f"{name}_{place}.png")
    return names, shown


def check_notebook(name: str, folder: Path) -> None:
    """Run a notebook: it draws, writes, and holds what it says."""
    names, shown = run_notebook(name, folder)
    n_pictures, table = RUNS[name]
    assert sum(isinstance(one, Figure) for one in shown) == n_pictures
    assert all(len(one) > 0 for one in shown if isinstance(one, pd.DataFrame))
    assert names["written"].new
    assert len(latest(names["tables"], table)) > 0
    CLAIMS[name](names)


def claims_of_panel_effects(names: dict[str, Any]) -> None:
    answer = names["answer"]
    effects = answer.drop_duplicates("estimator").set_index("estimator")["estimate"]
    assert len(effects) == 6
    assert -27.5 < effects.min() < effects.max() < -10.5
    assert effects.drop("did").min() > -20.5
    placebo = answer[answer["variance_estimator"] == "placebo"]
    assert (placebo["conf_high"] > 0).sum() >= 4


def claims_of_estimator_study(names: dict[str, Any]) -> None:
    places = names["places"].toPandas()
    assert places.groupby("design")["rmse"].idxmin().map(places["estimator"]).ne("did").all()
    assert names["recommended"]["estimator"] in names["recommended"]["reason"]


def claims_of_response_curves(names: dict[str, Any]) -> None:
    curves = names["curves"].curves.toPandas()
    assert set(curves["sex"]) == {"female", "male"}
    balance = names["curves"].balance.toPandas()
    apart = balance[balance["estimator"] == "e2b"][["correlation_before", "correlation_after"]].abs().mean()
    assert apart["correlation_after"] < 0.5 * apart["correlation_before"]


def claims_of_individual_effects(names: dict[str, Any]) -> None:
    means = names["means"].toPandas()
    assert (means["conf_low"] > 0).all()


def claims_of_root_causes(names: dict[str, Any]) -> None:
    worst = names["worst"].toPandas()
    shares = worst.set_index("node")["contribution"] / worst["contribution"].sum()
    assert shares.drop(["departure_delay", "earlier_delay"]).abs().max() < 0.1


CLAIMS = {
    "panel_effects": claims_of_panel_effects,
    "estimator_study": claims_of_estimator_study,
    "response_curves": claims_of_response_curves,
    "individual_effects": claims_of_individual_effects,
    "root_causes": claims_of_root_causes,
}
