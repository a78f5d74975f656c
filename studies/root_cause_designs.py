"""Made-up systems whose outliers have known causes.

A random graph, random mechanisms, ordinary rows; then events in which the noise of one or two ancestors of the target
is pushed far out. An event counts where the target is extreme (rarer than one in a thousand among ordinary rows) and no
longer is (one in twenty) when the causes' noise is put back: of others, nobody could say what made them extreme.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from causal_spark.root_cause.graph import CausalGraph, causal_graph
from causal_spark.root_cause.types import Floats, Places

#: Rows from which quantiles of the target are read.
_REFERENCE_ROWS = 20_000
_EXTREME, _ORDINARY = 1e-3, 0.05
#: Standard deviations by which a cause's noise is pushed, evenly drawn, up or down.
_PUSH = (3.0, 6.0)
_MOST_PARENTS = 4
_MOST_TRIES = 400


@dataclass(frozen=True, slots=True)
class Design:
    """bend: of each parent before it is weighted. noise: (generator, n_rows) -> noise of variance one."""

    name: str
    bend: Callable[[Floats, int], Floats]
    noise: Callable[[np.random.Generator, int], Floats]


def _straight(values: Floats, shape: int) -> Floats:
    del shape
    return values


def _bent(values: Floats, shape: int) -> Floats:
    if shape == 0:
        return np.asarray(2 * np.tanh(values))
    if shape == 1:
        return np.asarray(np.abs(values) - 0.8)
    return np.asarray(values + np.sin(2 * values))


def _gaussian(generator: np.random.Generator, n_rows: int) -> Floats:
    return generator.normal(size=n_rows)


def _laplace(generator: np.random.Generator, n_rows: int) -> Floats:
    return generator.laplace(scale=np.sqrt(0.5), size=n_rows)


DESIGNS = MappingProxyType(
    {
        one.name: one
        for one in (
            Design("linear", _straight, _gaussian),
            Design("heavy_tailed", _straight, _laplace),
            Design("nonlinear", _bent, _gaussian),
        )
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A graph with its mechanisms, the target its last node.

    weights, shapes: of each node, for its parents, the slopes and the bends. scales: of the noise.
    """

    design: Design
    graph: CausalGraph
    weights: tuple[Floats, ...]
    shapes: tuple[Places, ...]
    scales: Floats

    @property
    def target(self) -> int:
        """Place of the target."""
        return self.graph.n_nodes - 1

    def noise(self, generator: np.random.Generator, n_rows: int) -> Floats:
        """(n_rows, n_nodes)."""
        columns = [self.design.noise(generator, n_rows) for _ in range(self.graph.n_nodes)]
        return np.stack(columns, axis=1) * self.scales

    def values(self, noise: Floats) -> Floats:
        """(n_rows, n_nodes) from noise of that shape."""
        found = np.zeros_like(noise)
        for node, parents in enumerate(self.graph.parents):
            found[:, node] = noise[:, node]
            for parent, weight, shape in zip(parents, self.weights[node], self.shapes[node], strict=True):
                found[:, node] += weight * self.design.bend(found[:, parent], int(shape))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Incidents:
    """rows: (n_events, n_nodes). causes: of each event the places of the nodes whose noise was pushed."""

    rows: Floats
    causes: tuple[tuple[int, ...], ...]


def draw_system(design: str, n_nodes: int, generator: np.random.Generator) -> System:
    """A random system in which every node has an effect on the target, directly or through others."""
    parents: list[set[int]] = [set() for _ in range(n_nodes)]
    for node in range(1, n_nodes):
        n_parents = int(generator.integers(1, min(node, _MOST_PARENTS) + 1))
        parents[node] = set(generator.choice(node, size=n_parents, replace=False).tolist())
    for node in range(n_nodes - 1):
        if not any(node in later for later in parents[node + 1 :]):
            parents[int(generator.integers(node + 1, n_nodes))].add(node)
    names = [f"x{node:02d}" for node in range(n_nodes)]
    edges = [(names[parent], names[node]) for node in range(n_nodes) for parent in sorted(parents[node])]
    graph = causal_graph(edges, names)
    # Nodes are in another order there; the target, which all lead to, is the last.
    weights = tuple(
        generator.choice([-1.0, 1.0], size=len(own)) * generator.uniform(0.5, 1.2, size=len(own))
        for own in graph.parents
    )
    shapes = tuple(generator.integers(3, size=len(own)) for own in graph.parents)
    scales = generator.uniform(0.5, 1.5, size=n_nodes)
    return System(DESIGNS[design], graph, weights, shapes, scales)


def draw_incidents(system: System, n_events: int, n_causes: int, generator: np.random.Generator) -> Incidents:
    """Events as described above; fewer where the system hardly has any."""
    reference = system.values(system.noise(generator, _REFERENCE_ROWS))[:, system.target]
    median = float(np.median(reference))
    extreme, ordinary = np.quantile(np.abs(reference - median), [1 - _EXTREME, 1 - _ORDINARY])
    rows: list[Floats] = []
    causes: list[tuple[int, ...]] = []
    for _ in range(_MOST_TRIES * n_events):
        if len(rows) == n_events:
            break
        chosen = np.sort(generator.choice(system.graph.n_nodes, size=n_causes, replace=False))
        noise = np.repeat(system.noise(generator, 1), 2, axis=0)
        push = generator.choice([-1.0, 1.0], size=n_causes) * generator.uniform(*_PUSH, size=n_causes)
        noise[0, chosen] = push * system.scales[chosen]
        values = system.values(noise)
        pushed, undone = np.abs(values[:, system.target] - median)
        if pushed > extreme and undone < ordinary and _each_counts(system, noise, chosen, median, extreme):
            rows.append(values[0])
            causes.append(tuple(chosen.tolist()))
    return Incidents(np.array(rows), tuple(causes))


def _each_counts(system: System, noise: Floats, chosen: Places, median: float, extreme: float) -> bool:
    """Whether without any one of several causes the target is less extreme than with all of them, and no longer
    extreme without one of them at least.
    """
    if len(chosen) == 1:
        return True
    without = np.repeat(noise[:1], len(chosen) + 1, axis=0)
    for place, node in enumerate(chosen, start=1):
        without[place, node] = noise[1, node]
    distances = np.abs(system.values(without)[:, system.target] - median)
    return bool((distances[1:] < distances[0]).all() and (distances[1:] < extreme).any())
