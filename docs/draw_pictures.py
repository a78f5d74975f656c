"""Draw the pictures of docs/ into docs/images: `make pictures`, a few minutes.

Colours, line styles and marks are those of `causal_spark.plots`: colour-blind readers tell them apart, and so do
readers of a print in black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark import PanelEffects
from causal_spark.examples import EXAMPLES, load_example
from causal_spark.plots.style import looks

IMAGES = Path(__file__).parent / "images"
SEED = 20211
FIRST_TREATED = 1989
# Of the years before, how many the picture of effects shows.
YEARS_BEFORE = 4

ESTIMATORS = ("did", "sc", "difp", "mc", "sdid", "dwcp")
# Colour and dashes of each estimator.
STYLES = {name: (look.colour, look.dashes) for name, look in looks(ESTIMATORS).items()}
SEQUENCE = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v")

#: Result of `make study-variances`, and what its third picture shows.
STUDY = Path(__file__).parent.parent / "studies" / "results" / "variances.csv"
FEWEST_DRAWS = 1000
TARGETS = {"cell": "one unit, one period", "unit": "one unit, 8 periods", "block": "10 units, 8 periods"}
VARIANCES = {
    name: (look.colour, look.dashes, look.mark)
    for name, look in looks(("marginal", "unit", "time", "unit_time")).items()
}

# Penalties of the second picture; lambda_unit is held at what the default search chooses.
TIMES = (0.0, 0.25, 0.5, 1.0, 2.0)
NUCLEAR_NORMS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


def fit(table: pd.DataFrame, estimators: Sequence[str | dict[str, Any]]) -> Any:
    """Effects, cells and tuning path of California's panel."""
    roles = {**EXAMPLES["policies"].roles, "groups": ()}
    return PanelEffects(estimators=list(estimators), variances=[], seed=SEED, cells="all").fit(table, **roles)


def draw_estimators(table: pd.DataFrame, path: Path) -> float:
    """California with and without Proposition 99 by six estimators; returns the lambda_unit that dwcp chose."""
    result = fit(table, [{"name": name, "tuning": "loocv"} if name == "dwcp" else name for name in STYLES])
    cells = result.cells[result.cells["unit"] == "California"].assign(year=lambda rows: rows["time"].astype(int))
    effects = result.effects.set_index("estimator")
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    levels, gaps = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    observed = cells[cells["estimator"] == "did"].sort_values("year")
    levels.plot(observed["year"], observed["outcome"], color="black", linewidth=2.2, label="California, observed")
    ends = {}
    for name, (colour, dashes) in STYLES.items():
        rows = cells[cells["estimator"] == name].sort_values("year")
        levels.plot(
            rows["year"],
            rows["counterfactual"],
            color=colour,
            linestyle=dashes,
            linewidth=1.6,
            label=f"without, {name}",
        )
        late = rows[rows["year"] >= FIRST_TREATED - YEARS_BEFORE]
        gaps.plot(late["year"], late["effect"], color=colour, linestyle=dashes, linewidth=1.6)
        ends[name] = float(late["effect"].iloc[-1])
    for name, height in spread(ends, apart=2.1).items():
        text = f"{name} {effects.loc[name, 'estimate']:.1f}".replace("-", "\N{MINUS SIGN}")
        gaps.annotate(text, (2000.4, height), va="center", fontsize=8.5, color="black", annotation_clip=False)
    for axes in (levels, gaps):
        axes.axvline(FIRST_TREATED - 0.5, color="0.55", linewidth=0.8)
        axes.set_xlabel("Year")
    levels.annotate("first treated: 1989", (FIRST_TREATED, 128), fontsize=8, color="0.3")
    levels.set(
        title="Packs sold, and predicted without treatment", ylabel="Cigarette packs per head and year", ylim=(35, 133)
    )
    levels.set_xticks(range(1970, 2001, 10))
    levels.legend(loc="lower left", handlelength=3.4)
    gaps.axhline(0.0, color="0.55", linewidth=0.8)
    gaps.set(
        title="Effect, and its mean from 1989 on (ATT)",
        ylabel="Packs per head and year",
        xlim=(1984.5, 2004.6),
        ylim=(-38, 4),
    )
    gaps.set_xticks(range(1985, 2001, 5))
    finish(figure, (levels, gaps), path)
    return float(effects.loc["dwcp", "lambda_unit"])


def spread(heights: Mapping[str, float], apart: float) -> dict[str, float]:
    """The heights, those too close to the one below moved up, so that labels do not cover each other."""
    found: dict[str, float] = {}
    least = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        found[name] = least = max(height, least + apart)
    return found


