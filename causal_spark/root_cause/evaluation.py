"""Values of the target when some nodes are in one state and the others in another.

A state is a mechanism with draws of its noise: as observed or at random, of one period or of the other. A node depends
on the states of its ancestors and its own alone, so it is computed once for each combination of those, not once for
each coalition, and a function of one parent once for each of the parent's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.mechanisms import Mechanism
from causal_spark.root_cause.types import Bools, Floats, Places

#: Numbers of one node that are held at once: what fits a core's cache is computed fastest.
_BLOCK_NUMBERS = 2**17


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """How one node is computed. inside: (n_combinations,) whether the node itself is a member. of_parents: of each
    parent the combination (n_combinations,) its value is found at.
    """

    node: int
    inside: Bools
    parents: tuple[int, ...]
    of_parents: tuple[Places, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Of all nodes of a graph, the target last. chosen: (n_coalitions,) combination of the target in each coalition."""

    steps: tuple[_Step, ...]
    chosen: Places
    n_combinations: int


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """noise: of each node (n_draws,) or a number; of a discrete one (n_draws, n_levels)."""

    mechanisms: Sequence[Mechanism]
    noise: Sequence[Floats]


def schedule(graph: CausalGraph, members: Bools) -> Schedule:
    """For coalitions (n_coalitions, n_nodes) of a graph whose last node is the target and all others its ancestors."""
    steps: list[_Step] = []
    places: list[Places] = []
    for node, parents in enumerate(graph.parents):
        scope = list(graph.lineage(node))
        packed = np.packbits(members[:, scope], axis=1)
        _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        steps.append(_Step(node, members[first, node], parents, tuple(places[parent][first] for parent in parents)))
        places.append(place.ravel())
    most = max(len(step.inside) for step in steps)
    return Schedule(tuple(steps), places[-1], most)


def target_values(plan: Schedule, inside: State, outside: State, n_draws: int) -> Iterator[tuple[slice, Floats]]:
    """Blocks of draws with the target (n_coalitions, n_block): members are in the state ``inside``."""
    width = max(_BLOCK_NUMBERS // plan.n_combinations, 16)
    for start in range(0, n_draws, width):
        block = slice(start, min(start + width, n_draws))
        yield block, _values(plan, inside, outside, block)[plan.chosen]


def _values(plan: Schedule, inside: State, outside: State, block: slice) -> Floats:
    found: list[Floats] = []
    for step in plan.steps:
        states = [inside] if inside.mechanisms is outside.mechanisms else [inside, outside]
        noises = [_block(state.noise[step.node], block) for state in (inside, outside)]
        noise = _either(step.inside, noises[0], noises[1], block.stop - block.start)
        values = []
        for state in states:
            mechanism = state.mechanisms[step.node]
            given = zip(mechanism.components, step.parents, step.of_parents, strict=True)
            parts = [component(found[parent])[of] for component, parent, of in given]
            values.append(mechanism.value(parts, noise))
        found.append(values[0] if len(values) == 1 else np.where(step.inside[:, None], values[0], values[1]))
    return found[-1]


def _block(noise: Floats, block: slice) -> Floats:
    return noise if np.ndim(noise) == 0 else noise[block]


def _either(inside: Bools, one: Floats, other: Floats, n_draws: int) -> Floats:
    """(n_combinations, n_draws) noise of either state; of a discrete node (..., n_levels)."""
    found = np.empty((len(inside), n_draws, *other.shape[1:]))
    found[inside] = one
    found[~inside] = other
    return found
