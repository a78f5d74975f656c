"""Draw the pictures of docs/estimator_study.md into docs/images: part of `make pictures`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal_spark import EstimatorStudy
from causal_spark.examples import EXAMPLES, load_example
from causal_spark.plots.style import looks

IMAGES = Path(__file__).parent / "images"
#: Result of `make horse-race`.
RACE = Path(__file__).parent.parent / "studies" / "results" / "horse_race.csv"
SEED = 20227
#: By which power is judged, in packs.
EFFECT = 30.0
#: Beyond this an estimator's mark stands at the edge, with its figure.
_MOST = 3.0

#: Sizes of the marks, which look equally large.
SIZES = {"did": 5, "sc": 4.5, "difp": 4.5, "mc": 5, "sdid": 5.5, "dwcp": 6, "dwcp_constant": 6, "dwcp_adaptive": 10}
MARKS = {name: (look.colour, look.mark, SIZES[name]) for name, look in looks(SIZES).items()}
SHAPES = {"constant": "the effect is constant", "ramp_0.2": "the effect rises by .4 standard deviations"}
DESIGNS = {
    "cps_log_wage": "wages,\nlike min. wage",
    "cps_log_wage_gun": "wages,\nlike open carry",
    "cps_log_wage_abortion": "wages,\nlike abortion ban",
    "cps_log_wage_random": "wages,\nrandom",
    "cps_urate": "unemployment,\nlike min. wage",
    "cps_hours": "hours,\nlike min. wage",
    "pwt_democracy": "GDP,\nlike democracies",
    "pwt_education": "GDP,\nlike educated",
    "pwt_random": "GDP,\nrandom",
    "smoking_random": "smoking,\nrandom",
    "smoking_simulated": "smoking,\nlike donors",
    "smoking_treated_unit": "smoking,\nCalifornia",
    "castle_law": "homicides,\nlike the law's",
    "castle_random": "homicides,\nrandom",
    "texas_random": "prison,\nrandom",
    "texas_simulated": "prison,\nlike donors",
    "texas_treated_unit": "prison,\nTexas",
}
VARIANCES = {
    name: (look.colour, look.dashes, look.mark) for name, look in looks(("placebo", "marginal", "unit_time")).items()
}
QUARTERS = ("quietest", "second", "third", "noisiest")


def draw_race(path: Path) -> None:
    """RMSE over that of the best, data sets across, estimators as marks."""
    table = pd.read_csv(RACE)
    figure = Figure(figsize=(9.2, 5.4), layout="constrained")
    rows = figure.subplots(2, 1, sharex=True)
    for axes, (shape, title) in zip(rows, SHAPES.items(), strict=True):
        draw_shape(axes, table[table["shape"] == shape], title)
    rows[-1].set_xticks(range(len(DESIGNS)), list(DESIGNS.values()), rotation=60, ha="right", rotation_mode="anchor")
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(MARKS), columnspacing=1.0, handletextpad=0.2)
    figure.savefig(path, dpi=120, pil_kwargs={"optimize": True})


def draw_shape(axes: Axes, table: pd.DataFrame, title: str) -> None:
    """One kind of effect."""
    wide = table.pivot_table(index="design", columns="estimator", values="normalised_rmse").reindex(DESIGNS)
    axes.axhspan(0.97, 1.0, color="0.93", linewidth=0)
    for place in range(len(DESIGNS)):
        axes.axvline(place, color="0.9", linewidth=0.6, zorder=0)
    for name, (colour, mark, size) in MARKS.items():
        values = wide[name].to_numpy()
        front = 4 if name == "dwcp_adaptive" else 3
        style = {"color": colour, "marker": mark, "markersize": size, "markeredgecolor": "black"}
        axes.plot(
            range(len(DESIGNS)),
            np.minimum(values, _MOST),
            linestyle="",
            markeredgewidth=0.4,
            label=name,
            zorder=front,
            **style,
        )
    axes.set_yscale("log")
    axes.set_ylim(0.97, _MOST * 1.04)
    ticks = [1.0, 1.2, 1.5, 2.0, _MOST]
    axes.set_yticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), f"{_MOST:g}+"])
    axes.minorticks_off()
    axes.set_ylabel("RMSE over the best one's")
    axes.set_title(title)


def draw_variances(path: Path) -> None:
    """Coverage, power and width of intervals by how noisy the treated unit is, for Proposition 99."""
    table = load_example("policies")
    study = EstimatorStudy(
        estimators=["did"],
        variances=list(VARIANCES),
        designs=["heteroskedastic"],
        effects=["constant"],
        replicates=2000,
        effect=EFFECT,
        seed=SEED,
    )
    roles = EXAMPLES["policies"].roles
    found = pd.DataFrame(study.fit(table[table["source"] == "prop99"], **roles).variances)
    figure = Figure(figsize=(7.4, 2.7), layout="constrained")
    for axes, (column, label) in zip(
        figure.subplots(1, 3),
        {"coverage": "% that hold the effect", "power": "% that find it", "mean_width": "mean width, packs"}.items(),
        strict=True,
    ):
        for name, (colour, dashes, mark) in VARIANCES.items():
            mine = found[(found["variance_estimator"] == name) & (found["noise_quartile"] > 0)]
            values = mine.sort_values("noise_quartile")[column] * (1 if column == "mean_width" else 100)
            axes.plot(range(4), values, color=colour, linestyle=dashes, marker=mark, markersize=4, label=name)
        axes.set_xticks(range(4), QUARTERS)
        axes.set_xlabel("quarter of draws by noise")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    coverage, power, _ = figure.axes
    coverage.axhline(95, color="0.7", linewidth=0.8, zorder=0)
    coverage.set_title("95% intervals")
    power.set_title(f"an effect of {EFFECT:.0f} packs")
    coverage.legend(loc="lower left")
    figure.savefig(path, dpi=130, pil_kwargs={"optimize": True})


def main() -> None:
    """Draw all."""
    mpl.rcParams.update({"font.size": 8, "legend.frameon": False, "legend.fontsize": 7, "axes.titlesize": 8.5})
    IMAGES.mkdir(exist_ok=True)
    draw_race(IMAGES / "horse_race.png")
    draw_variances(IMAGES / "study_variances.png")


if __name__ == "__main__":
    main()
