"""Pictures show the numbers of the tables, of one group, and say so when they cannot."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from causal_spark import EstimatorStudy, IndividualEffects, PanelEffects, ResponseCurves, RootCauses, plots
from causal_spark.errors import ConfigError, InputError
from causal_spark.plots.nodes import layout
from causal_spark.plots.style import looks
from tests.arm_frames import ROLES as ARM_ROLES
from tests.arm_frames import S_LEARNER, customers
from tests.frames import ROLES, grouped, long_panel
from tests.job_cases import CASES
from tests.node_frames import EDGES, QUICK, incidents, services

NORTH = {"region": "north"}


@pytest.fixture(scope="module")
def panels() -> Any:
    frame = grouped(north=long_panel(seed=1), south=long_panel(seed=2, n_treated=2))
    return PanelEffects(["did", "sdid"], cells="all").fit(frame, groups=["region"], **ROLES)


@pytest.fixture(scope="module")
def study() -> Any:
    frame = grouped(north=long_panel(seed=1, n_treated=2), south=long_panel(seed=2, n_treated=2))
    job = EstimatorStudy(["did", "sdid"], variances=[{"name": "placebo", "replicates": 4}], replicates=12)
    return job.fit(frame, groups=["region"], **ROLES)


@pytest.fixture(scope="module")
def curves() -> Any:
    frame = CASES["response_curves"].good()
    roles = {"treatment": "dose", "outcome": "y", "covariates": ["x"], "groups": ["region"]}
    return ResponseCurves(["unweighted", "ebct1"], replicates=5).fit(frame, grid=4, **roles)


@pytest.fixture(scope="module")
def arms() -> Any:
    return IndividualEffects([S_LEARNER], control="none").fit(customers(120, region="north"), **ARM_ROLES)


@pytest.fixture(scope="module")
def causes() -> Any:
    changed = services(120, 5, push=1.0)
    return RootCauses(**QUICK).fit(
        services(150, 1), incidents(3, 2), changed=changed, event_id="incident", groups=["region"]
    )


def saved(figure: Figure) -> Figure:
    """The figure, after it could be drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getbuffer().nbytes > 1000
    return figure


def line(axes: Any, label: str) -> Any:
    """The line of that label."""
    return next(one for one in axes.lines if one.get_label() == label)


def test_counterfactuals_are_those_of_the_cells_and_observed_is_what_was(panels: Any) -> None:
    figure = saved(panels.plot(group=NORTH, outcome="Sales, million"))
    levels, effects = figure.axes
    cells = panels.cells
    mine = cells[(cells["region"] == "north") & (cells["unit"] == "u00") & (cells["estimator"] == "sdid")]
    mine = mine.assign(time=mine["time"].astype(int)).sort_values("time")
    drawn = line(levels, "without treatment, sdid")
    np.testing.assert_allclose(drawn.get_ydata(), mine["counterfactual"])
    np.testing.assert_allclose(drawn.get_xdata(), mine["time"])
    np.testing.assert_allclose(line(levels, "u00, observed").get_ydata(), mine["outcome"])
    np.testing.assert_allclose(line(effects, "sdid").get_ydata(), mine["effect"])
    assert levels.get_ylabel() == effects.get_ylabel() == "Sales, million"
    assert levels.get_title() == "north"


def test_several_treated_units_are_shown_by_their_mean(panels: Any) -> None:
    levels = saved(plots.counterfactual(panels.cells, group={"region": "south"}, estimators=["did"])).axes[0]
    cells = panels.cells
    mine = cells[(cells["region"] == "south") & (cells["estimator"] == "did") & cells["unit"].isin(["u00", "u01"])]
    np.testing.assert_allclose(
        line(levels, "mean of 2 treated units, observed").get_ydata(), mine.groupby("time")["outcome"].mean()
    )


def test_one_estimator_has_the_band_of_its_event_study(panels: Any) -> None:
    effects = saved(panels.plot(group=NORTH, estimators=["sdid"])).axes[1]
    table = panels.event_study
    mine = table[(table["region"] == "north") & (table["estimator"] == "sdid") & table["conf_low"].notna()]
    assert len(mine) > 3
    (band,) = effects.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(mine["conf_high"].max())
    assert corners[:, 0].max() == 2007 + mine["event_time"].max()
    assert not saved(panels.plot(group=NORTH)).axes[1].collections


def test_event_studies_and_weights_are_those_of_their_tables(panels: Any) -> None:
    axes = saved(panels.plot("event_study", group=NORTH, estimators=["did"])).axes[0]
    table = panels.event_study
    mine = table[(table["region"] == "north") & (table["estimator"] == "did")].sort_values("event_time")
    np.testing.assert_allclose(line(axes, "did").get_ydata(), mine["estimate"])
    low, high = axes.get_xlim()
    assert low < mine["event_time"].min() < mine["event_time"].max() < high
    units = saved(panels.plot("weights", group=NORTH, estimator="sdid", most=3)).axes[0]
    weights = panels.weights
    largest = weights[(weights["region"] == "north") & (weights["estimator"] == "sdid") & (weights["kind"] == "unit")]
    expected = largest["weight"].nlargest(3)
    assert [bar.get_width() for bar in units.patches] == pytest.approx(expected.tolist())
    assert f"and {len(largest) - 3} more" in units.get_title()


