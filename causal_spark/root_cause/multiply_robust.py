"""Which mechanisms changed the mean and the variance of the target: multiply robust attribution.

For a coalition of mechanisms of the new period and the others of the old one, the mean of the target is estimated by
nested regressions, each on the rows of the period whose mechanism comes next, corrected by residuals that are weighted
with density ratios: it is right when, at every step, the regression or the weights are (Quintas-Martinez, Bahadori,
Santiago, Mu, Heckerman, "Multiply-robust causal change attribution", ICML 2024, theorem 2). The graph tells what each
step depends on: regressions use the nodes that still have children to come, and the weight of a node is the ratio of
two odds of the period, given it and its parents, and given its parents alone. Nuisances are cross-fitted, so standard
errors come from the influence function. Coalitions share all regressions of the steps that they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.root_cause.coalitions import Coalitions
from causal_spark.root_cause.features import learn_features, least_squares, log_odds
from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.types import Bools, Floats, NodeTable, Places

N_FOLDS = 3
#: Log density ratios of one node beyond this are cut: they come of rows that the other period hardly has.
_MOST_LOG_RATIO = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class RobustChanges:
    """(2, n_nodes) each, of the mean and of the variance, in units of the target and their squares.

    contributions: sum to the change of the mean and of the variance. std_errors: from the influence function.
    """

    contributions: Floats
    std_errors: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Coalitions as one step sees them, which is only who is in from that node on.

    states: (n_suffixes,) whether the node itself is new. behind: (n_suffixes,) place of the rest at the next level. of:
    (n_coalitions,) suffix of each coalition.
    """

    states: Places
    behind: Places
    of: Places


def robust_changes(graph: CausalGraph, old: NodeTable, new: NodeTable, players: Coalitions, seed: int) -> RobustChanges:
    """Contributions of mechanisms to the change of the target's mean and variance from old to new rows.

    graph: the target, its last node, and all its ancestors. old, new: complete rows of these nodes.
    """
    tables = (old, new)
    target = graph.n_nodes - 1
    centre, spread = float(old.values[:, target].mean()), float(old.values[:, target].std()) or 1.0
    folds = [_folds(table.n_rows, seed + k) for k, table in enumerate(tables)]
    levels = _levels(players)
    n_coalitions = len(players.members)
    moments = np.zeros((2, n_coalitions))
    influence = [np.zeros((2, table.n_rows, graph.n_nodes)) for table in tables]
    for fold in range(N_FOLDS):
        tests = [np.flatnonzero(folds[k] == fold) for k in (0, 1)]
        trains = [np.flatnonzero(folds[k] != fold) for k in (0, 1)]
        found, effects = _one_fold(graph, tables, trains, tests, players, levels, (centre, spread))
        moments += found / N_FOLDS
        for k in (0, 1):
            influence[k][:, tests[k]] = effects[k]
    means, variances = moments[0], moments[1] - moments[0] ** 2
    contributions = np.stack([players.shapley(means), players.shapley(variances)])
    squared = sum(one.var(axis=1) / one.shape[1] for one in influence)
    units = np.array([[spread], [spread**2]])
    return RobustChanges(contributions * units, np.sqrt(squared) * units)


def _folds(n_rows: int, seed: int) -> Places:
    return np.asarray(np.random.default_rng([seed, n_rows]).permutation(np.arange(n_rows) % N_FOLDS))


def _levels(players: Coalitions) -> list[_Level]:
    n_nodes = players.n_players
    found: list[_Level] = []
    after = np.zeros(len(players.members), dtype=np.intp)
    for node in range(n_nodes - 1, -1, -1):
        packed = np.packbits(players.members[:, node:], axis=1)
        _, first, of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        found.append(_Level(players.members[first, node].astype(np.intp), after[first], of.ravel()))
        after = of.ravel()
    return found[::-1]


