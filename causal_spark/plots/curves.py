"""Pictures of response curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from causal_spark.plots.style import chosen, looks, of_group, styled, zero_line

_BINS = 30


@styled
def response_curves(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimators: Sequence[str] | None = None,
    doses: Iterable[float] | None = None,
    outcome: str = "Mean outcome",
    dose: str = "Dose",
) -> Figure:
    """Mean outcomes by dose, the last estimator with its band, and how common each dose is.

    table: ``result.curves``. doses: treatments of the group's rows, for the density below. outcome, dose: labels, with
    units.
    """
    rows, title = of_group(table, group, "estimator")
    names = chosen(rows, estimators)
    given = None if doses is None else np.asarray(list(doses), dtype=float)
    ratios = (3, 1) if given is not None else (1,)
    figure = Figure(figsize=(5.6, 3.4 + 0.5 * len(ratios)), layout="constrained")
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    above = panels[0]
    for name, look in looks(names).items():
        mine = rows[rows["estimator"] == name].sort_values("dose")
        if name == names[-1]:
            above.fill_between(
                mine["dose"],
                mine["conf_low"],
                mine["conf_high"],
                color=look.colour,
                alpha=0.18,
                linewidth=0,
                label=f"{name}, {mine['conf_level'].iloc[0]:.0%} band",
            )
        above.plot(mine["dose"], mine["estimate"], color=look.colour, linestyle=look.dashes, linewidth=1.7, label=name)
    above.set(title=title or "Response curve", ylabel=outcome)
    above.legend(loc="best", handlelength=3.2)
    if given is not None:
        panels[1].hist(given[np.isfinite(given)], bins=_BINS, color="0.6")
        panels[1].set_ylabel("Rows")
    panels[-1].set_xlabel(dose)
    return figure


@styled
def balance(
    table: Any,
    *,
    group: Mapping[str, Any] | None = None,
    estimators: Sequence[str] | None = None,
    moment: str = "mean",
) -> Figure:
    """Correlations of covariates with the treatment before and after weighting; near zero is balanced.

    table: ``result.balance``. moment: of covariates, mean or square.
    """
    rows, title = of_group(table, group, "estimator")
    rows = rows[rows["moment"] == moment]
    names = chosen(rows, estimators)
    before = rows.drop_duplicates("covariate").set_index("covariate")["correlation_before"]
    order = before.abs().sort_values().index
    at = np.arange(len(order))
    figure = Figure(figsize=(6.2, 1.5 + 0.24 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-0.1, 0.1, color="0.95", linewidth=0, zorder=0)
    axes.plot(before[order], at, "o", markersize=7, color="white", markeredgecolor="black", label="before", zorder=3)
    for name, look in looks(names).items():
        after = rows[rows["estimator"] == name].set_index("covariate")["correlation_after"].reindex(order)
        axes.plot(after, at, look.mark, color=look.colour, markersize=5, label=name, zorder=4)
    axes.set_yticks(at, order)
    axes.grid(axis="x")
    zero_line(axes, vertical=True)
    axes.set(title=title or "Balance", xlabel=f"Correlation with the treatment ({moment}s of covariates)")
    axes.legend(loc="lower right")
    return figure
