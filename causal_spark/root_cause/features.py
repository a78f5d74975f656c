"""Columns made of nodes for regressions that are only means to an end: bends, products, levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from causal_spark.root_cause.components import level_columns, pair_products, spline_columns, spline_knots
from causal_spark.root_cause.types import Floats, NodeTable

_N_KNOTS = 5
#: Rows per column below which columns are made simpler.
_ROWS_PER_COLUMN = 10
#: Of coefficients of standardised columns: a share of the rows in least squares, a number in a logit.
_LEAST_RIDGE, _LOGIT_RIDGE = 1e-4, 1.0
_MOST_STEPS, _STEP = 30, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Made of some nodes; standardised on the rows they were learned on.

    bends: whether continuous nodes enter by splines and squares; products: whether all pairs enter.
    """

    nodes: tuple[int, ...]
    n_levels: tuple[int, ...]
    centres: Floats
    spreads: Floats
    knots: tuple[Floats | None, ...]
    bends: bool
    products: bool

    def columns(self, values: Floats) -> Floats:
        """(n_rows, 1 + n_columns), the first of ones, from rows (n_rows, all nodes)."""
        found = [np.ones((len(values), 1))]
        plain: list[Floats] = []
        for place, node in enumerate(self.nodes):
            column = values[:, node]
            if self.n_levels[place]:
                own = level_columns(column, self.n_levels[place])
                plain.append(own)
                found.append(own)
                continue
            scaled = ((column - self.centres[place]) / self.spreads[place])[:, None]
            plain.append(scaled)
            found.append(scaled)
            if self.bends:
                found.append(scaled**2)
                knots = self.knots[place]
                if knots is not None:
                    # The last of them is what lines and the others make of it.
                    found.append(spline_columns(knots, scaled[:, 0])[:, :-1])
        if self.products:
            found += pair_products(plain)
        return np.concatenate(found, axis=1)


def learn_features(table: NodeTable, nodes: Sequence[int], n_rows: int, *, smooth: bool) -> Features:
    """Features of some nodes, as rich as ``n_rows`` of a fit allow. smooth: splines beside squares and products."""
    values = table.values[:, list(nodes)]
    centres = values.mean(axis=0)
    spreads = values.std(axis=0)
    spreads = np.where(spreads > 1e-12 * np.abs(values).max(axis=0, initial=0.0), spreads, 1.0)
    n_levels = tuple(table.n_levels[node] for node in nodes)
    scaled = (values - centres) / spreads
    knots = tuple(
        spline_knots(scaled[:, place], _N_KNOTS) if smooth and not n_levels[place] else None
        for place in range(len(nodes))
    )
    for bends, products in ((True, True), (True, False), (False, False)):
        found = Features(tuple(nodes), n_levels, centres, spreads, knots, bends, products)
        if _ROWS_PER_COLUMN * found.columns(table.values[:1]).shape[1] <= n_rows:
            break
    return found


def least_squares(columns: Floats, responses: Floats) -> Floats:
    """(n_columns, n_responses) coefficients of many responses at once, with a little ridge."""
    gram = columns.T @ columns
    scales = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    gram = gram / np.outer(scales, scales)
    ridge = np.full(len(gram), _LEAST_RIDGE)
    ridge[0] = 0.0
    gram[np.diag_indices_from(gram)] += ridge
    return np.asarray(np.linalg.solve(gram, (columns.T @ responses) / scales[:, None]) / scales[:, None])


def log_odds(columns: Floats, marks: Floats) -> Floats:
    """(n_columns,) coefficients of a logit for marks of 0 and 1, with a ridge; by Newton's method.

    Both kinds count the same in all, so that the odds are a ratio of densities.
    """
    weights = np.where(marks == 1, 0.5 / max(marks.mean(), 1e-12), 0.5 / max(1 - marks.mean(), 1e-12))
    ridge = np.full(columns.shape[1], _LOGIT_RIDGE)
    ridge[0] = 1e-6
    found = np.zeros(columns.shape[1])
    for _ in range(_MOST_STEPS):
        chances = special.expit(columns @ found)
        slope = columns.T @ (weights * (marks - chances)) - ridge * found
        curvature = weights * np.maximum(chances * (1 - chances), 1e-10)
        step = np.linalg.solve((columns.T * curvature) @ columns + np.diag(ridge), slope)
        # A long step may overshoot where classes are nearly separated.
        longest = np.abs(columns @ step).max(initial=0.0)
        found = found + step * min(1.0, 5.0 / max(longest, 5.0))
        if longest < _STEP:
            break
    return found
