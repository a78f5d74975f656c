"""Pictures of root causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal_spark.errors import ConfigError
from causal_spark.plots.style import chosen, looks, of_group, styled, zero_line

Edges = Sequence[tuple[str, str]]
_SHIFT = 0.35


def layout(edges: Edges) -> dict[str, tuple[float, float]]:
    """A place for each node: columns by the longest way from a root, and within them near what they are joined to.

    edges: (cause, effect) of a graph without cycles.
    """
    nodes = list(dict.fromkeys(node for edge in edges for node in edge))
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for cause, effect in edges:
            depth[effect] = max(depth[effect], depth[cause] + 1)
    # A root stands beside what it causes, not at the far end.
    for node in nodes:
        children = [depth[effect] for cause, effect in edges if cause == node]
        if children and not any(effect == node for _, effect in edges):
            depth[node] = min(children) - 1
    columns = [[node for node in nodes if depth[node] == k] for k in range(max(depth.values()) + 1)]
    height = {node: _centred(place, len(column)) for column in columns for place, node in enumerate(column)}
    for _ in range(8):
        for column in columns:
            near = {node: _mean_height(node, edges, height) for node in column}
            for place, node in enumerate(sorted(column, key=lambda one: near[one])):
                height[node] = _centred(place, len(column))
    # Columns are shifted against each other, so that edges do not run through the nodes between their ends.
    return {node: (float(depth[node]), height[node] + _SHIFT * (depth[node] % 2)) for node in nodes}


def _centred(place: int, n: int) -> float:
    return place - (n - 1) / 2


def _mean_height(node: str, edges: Edges, height: Mapping[str, float]) -> float:
    joined = [height[b if a == node else a] for a, b in edges if node in (a, b)]
    return float(np.mean(joined)) if joined else height[node]


@styled
def root_cause_graph(
    table: Any,
    edges: Edges,
    *,
    event_id: str | None = None,
    group: Mapping[str, Any] | None = None,
    places: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """The causal graph, nodes shaded by their share of one event's outlier score.

    table: ``result.root_causes``. edges: of the graph, (cause, effect). event_id: which; None: the most extreme.
    places: (across, up) of nodes; None: laid out. Raises `ConfigError` for an event that is not there.
    """
    rows, title = of_group(table, group, "event_id")
    wanted = rows.sort_values("outlier_score", ascending=False)["event_id"].iloc[0] if event_id is None else event_id
    mine = rows[rows["event_id"] == str(wanted)].set_index("node")
    if mine.empty:
        raise ConfigError(
            f"There is no event {wanted!r}.", f"The first are: {', '.join(rows['event_id'].unique()[:5])}."
        )
    score = float(mine["outlier_score"].iloc[0])
    at = dict(places or layout(edges))
    across, up = (np.array([place[k] for place in at.values()]) for k in (0, 1))
    figure = Figure(figsize=(1.9 + 1.75 * np.ptp(across), max(2.2, 1.2 + 0.85 * np.ptp(up))), layout="constrained")
    axes = figure.subplots()
    for cause, effect in edges:
        axes.annotate(
            "",
            at[effect],
            at[cause],
            arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 20, "shrinkB": 22, "linewidth": 0.8},
        )
    shades = mpl.colormaps["Oranges"]
    for node, place in at.items():
        share = float(mine["contribution"].get(node, 0.0)) / score
        axes.text(
            *place,
            f"{node.replace('_', chr(10))}\n{round(100 * share) + 0}%",
            ha="center",
            va="center",
            fontsize=7.5,
            bbox={
                "boxstyle": "round,pad=0.35",
                "facecolor": shades(0.04 + 0.66 * min(max(share, 0.0), 1.0)),
                "edgecolor": "0.35",
                "linewidth": 0.7,
            },
        )
    axes.set_xlim(across.min() - 0.55, across.max() + 0.55)
    axes.set_ylim(up.min() - 0.6, up.max() + 0.6)
    axes.axis("off")
    axes.set_title(f"{title + ', ' if title else ''}event {wanted}: share of its outlier score ({score:.1f})")
    return figure


@styled
def distribution_changes(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    functional: str | None = None,
    target: str = "the target",
) -> Figure:
    """What each node's mechanism added to the change of the target, with intervals, a mark per period.

    table: ``result.distribution_changes``. functional: of the target; None: the first. target: its label, with units.
    """
    rows, title = of_group(table, group, "period")
    name = chosen(rows, None if functional is None else [functional], "functional")[0]
    mine = rows[rows["functional"] == name]
    periods = list(dict.fromkeys(mine["period"]))
    largest = mine.groupby("node")["contribution"].apply(lambda one: one.abs().max()).sort_values()
    at = pd.Series(np.arange(len(largest), dtype=float), index=largest.index)
    figure = Figure(figsize=(6.2, 1.5 + 0.34 * len(at)), layout="constrained")
    axes = figure.subplots()
    for place, (period, look) in enumerate(looks(map(str, periods)).items()):
        of_one = mine[mine["period"].astype(str) == period].set_index("node")
        height = at[of_one.index] + 0.2 * (place - (len(periods) - 1) / 2)
        axes.hlines(height, of_one["conf_low"], of_one["conf_high"], color=look.colour, linewidth=1.6)
        axes.plot(of_one["contribution"], height, look.mark, color=look.colour, markersize=5, label=period)
    axes.set_yticks(at, at.index)
    axes.grid(axis="x")
    zero_line(axes, vertical=True)
    axes.set(title=title or "What changed", xlabel=f"Added to the {name} of {target}, {mine['conf_level'].iloc[0]:.0%}")
    if len(periods) > 1:
        axes.legend(loc="lower right")
    return figure
