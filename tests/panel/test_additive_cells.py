"""Cells predicted in closed form where units have few different masks, against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from causal_spark.panel.additive_cells import AdditiveCells
from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import identified_cells, row_groups
from causal_spark.panel.types import Bools
from tests.panel import panels
from tests.panel.test_dwcp import exact_two_way


def two_blocks(n_units: int, n_periods: int) -> Bools:
    """Control cells that fall apart into two components."""
    used = np.zeros((n_units, n_periods), dtype=bool)
    used[: n_units // 2, : n_periods // 2] = used[n_units // 2 :, n_periods // 2 :] = True
    return used


def staggered(n_units: int, n_periods: int) -> Bools:
    used = np.ones((n_units, n_periods), dtype=bool)
    used[-1, 3:] = used[-2, 4:] = used[-3, 4:] = False
    used[0, 1] = False
    return used


@pytest.mark.parametrize("used", [np.ones((6, 7), dtype=bool), staggered(7, 6), two_blocks(6, 8)])
@pytest.mark.parametrize(("unit", "period"), [(0.0, 0.0), (1.0, 0.5), (60.0, 0.0), (0.0, 60.0), (80.0, 50.0)])
def test_predictions_are_those_of_exact_arithmetic(used: Bools, unit: float, period: float) -> None:
    n_units, n_periods = used.shape
    outcome = panels.untreated_outcomes(n_units, n_periods, seed=21)
    outcome = np.where(used, outcome / outcome.std(), np.nan)
    rng = np.random.default_rng(5)
    cells = []
    for i, t in np.argwhere(np.ones(used.shape, dtype=bool)):
        without = used.copy()
        without[i, t] = False
        if identified_cells(without)[i, t]:
            cells.append((i, t))
    assert len(cells) >= 12
    rows, columns = np.array(cells).T
    # The target's own unit and period weigh most, as in the estimator.
    omega, theta = (
        np.exp(-unit * rng.random((len(cells), n_units))),
        np.exp(-period * rng.random((len(cells), n_periods))),
    )
    each = np.arange(len(cells))
    omega[each, rows] = theta[each, columns] = 1.0
    found, error = AdditiveCells(outcome, used).predict(rows, columns, ProductWeights(omega, theta, used[None]))
    assert (error < 1e-10).all()
    for k, (i, t) in enumerate(cells):
        weights = np.where(used, omega[k][:, None] * theta[k], 0.0)
        weights[i, t] = 0.0
        linked = used.copy()
        linked[i, t] = False
        # Exact arithmetic needs one component.
        inside = identified_cells(linked)
        reached = inside[:, t][:, None] & inside[i][None, :]
        keep = np.flatnonzero(inside[:, t]), np.flatnonzero(inside[i])
        assert reached[i, t]
        part = np.ix_(*keep)
        exact = exact_two_way(
            outcome[part], weights[part], int(np.searchsorted(keep[0], i)), int(np.searchsorted(keep[1], t))
        )
        assert found[k] == pytest.approx(exact, abs=1e-11)


def test_the_order_of_units_and_the_batch_change_rounding_only() -> None:
    used = staggered(9, 8)
    outcome = panels.untreated_outcomes(9, 8, seed=3)
    rows, columns = np.nonzero(used)
    rng = np.random.default_rng(1)
    omega, theta = rng.random((rows.size, 9)) + 0.1, rng.random((rows.size, 8)) + 0.1
    whole, _ = AdditiveCells(outcome, used).predict(rows, columns, ProductWeights(omega, theta, used[None]))
    order = rng.permutation(9)
    place = np.argsort(order)
    moved = AdditiveCells(outcome[order], used[order])
    some = slice(5, 17)
    again, _ = moved.predict(
        place[rows[some]], columns[some], ProductWeights(omega[some][:, order], theta[some], used[order][None])
    )
    np.testing.assert_allclose(again, whole[some], atol=1e-12)


@pytest.mark.parametrize("n_columns", [1, 7, 8, 9, 70])
def test_rows_that_are_alike_form_a_group(n_columns: int) -> None:
    used = np.random.default_rng(n_columns).random((40, n_columns)) < 0.9
    used[[3, 30]] = used[17]
    group, first = row_groups(used)
    np.testing.assert_array_equal(used[first][group], used)
    assert first.size == len({row.tobytes() for row in used})
    assert group[3] == group[17] == group[30]
    assert (first == np.unique(group, return_index=True)[1]).all()
