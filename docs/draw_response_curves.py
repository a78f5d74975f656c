"""Draw the picture of docs/response_curves.md into docs/images: part of `make pictures`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark import ResponseCurves
from causal_spark.examples import EXAMPLES, load_example
from causal_spark.plots.style import looks

IMAGES = Path(__file__).parent / "images"
SEED = 20211
GRID = tuple(range(5, 41))
OUTCOME, LABEL = "weight_change", "kg gained by 1982"
LABELS = {"unweighted": "unweighted", "e2b": "e2b, 95% band"}
#: Colour, dashes and label of each weighting.
STYLES = {name: (look.colour, look.dashes, LABELS[name]) for name, look in looks(LABELS).items()}


def draw_smoking(path: Path) -> None:
    """Weight gained by cigarettes per day, by sex and age, with bands, and how common each dose is under each."""
    everything = load_example("smoking")
    table = everything[everything["outcome_name"] == OUTCOME].dropna(subset=["outcome"])
    roles = {**EXAMPLES["smoking"].roles, "groups": ("sex", "age_band")}
    curves = ResponseCurves(list(STYLES), seed=SEED).fit(table, grid=GRID, **roles).curves
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    bands = sorted(table["age_band"].unique())
    axes = figure.subplots(4, len(bands), sharex=True, sharey="row", height_ratios=(3, 1, 3, 1))
    for row, sex in enumerate(("female", "male")):
        for column, band in enumerate(bands):
            chosen = (table["sex"] == sex) & (table["age_band"] == band)
            mine = curves[(curves["sex"] == sex) & (curves["age_band"] == band)]
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            draw_curve(above, mine)
            above.set_title(f"{'women' if sex == 'female' else 'men'}, {band}: {int(chosen.sum())} persons")
            draw_doses(below, table.loc[chosen, "cigarettes"])
            if column == 0:
                above.set_ylabel(LABEL)
                below.set_ylabel("persons")
    for panel in axes[-1]:
        panel.set_xlabel("cigarettes per day in 1971")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(STYLES))
    figure.savefig(path, dpi=120, pil_kwargs={"optimize": True})


def draw_curve(axes: Axes, curves: pd.DataFrame) -> None:
    """Curves of one group; the last in the list has its band."""
    axes.axhline(0, color="0.8", linewidth=0.8)
    for name, (colour, dashes, label) in STYLES.items():
        mine = curves[curves["estimator"] == name].sort_values("dose")
        if name == "e2b":
            axes.fill_between(mine["dose"], mine["conf_low"], mine["conf_high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(mine["dose"], mine["estimate"], color=colour, linestyle=dashes, linewidth=1.5, label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(8.5)


def draw_doses(axes: Axes, doses: pd.Series) -> None:
    """How many persons had each dose: little is known where there are few."""
    counts, edges = np.histogram(doses, bins=np.arange(0.0, 43.0, 2.5) + 1.25)
    axes.bar((edges[:-1] + edges[1:]) / 2, counts, width=2.2, color="0.6")
    axes.set_xlim(3.5, 41.5)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw all."""
    mpl.rcParams.update({"font.size": 8.5, "legend.frameon": False, "legend.fontsize": 8})
    IMAGES.mkdir(exist_ok=True)
    draw_smoking(IMAGES / "smoking_curves.png")


if __name__ == "__main__":
    main()
