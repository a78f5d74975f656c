"""Pictures of panel effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark.plots.style import BLACK, Look, chosen, looks, of_group, styled, zero_line

#: Bars of each kind of weight at most.
_BARS = 15


def _times(values: pd.Series) -> pd.Series:
    """Periods as numbers or dates: tables hold them as text."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().all() else pd.to_datetime(values, format="ISO8601")


@styled
def counterfactual(
    cells: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimators: Sequence[str] | None = None,
    outcome: str = "Outcome",
    time: str = "Period",
    event_study: Any = None,
) -> Figure:
    """Treated units as observed and as predicted without treatment, and the effect between the two, over time.

    cells: ``result.cells`` of a fit with ``cells="all"``; with treated cells alone there is nothing before treatment.
    Several treated units are shown by their mean. outcome, time: labels, with units. event_study:
    ``result.event_study``, whose intervals are drawn as a band where one estimator is shown and all treatment starts
    at once.
    """
    rows, title = of_group(cells, group, "estimator")
    treated = rows[rows["unit"].isin(rows.loc[rows["treated"], "unit"].unique())]
    treated = treated.assign(time=_times(treated["time"]))
    names = chosen(treated, estimators)
    units = treated["unit"].unique()
    single = len(units) == 1
    who = str(units[0]) if single else f"mean of {len(units)} treated units"
    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    levels, effects = figure.subplots(1, 2, width_ratios=(1.15, 1))
    observed = treated[treated["estimator"] == names[0]].groupby("time")["outcome"].mean()
    levels.plot(observed.index, observed.to_numpy(), color=BLACK, linewidth=2.4, label=f"{who}, observed")
    for name, look in looks(names).items():
        mine = treated[treated["estimator"] == name]
        means = mine.groupby("time")[["counterfactual", "effect"]].mean()
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "linewidth": 1.6}
        levels.plot(means.index, means["counterfactual"], label=f"without treatment, {name}", **style)
        effects.plot(means.index, means["effect"], label=name, **style)
    start = treated.loc[treated["treated"], "time"].min()
    starts = treated[treated["treated"]].groupby("unit")["time"].min().nunique()
    if event_study is not None and len(names) == 1 and starts == 1:
        events, _ = of_group(event_study, group, "estimator")
        _band(effects, events[events["estimator"] == names[0]], observed.index, start, looks(names)[names[0]])
    before = observed.index[observed.index < start]
    if len(before):
        edge = before.max() + (start - before.max()) / 2
        for axes in (levels, effects):
            axes.axvline(edge, color="0.55", linewidth=0.8)
    zero_line(effects)
    levels.set(title=title or who, xlabel=time, ylabel=outcome)
    effects.set(title="Effect: observed less predicted", xlabel=time, ylabel=outcome)
    levels.legend(loc="best", handlelength=3.2)
    if len(names) > 1:
        effects.legend(loc="best", handlelength=3.2)
    return figure


def _band(axes: Axes, events: pd.DataFrame, periods: pd.Index[Any], start: Any, look: Look) -> None:
    """Intervals of event times at their periods."""
    place = events["event_time"] + list(periods).index(start)
    known = events["conf_low"].notna() & place.between(0, len(periods) - 1)
    if known.any():
        mine = events[known].assign(time=periods[place[known]]).sort_values("time")
        axes.fill_between(
            mine["time"],
            mine["conf_low"],
            mine["conf_high"],
            color=look.colour,
            alpha=0.18,
            linewidth=0,
            label="interval of each period",
        )
        axes.legend(loc="best")


@styled
def event_study(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimators: Sequence[str] | None = None,
    outcome: str = "Effect",
    period: str = "Periods since the start of treatment",
) -> Figure:
    """Effects by time since treatment began, with intervals; before it, what should be zero.

    table: ``result.event_study``. outcome, period: labels, with units.
    """
    rows, title = of_group(table, group, "estimator")
    names = chosen(rows, estimators)
    figure = Figure(figsize=(6.6, 3.7), layout="constrained")
    axes = figure.subplots()
    width = min(0.14, 0.7 / len(names))
    for place, (name, look) in enumerate(looks(names).items()):
        mine = rows[rows["estimator"] == name].sort_values("event_time")
        at = mine["event_time"].to_numpy(dtype=float) + width * (place - (len(names) - 1) / 2)
        bars = mine["conf_low"].notna().to_numpy()
        axes.vlines(at[bars], mine["conf_low"][bars], mine["conf_high"][bars], color=look.colour, linewidth=1.2)
        axes.plot(at, mine["estimate"], look.mark, color=look.colour, markersize=4.5, label=name)
    first, last = rows["event_time"].min() - 0.6, rows["event_time"].max() + 0.6
    axes.axvspan(first, -0.5, color="0.96", linewidth=0, zorder=0)
    axes.set_xlim(first, last)
    axes.axvline(-0.5, color="0.55", linewidth=0.8)
    zero_line(axes)
    axes.set(title=title or "Event study", xlabel=period, ylabel=outcome)
    axes.legend(loc="best", ncols=min(len(names), 4))
    return figure


@styled
def weights(
    table: Any, *, group: Mapping[str, Any] | None = None, estimator: str | None = None, most: int = _BARS
) -> Figure:
    """Weights of units and of periods, the largest of each kind.

    table: ``result.weights``. estimator: whose; None: the first that has any. most: bars of each kind.
    """
    rows, title = of_group(table, group, "estimator")
    name = chosen(rows, None if estimator is None else [estimator])[0]
    mine = rows[rows["estimator"] == name]
    kinds = list(dict.fromkeys(mine["kind"]))
    counts = [min(most, int((mine["kind"] == kind).sum())) for kind in kinds]
    figure = Figure(figsize=(7.6, max(2.4, 0.9 + 0.2 * max(counts))), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    look = looks([name])[name]
    for axes, kind in zip(panels, kinds, strict=True):
        every = mine[mine["kind"] == kind]
        largest = every.reindex(every["weight"].abs().sort_values(ascending=False).index).head(most)
        shown = largest.sort_values("label") if "time" in kind else largest
        axes.barh(np.arange(len(shown)), shown["weight"], color=look.colour, height=0.7)
        axes.set_yticks(np.arange(len(shown)), shown["label"])
        # Bars of all kinds are equally thick.
        axes.set_ylim(max(counts) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        zero_line(axes, vertical=True)
        more = len(every) - len(shown)
        axes.set(title=kind.replace("_", " ") + (f" (and {more} more)" if more else ""), xlabel="Weight")
    figure.suptitle(f"{title}: {name}" if title else name, fontsize=9.5)
    return figure
