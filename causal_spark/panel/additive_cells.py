"""Predictions of single cells by weighted two-way effects, each cell left out, in closed form where few masks differ.

    min over alpha, beta of  sum_js omega_j theta_s m_js (Y_js - alpha_j - beta_s)^2

Units with the same mask m of control cells form a group g with weight c_g, the sum of their omega. Let a_gs be the
omega-mean over the group of Y_js less the unit's theta-mean, and mu_g the theta-mean of beta over the group's periods.
The normal equations, unit effects eliminated, say that beta_s is the mean of a_gs + mu_g over the groups present in s,
with weights c_g. Taking theta-means over the periods of each group leaves one equation per group,

    mu_g = sum_s p_gs sum_h (c_h m_hs / C_s) (a_hs - a_gs + mu_h),   p_gs = theta_s m_gs / sum_u theta_u m_gu,

in which C_s is the sum of c_h m_hs (a group's own a_gs have theta-mean zero, which is used before anything is summed).
Its matrix is that of a random walk between groups, solved without a subtraction (Grassmann, Taksar, Heyman 1985), so
weights may span many orders of magnitude. Where two light groups are linked to each other far more than to the rest,
what should cancel between them is rounding that their weak link magnifies: each prediction comes with an estimate of
its error. The unit of the target is a group of its own, since it lacks the target.
"""

from __future__ import annotations

import numpy as np

from causal_spark.panel.product_weights import ProductWeights
from causal_spark.panel.two_way import row_groups
from causal_spark.panel.types import Bools, Floats, Ints

# Numbers in one array of a batch.
_NUMBERS_AT_ONCE = 1_000_000


