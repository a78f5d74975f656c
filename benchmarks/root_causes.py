"""Root causes of many events at once beside DoWhy (``make bench-root-causes``): CPU seconds per event.

A random graph of ten nodes, all of them ancestors of the target, and 2,000 ordinary rows, as in
`studies.root_cause_designs`. DoWhy at its defaults, and at the best settings found: ten random permutations and a
scorer that sorts once. Neither makes intervals. ``--segments`` runs as many segments of twenty events through the
engine's work, one after the other in this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.machine import RESULTS, SINGLE_THREAD, append_rows, origin
from causal_spark.root_cause.analysis import Analysis, RootCauseOptions
from causal_spark.root_cause.types import Floats, MechanismKind, NodeTable
from studies.root_cause_designs import System, draw_system

N_NODES, N_ROWS = 10, 2000
_SEED = 71_003
_DESIGNS: Mapping[MechanismKind, str] = {"linear": "linear", "additive": "nonlinear"}


class SortedDistance:
    """How far from the median a value is, as a tail probability read from sorted distances."""

    def fit(self, values: Floats) -> None:
        """Sort the distances of (n,) values."""
        self.median = float(np.median(values))
        self.distances = np.sort(np.abs(np.asarray(values).reshape(-1) - self.median))

    def score(self, values: Floats) -> Floats:
        """(n,) minus the log tail probabilities."""
        distances = np.abs(np.asarray(values).reshape(-1) - self.median)
        above = len(self.distances) - np.searchsorted(self.distances, distances, side="left")
        return np.asarray(-np.log((above + 0.5) / (len(self.distances) + 0.5)))


def drawn(design: str, n_events: int) -> tuple[System, NodeTable, NodeTable]:
    """A system, ordinary rows, and rows that are as extreme as their most extreme ones."""
    generator = np.random.default_rng(_SEED)
    system = draw_system(design, N_NODES, generator)
    levels = (0,) * N_NODES
    rows = NodeTable(system.values(system.noise(generator, N_ROWS)), levels)
    events = NodeTable(system.values(2.5 * system.noise(generator, n_events)), levels)
    return system, rows, events


def ours(kind: MechanismKind, n_events: int, seed: int) -> Callable[[], object]:
    """Fit and attribution of all events."""
    system, rows, events = drawn(_DESIGNS[kind], n_events)
    target = system.graph.nodes[system.target]
    options = RootCauseOptions(kind, n_refits=0)
    return lambda: Analysis(system.graph, target, rows, options, seed).events(events)


def dowhys(kind: MechanismKind, n_events: int, *, best: bool) -> Callable[[], object]:
    """Attribution of all events by a model that was fitted before."""
    from dowhy import gcm

    from studies.dowhy_peer import fitted_model, frame_of

    system, rows, events = drawn(_DESIGNS[kind], n_events)
    model = fitted_model(system, rows, linear=kind == "linear")
    target, given = system.graph.nodes[system.target], frame_of(system, events)
    methods = gcm.shapley.ShapleyApproximationMethods
    settings: dict[str, Any] = {}
    if best:
        settings = {
            "anomaly_scorer": SortedDistance(),
            "shapley_config": gcm.shapley.ShapleyConfig(
                approximation_method=methods.PERMUTATION, num_permutations=10, n_jobs=1
            ),
        }
    return lambda: gcm.attribute_anomalies(model, target, given, **settings)


def measured(call: Callable[[], object], n_runs: int) -> float:
    """Least CPU seconds of some runs."""
    found = []
    for _ in range(n_runs):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def segments(n_segments: int, n_events: int) -> float:
    """CPU seconds of segments through the engine's work, linear and without intervals."""
    from causal_spark import RootCauses
    from causal_spark.engine.build_nodes import EVENT, NORMAL
    from causal_spark.engine.columns import select_pandas
    from causal_spark.engine.node_frames import stacked
    from causal_spark.engine.work import Group

    system, rows, events = drawn("linear", n_events)
    names = list(system.graph.nodes)
    parents = zip(names, system.graph.parents, strict=True)
    edges = [(names[parent], name) for name, own in parents for parent in own]
    normal = pd.DataFrame(rows.values, columns=names)
    some = pd.DataFrame(events.values, columns=names).assign(event=range(n_events))
    data = stacked({NORMAL: normal, EVENT: some}, names, {EVENT: "event"})
    work = RootCauses(edges, names[-1], mechanism="linear", replicates=0).plan_work(data, [])
    table = select_pandas(pd.DataFrame(data), work.columns)
    started = time.process_time()
    for number in range(n_segments):
        work.run(Group(f'{{"segment":{{"int":{number}}}}}', {}, table))
    return time.process_time() - started


def main(given: list[str]) -> None:
    """Append rows to the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.root_causes", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1, 20, 500])
    parser.add_argument("--peer-events", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--segments", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args(given)
    os.environ.update(SINGLE_THREAD)
    here = origin()
    store = RESULTS / "root_causes.csv"

    def report(engine: str, kind: str, n_events: int, seconds: float) -> None:
        row = {"engine": engine, "mechanisms": kind, "n_events": n_events, "cpu_seconds": f"{seconds:.4f}"}
        row["cpu_ms_per_event"] = f"{1e3 * seconds / n_events:.4f}"
        append_rows(store, [row | here])
        print(row, flush=True)

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in _DESIGNS:
            for n_events in arguments.events:
                report("causal_spark", kind, n_events, measured(ours(kind, n_events, 1), arguments.runs))
            if not arguments.no_peers:
                for best in (True, False):
                    seconds = measured(dowhys(kind, arguments.peer_events, best=best), 1)
                    report("dowhy best" if best else "dowhy defaults", kind, arguments.peer_events, seconds)
        if arguments.segments:
            seconds = segments(arguments.segments, 20)
            report(f"causal_spark, {arguments.segments} segments", "linear", 20 * arguments.segments, seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