def test_races_and_coverage_are_those_of_the_study(study: Any) -> None:
    axes = saved(study.plot()).axes[0]
    table = study.estimators
    mine = table[(table["effect_shape"] == "constant") & (table["estimator"] == "did")]
    mine = mine[mine["design"] == table["design"].iloc[0]]
    assert len(mine) == 2
    assert sorted(line(axes, "did").get_ydata()) == pytest.approx(sorted(np.minimum(mine["normalised_rmse"], 3.0)))
    coverage = saved(study.plot("coverage_and_power", group=NORTH, estimator="did")).axes[0]
    variances = study.variances
    rows = variances[(variances["region"] == "north") & (variances["estimator"] == "did")]
    rows = rows[rows["design"] == variances["design"].iloc[0]]
    rows = rows[rows["noise_quartile"] > 0] if (rows["noise_quartile"] > 0).any() else rows
    assert sorted(line(coverage, "placebo").get_ydata()) == pytest.approx(sorted(100 * rows["coverage"]))


def test_curves_and_balance_are_those_of_their_tables(curves: Any) -> None:
    figure = saved(curves.plot(group=NORTH, doses=np.linspace(-2, 2, 50)))
    table = curves.curves
    mine = table[(table["region"] == "north") & (table["estimator"] == "ebct1")].sort_values("dose")
    np.testing.assert_allclose(line(figure.axes[0], "ebct1").get_ydata(), mine["estimate"])
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 50
    assert len(saved(curves.plot(group=NORTH)).axes) == 1
    axes = saved(curves.plot("balance", group=NORTH)).axes[0]
    balance = curves.balance.query("region == 'north' and moment == 'mean'")
    assert abs(line(axes, "ebct1").get_xdata()[0]) < 1e-6 < abs(line(axes, "before").get_xdata()[0])
    assert line(axes, "before").get_xdata()[0] == pytest.approx(balance["correlation_before"].iloc[0])


def test_arms_and_policies_are_those_of_their_tables(arms: Any) -> None:
    axes = saved(arms.plot()).axes[0]
    table = arms.arm_effects
    mine = table[table["reference"] == "none"].sort_values("estimate")
    points = axes.collections[1].get_offsets()[:, 0]
    np.testing.assert_allclose(points, mine["estimate"])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == mine["treatment"].tolist()
    axes = saved(arms.plot("policy_values", outcome="Spend less costs")).axes[0]
    np.testing.assert_allclose(axes.collections[1].get_offsets()[:, 0], arms.policy_values["value"].sort_values())
    assert axes.get_xlabel() == "Spend less costs"


def test_the_graph_shows_shares_that_sum_to_the_score(causes: Any) -> None:
    axes = saved(causes.plot()).axes[0]
    words = [text.get_text() for text in axes.texts if "%" in text.get_text()]
    assert len(words) == len({node for edge in EDGES for node in edge})
    assert sum(int(word.rsplit("\n", 1)[1].removesuffix("%")) for word in words) == pytest.approx(100, abs=4)
    with pytest.raises(ConfigError, match="no event '77'"):
        causes.plot(event_id="77")
    axes = saved(causes.plot("distribution_changes", functional="mean")).axes[0]
    table = causes.distribution_changes.query("functional == 'mean'")
    assert sorted(axes.lines[0].get_xdata()) == pytest.approx(sorted(table["contribution"]))
    assert "latency" in axes.get_xlabel()


def test_causes_stand_left_of_their_effects_and_no_two_nodes_in_one_place() -> None:
    at = layout(EDGES)
    assert all(at[cause][0] < at[effect][0] for cause, effect in EDGES)
    assert len(set(at.values())) == len(at)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda result: result.plot("waits"), "no picture 'waits'"),
        (lambda result: result.plot(), "There are 2 groups"),
        (lambda result: result.plot(group={"area": 1}), "'area' is no group column"),
        (lambda result: result.plot(group=NORTH, estimators=["sc"]), "no estimator 'sc'"),
    ],
)
def test_what_cannot_be_drawn_is_said(panels: Any, draw: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        draw(panels)


def test_nothing_to_draw_is_said(panels: Any, study: Any) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        panels.plot(group={"region": "west"})
    with pytest.raises(InputError, match="nothing to draw"):
        plots.estimator_race(study.estimators.iloc[:0])


def test_methods_look_alike_everywhere_and_strangers_unlike_each_other() -> None:
    found = looks(["sdid", "mine", "yours", "did"])
    assert found["sdid"] == looks(["sdid"])["sdid"]
    assert len({(look.colour, look.mark) for look in found.values()}) == 4


def test_settings_of_matplotlib_are_left_alone(panels: Any) -> None:
    before = dict(mpl.rcParams)
    panels.plot(group=NORTH)
    assert dict(mpl.rcParams) == before


def test_without_matplotlib_only_pictures_are_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from causal_spark import PanelEffects\n"
        "from tests.frames import ROLES, long_panel\n"
        "result = PanelEffects(['did'], variances=[]).fit(long_panel(), **ROLES)\n"
        "try:\n    result.plot()\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'causal_spark[plots]'" in done.stdout, done.stderr


@pytest.mark.spark
def test_spark_tables_are_drawn_alike(spark: Any, panels: Any) -> None:
    sent = spark.createDataFrame(panels.cells.astype({"std_error": float}))
    ours = plots.counterfactual(panels.cells, group=NORTH).axes[0]
    theirs = saved(plots.counterfactual(sent, group=NORTH)).axes[0]
    for one, other in zip(ours.lines, theirs.lines, strict=True):
        np.testing.assert_allclose(other.get_ydata(), one.get_ydata())
    assert isinstance(panels.cells, pd.DataFrame)
