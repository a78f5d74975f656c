"""Which node made an outlier: how often each rule names the cause (``make study-root-causes``).

Events of `studies.root_cause_designs`; a system, its ordinary rows and its events are one draw. Rows of single draws
are appended to a file that is committed beside the summary: a run can be stopped, continued and extended. Rules rank
the ancestors of the target by: the contribution with additive or with linear mechanisms, the absolute residual z, the
evidence that the job writes, and DoWhy's contribution, with linear mechanisms or, where they bend, boosted trees, on
some draws and events.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.machine import SINGLE_THREAD, append_rows, origin, read_rows
from causal_spark.root_cause.analysis import Analysis, RootCauseOptions
from causal_spark.root_cause.types import Floats, MechanismKind, NodeTable
from studies.root_cause_designs import DESIGNS, Incidents, System, draw_incidents, draw_system
from studies.root_causes_summary import write_summary
from studies.runner import missing_batches, reported, run_all

RESULTS = Path(__file__).resolve().parent / "results"
DRAWS = RESULTS / "root_causes_draws.csv"
N_DRAWS = 40
N_NODES, N_CAUSES = (10, 30), (1, 2)
N_ROWS, N_EVENTS = 2000, 15
#: DoWhy takes seconds for an event of ten nodes and minutes for one of thirty.
PEER_NODES, PEER_DRAWS, PEER_EVENTS = 10, 6, 3
#: Of all draws: no system was looked at that comes from it.
STUDY_SEED = 30_331
_OURS: Mapping[str, MechanismKind] = {"contribution": "additive", "contribution_linear": "linear"}


@dataclass(frozen=True, slots=True)
class Task:
    """One draw of one cell."""

    design: str
    n_nodes: int
    n_causes: int
    draw: int


def make(task: Task) -> tuple[System, NodeTable, Incidents]:
    """The system, its ordinary rows and its events."""
    place = list(DESIGNS).index(task.design)
    generator = np.random.default_rng([STUDY_SEED, place, task.n_nodes, task.n_causes, task.draw])
    system = draw_system(task.design, task.n_nodes, generator)
    rows = NodeTable(system.values(system.noise(generator, N_ROWS)), (0,) * task.n_nodes)
    return system, rows, draw_incidents(system, N_EVENTS, task.n_causes, generator)


def scores_of(task: Task, system: System, rows: NodeTable, events: NodeTable) -> Iterator[tuple[str, Floats, float]]:
    """Rules, scores (n_events, n_nodes) and CPU seconds."""
    target = system.graph.nodes[system.target]
    for rule, kind in _OURS.items():
        started = time.process_time()
        analysis = Analysis(system.graph, target, rows, RootCauseOptions(kind, n_refits=0), task.draw)
        found = analysis.events(events)
        yield rule, found.contributions, time.process_time() - started
        if kind == "additive":
            yield "residual_z", np.abs(found.residual_z), np.nan
            yield "evidence", found.evidence, np.nan
    if task.n_nodes == PEER_NODES and task.draw < PEER_DRAWS:
        some = events.rows(np.arange(min(PEER_EVENTS, events.n_rows)))
        linear = task.design != "nonlinear"
        started = time.process_time()
        contributions = dowhy_contributions(system, rows, some, task.draw, linear=linear)
        yield "dowhy_linear" if linear else "dowhy_boosted", contributions, time.process_time() - started


def dowhy_contributions(system: System, rows: NodeTable, events: NodeTable, seed: int, *, linear: bool) -> Floats:
    """(n_events, n_nodes) contributions by DoWhy at its default settings, with a two-sided score."""
    from dowhy import gcm

    from studies.dowhy_peer import fitted_model, frame_of

    gcm.util.general.set_random_seed(seed)
    names = list(system.graph.nodes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fitted_model(system, rows, linear=linear)
        found = gcm.attribute_anomalies(
            model,
            names[-1],
            frame_of(system, events),
            anomaly_scorer=gcm.anomaly_scorers.MedianCDFQuantileScorer(),
        )
    return np.stack([found[name] for name in names], axis=1)


def hits(scores: Floats, causes: Sequence[tuple[int, ...]], first: int) -> Floats:
    """(n_events,) share of the causes, or of as many of them as there are places, among the first so many."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :first]
    pairs = zip(order.tolist(), causes, strict=True)
    return np.array([len(set(best) & set(true)) / min(len(true), first) for best, true in pairs])


def run(task: Task, here: Mapping[str, str]) -> list[dict[str, object]]:
    """A row per rule."""
    system, rows, incidents = make(task)
    if not len(incidents.rows):
        return []
    events = NodeTable(incidents.rows, rows.n_levels)
    found = []
    for rule, scores, seconds in scores_of(task, system, rows, events):
        causes = incidents.causes[: len(scores)]
        found.append(
            {
                "design": task.design,
                "n_nodes": task.n_nodes,
                "n_causes": task.n_causes,
                "draw": task.draw,
                "rule": rule,
                "n_events": len(causes),
                "top_1": f"{hits(scores, causes, 1).mean():.4f}",
                "top_3": f"{hits(scores, causes, 3).mean():.4f}",
                # Of as many events as DoWhy was asked about.
                "top_1_first": f"{hits(scores[:PEER_EVENTS], causes[:PEER_EVENTS], 1).mean():.4f}",
                "top_3_first": f"{hits(scores[:PEER_EVENTS], causes[:PEER_EVENTS], 3).mean():.4f}",
                "cpu_seconds_per_event": "" if np.isnan(seconds) else f"{seconds / len(causes):.4f}",
                "commit": here["commit"],
                "machine": here["machine"],
            }
        )
    return found


def open_tasks(n_draws: int, store: Path) -> list[Task]:
    """What is not stored yet, one draw of each cell after the other."""
    cells = [(design, n_nodes, n_causes) for design in DESIGNS for n_nodes in N_NODES for n_causes in N_CAUSES]
    done: dict[tuple[str, int, int], set[int]] = {cell: set() for cell in cells}
    if store.is_file():
        known = read_rows(store)
        columns = [known[name] for name in ("design", "n_nodes", "n_causes", "draw")]
        for design, n_nodes, n_causes, draw in zip(*columns, strict=True):
            done[(str(design), int(n_nodes), int(n_causes))].add(int(draw))
    return [Task(*cell, numbers[0]) for cell, numbers in missing_batches(done, n_draws, lambda _: 1)]


def main(given: list[str]) -> None:
    """Run what is missing, then summarise all that is there."""
    parser = argparse.ArgumentParser(prog="python -m studies.root_causes", description=__doc__)
    parser.add_argument("--n", type=int, default=N_DRAWS, help="draws of each cell")
    parser.add_argument("--store", type=Path, default=DRAWS, help="file of single draws")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--summary-only", action="store_true")
    arguments = parser.parse_args(given)
    os.environ.update(SINGLE_THREAD)
    if not arguments.summary_only:
        tasks = open_tasks(arguments.n, arguments.store)
        done = run_all(partial(run, here=origin()), tasks, arguments.processes)
        for rows in reported(done, len(tasks), "draws", 20):
            if rows:
                append_rows(arguments.store, rows)
    notes = origin() | {"command": "python -m studies.root_causes", "study_seed": STUDY_SEED}
    print(write_summary(arguments.store, arguments.store.parent, notes))


if __name__ == "__main__":
    main(sys.argv[1:])
