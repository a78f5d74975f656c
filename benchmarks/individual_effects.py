"""Networks of many segments trained at once beside a loop, and new rows scored by stored models.

Training: both are the same function with the same numbers, in CPU seconds of one thread; the loop hands it one network
at a time, or one segment with all its networks. Segment k is a draw with seed k, 4 arms and 10 covariates.
Scoring: rows are made on the cluster and scored by `causal_spark.score` on local Spark; nothing of them is kept.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import RESULTS, ROOT, SCRATCH, SINGLE_THREAD, append_rows, origin
from benchmarks.response_curves import Case
from benchmarks.score_job import COVARIATES
from benchmarks.spark_job import submit

if TYPE_CHECKING:
    from causal_spark.multi_treatment.types import ArmSample

_N_ARMS, _N_COVARIATES = 4, 10
#: Networks side by side: more of them do not fit into the cache.
_STACK = 64


def samples_of(case: Case) -> list[tuple[ArmSample, np.ndarray]]:
    """Draws with their propensities."""
    return [sample_of(case.n_rows, seed) for seed in range(case.n_segments)]


def sample_of(n_rows: int, seed: int) -> tuple[ArmSample, np.ndarray]:
    """Arms by the first covariate, which raises the outcome; effects by the second."""
    from causal_spark.multi_treatment.types import ArmSample

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, _N_COVARIATES))
    chances = np.exp(0.5 * x[:, :1] * np.arange(_N_ARMS) / _N_ARMS)
    chances /= chances.sum(axis=1, keepdims=True)
    arm = (rng.random((n_rows, 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    means = x[:, :1] + 0.5 * np.arange(_N_ARMS) * np.tanh(x[:, 1:2])
    outcome = means[np.arange(n_rows), arm] + rng.normal(size=n_rows)
    return ArmSample(x, arm.astype(np.intp), outcome, _N_ARMS, False), chances


def single_networks(case: Case, matching: str, n_looped: int) -> dict[str, object]:
    """A network per segment, all side by side and one after the other, each trained to its end.

    n_looped: segments of the loop, whose time is scaled up to all.
    """
    import torch

    from causal_spark.multi_treatment.ensembles import NetworkOptions
    from causal_spark.multi_treatment.networks import Job, Networks, NetworkSpec, scaling_of, train_networks

    torch.set_num_threads(1)
    samples = [sample for sample, _ in samples_of(case)]
    scalings = [scaling_of(one) for one in samples]
    spec = NetworkSpec("shared", matching, 0.1 if matching != "none" else 0.0, 1e-2)  # type: ignore[arg-type]
    shape = NetworkOptions().shape_for(case.n_rows)

    def trained(places: Sequence[int]) -> Networks:
        jobs = [Job(k, spec, place, place, 0) for k, place in enumerate(places)]
        some = [samples[place] for place in places]
        return train_networks(some, [scalings[place] for place in places], jobs, shape)

    trained([0, 1])
    chunks = [range(start, min(start + _STACK, case.n_segments)) for start in range(0, case.n_segments, _STACK)]
    stacked, together = seconds_of(lambda: [trained(chunk) for chunk in chunks])
    loop, alone = seconds_of(lambda: [trained([place]) for place in range(n_looped)])
    inputs = [scaling.inputs(sample.covariates) for scaling, sample in zip(scalings, samples, strict=True)]
    apart = max(
        float(np.abs(together[k // _STACK].of([k % _STACK]).predict(inputs[k]) - alone[k].predict(inputs[k])).max())
        for k in range(n_looped)
    )
    return told(case, f"one network, {matching}", stacked, loop * case.n_segments / n_looped, n_looped, apart)


def whole_fits(case: Case, n_looped: int) -> dict[str, object]:
    """Everything that memento does, all segments side by side and one after the other."""
    import torch

    from causal_spark.multi_treatment.costs import SampleSize
    from causal_spark.multi_treatment.memento import MementoOptions, memento
    from causal_spark.multi_treatment.registry import ESTIMATORS

    torch.set_num_threads(1)
    drawn = samples_of(case)
    companions = ESTIMATORS["memento"].companions(SampleSize(case.n_rows, _N_COVARIATES, _N_ARMS))

    def fitted(places: Sequence[int]) -> list[Any]:
        some = [drawn[place] for place in places]
        return memento([one for one, _ in some], [one for _, one in some], MementoOptions(), list(places))

    chunks = [range(start, min(start + companions, n_looped)) for start in range(0, n_looped, companions)]
    stacked, together = seconds_of(lambda: [one for chunk in chunks for one in fitted(chunk)])
    loop, alone = seconds_of(lambda: [fitted([place])[0] for place in range(n_looped)])
    apart = max(
        float(np.abs(one.outcomes(drawn[k][0].covariates) - alone[k].outcomes(drawn[k][0].covariates)).max())
        for k, one in enumerate(together)
    )
    scale = case.n_segments / n_looped
    return told(case, f"memento, {companions} at once", stacked * scale, loop * scale, n_looped, apart)


def told(case: Case, what: str, stacked: float, loop: float, n_looped: int, apart: float) -> dict[str, object]:
    """A row of the table of trainings."""
    return {
        "segments": case.n_segments,
        "rows": case.n_rows,
        "what": what,
        "loop_cpu_s": round(loop, 1),
        "stacked_cpu_s": round(stacked, 1),
        "times_as_fast": round(loop / stacked, 2),
        "segments_looped": n_looped,
        "largest_difference": f"{apart:.1e}",
    }


def seconds_of(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what came of it."""
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def scoring(n_rows: int, with_trees: bool, cores: int, folder: Path) -> dict[str, object]:
    """Rows of 25 covariates scored by a stored memento of 2,000 rows and 4 arms."""
    models = folder / f"models_{'with' if with_trees else 'without'}_trees.parquet"
    if not models.exists():
        fit_model(models, with_trees)
    run = submit([str(ROOT / "benchmarks" / "score_job.py"), str(models), str(n_rows)], cores)
    return {
        "rows_scored": n_rows,
        "covariates": len(COVARIATES),
        "arms": _N_ARMS,
        "trees": "yes" if with_trees else "no",
        "model_kib": models.stat().st_size // 1024,
        "cores": cores,
        "rows_per_s": round(n_rows / run.wall),
        **{name: value for name, value in run.phases().items() if name.startswith(("job_s", "jvm", "worker", "total"))},
    }


