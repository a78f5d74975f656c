"""What made an outlier: contributions of every ancestor's noise to the outlier score of the target.

The score of y is S = -log P(g(Y) >= g(y)), g the distance from the median (two-sided), y or -y. The contribution of a
node is what drawing its noise at random in place of the observed one does to the log tail probability, averaged over
all orders (Shapley); contributions sum to S (Budhathoki, Minorics, Bloebaum, Janzing, "Causal structure-based root
cause analysis of outliers", ICML 2022, section 3). Draws are shared by all events and all coalitions. Where all
mechanisms are linear the target is a sum of an observed and a random part, and one sorted random part per coalition
serves all events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.root_cause.coalitions import Coalitions, DrawOptions, coalitions_of
from causal_spark.root_cause.evaluation import Schedule, State, schedule, target_values
from causal_spark.root_cause.mechanisms import ContinuousMechanism, DiscreteMechanism
from causal_spark.root_cause.model import GraphModel, Noise, noise_ranks
from causal_spark.root_cause.types import Bools, Floats, NodeTable

Tail = Literal["two_sided", "upper", "lower"]
#: Numbers of random parts that are sorted at once.
_SORTED_NUMBERS = 2**21
#: Share of the target's spread within which a value counts as equal to the observed one.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class OutlierScores:
    """scores: (n_events,). contributions: (n_events, n_nodes), summing to the scores. floored: (n_events,) whether no
    draw was as extreme, so that the score is only a bound from below.
    """

    scores: Floats
    contributions: Floats
    floored: Bools


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What counts as extreme: values from ``high`` up, and from ``low`` down (infinite where that tail does not count).

    (n_events,) each.
    """

    high: Floats
    low: Floats

    def less(self, given: Floats) -> _Question:
        """The same of what is left when so much (n_events,) is given."""
        return _Question(self.high - given, self.low - given)

    def extreme(self, values: Floats) -> Floats:
        """(n_events,) how many of sorted values (n_draws,) are."""
        above = len(values) - np.searchsorted(values, self.high, side="left")
        below = np.searchsorted(values, self.low, side="right")
        # Where the two tails meet everything is extreme.
        return np.asarray(np.minimum(above + below, len(values)), dtype=float)


def attribute_outliers(
    model: GraphModel, events: NodeTable, tail: Tail, options: DrawOptions, seed: int
) -> OutlierScores:
    """Contributions to the score of each event.

    model: of the target, its last node, and all its ancestors. events: complete rows of these nodes. tail: which values
    of the target are extreme. seed: of draws and orders; an event's result does not depend on the others.
    """
    players = coalitions_of(model.graph.n_nodes, options.n_pairs, seed)
    noise = model.draw(options.n_draws, seed)
    count = _linear_counts if model.is_linear else _general_counts
    counts = count(model, events, tail, players, noise, options.n_draws, seed)
    values = np.log((counts + 0.5) / (options.n_draws + 0.5))
    # What is as observed is as extreme as observed, whatever rounding says.
    values[-1] = 0.0
    return OutlierScores(-values[0], players.shapley(values).T, counts[0] == 0)


def outlier_scores(model: GraphModel, observed: Floats, tail: Tail, n_draws: int, seed: int) -> Floats:
    """(n_events,) scores of observed targets, without what contributed to them; as `attribute_outliers` gives them."""
    target = _target(model, model.draw(n_draws, seed), n_draws)
    question = _question(target, observed, tail)
    target.sort()
    counts = question.extreme(target)
    return np.asarray(-np.log((counts + 0.5) / (n_draws + 0.5)))


def _target(model: GraphModel, noise: Noise, n_draws: int) -> Floats:
    """(n_draws,) the target, all noise drawn at random."""
    plan = schedule(model.graph, np.zeros((1, model.graph.n_nodes), dtype=bool))
    state = State(model.mechanisms, noise.of)
    return np.concatenate([values[0] for _, values in target_values(plan, state, state, n_draws)])


def _question(target: Floats, observed: Floats, tail: Tail) -> _Question:
    """target: (n_draws,) at random. observed: (n_events,)."""
    nothing = _EQUAL * (float(np.std(target)) + np.abs(observed))
    if tail == "upper":
        return _Question(observed - nothing, np.full(len(observed), -np.inf))
    if tail == "lower":
        return _Question(np.full(len(observed), np.inf), observed + nothing)
    median = float(np.median(target))
    distance = np.abs(observed - median)
    return _Question(median + distance - nothing, median - distance + nothing)


def _linear_counts(
    model: GraphModel,
    events: NodeTable,
    tail: Tail,
    players: Coalitions,
    noise: Noise,
    n_draws: int,
    seed: int,
) -> Floats:
    """(n_coalitions, n_events) draws at least as extreme."""
    del seed
    effects, base = model.total_effects(model.graph.n_nodes - 1)
    random = effects[:, None] * np.stack(noise.of)
    observed = effects[:, None] * model.noises(events.values).T
    question = _question(base + random.sum(axis=0), events.values[:, -1], tail)
    counts = np.empty((len(players.members), events.n_rows))
    step = max(_SORTED_NUMBERS // n_draws, 1)
    for start in range(0, len(counts), step):
        members = players.members[start : start + step].astype(float)
        parts = (1 - members) @ random
        parts.sort(axis=1)
        given = base + members @ observed
        for row, (part, at) in enumerate(zip(parts, given, strict=True), start=start):
            counts[row] = question.less(at).extreme(part)
    return counts


def _general_counts(
    model: GraphModel,
    events: NodeTable,
    tail: Tail,
    players: Coalitions,
    noise: Noise,
    n_draws: int,
    seed: int,
) -> Floats:
    """As `_linear_counts`, of any mechanisms: one event after the other."""
    plan = schedule(model.graph, players.members)
    random = State(model.mechanisms, noise.of)
    question = _question(_target(model, noise, n_draws), events.values[:, -1], tail)
    counts = np.zeros((len(players.members), events.n_rows))
    for event in range(events.n_rows):
        state = State(model.mechanisms, _observed(model, events.values[event], n_draws, seed))
        _count(plan, state, random, n_draws, question, event, counts)
    return counts


def _count(
    plan: Schedule, state: State, random: State, n_draws: int, question: _Question, event: int, counts: Floats
) -> None:
    for _, values in target_values(plan, state, random, n_draws):
        extreme = (values >= question.high[event]) | (values <= question.low[event])
        counts[:, event] += extreme.sum(axis=1)


def _observed(model: GraphModel, row: Floats, n_draws: int, seed: int) -> list[Floats]:
    """A row's noise: a number of continuous nodes, draws from its posterior of discrete ones."""
    found: list[Floats] = []
    for node, mechanism in enumerate(model.mechanisms):
        parents = [row[parent] for parent in model.graph.parents[node]]
        given = [np.asarray(value) for value in parents]
        if isinstance(mechanism, DiscreteMechanism):
            ranks = noise_ranks(mechanism, n_draws, seed + 1, node)
            found.append(mechanism.posterior_draws(ranks, given, int(row[node])))
        else:
            found.append(_residual(mechanism, row[node], given))
    return found


def _residual(mechanism: ContinuousMechanism, value: float, parents: list[Floats]) -> Floats:
    return np.asarray(value - mechanism.expected(parents))
