"""Systems with known mechanisms, as rows of nodes."""

from __future__ import annotations

import itertools

import numpy as np

from causal_spark.root_cause.graph import CausalGraph, causal_graph
from causal_spark.root_cause.types import Floats, NodeTable

EDGES = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("b", "e"), ("d", "e")]
DIAMOND = causal_graph(EDGES)


def diamond_noise(n_rows: int, seed: int) -> Floats:
    """Noise of a to e, two of them with heavy tails."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(n_rows, 5))
    noise[:, 2] = generator.laplace(size=n_rows)
    noise[:, 3] = generator.standard_t(4, size=n_rows)
    return noise


def diamond_values(noise: Floats, *, bent: bool = False) -> Floats:
    """a to e from their noise."""
    bend = np.tanh if bent else np.positive
    a = noise[:, 0]
    b = 0.8 * bend(2 * a) + noise[:, 1]
    c = -0.5 * a + noise[:, 2]
    d = bend(b) + 0.7 * c + noise[:, 3]
    e = 0.5 * b + d + noise[:, 4]
    return np.stack([a, b, c, d, e], axis=1)


def diamond(n_rows: int, seed: int, *, bent: bool = False) -> NodeTable:
    """Rows of the diamond."""
    return continuous(diamond_values(diamond_noise(n_rows, seed), bent=bent))


def continuous(values: Floats) -> NodeTable:
    """A table of numbers."""
    return NodeTable(values, (0,) * values.shape[1])


def chain(n_nodes: int) -> CausalGraph:
    """n0 -> n1 -> ... ."""
    names = [f"n{node:02d}" for node in range(n_nodes)]
    return causal_graph(list(itertools.pairwise(names)))