def _one_fold(
    graph: CausalGraph,
    tables: tuple[NodeTable, NodeTable],
    trains: list[Places],
    tests: list[Places],
    players: Coalitions,
    levels: list[_Level],
    scale: tuple[float, float],
) -> tuple[Floats, list[Floats]]:
    """(2, n_coalitions) first and second moments of the scaled target; for each period (2, n_test, n_nodes) influence
    of its held out rows on the contributions to mean and variance.
    """
    rows = [table.rows(part) for parts in (trains, tests) for table, part in zip(tables, parts, strict=True)]
    fitted, held = rows[:2], rows[2:]
    ratios = _log_ratios(graph, fitted, held)
    target = graph.n_nodes - 1
    ahead = [_powers((one.values[:, target] - scale[0]) / scale[1]) for one in rows]
    n_coalitions = len(players.members)
    corrections = [np.zeros((2, one.n_rows, n_coalitions)) for one in held]
    for node in range(target, -1, -1):
        level = levels[node]
        now = _regress(graph, node, level, rows, ahead)
        for state in (0, 1):
            mine = np.flatnonzero(players.members[:, node] == bool(state))
            suffix = level.of[mine]
            weights = _weights(players.members[mine, :node], state, ratios[state][:, :node])
            gap = ahead[2 + state][:, :, level.behind[suffix]] - now[2 + state][:, :, suffix]
            corrections[state][:, :, mine] += weights * gap
        ahead = now
    start = ahead[0][:, 0, levels[0].of]
    moments = start + sum(one.mean(axis=1) for one in corrections)
    effects = []
    for one in corrections:
        of_variance = one[1] - 2 * moments[0] * one[0]
        effects.append(np.stack([one[0] @ players.weights.T, of_variance @ players.weights.T]))
    return moments, effects


def _powers(values: Floats) -> Floats:
    return np.stack([values, values**2])[:, :, None]


def _regress(graph: CausalGraph, node: int, level: _Level, rows: list[NodeTable], ahead: list[Floats]) -> list[Floats]:
    """(2, n_rows, n_suffixes) means of what comes after a node given what lies before it, of both periods' rows."""
    before = [k for k in range(node) if any(k in graph.parents[later] for later in range(node, graph.n_nodes))]
    n_rows = min(one.n_rows for one in rows[:2])
    pooled = NodeTable(np.concatenate([one.values for one in rows[:2]]), rows[0].n_levels)
    features = learn_features(pooled, before, n_rows, smooth=True)
    columns = [features.columns(one.values) for one in rows]
    now = [np.empty((2, one.n_rows, len(level.states))) for one in rows]
    for state in (0, 1):
        mine = np.flatnonzero(level.states == state)
        if not len(mine):
            continue
        responses = ahead[state][:, :, level.behind[mine]]
        flat = responses.transpose(1, 0, 2).reshape(responses.shape[1], -1)
        coefficients = least_squares(columns[state], flat)
        for one, own in zip(now, columns, strict=True):
            one[:, :, mine] = (own @ coefficients).reshape(len(own), 2, -1).transpose(1, 0, 2)
    return now


def _log_ratios(graph: CausalGraph, fitted: list[NodeTable], held: list[NodeTable]) -> list[Floats]:
    """(n_test, n_nodes) per period: log of the new over the old density of each node given its parents."""
    pooled = NodeTable(np.concatenate([one.values for one in fitted]), fitted[0].n_levels)
    marks = np.repeat([0.0, 1.0], [one.n_rows for one in fitted])
    n_rows = min(one.n_rows for one in fitted)
    found = [np.zeros(one.values.shape) for one in held]
    # Nothing is weighted by the target.
    for node, parents in enumerate(graph.parents[:-1]):
        for nodes, sign in (((node, *parents), 1.0), (parents, -1.0)):
            if not nodes:
                continue
            features = learn_features(pooled, nodes, n_rows, smooth=False)
            coefficients = log_odds(features.columns(pooled.values), marks)
            for one, rows in zip(found, held, strict=True):
                one[:, node] += sign * (features.columns(rows.values) @ coefficients)
    return [np.clip(one, -_MOST_LOG_RATIO, _MOST_LOG_RATIO) for one in found]


def _weights(members: Bools, state: int, ratios: Floats) -> Floats:
    """(n_test, n_coalitions) density of a coalition's mix of earlier mechanisms over that of one period, mean one."""
    logs = ratios @ (members.astype(float) - state).T
    found = np.minimum(np.exp(logs), np.sqrt(len(ratios)))
    return np.asarray(found / found.mean(axis=0))
