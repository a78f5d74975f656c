"""Causal graphs: nodes in topological order, and who is whose ancestor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from causal_spark.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CausalGraph:
    """A directed acyclic graph.

    nodes: names, parents before children, equals by name. parents: of each node the places of its parents, ascending.
    """

    nodes: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    @property
    def n_nodes(self) -> int:
        """Nodes."""
        return len(self.nodes)

    def place(self, node: str) -> int:
        """Of a node by name. Raises `ValueError` where there is none."""
        return self.nodes.index(node)

    def lineage(self, node: int) -> tuple[int, ...]:
        """A node and all its ancestors, in topological order."""
        found = {node}
        for place in range(node, -1, -1):
            if place in found:
                found.update(self.parents[place])
        return tuple(sorted(found))

    def descendants(self, node: int) -> set[int]:
        """All nodes that a node is an ancestor of."""
        found = {node}
        for place in range(node + 1, self.n_nodes):
            if found.intersection(self.parents[place]):
                found.add(place)
        return found - {node}

    def within(self, places: Sequence[int]) -> CausalGraph:
        """The graph of some nodes, given in topological order, and of the edges between them."""
        new = {place: number for number, place in enumerate(places)}
        parents = (tuple(new[parent] for parent in self.parents[place] if parent in new) for place in places)
        return CausalGraph(tuple(self.nodes[place] for place in places), tuple(parents))


def causal_graph(edges: Iterable[tuple[str, str]], nodes: Iterable[str] = ()) -> CausalGraph:
    """The graph of edges (cause, effect), in any order, and of nodes that need not be part of one.

    Raises `ConfigError` for a cycle, an edge from a node to itself, and an edge that is given twice.
    """
    known: set[tuple[str, str]] = set()
    causes: dict[str, set[str]] = {node: set() for node in nodes}
    for edge in edges:
        cause, effect = edge
        if cause == effect:
            raise ConfigError(f"The graph has an edge from {cause!r} to itself.", "Remove it.")
        if edge in known:
            raise ConfigError(f"The graph has the edge {cause!r} -> {effect!r} twice.", "Remove one.")
        known.add(edge)
        causes.setdefault(cause, set())
        causes.setdefault(effect, set()).add(cause)
    sorter = TopologicalSorter(causes)
    try:
        sorter.prepare()
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise ConfigError(f"The graph has a cycle: {cycle}.", "Causes come before effects: remove an edge.") from error
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    places = {node: place for place, node in enumerate(order)}
    parents = tuple(tuple(sorted(places[cause] for cause in causes[node])) for node in order)
    return CausalGraph(tuple(order), parents)
