"""Shapley values from values of coalitions."""

import itertools

import numpy as np
import pytest

from causal_spark.root_cause.coalitions import all_coalitions, coalitions_of, sampled_coalitions
from causal_spark.root_cause.types import Floats


def by_orders(n_players: int, worth: dict[frozenset[int], float]) -> Floats:
    found = np.zeros(n_players)
    orders = list(itertools.permutations(range(n_players)))
    for order in orders:
        for place, player in enumerate(order):
            found[player] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
    return found / len(orders)


def test_all_coalitions_give_the_mean_over_all_orders() -> None:
    generator = np.random.default_rng(0)
    players = all_coalitions(5)
    values = generator.normal(size=32)
    worth = {frozenset(np.flatnonzero(one).tolist()): value for one, value in zip(players.members, values, strict=True)}
    np.testing.assert_allclose(players.shapley(values), by_orders(5, worth), atol=1e-12)


@pytest.mark.parametrize("n_players", [1, 4, 12, 13, 30])
def test_contributions_sum_to_the_worth_of_all(n_players: int) -> None:
    players = coalitions_of(n_players, 6, 1)
    assert not players.members[0].any()
    assert players.members[-1].all()
    values = np.random.default_rng(2).normal(size=(len(players.members), 3))
    np.testing.assert_allclose(players.shapley(values).sum(axis=0), values[-1] - values[0], atol=1e-10)


def test_orders_are_right_on_average_and_exact_where_nothing_interacts() -> None:
    effects = np.arange(1.0, 16.0)
    players = sampled_coalitions(15, 4, 3)
    np.testing.assert_allclose(players.shapley(players.members @ effects), effects)
    # Pairs are shared evenly: an order and its reverse give each of a pair half of what it is worth together.
    both = players.members[:, 0] & players.members[:, 7]
    np.testing.assert_allclose(players.shapley(both.astype(float))[[0, 7]], 0.5)


def test_coalitions_are_listed_once_and_come_from_the_seed() -> None:
    players = sampled_coalitions(20, 10, 4)
    assert len(np.unique(players.members, axis=0)) == len(players.members)
    again, other = sampled_coalitions(20, 10, 4), sampled_coalitions(20, 10, 5)
    assert (again.members == players.members).all()
    assert other.members.shape != players.members.shape or (other.members != players.members).any()
