"""Coverage of all intervals where noise is like that of real panels, beside the published (``make study-coverage``).

Arkhangelsky, Athey, Hirshberg, Imbens, Wager (AER 2021), table 4: panels simulated from a model fitted to real ones,
the effect zero, 95% intervals. The table has placebo, jackknife and bootstrap. Draws are stored in a work folder, so
that a run can be stopped, continued and extended; the summary of all that is there goes to ``studies/results``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import SINGLE_THREAD, append_rows, origin, read_rows
from causal_spark.errors import GroupError
from causal_spark.panel.inference import interval
from causal_spark.panel.jackknife import JackknifeOptions
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates, Setting
from causal_spark.panel.simulation import Assignment, Simulation, SimulationOptions, fit_simulation
from causal_spark.panel.summary import att
from causal_spark.panel.types import Panel
from studies.designs import observed_panel, seed_of
from studies.runner import reported, run_all

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
#: Rows of single draws; ignored by git.
WORK = ROOT / "artifacts" / "studies" / "coverage"
#: Coverage in 400 draws, from the authors' stored results.
PUBLISHED = Path(__file__).resolve().parent / "published_coverage.csv"
_PUBLISHED_DRAWS = 400

STUDY_SEED = 20261126
NAMES = ("did", "sc", "sdid", "difp")
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class CoverageDesign:
    """A row of the published table.

    source, outcome: the panel; policy: column that treated units are drawn like, None for equal probabilities.
    n_treated, n_post: units treated at most, and periods. n_units: units drawn from the panel's with replacement, None
    for the panel's own.
    """

    source: str
    outcome: str
    policy: str | None
    n_treated: int = 10
    n_post: int = 10
    n_units: int | None = None


_BASELINE = CoverageDesign("cps_placebo", "log_wage", "min_wage")
_PENN = CoverageDesign("pwt_placebo", "log_gdp", "dem")
#: By the table's names of rows.
DESIGNS = {
    "baseline": _BASELINE,
    "gun.law": replace(_BASELINE, policy="open_carry"),
    "abortion": replace(_BASELINE, policy="abort_ban"),
    "random": replace(_BASELINE, policy=None),
    "hours": replace(_BASELINE, outcome="hours"),
    "urate": replace(_BASELINE, outcome="urate"),
    "T1.is.one": replace(_BASELINE, n_post=1),
    "N1.is.one": replace(_BASELINE, n_treated=1),
    "blocksize.is.one": replace(_BASELINE, n_treated=1, n_post=1),
    "penn.democracy": _PENN,
    "penn.education": replace(_PENN, policy="educ"),
    "penn.random": replace(_PENN, policy=None),
    # A tenth of them, at random: published biases are nothing, and RMSEs fall like one over the root of the units.
    "resample.200": replace(_BASELINE, policy=None, n_units=200, n_treated=20),
    "resample.400": replace(_BASELINE, policy=None, n_units=400, n_treated=40),
}


#: Every variance as by default, and the jackknife with weights fitted anew, by the name it has in the table.
METHODS: dict[str, tuple[str, Any]] = {name: (name, one.options()) for name, one in VARIANCES.items()}
METHODS["jackknife_fitted"] = ("jackknife", JackknifeOptions(weights="fitted"))


@dataclass(frozen=True, slots=True)
class Task:
    """One draw of one design, and the variances that are wanted of it."""

    design: str
    number: int
    methods: tuple[str, ...] = tuple(METHODS)


@cache
def model_of(design: CoverageDesign) -> Simulation:
    """The model fitted to a panel, and who is treated."""
    panel, having = observed_panel(design.source, design.outcome, design.policy)
    assignment: Assignment = "uniform" if design.policy is None else "factors"
    options = SimulationOptions(assignment, treated_units=design.n_treated, treated_periods=design.n_post)
    return fit_simulation(panel, options, having)


def draw(design: CoverageDesign, seed: int) -> Panel:
    """One panel without an effect, outcomes in standard deviations of the design's panel."""
    if design.n_units is None:
        return model_of(design).draw(seed).panel
    # As many units may be treated as the panel itself would have left.
    model = model_of(replace(design, n_treated=1))
    units = np.random.default_rng([seed, 1]).integers(0, model.template.n_units, size=design.n_units)
    return replace(model.of_units(units), n_treated=design.n_treated).draw(seed).panel


