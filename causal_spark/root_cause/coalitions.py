"""Coalitions of mechanisms, and Shapley values of what they are worth.

All orders are averaged exactly over the 2^n coalitions of few players; of more, over random orders and their reverses
(antithetic), which all events and replicates share. Either way the contributions are a matrix product of the values of
coalitions, and they sum to the value of all less that of none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causal_spark.root_cause.types import Bools, Floats

#: Players of which all coalitions are looked at.
EXACT_UP_TO = 12


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """n_draws: of noise. n_pairs: random orders, each with its reverse, where there are more than 12 nodes."""

    n_draws: int
    n_pairs: int


@dataclass(frozen=True, slots=True, eq=False)
class Coalitions:
    """members: (n_coalitions, n_players), the first without any and the last with all. weights: (n_players,
    n_coalitions): the Shapley values are weights @ values.
    """

    members: Bools
    weights: Floats

    @property
    def n_players(self) -> int:
        """Players."""
        return int(self.members.shape[1])

    def shapley(self, values: Floats) -> Floats:
        """(n_players, ...) contributions from values (n_coalitions, ...)."""
        return np.asarray(np.tensordot(self.weights, values, axes=1))


def all_coalitions(n_players: int) -> Coalitions:
    """Every subset."""
    codes = np.arange(2**n_players)
    members = (codes[:, None] >> np.arange(n_players)) & 1 == 1
    sizes = members.sum(axis=1)
    share = np.array([1 / (n_players * math.comb(n_players - 1, k)) for k in range(n_players)])
    # A coalition counts for a player who is in it what joining the others brought, and against one who is not.
    joined, apart = share[np.maximum(sizes - 1, 0)], share[np.minimum(sizes, n_players - 1)]
    return Coalitions(members, np.where(members, joined[:, None], -apart[:, None]).T)


def sampled_coalitions(n_players: int, n_pairs: int, seed: int) -> Coalitions:
    """Those that orders pass through: so many random ones and their reverses."""
    generator = np.random.default_rng([seed, n_players])
    drawn = [generator.permutation(n_players) for _ in range(n_pairs)]
    orders = [order for one in drawn for order in (one, one[::-1])]
    places: dict[bytes, int] = {}
    members: list[Bools] = []

    def place_of(coalition: Bools) -> int:
        key = np.packbits(coalition).tobytes()
        if key not in places:
            places[key] = len(members)
            members.append(coalition.copy())
        return places[key]

    place_of(np.zeros(n_players, dtype=bool))
    steps = []
    for order in orders:
        inside = np.zeros(n_players, dtype=bool)
        before = 0
        for player in order:
            inside[player] = True
            after = place_of(inside)
            steps.append((player, before, after))
            before = after
    full = place_of(np.ones(n_players, dtype=bool))
    weights = np.zeros((n_players, len(members)))
    for player, before, after in steps:
        weights[player, after] += 1 / len(orders)
        weights[player, before] -= 1 / len(orders)
    order_of = [*(k for k in range(len(members)) if k != full), full]
    return Coalitions(np.array(members)[order_of], weights[:, order_of])


def coalitions_of(n_players: int, n_pairs: int, seed: int) -> Coalitions:
    """All coalitions of few players, those of random orders of more."""
    return all_coalitions(n_players) if n_players <= EXACT_UP_TO else sampled_coalitions(n_players, n_pairs, seed)
