"""A causal graph whose mechanisms were fitted: noise of rows, and what rows come of noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from causal_spark.errors import TooFewRowsError
from causal_spark.root_cause.components import Line
from causal_spark.root_cause.fitting import Parent, fit_mechanism
from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.mechanisms import ContinuousMechanism, DiscreteMechanism, Mechanism
from causal_spark.root_cause.types import Floats, MechanismKind, NodeTable

_NONE: Mapping[str, MechanismKind] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class GraphModel:
    """mechanisms: one per node of the graph, in its order."""

    graph: CausalGraph
    mechanisms: tuple[Mechanism, ...]

    def within(self, places: tuple[int, ...]) -> GraphModel:
        """The model of some nodes with all their parents, given in topological order."""
        return GraphModel(self.graph.within(places), tuple(self.mechanisms[place] for place in places))

    def parents_of(self, node: int, values: Floats) -> list[Floats]:
        """The values (n_rows,) of each parent in rows (n_rows, n_nodes)."""
        return [values[:, parent] for parent in self.graph.parents[node]]

    def noises(self, values: Floats) -> Floats:
        """(n_rows, n_nodes) noise of rows; NaN of discrete nodes, and where the node or a parent is missing."""
        found = np.full(values.shape, np.nan)
        for node, mechanism in enumerate(self.mechanisms):
            if isinstance(mechanism, ContinuousMechanism):
                found[:, node] = values[:, node] - mechanism.expected(self._known(node, values))
        return found

    def residual_z(self, values: Floats) -> Floats:
        """(n_rows, n_nodes) how unlikely a node is given its parents, in standard deviations.

        Of continuous nodes the noise over its standard deviation; of discrete ones the deviance residual
        sqrt(-2 log p), never negative. NaN where the node or a parent is missing.
        """
        found = self.noises(values)
        for node, mechanism in enumerate(self.mechanisms):
            if isinstance(mechanism, ContinuousMechanism):
                spread = float(np.std(mechanism.residuals))
                found[:, node] /= spread if spread > 0 else np.nan
            else:
                known = np.isfinite(values[:, [node, *self.graph.parents[node]]]).all(axis=1)
                some = values[known]
                chances = mechanism.log_chances(self.parents_of(node, some))
                level = some[:, node].astype(np.intp)
                if len(some):
                    picked = np.broadcast_to(chances, (len(some), mechanism.n_levels))[np.arange(len(some)), level]
                    found[known, node] = np.sqrt(np.maximum(-2 * picked, 0.0))
        return found

    def _known(self, node: int, values: Floats) -> list[Floats]:
        """Parents with the missing levels of discrete ones put at the first: the rest is NaN as it stands."""
        found = []
        for parent, column in zip(self.graph.parents[node], self.parents_of(node, values), strict=True):
            if isinstance(self.mechanisms[parent], DiscreteMechanism):
                missing = np.isnan(column)
                found.append(np.where(missing, 0.0, column) if missing.any() else column)
            else:
                found.append(column)
        return found

    @property
    def is_linear(self) -> bool:
        """Whether every node is a line of its parents and a noise."""
        return all(mechanism.is_linear for mechanism in self.mechanisms)

    def total_effects(self, target: int) -> tuple[Floats, float]:
        """(n_nodes,) what a unit of each node's noise does to the target, and the target without any noise.

        Of linear models only. Raises `ValueError` for others.
        """
        if not self.is_linear:
            raise ValueError("Total effects are those of linear mechanisms.")
        effects = np.zeros(self.graph.n_nodes)
        effects[target] = 1.0
        base = 0.0
        for node in range(target, -1, -1):
            mechanism = self.mechanisms[node]
            if not isinstance(mechanism, ContinuousMechanism):
                raise TypeError(f"Node {self.graph.nodes[node]} is not linear.")
            base += effects[node] * mechanism.intercept
            for parent, component in zip(self.graph.parents[node], mechanism.components, strict=True):
                if isinstance(component, Line):
                    effects[parent] += effects[node] * float(component.slope)
        return effects, base

    def draw(self, n_draws: int, seed: int) -> Noise:
        """Noise of all nodes, independent of each other."""
        return Noise(tuple(draw_noise(mechanism, n_draws, seed, k) for k, mechanism in enumerate(self.mechanisms)))


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Noise of every node: (n_draws,) of a continuous one, (n_draws, n_levels) of a discrete one."""

    of: tuple[Floats, ...]


def noise_ranks(mechanism: Mechanism, n_draws: int, seed: int, node: int) -> Floats:
    """Ranks in (0, 1), evenly spread and in random order: tails are in every set of draws in their proportion."""
    generator = np.random.default_rng([seed, node])
    even = (np.arange(n_draws) + 0.5) / n_draws
    if isinstance(mechanism, ContinuousMechanism):
        return np.asarray(generator.permutation(even))
    return np.stack([generator.permutation(even) for _ in range(mechanism.n_levels)], axis=1)


def draw_noise(mechanism: Mechanism, n_draws: int, seed: int, node: int) -> Floats:
    """Noise of a node; the node's place tells its draws from those of others."""
    return mechanism.draws(noise_ranks(mechanism, n_draws, seed, node))


def fit_model(
    graph: CausalGraph, table: NodeTable, kind: MechanismKind, kinds: Mapping[str, MechanismKind] = _NONE
) -> GraphModel:
    """Mechanisms of all nodes, each from the rows in which it and its parents are known.

    kinds: of nodes that differ from the others. Raises `TooFewRowsError` naming the node, and `SolverError`.
    """
    mechanisms = []
    for node, (name, parents) in enumerate(zip(graph.nodes, graph.parents, strict=True)):
        some = table.rows(table.complete((node, *parents)))
        given = [Parent(some.values[:, parent], some.n_levels[parent]) for parent in parents]
        try:
            found = fit_mechanism(some.values[:, node], some.n_levels[node], given, kinds.get(name, kind))
        except TooFewRowsError as error:
            known = f"Node {name!r} and its parents are known in {some.n_rows} of {table.n_rows} rows. "
            raise TooFewRowsError(known + error.message, error.hint) from error
        mechanisms.append(found)
    return GraphModel(graph, tuple(mechanisms))
