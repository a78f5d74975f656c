"""Pictures of individual effects: arms and policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark.plots.style import BLUE, VERMILION, chosen, of_group, styled, zero_line


@styled
def arm_effects(
    table: Any,
    *,
    reference: str,
    group: Mapping[str, Any] | None = None,
    estimator: str | None = None,
    outcome: str = "Mean effect, in units of the outcome",
) -> Figure:
    """Mean effects of arms against one of them with intervals, beside raw differences of means.

    table: ``result.arm_effects``. reference: the arm that others are compared with, usually the control arm.
    """
    rows, title = of_group(table, group, "estimator")
    name = chosen(rows, None if estimator is None else [estimator])[0]
    chosen(rows, [reference], "reference")
    mine = rows[(rows["estimator"] == name) & (rows["reference"] == reference)].sort_values("estimate")
    figure = Figure(figsize=(6.0, 1.5 + 0.42 * len(mine)), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(mine))
    _intervals(axes, mine, at, "estimate", ("conf_low", "conf_high"), [BLUE] * len(mine))
    axes.plot([], [], "o-", color=BLUE, label=f"doubly robust, {mine['conf_level'].iloc[0]:.0%} interval")
    axes.plot(
        mine["difference_in_means"],
        at - 0.22,
        "D",
        color="white",
        markeredgecolor="0.3",
        markersize=5,
        label="difference of means",
    )
    axes.set_yticks(at, mine["treatment"])
    axes.set_ylim(-0.7, len(mine) - 0.3)
    zero_line(axes, vertical=True)
    axes.grid(axis="x")
    axes.set(title=f"{title or name}: against {reference}", xlabel=outcome)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def policy_values(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimator: str | None = None,
    outcome: str = "Mean outcome less costs",
) -> Figure:
    """What policies are worth, with intervals: the recommended arms, one arm for all, the control arm for all.

    table: ``result.policy_values``. outcome: label, with units.
    """
    rows, title = of_group(table, group, "estimator")
    name = chosen(rows, None if estimator is None else [estimator])[0]
    mine = rows[rows["estimator"] == name].sort_values("value")
    figure = Figure(figsize=(6.0, 1.2 + 0.36 * len(mine)), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(mine))
    colours = [{"policy": VERMILION, "none": "0.4"}.get(policy, BLUE) for policy in mine["policy"]]
    _intervals(axes, mine, at, "value", ("conf_low", "conf_high"), colours)
    told = {"policy": "the recommended arms", "none": "control for all"}
    axes.set_yticks(at, [told.get(one, one.replace("all:", "") + " for all") for one in mine["policy"]])
    axes.grid(axis="x")
    axes.set(
        title=f"{title or name}: what policies are worth ({mine['conf_level'].iloc[0]:.0%} intervals)", xlabel=outcome
    )
    return figure


def _intervals(
    axes: Axes, rows: pd.DataFrame, at: np.ndarray[Any, Any], middle: str, ends: tuple[str, str], colours: list[str]
) -> None:
    axes.hlines(at, rows[ends[0]], rows[ends[1]], color=colours, linewidth=2)
    axes.scatter(rows[middle], at, color=colours, s=32, zorder=3)
