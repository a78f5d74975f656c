"""How well mechanisms fit, and whether the rows refute the graph.

Were graph and mechanisms right, a node's noise would be independent of its parents, and of all that it is not an
ancestor of (the local Markov condition). Both are tested with ranks, which no tail and no scale disturbs: squared
canonical correlations of the ranks of the noise and of its size with polynomials and products of the ranks of the
others (Pillai's trace, chi-squared in large samples). A node is refuted where a test rejects after Holm's correction
over all tests of the graph and the dependence is not negligible: in many rows any model is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from causal_spark.root_cause.components import level_columns, pair_products
from causal_spark.root_cause.mechanisms import ContinuousMechanism, Mechanism
from causal_spark.root_cause.model import GraphModel
from causal_spark.root_cause.types import Bools, Floats, NodeTable

#: Of all tests of a graph together; and the mean squared canonical correlation that is not negligible.
LEVEL, LEAST_DEPENDENCE = 0.01, 0.01
#: Eigenvalues of a correlation matrix below this are rounding.
_NOTHING = 1e-8


@dataclass(frozen=True, slots=True)
class Dependence:
    """Of a node's noise on others. strength: mean squared canonical correlation, from 0 to 1."""

    strength: float
    p_value: float


@dataclass(frozen=True, slots=True)
class NodeDiagnostics:
    """mechanism: its name. n_rows: of its fit. fit: share of the variance (of a discrete node: of the deviance) that
    the parents account for, adjusted for parameters; None without parents. on_parents: None without parents. on_others:
    on the one of the nodes before it that it depends on most, ``other``; None where there is none. refuted: see above.
    """

    node: str
    mechanism: str
    n_rows: int
    fit: float | None
    on_parents: Dependence | None
    other: str | None
    on_others: Dependence | None
    refuted: bool


@dataclass(frozen=True, slots=True)
class _Tested:
    on_parents: Dependence | None
    other: int | None
    on_others: Dependence | None
    n_rows: int


def diagnose(model: GraphModel, table: NodeTable) -> list[NodeDiagnostics]:
    """Of every node of the model, on the rows of its fit."""
    ranked = NodeTable(
        np.stack(
            [
                _known_ranks(column) if not levels else column
                for column, levels in zip(table.values.T, table.n_levels, strict=True)
            ],
            axis=1,
        ),
        table.n_levels,
    )
    tested = [_test(model, table, ranked, node) for node in range(model.graph.n_nodes)]
    found = [one for each in tested for one in (each.on_parents, each.on_others) if one is not None]
    rejected = dict(zip(map(id, found), _holm([one.p_value for one in found]), strict=True))

    def refutes(one: Dependence | None) -> bool:
        return one is not None and bool(rejected[id(one)]) and one.strength >= LEAST_DEPENDENCE

    return [
        NodeDiagnostics(
            model.graph.nodes[node],
            mechanism.name,
            each.n_rows,
            _fit(mechanism, table, node) if model.graph.parents[node] else None,
            each.on_parents,
            None if each.other is None else model.graph.nodes[each.other],
            each.on_others,
            refutes(each.on_parents) or refutes(each.on_others),
        )
        for node, (mechanism, each) in enumerate(zip(model.mechanisms, tested, strict=True))
    ]


def _holm(p_values: list[float]) -> Bools:
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    rejected = np.zeros(len(order), dtype=bool)
    rejected[order] = np.maximum.accumulate(steps) < LEVEL
    return rejected


def _fit(mechanism: Mechanism, table: NodeTable, node: int) -> float:
    if isinstance(mechanism, ContinuousMechanism):
        n_rows = len(mechanism.residuals)
        total = float(np.nanvar(table.values[:, node]))
        left = float(np.mean(mechanism.residuals**2)) * (n_rows - 1) / max(n_rows - 1 - mechanism.n_parameters, 1)
    else:
        n_rows = len(mechanism.surprises)
        column = table.values[:, node]
        shares = np.bincount(column[np.isfinite(column)].astype(np.intp), minlength=mechanism.n_levels)
        shares = shares[shares > 0] / shares.sum()
        total = float(-(shares * np.log(shares)).sum())
        left = float(mechanism.surprises.mean()) + mechanism.n_parameters / n_rows
    return 1 - left / total if total > 0 else 0.0