def fit_model(path: Path, with_trees: bool) -> None:
    """A model of rows of the first design of the study, with the share of trees that it has there or without."""
    import pandas as pd

    from causal_spark import IndividualEffects
    from studies.arm_designs import ARM_DESIGNS

    drawn = ARM_DESIGNS["synth2k"].draw(2000, _N_ARMS, np.random.default_rng(1))
    frame = pd.DataFrame(drawn.covariates, columns=COVARIATES).assign(
        person=np.arange(2000), arm=drawn.arm, outcome=drawn.outcome
    )
    roles: dict[str, Any] = {"row_id": "person", "treatment": "arm", "outcome": "outcome", "covariates": COVARIATES}
    path.parent.mkdir(parents=True, exist_ok=True)
    method = {"name": "memento", "trees_from": 0 if with_trees else 10**9}
    models = IndividualEffects([method], control=0).fit(frame, **roles).models
    pd.DataFrame(models).to_parquet(path)


def main() -> None:
    """Append a row per case to the tables of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.individual_effects", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=["64x500", "1000x200"], help="segments x rows")
    parser.add_argument("--looped", type=int, default=64, help="segments of the loop over single networks, at most")
    parser.add_argument("--whole", type=int, default=16, help="segments of whole fits, at most; 0: none")
    parser.add_argument("--rows", nargs="*", type=int, default=[1_000_000, 10_000_000], help="rows to score")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    here = origin()

    def add(name: str, row: dict[str, object]) -> None:
        append_rows(arguments.results / name, [here | row])
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    for case in map(Case.parse, arguments.cases):
        for matching in ("none", "population"):
            add("individual_effects.csv", single_networks(case, matching, min(arguments.looped, case.n_segments)))
        if arguments.whole:
            add("individual_effects.csv", whole_fits(case, min(arguments.whole, case.n_segments)))
    for n_rows in arguments.rows:
        for with_trees in (False, True):
            add("scoring.csv", scoring(n_rows, with_trees, arguments.cores, SCRATCH / "scoring"))


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    main()
