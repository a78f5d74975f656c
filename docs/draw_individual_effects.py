"""Draw the picture of docs/individual_effects.md into docs/images: part of `make pictures`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark import IndividualEffects
from causal_spark.examples import EXAMPLES, load_example

IMAGES = Path(__file__).parent / "images"
SEED = 20226
COSTS = {"under_1": 0.05, "1_to_2": 0.16, "over_2": 0.25}
#: Colour and label of each arm.
ARMS: Mapping[str, tuple[str, str]] = {
    "under_1": ("#E69F00", "up to 1 dollar"),
    "1_to_2": ("#0072B2", "1 to 2 dollars"),
    "over_2": ("#009E73", "2 to 3 dollars"),
}
POLICIES: Mapping[str, str] = {
    "none": "nothing for anybody",
    "all:over_2": "2 to 3 dollars for all",
    "all:under_1": "up to 1 dollar for all",
    "all:1_to_2": "1 to 2 dollars for all",
    "policy": "the policy",
}


def draw_incentives(path: Path) -> None:
    """Effects of incentives on learning the result of a test: of single people, on the mean, and of policies."""
    people = load_example("hiv_results")
    result = IndividualEffects(control="none", seed=SEED).fit(people, costs=COSTS, **EXAMPLES["hiv_results"].roles)
    figure = Figure(figsize=(7.4, 2.9), layout="constrained")
    effects, single, worth = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
    draw_means(effects, pd.DataFrame(result.arm_effects))
    draw_single(single, pd.DataFrame(result.individual_effects), people)
    draw_values(worth, pd.DataFrame(result.policy_values))
    for axes in (effects, single, worth):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(8.5)
    figure.savefig(path, dpi=130, pil_kwargs={"optimize": True})


def draw_means(axes: Axes, table: pd.DataFrame) -> None:
    """Mean effects of arms with intervals, and differences of means."""
    mine = table[table["reference"] == "none"].set_index("treatment")
    for place, (arm, (colour, _)) in enumerate(ARMS.items()):
        row = mine.loc[arm]
        axes.plot([100 * row["conf_low"], 100 * row["conf_high"]], [place] * 2, color=colour, linewidth=2)
        axes.plot(100 * row["estimate"], place, "o", color=colour, markersize=6, label="doubly robust, 95%")
        axes.plot(
            100 * row["difference_in_means"],
            place - 0.25,
            "D",
            color="white",
            markeredgecolor="0.3",
            markersize=5,
            label="difference of means",
        )
    axes.set_yticks(range(len(ARMS)), [label for _, label in ARMS.values()])
    axes.set_ylim(-0.9, len(ARMS) - 0.5)
    axes.set_xlabel("more people who came, points")
    axes.set_title("mean effect of each arm")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], loc="lower left", bbox_to_anchor=(-0.02, -0.02))


def draw_single(axes: Axes, table: pd.DataFrame, people: pd.DataFrame) -> None:
    """Effects of single people by distance."""
    joined = table.merge(people.assign(row_id=people["person"].astype(str))[["row_id", "distance"]], on="row_id")
    for arm, (colour, label) in ARMS.items():
        mine = joined[joined["treatment"] == arm]
        axes.plot(mine["distance"], 100 * mine["effect"], ".", color=colour, markersize=1.6, alpha=0.35)
        bins = pd.cut(mine["distance"], np.arange(0.0, 5.6, 0.5))
        curve = mine.groupby(bins, observed=True)[["distance", "effect"]].mean()
        axes.plot(curve["distance"], 100 * curve["effect"], color=colour, linewidth=1.6, label=label)
    axes.set_xlabel("km to where results were told")
    axes.set_ylabel("more likely to come, points")
    axes.set_title("effects on single people")


def draw_values(axes: Axes, table: pd.DataFrame) -> None:
    """Gains of policies over giving nobody anything, with intervals."""
    mine = table.set_index("policy")
    for place, policy in enumerate(POLICIES):
        row = mine.loc[policy]
        colour = "#CC79A7" if policy == "policy" else ARMS.get(policy.removeprefix("all:"), ("0.4", ""))[0]
        axes.plot([100 * row["conf_low"], 100 * row["conf_high"]], [place] * 2, color=colour, linewidth=2)
        axes.plot(100 * row["value"], place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(POLICIES)), list(POLICIES.values()))
    axes.set_xlabel("% who come, less costs")
    axes.set_title("what policies are worth")


def main() -> None:
    """Draw all."""
    mpl.rcParams.update({"font.size": 8, "legend.frameon": False, "legend.fontsize": 7})
    IMAGES.mkdir(exist_ok=True)
    draw_incentives(IMAGES / "hiv_incentives.png")


if __name__ == "__main__":
    main()