def run(task: Task) -> list[dict[str, object]]:
    """A row per estimator and variance: estimate, standard error (empty where declined), whether zero is covered."""
    seed = seed_of(STUDY_SEED, task.design, task.number)
    panel = draw(DESIGNS[task.design], seed)
    rows: list[dict[str, object]] = []
    for name in NAMES:
        definition = ESTIMATORS[name]
        options = definition.options()
        fit = definition.fit(panel, options, None, seed)
        estimate = att(panel, fit)
        setting = Setting(panel, definition, options, fit, partial(seed_of, seed))
        wanted = {method: (VARIANCES[METHODS[method][0]], METHODS[method][1]) for method in task.methods}
        sets = [one for variance, chosen in wanted.values() for one in variance.sets(chosen)]
        replicates = Replicates(setting, sets)
        for method, (variance, chosen) in wanted.items():
            row: dict[str, object] = {"design": task.design, "draw": task.number, "estimator": name, "variance": method}
            try:
                found = variance.estimate(setting, chosen, replicates).att
            except GroupError:
                rows.append(row | {"estimate": estimate, "std_error": "", "covered": ""})
                continue
            around = interval(estimate, found.std_error, found.df, _LEVEL)
            covered = int(around.conf_low <= 0.0 <= around.conf_high)
            rows.append(row | {"estimate": estimate, "std_error": found.std_error, "covered": covered})
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per design, estimator and variance, beside the published coverage.

    rows: as `run` makes them. ``z``: difference over the standard errors of both, combined.
    """
    known = rows.dropna(subset=["covered"])
    found = known.groupby(["design", "variance", "estimator"]).agg(
        n=("covered", "size"),
        coverage=("covered", "mean"),
        mean_std_error=("std_error", "mean"),
        sd_of_estimates=("estimate", "std"),
    )
    declined = rows[rows["covered"].isna()].groupby(["design", "variance", "estimator"]).size()
    found = found.join(declined.rename("declined"), how="outer").fillna({"declined": 0, "n": 0})
    published = pd.read_csv(PUBLISHED).melt(["variance", "design"], var_name="estimator", value_name="published")
    found = found.reset_index().assign(
        method=lambda table: table["variance"].map({k: v[0] for k, v in METHODS.items()})
    )
    published = published.rename(columns={"variance": "method"})
    found = found.merge(published, how="left", on=["design", "method", "estimator"]).drop(columns="method")
    # With both at the mean of the two, so that a coverage of 1 has an error.
    pooled = (found["coverage"] * found["n"] + found["published"] * _PUBLISHED_DRAWS) / (found["n"] + _PUBLISHED_DRAWS)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / found["n"].clip(lower=1) + 1.0 / _PUBLISHED_DRAWS))
    found["z"] = (found["coverage"] - found["published"]) / error
    order = {name: place for place, name in enumerate(DESIGNS)}
    found = found.sort_values("design", key=lambda names: names.map(order), kind="stable")
    return found.sort_values("variance", kind="stable", ignore_index=True).astype({"n": int, "declined": int})


def store_of(design: str) -> Path:
    """Where draws of a design are kept."""
    return WORK / f"{design}.csv"


def open_tasks(designs: list[str], n: int) -> list[Task]:
    """What is not stored yet of n draws, designs in turn."""
    done: dict[str, set[tuple[int, str]]] = {}
    for design in designs:
        path = store_of(design)
        rows = read_rows(path) if path.is_file() else pd.DataFrame({"draw": [], "variance": []})
        done[design] = set(zip(rows["draw"], rows["variance"], strict=True))
    tasks = []
    for number in range(n):
        for design in designs:
            missing = tuple(method for method in METHODS if (number, method) not in done[design])
            tasks += [Task(design, number, missing)] if missing else []
    return tasks


def arguments_of(given: list[str]) -> argparse.Namespace:
    """Command line of the study."""
    parser = argparse.ArgumentParser(prog="python -m studies.coverage", description=__doc__)
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--n", type=int, default=400, help="draws per design")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--summary-only", action="store_true")
    return parser.parse_args(given)


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    arguments = arguments_of(given)
    os.environ.update(SINGLE_THREAD)
    here = origin()
    tasks = [] if arguments.summary_only else open_tasks(arguments.designs, arguments.n)
    for rows in reported(run_all(run, tasks, arguments.processes), len(tasks), "draws", 100):
        append_rows(store_of(str(rows[0]["design"])), [row | {"commit": here["commit"]} for row in rows])
    parts = [read_rows(path) for path in sorted(WORK.glob("*.csv"))]
    if not parts:
        raise SystemExit("There is nothing to summarise yet.")
    rows_kept = pd.concat(parts, ignore_index=True)
    table = summarise(rows_kept)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(RESULTS / "coverage.csv", index=False)
    notes = here | {"command": "python -m studies.coverage " + " ".join(given), "study_seed": STUDY_SEED}
    notes |= {"commits": sorted(set(rows_kept["commit"]))}
    (RESULTS / "coverage_run.json").write_text(json.dumps(notes, indent=1) + "\n")
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
