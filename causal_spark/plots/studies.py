"""Pictures of an estimator study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark.errors import InputError
from causal_spark.plots.style import chosen, group_columns, looks, of_group, styled

#: Beyond this an estimator's mark stands at the edge.
_MOST = 3.0
_TICKS = (1.0, 1.2, 1.5, 2.0)
#: Data sets with room for all estimators side by side.
_FEW = 4
_QUARTERS = ("quietest", "second", "third", "noisiest")


@styled
def estimator_race(table: Any, *, estimators: Sequence[str] | None = None, design: str | None = None) -> Figure:
    """Root mean squared errors over the best one's: groups across, estimators as marks, a row per kind of effect.

    table: ``result.estimators``. design: of the simulation; None: the first. Raises `InputError` without rows.
    """
    rows: pd.DataFrame = table if isinstance(table, pd.DataFrame) else table.toPandas()
    if rows.empty:
        raise InputError("There is nothing to draw.", "What could not be studied is in .failures.")
    kept = rows[rows["design"] == (design or rows["design"].iloc[0])]
    keys = group_columns(kept, "design")
    labels = kept[keys].astype(str).agg("\n".join, axis=1) if keys else pd.Series("all", kept.index)
    shapes = list(dict.fromkeys(kept["effect_shape"]))
    names = chosen(kept, estimators)
    n_groups = labels.nunique()
    figure = Figure(figsize=(max(5.0, 2.6 + 0.55 * n_groups), 1.5 + 2.1 * len(shapes)), layout="constrained")
    panels = figure.subplots(len(shapes), 1, sharex=True, squeeze=False)[:, 0]
    for axes, shape in zip(panels, shapes, strict=True):
        mine = kept[kept["effect_shape"] == shape].assign(label=labels)
        wide = mine.pivot_table(index="label", columns="estimator", values="normalised_rmse", sort=False)
        race(axes, wide, names)
        axes.set(title=f"effect: {shape}", ylabel="RMSE over the best one's")
    panels[-1].set_xticks(range(n_groups), list(wide.index), rotation=45 if n_groups > 4 else 0)
    handles, told = panels[0].get_legend_handles_labels()
    figure.legend(handles, told, loc="outside upper center", ncols=min(len(names), 8), handletextpad=0.2)
    return figure


def race(axes: Axes, wide: pd.DataFrame, names: Sequence[str]) -> None:
    """Marks of estimators (columns) on data sets (rows); values are errors over the best one's, 1 at the bottom."""
    places = np.arange(len(wide))
    # Where there is room, marks stand beside each other: of estimators that are alike one would hide the others.
    step = min(0.09, 0.7 / len(names)) if len(wide) <= _FEW else 0.0
    axes.grid(visible=False)
    axes.vlines(places, 0.97, _MOST, color="0.9", linewidth=0.6, zorder=0)
    for turn, (name, look) in enumerate(looks(names).items()):
        at = places + step * (turn - (len(names) - 1) / 2)
        values = np.minimum(wide[name].to_numpy(dtype=float), _MOST)
        size = 10 if look.mark == "*" else 5.5
        style: dict[str, Any] = {"color": look.colour, "markeredgecolor": "black", "markeredgewidth": 0.4}
        axes.plot(at, values, look.mark, markersize=size, label=name, zorder=4 if look.mark == "*" else 3, **style)
    axes.set_xlim(-0.6, len(wide) - 0.4)
    axes.set_yscale("log")
    axes.set_ylim(0.97, _MOST * 1.04)
    axes.set_yticks([*_TICKS, _MOST], [*(f"{tick:g}" for tick in _TICKS), f"{_MOST:g}+"])
    axes.minorticks_off()


@styled
def coverage_and_power(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimator: str | None = None,
    design: str | None = None,
    outcome: str = "units of the outcome",
) -> Figure:
    """Coverage, power and width of intervals by how noisy the treated units and periods of a draw are.

    table: ``result.variances``. estimator, design: which; None: the first. outcome: the unit of widths.
    """
    rows, title = of_group(table, group, "design")
    rows = rows[rows["design"] == (design or rows["design"].iloc[0])]
    name = chosen(rows, None if estimator is None else [estimator])[0]
    mine = rows[(rows["estimator"] == name) & (rows["noise_quartile"] > 0)]
    if mine.empty:
        mine = rows[rows["estimator"] == name]
    level, effect = float(mine["conf_level"].iloc[0]), float(mine["power_effect"].iloc[0])
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    panels = figure.subplots(1, 3)
    variances = chosen(mine, None, "variance_estimator")
    for variance, look in looks(variances).items():
        of_one = mine[mine["variance_estimator"] == variance].sort_values("noise_quartile")
        for axes, (column, scale) in zip(panels, (("coverage", 100), ("power", 100), ("mean_width", 1)), strict=True):
            axes.plot(
                of_one["noise_quartile"],
                scale * of_one[column],
                color=look.colour,
                linestyle=look.dashes,
                marker=look.mark,
                markersize=4,
                label=variance,
            )
    quarters = sorted(mine["noise_quartile"].unique())
    for axes in panels:
        axes.set_xticks(quarters, [_QUARTERS[q - 1] if q else "all" for q in quarters])
        axes.set_xlabel("quarter of draws by noise")
    coverage, power, width = panels
    coverage.axhline(100 * level, color="0.55", linewidth=0.8, zorder=1)
    coverage.set(title=f"{level:.0%} intervals that hold the effect", ylabel="% of draws")
    power.set(title=f"... that find an effect of {effect:.3g}", ylabel="% of draws")
    width.set(title="mean width", ylabel=outcome)
    figure.legend(*coverage.get_legend_handles_labels(), loc="outside upper center", ncols=len(variances))
    figure.suptitle(f"{title}: {name}" if title else name, fontsize=9.5, x=0.01, ha="left")
    return figure