def draw_criterion(table: pd.DataFrame, lambda_unit: float, path: Path) -> None:
    """The leave-one-out criterion of dwcp, and the effect, against lambda_nn, a line per lambda_time.

    Every combination is a search of its own with one candidate: in a common one those that are worse than the best
    before them are abandoned.
    """
    criterion, estimate = (np.empty((len(TIMES), len(NUCLEAR_NORMS))) for _ in range(2))
    for i, time in enumerate(TIMES):
        for k, nuclear_norm in enumerate(NUCLEAR_NORMS):
            result = fit(
                table,
                [
                    {
                        "name": "dwcp",
                        "lambda_time": [time],
                        "lambda_unit": [lambda_unit],
                        "lambda_nn": [nuclear_norm],
                        "tuning": "loocv",
                        "search": "grid",
                    }
                ],
            )
            criterion[i, k] = result.tuning_path["criterion"].iloc[0]
            estimate[i, k] = result.effects["estimate"].iloc[0]
    best = np.unravel_index(criterion.argmin(), criterion.shape)
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values in ((left, criterion), (right, estimate)):
        for i, time in enumerate(TIMES):
            axes.plot(
                NUCLEAR_NORMS,
                values[i],
                color=SEQUENCE[i],
                marker=MARKERS[i],
                markersize=4,
                linewidth=1.3,
                label=f"{time:g}",
            )
        axes.plot(
            NUCLEAR_NORMS[best[1]],
            values[best],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor="black",
            markeredgewidth=1.4,
            linestyle="none",
            label="chosen",
        )
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xticks(NUCLEAR_NORMS, labels=[f"{value:g}" for value in NUCLEAR_NORMS])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("lambda_nn (to the right: a richer low-rank part)")
    left.set(title="Leave-one-out criterion", ylabel="Mean squared error, in squared sd (log scale)", yscale="log")
    ticks = (0.01, 0.02, 0.05, 0.1)
    left.set_yticks(ticks, labels=[f"{value:g}" for value in ticks])
    left.set_yticks([], minor=True)
    left.legend(title="lambda_time", ncols=2)
    right.set(title="Estimate at the same penalties", ylabel="ATT, packs per head and year")
    finish(figure, (left, right), path)


def finish(figure: Figure, panels: Sequence[Axes], path: Path) -> None:
    """Write a picture with a common look."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(10)
    figure.savefig(path, dpi=140, pil_kwargs={"optimize": True})


def draw_coverage(path: Path) -> None:
    """Coverage by quartile of the true variance, from the table of the variance study."""
    table = pd.read_csv(STUDY)
    table = table[table["design"].isin([f"{target}_both_ar0.5" for target in TARGETS])]
    # With fewer draws lines would show chance.
    table = table[table["n"] >= FEWEST_DRAWS]
    estimators = [name for name in ("did", "sdid", "dwcp") if (table["estimator"] == name).any()]
    figure = Figure(figsize=(7.2, 1.0 + 1.75 * len(estimators)), layout="constrained")
    axes = figure.subplots(len(estimators), len(TARGETS), sharex=True, sharey=True, squeeze=False)
    for row, estimator in enumerate(estimators):
        for column, (target, title) in enumerate(TARGETS.items()):
            panel = axes[row, column]
            panel.axhspan(0.93, 0.97, color="0.9", linewidth=0)
            panel.axhline(0.95, color="0.6", linewidth=0.8)
            of_design = table[(table["design"] == f"{target}_both_ar0.5") & (table["estimator"] == estimator)]
            for name, (colour, dashes, marker) in VARIANCES.items():
                found = of_design[of_design["variance"] == name]
                coverage = found[[f"coverage_q{q}" for q in range(1, 5)]].to_numpy()[0]
                panel.plot(
                    range(1, 5), coverage, color=colour, linestyle=dashes, marker=marker, markersize=4, label=name
                )
            if row == 0:
                panel.set_title(title, fontsize=8.5)
            if column == 0:
                panel.set_ylabel(f"{estimator}\ncoverage")
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xticks(range(1, 5), ["quiet", "2nd", "3rd", "noisy"])
    for panel in axes[-1]:
        panel.set_xlabel("quarter of panels")
    axes[0, 0].legend(loc="lower left", fontsize=7)
    axes[0, 0].set_ylim(0.72, 1.01)
    figure.savefig(path, dpi=120, pil_kwargs={"optimize": True})


def main() -> None:
    """Draw all."""
    mpl.rcParams.update({"font.size": 8.5, "legend.frameon": False, "legend.fontsize": 8, "legend.title_fontsize": 8})
    IMAGES.mkdir(exist_ok=True)
    everything = load_example("policies")
    table = everything[everything["source"] == "prop99"]
    lambda_unit = draw_estimators(table, IMAGES / "prop99_estimators.png")
    draw_criterion(table, lambda_unit, IMAGES / "prop99_criterion.png")
    draw_coverage(IMAGES / "variance_coverage.png")


if __name__ == "__main__":
    main()
