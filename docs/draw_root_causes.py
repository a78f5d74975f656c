"""Draw the picture of docs/root_causes.md into docs/images: part of `make pictures`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark import RootCauses
from causal_spark.config import load_config
from causal_spark.examples import load_example
from causal_spark.root_causes_job import RootCausesConfig

IMAGES = Path(__file__).parent / "images"
SHIPPED = Path(__file__).parent.parent / "conf" / "root_causes.yaml"
EVENT = "2013-07-22 18h"
#: Where each node stands: columns from cause to effect.
PLACES: Mapping[str, tuple[float, float]] = {
    "precipitation": (0, 2.6),
    "hour": (0, 0.4),
    "visibility": (1.15, 3.2),
    "wind_speed": (1.15, 1.7),
    "flights": (1.15, 0.0),
    "earlier_delay": (2.45, 2.3),
    "departure_delay": (3.75, 1.2),
    "arrival_delay": (5.0, 2.3),
}
AIRPORTS: Mapping[str, str] = {"EWR": "#0072B2", "JFK": "#E69F00", "LGA": "#009E73"}


def draw_flights(path: Path) -> None:
    """Contributions to the delays of one hour on the graph, and to those of a week with fewer controllers."""
    config = load_config(RootCausesConfig, str(SHIPPED))
    hours = load_example("flights")
    day = pd.to_datetime(hours["day"])
    incident = day.isin(pd.to_datetime(["2013-03-08", "2013-07-22", "2013-12-05"]))
    furlough = day.between("2013-04-22", "2013-04-26")
    result = RootCauses(config.edges_checked(), config.target, tail=config.tail, seed=config.seed).fit(
        hours[~incident & ~furlough],
        hours[(hours["departure_hour"] == EVENT) & (hours["airport"] == "LGA")],
        changed=hours[furlough],
        event_id="departure_hour",
        groups=["airport"],
    )
    figure = Figure(figsize=(7.6, 3.1), layout="constrained")
    graph, change = figure.subplots(1, 2, width_ratios=(1.45, 1))
    draw_graph(graph, pd.DataFrame(result.root_causes), config.edges_checked())
    draw_change(change, pd.DataFrame(result.distribution_changes))
    figure.savefig(path, dpi=130, pil_kwargs={"optimize": True})


def draw_graph(axes: Axes, causes: pd.DataFrame, edges: tuple[tuple[str, str], ...]) -> None:
    """Nodes, shaded by their contribution to the outlier score of the event."""
    mine = causes.set_index("node")
    score = float(mine["outlier_score"].iloc[0])
    shades = mpl.colormaps["Oranges"]
    for cause, effect in edges:
        axes.annotate(
            "",
            PLACES[effect],
            PLACES[cause],
            arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 17, "shrinkB": 19, "linewidth": 0.7},
        )
    for node, place in PLACES.items():
        share = float(mine.loc[node, "contribution"]) / score
        colour = shades(0.05 + 0.8 * min(max(share, 0.0), 0.75) / 0.75)
        label = f"{node.replace('_', chr(10))}\n{round(100 * share) + 0}%"
        axes.text(
            *place,
            label,
            ha="center",
            va="center",
            fontsize=6.5,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "0.35", "linewidth": 0.7},
        )
    axes.set_xlim(-0.55, 5.5)
    axes.set_ylim(-0.6, 3.8)
    axes.axis("off")
    delay = f"LGA, {EVENT.replace('h', ':00')}: a gear had collapsed on the runway at 17:40\n"
    axes.set_title(f"{delay}share of the outlier score of departure_delay", fontsize=8)


def draw_change(axes: Axes, changes: pd.DataFrame) -> None:
    """Contributions of mechanisms to the change of the mean in the week of furloughs, with intervals."""
    means = changes[changes["functional"] == "mean"]
    nodes = [node for node in reversed(PLACES) if node != "arrival_delay"]
    for number, (airport, colour) in enumerate(AIRPORTS.items()):
        mine = means[means["airport"] == airport].set_index("node").loc[nodes]
        height = np.arange(len(nodes)) + 0.25 * (1 - number)
        axes.hlines(height, mine["conf_low"], mine["conf_high"], color=colour, linewidth=1.6)
        axes.plot(mine["contribution"], height, "o", color=colour, markersize=4, label=airport)
    axes.axvline(0, color="0.4", linewidth=0.7)
    axes.set_yticks(range(len(nodes)), [node.replace("_", " ") for node in nodes], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("minutes of mean departure delay, 95%", fontsize=7)
    axes.set_title("Furlough of controllers, 22 to 26 April:\nwhat each mechanism added", fontsize=8)
    axes.legend(fontsize=6.5, frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_flights(IMAGES / "flight_delays.png")