class AdditiveCells:
    """Units of one panel, gathered by their mask.

    outcome: (n_units, n_periods), with a spread of about 1, read at control cells; controls: (n_units, n_periods).
    masks: (n_groups, n_periods).
    """

    def __init__(self, outcome: Floats, controls: Bools) -> None:
        self.controls = controls
        group, first = row_groups(controls)
        self.masks = controls[first].astype(np.float64)
        self._members = [np.flatnonzero(group == g) for g in range(first.size)]
        self._outcome = np.where(controls, outcome, 0.0)
        self._outcomes = [self._outcome[members] for members in self._members]

    @property
    def batch(self) -> int:
        """How many cells to predict at once."""
        n_units, n_periods = self.controls.shape
        n_groups = self.masks.shape[0] + 1
        return max(1, _NUMBERS_AT_ONCE // int(n_units + n_periods * n_groups + n_groups**2))

    def predict(self, rows: Ints, columns: Ints, weights: ProductWeights) -> tuple[Floats, Floats]:
        """(n,): alpha_i + beta_t of the cells (rows, columns), each from its own weights and without itself, and about
        how far rounding can have moved it.

        Only ``unit`` and ``period`` of the weights are read. Cells have to be identified without themselves.
        """
        n, n_groups = rows.size, self.masks.shape[0] + 1
        each = np.arange(n)
        own = self.controls[rows].astype(np.float64)
        own[each, columns] = 0.0
        others = weights.unit.copy()
        others[each, rows] = 0.0
        mask = np.empty((n, n_groups, self.controls.shape[1]))
        mask[:, :-1], mask[:, -1] = self.masks, own
        share = weights.period[:, None, :] * mask
        total = share.sum(axis=2)
        share /= np.maximum(total, np.finfo(float).tiny)[:, :, None]
        weight = np.empty((n, n_groups))
        deviation = np.empty_like(mask)
        for g, (members, outcome) in enumerate(zip(self._members, self._outcomes, strict=True)):
            omega = others[:, members]
            weight[:, g] = omega.sum(axis=1)
            omega /= np.where(weight[:, g] > 0, weight[:, g], 1.0)[:, None]
            means = share[:, g] @ outcome.T
            deviation[:, g] = omega @ outcome - np.einsum("nj,nj->n", omega, means)[:, None]
        mine = self._outcome[rows]
        level = np.einsum("nt,nt->n", share[:, -1], mine)
        weight[:, -1], deviation[:, -1] = weights.unit[each, rows], mine - level[:, None]
        _restore_largest(deviation, share)
        # Of a period, the share of each group among those present.
        present = weight[:, :, None] * mask
        present /= np.maximum(present.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        walk = share @ np.swapaxes(present, 1, 2)
        into, out = _flows(share, present, deviation)
        size = _flows(share, present, np.abs(deviation))
        right, summed = into - out, size[0] + size[1]
        # The lightest group first: within the heavy ones flows cancel, up to rounding that would swamp a light one.
        order = np.argsort(weight * total, axis=1, kind="stable")
        walk = np.take_along_axis(np.take_along_axis(walk, order[:, :, None], axis=1), order[:, None, :], axis=2)
        means, errors = np.empty_like(right), np.empty_like(right)
        found = _grounded_walk(walk, *(np.take_along_axis(each, order, axis=1) for each in (right, summed)))
        for values, sorted_values in zip((means, errors), found, strict=True):
            np.put_along_axis(values, order, sorted_values, axis=1)
        at = present[each, :, columns]
        period_effect = (at * (deviation[each, :, columns] + means)).sum(axis=1)
        error = errors[:, -1] + (at * errors).sum(axis=1)
        return np.asarray(level - means[:, -1] + period_effect), np.asarray(error)


def _flows(share: Floats, present: Floats, values: Floats) -> tuple[Floats, Floats]:
    """(n, k) each: share-means over periods of other groups' ``values``, and of a group's own where others are.

    All (n, k, n_periods). The others' shares are added up: 1 less the group's own may be rounding.
    """
    apart = 1.0 - np.eye(share.shape[1])
    into = ((share @ np.swapaxes(present * values, 1, 2)) * apart).sum(axis=2)
    return into, (share * values * (apart @ present)).sum(axis=2)


def _restore_largest(deviation: Floats, share: Floats) -> None:
    """Deviations from means (n, k, n_periods) where the share is largest, in place, from all others.

    A period with nearly all the weight deviates by rounding from a mean that it is itself.
    """
    where = share.argmax(axis=2)[:, :, None]
    largest = np.take_along_axis(share, where, axis=2)
    np.put_along_axis(deviation, where, 0.0, axis=2)
    others = np.einsum("ngt,ngt->ng", share, deviation)[:, :, None]
    np.put_along_axis(deviation, where, -others / np.where(largest > 0, largest, 1.0), axis=2)


def _grounded_walk(walk: Floats, right: Floats, summed: Floats) -> tuple[Floats, Floats]:
    """The mu (n, k) with mu = walk mu + right in every row but the last, 0 in the last; about their rounding errors.

    walk: (n, k, k) >= 0, rows with sum 1, not read on the diagonal; right: (n, k); summed: (n, k), absolute values of
    what ``right`` is the sum of. All are overwritten. Rows that no chain links to the last get a solution of their own.
    """
    mu, error = right, summed
    k = walk.shape[1]
    leaving = np.ones((walk.shape[0], k))
    for state in range(k - 1):
        # What leaves a state, from what remains: its diagonal is never needed.
        total = walk[:, state, state + 1 :].sum(axis=1)
        leaving[:, state] = np.where(total > 0, total, 1.0)
        factor = walk[:, state + 1 :, state] / leaving[:, state, None]
        walk[:, state + 1 :, state + 1 :] += factor[:, :, None] * walk[:, state, None, state + 1 :]
        mu[:, state + 1 :] += factor * mu[:, state, None]
        error[:, state + 1 :] += factor * error[:, state, None]
    error *= np.finfo(float).eps
    mu[:, -1] = error[:, -1] = 0.0
    for state in range(k - 2, -1, -1):
        onward = walk[:, state, None, state + 1 :] @ np.stack([mu, error], axis=2)[:, state + 1 :]
        mu[:, state] = (mu[:, state] + onward[:, 0, 0]) / leaving[:, state]
        error[:, state] = (error[:, state] + onward[:, 0, 1]) / leaving[:, state]
    return mu, error