def _test(model: GraphModel, table: NodeTable, ranked: NodeTable, node: int) -> _Tested:
    """ranked: the table with ranks in place of numbers."""
    graph, parents = model.graph, model.graph.parents[node]
    complete = table.complete((node, *parents))
    rows, ranks = table.rows(complete), ranked.rows(complete)
    noise = _noise_columns(model, rows, node)
    on_parents = _dependence(noise, _polynomials(ranks, parents)) if parents else None
    later = graph.descendants(node) | {node, *parents}
    worst: tuple[int, Dependence] | None = None
    others = [place for place in range(graph.n_nodes) if place not in later]
    for other in others:
        known = np.isfinite(ranks.values[:, other])
        found = _dependence(noise[known], _polynomials(ranks.rows(known), (other,)))
        if worst is None or found.p_value < worst[1].p_value:
            worst = other, found
    if worst is None:
        return _Tested(on_parents, None, None, rows.n_rows)
    # The smallest of several p-values counts as often as there are.
    least = Dependence(worst[1].strength, min(worst[1].p_value * len(others), 1.0))
    return _Tested(on_parents, worst[0], least, rows.n_rows)


def _noise_columns(model: GraphModel, rows: NodeTable, node: int) -> Floats:
    """(n_rows, n) what stands for the noise: its rank and that of its size; of a discrete node how far its levels are
    from their chances, in standard deviations.
    """
    mechanism = model.mechanisms[node]
    if isinstance(mechanism, ContinuousMechanism):
        residuals = model.noises(rows.values)[:, node]
        return np.stack([_ranks(residuals), _ranks(np.abs(residuals - np.median(residuals)))], axis=1)
    chances = np.exp(mechanism.log_chances(model.parents_of(node, rows.values)))
    chances = np.broadcast_to(chances, (rows.n_rows, mechanism.n_levels))[:, 1:]
    hot = rows.values[:, [node]] == np.arange(1, mechanism.n_levels)
    return np.asarray((hot - chances) / np.sqrt(np.maximum(chances * (1 - chances), 1e-6)))


def _known_ranks(values: Floats) -> Floats:
    """The same of what is not missing."""
    found = values.copy()
    known = np.isfinite(values)
    found[known] = _ranks(values[known])
    return found


def _ranks(values: Floats) -> Floats:
    """In (-1, 1)."""
    return np.asarray((2 * stats.rankdata(values) - 1) / len(values) - 1)


def _polynomials(ranks: NodeTable, nodes: tuple[int, ...]) -> Floats:
    """Legendre polynomials of ranks up to the third, indicators of levels, and products of two nodes."""
    found: list[Floats] = []
    plain: list[Floats] = []
    for node in nodes:
        rank = ranks.values[:, [node]]
        if ranks.n_levels[node]:
            own = level_columns(rank[:, 0], ranks.n_levels[node])
            found.append(own)
            plain.append(own)
        else:
            found += [rank, (3 * rank**2 - 1) / 2, (5 * rank**3 - 3 * rank) / 2]
            plain.append(rank)
    return np.concatenate([*found, *pair_products(plain)], axis=1)


def _dependence(noise: Floats, others: Floats) -> Dependence:
    """Of columns on columns (n_rows, .); none where one side does not vary, or rows are too few."""
    n_rows = len(noise)
    left, right = (_orthonormal(columns) for columns in (noise, others))
    n_free = left.shape[1] * right.shape[1]
    if not n_free or n_rows <= 2 * (left.shape[1] + right.shape[1]):
        return Dependence(0.0, 1.0)
    trace = float(((left.T @ right) ** 2).sum())
    strength = trace / min(left.shape[1], right.shape[1])
    return Dependence(min(strength, 1.0), float(stats.chi2.sf(n_rows * trace, n_free)))


def _orthonormal(columns: Floats) -> Floats:
    """An orthonormal basis of centred columns, those that do not vary left out."""
    if not len(columns):
        return np.empty((0, 0))
    centred = columns - columns.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    varying = norms > _NOTHING
    scaled = centred[:, varying] / norms[varying]
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = values > _NOTHING * max(len(values), 1)
    return np.asarray(scaled @ vectors[:, kept] / np.sqrt(values[kept]))
