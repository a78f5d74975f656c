"""Whose noise makes the target vary: intrinsic causal contributions to its variance.

The worth of a set of nodes is the variance of the target's mean given their noise; contributions are Shapley values of
it and sum to the variance (Janzing, Bloebaum, Mastakouri, Faller, Minorics, Budhathoki, "Quantifying intrinsic causal
contributions via structure preserving interventions", AISTATS 2024, definition 3). Linear mechanisms have them in
closed form. Others share two sets of draws: the covariance of the target under one set with the target in which the
noise of all other nodes is taken from the second set is the variance of that mean (pick and freeze; Sobol 1993).
"""

from __future__ import annotations

import numpy as np

from causal_spark.root_cause.coalitions import DrawOptions, coalitions_of
from causal_spark.root_cause.evaluation import State, schedule, target_values
from causal_spark.root_cause.mechanisms import ContinuousMechanism
from causal_spark.root_cause.model import GraphModel
from causal_spark.root_cause.types import Floats

#: Draws here for one of an outlier: a covariance is noisier than a share of draws.
MORE_DRAWS = 4


def intrinsic_contributions(model: GraphModel, options: DrawOptions, seed: int) -> Floats:
    """(n_nodes,) contributions in units of the target's variance, to which they sum.

    model: of the target, its last node, and all its ancestors.
    """
    n_nodes = model.graph.n_nodes
    if model.is_linear:
        effects, _ = model.total_effects(n_nodes - 1)
        return np.asarray(effects**2 * np.array([_variance(model, node) for node in range(n_nodes)]))
    players = coalitions_of(n_nodes, options.n_pairs, seed)
    n_draws = MORE_DRAWS * options.n_draws
    kept, other = (State(model.mechanisms, model.draw(n_draws, one).of) for one in (seed, seed + 1))
    plan = schedule(model.graph, players.members)
    shape = len(players.members)
    products, sums = np.zeros(shape), np.zeros(shape)
    for _, values in target_values(plan, kept, other, n_draws):
        products += values @ values[-1]
        sums += values.sum(axis=1)
    worth = products / n_draws - sums * sums[-1] / n_draws**2
    worth[0] = 0.0
    return players.shapley(worth)


def _variance(model: GraphModel, node: int) -> float:
    mechanism = model.mechanisms[node]
    return float(np.var(mechanism.residuals)) if isinstance(mechanism, ContinuousMechanism) else 0.0
