"""Effects by learners of econml on draws of the study of individual effects (``make study-individual-effects-peers``).

They run in an environment of their own, see `studies.econml_peers`. Errors of memento on the same draws stand beside
theirs; as pairs of arms cannot be had from all of them, errors are those of effects against the control arm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.machine import ROOT, SINGLE_THREAD, origin
from causal_spark.multi_treatment.memento import MementoOptions, memento
from causal_spark.multi_treatment.propensity import fit_propensities
from causal_spark.multi_treatment.types import ArmSample, Floats
from studies.arm_designs import ARM_DESIGNS, ArmDraw
from studies.arm_draws import Task, make
from studies.individual_effects import RESULTS

PYTHON = ROOT / ".venv-econml" / "bin" / "python"
_N_FOLDS = 5


def effects_of(task: Task, seen: ArmDraw, fresh: ArmDraw) -> Iterator[tuple[str, Floats, float]]:
    """Methods, effects (n_fresh, n_arms) and seconds; those of memento are not timed."""
    sample = ArmSample(seen.covariates, seen.arm, seen.outcome, task.n_arms, False)
    with threadpool_limits(1):
        chances, _ = fit_propensities(sample, _N_FOLDS, task.draw)
        outcomes = memento([sample], [chances], MementoOptions(), [task.draw])[0].outcomes(fresh.covariates)
    yield "memento", outcomes - outcomes[:, :1], math.nan
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "draw.npz", Path(folder) / "effects.npz"
        np.savez(source, covariates=seen.covariates, arm=seen.arm, outcome=seen.outcome, fresh=fresh.covariates)
        script = str(ROOT / "studies" / "econml_peers.py")
        subprocess.run([str(PYTHON), script, str(source), str(target)], check=True)  # noqa: S603
        found = np.load(target)
        for name in (one for one in found.files if not one.endswith("_seconds")):
            yield name, found[name], float(found[f"{name}_seconds"])


def rows_of(task: Task) -> Iterator[dict[str, object]]:
    """A row per method."""
    seen, fresh = make(task)
    truth = fresh.means - fresh.means[:, :1]
    for name, effects, seconds in effects_of(task, seen, fresh):
        errors = (effects - truth)[:, 1:]
        yield {
            "design": task.design,
            "n_arms": task.n_arms,
            "draw": task.draw,
            "method": name,
            "root_pehe": float(np.sqrt(np.mean(errors**2))),
            "ate_error": float(np.abs(errors.mean(axis=0)).mean()),
            "seconds": seconds,
        }


def main() -> None:
    """Run all and write ``results/individual_effects_peers.csv``."""
    parser = argparse.ArgumentParser(prog="python -m studies.individual_effects_peers", description=__doc__)
    parser.add_argument("--designs", nargs="+", choices=list(ARM_DESIGNS), default=list(ARM_DESIGNS))
    parser.add_argument("--arms", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--n", type=int, default=5, help="draws of each cell, the first of the study")
    arguments = parser.parse_args()
    os.environ.update(SINGLE_THREAD)
    tasks = [Task(d, k, draw) for draw in range(arguments.n) for d in arguments.designs for k in arguments.arms]
    rows = [row for task in tasks for row in rows_of(task)]
    table = pd.DataFrame(rows)
    own = table[table["method"] == "memento"].set_index(["design", "n_arms", "draw"])["root_pehe"]
    table["log_ratio"] = np.log(own.reindex(pd.MultiIndex.from_frame(table[["design", "n_arms", "draw"]])).to_numpy())
    table["log_ratio"] -= np.log(table["root_pehe"])
    groups = table.groupby(["design", "n_arms", "method"], sort=False)
    summary = groups[["root_pehe", "ate_error", "seconds"]].mean()
    summary["memento_over_it"] = np.exp(groups["log_ratio"].mean())
    summary["log_error"] = groups["log_ratio"].std() / math.sqrt(arguments.n)
    summary.reset_index().to_csv(
        RESULTS / "individual_effects_peers.csv", index=False, float_format="%.4f", lineterminator="\n"
    )
    about = origin() | {"command": " ".join(["python -m studies.individual_effects_peers", *sys.argv[1:]])}
    (RESULTS / "individual_effects_peers.json").write_text(json.dumps(about, indent=2) + "\n")
    print(summary.round(3).to_string())


if __name__ == "__main__":
    main()
