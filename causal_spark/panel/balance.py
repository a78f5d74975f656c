"""The largest balanced part of a block with missing cells: which donors, treated units and periods to keep.

A block is balanced when donors are observed in all its periods and treated units in all its pre-periods. Treated cells
that are missing afterwards are no target cells and do no harm. The largest balanced part is wanted: of those with at
least a given share of the block's observed cells the one with the most target cells, of these the one with the most
observed cells. Finding it is NP-hard (a largest complete submatrix is a largest biclique; Peeters 2003), so a fixed
list of constructions is compared.

Once periods are chosen, the units that go with them are those complete in them, so only periods have to be searched.
Pre- and post-periods are each put in an order of dropping, those first whose missing cells weigh most, and *every* pair
of prefixes is scored at once: a unit fits a pair when it needs no more periods dropped than the pair drops, so counts
over all pairs are cumulative histograms. No period dropped is the construction "units only", all incomplete ones
dropped is "periods only". The orders differ in two things: whether a missing cell weighs the same in every unit or less
the more its unit misses (a unit that must go anyhow should not take periods along), and whether those of treated units
weigh nothing, as much as donors', or more than all of theirs. Last, what fits the part found is added again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from causal_spark.panel.types import Bools, Floats, Ints

#: Exponents e: a missing cell of a unit that misses m weighs m^-e.
_DISCOUNTS = (0.0, 2.0)

#: The weight of a missing cell without discount.
_UNDISCOUNTED = 2.0**20

#: Weight of treated units' missing cells beside donors': they decide last, alike, or first.
_TREATED_WEIGHTS = (1e-9, 1.0, 1e9)


@dataclass(frozen=True, slots=True, eq=False)
class BalancedPart:
    """What is kept of a block, as masks over it, and how much that is.

    donors: (n_donors,); treated: (n_treated,); periods: (n_periods,).
    share: of the block's observed cells, kept; n_cells: how many these are, target cells among them; n_targets: target
    cells kept.
    """

    donors: Bools
    treated: Bools
    periods: Bools
    share: float
    n_cells: int
    n_targets: int


def balanced_part(donors: Bools, treated: Bools, n_pre: int, min_share: float) -> BalancedPart | None:
    """The best balanced part found, or None without any; its share is below ``min_share`` only for want of others.

    donors: (n_donors, n_periods) and treated: (n_treated, n_periods), the cells observed; the first n_pre periods are
    the pre-period. Every treated unit and every post-period must have a target cell, and so have those of the part. The
    answer depends on the masks only; among equally good parts the first found is kept.
    """
    block = _Block(donors, treated, n_pre)
    best: BalancedPart | None = None
    for discount, treated_weight in block.orders():
        periods = _best_prefixes(block, discount, treated_weight, min_share)
        part = None if periods is None else block.part(periods)
        if part is not None and (best is None or _value(part, min_share) > _value(best, min_share)):
            best = part
    return _any_part(block) if best is None else best


class _Block:
    """The masks of a block, and its missing cells that count."""

    __slots__ = ("donors", "missing_donors", "missing_treated", "n_observed", "n_pre", "treated")

    def __init__(self, donors: Bools, treated: Bools, n_pre: int) -> None:
        self.donors, self.treated, self.n_pre = donors, treated, n_pre
        self.missing_donors: Bools = ~donors
        self.missing_treated: Bools = ~treated[:, :n_pre]
        self.n_observed = int(np.count_nonzero(donors)) + int(np.count_nonzero(treated))

    def orders(self) -> Iterator[tuple[float, float]]:
        """Discounts and treated units' weights that can give different orders of the periods."""
        most = max(int(np.count_nonzero(mask, axis=1).max()) for mask in (self.missing_donors, self.missing_treated))
        mixed = self.missing_treated.any() and self.missing_donors[:, : self.n_pre].any()
        return product(_DISCOUNTS if most > 1 else _DISCOUNTS[:1], _TREATED_WEIGHTS if mixed else (1.0,))

    def part(self, periods: Bools) -> BalancedPart | None:
        """The balanced part around a set of periods: units complete in them, then periods complete in these, and so on.

        None when it lacks donors, treated units, pre- or post-periods.
        """
        donors, treated = self._units(periods)
        if not (donors.any() and treated.any()):
            return None
        periods = np.asarray(~self.missing_donors[donors].any(axis=0))
        periods[: self.n_pre] &= ~self.missing_treated[treated].any(axis=0)
        periods[self.n_pre :] &= self.treated[treated, self.n_pre :].any(axis=0)
        donors, treated = self._units(periods)
        n_targets = int(np.count_nonzero(self.treated[treated, self.n_pre :][:, periods[self.n_pre :]]))
        n_pre = int(np.count_nonzero(periods[: self.n_pre]))
        if n_targets == 0 or n_pre == 0:
            return None
        n_donor_cells = int(np.count_nonzero(donors)) * int(np.count_nonzero(periods))
        n_cells = n_donor_cells + int(np.count_nonzero(treated)) * n_pre + n_targets
        return BalancedPart(donors, treated, periods, n_cells / self.n_observed, n_cells, n_targets)

    def _units(self, periods: Bools) -> tuple[Bools, Bools]:
        """Donors complete in the periods, and treated units complete in their pre-periods with a target cell."""
        pre, post = periods[: self.n_pre], periods[self.n_pre :]
        donors = ~self.missing_donors[:, periods].any(axis=1)
        treated = ~self.missing_treated[:, pre].any(axis=1) & self.treated[:, self.n_pre :][:, post].any(axis=1)
        return np.asarray(donors), np.asarray(treated)


def _value(part: BalancedPart, min_share: float) -> tuple[bool, int, int]:
    return part.share >= min_share, part.n_targets, part.n_cells


def _best_prefixes(block: _Block, discount: float, treated_weight: float, min_share: float) -> Bools | None:
    """(n_periods,) periods kept by the best pair of prefixes of one order, None when no pair keeps anything."""
    n_pre = block.n_pre
    targets = block.treated[:, n_pre:]
    donor_weight = _weights(block.missing_donors, discount)
    pre = donor_weight @ block.missing_donors[:, :n_pre]
    pre += treated_weight * (_weights(block.missing_treated, discount) @ block.missing_treated)
    post = donor_weight @ block.missing_donors[:, n_pre:] / targets.sum(axis=0)
    pre_order, post_order = np.argsort(-pre, kind="stable"), np.argsort(-post, kind="stable")
    n_post = post_order.size

    donor_pre = _n_to_drop(block.missing_donors[:, pre_order])
    donor_post = _n_to_drop(block.missing_donors[:, n_pre + post_order])
    histogram = np.bincount(donor_pre * (n_post + 1) + donor_post, minlength=(n_pre + 1) * (n_post + 1))
    n_donors = histogram.reshape(n_pre + 1, n_post + 1).cumsum(axis=0).cumsum(axis=1)[:n_pre, :n_post]

    treated_pre = _n_to_drop(block.missing_treated[:, pre_order])
    n_treated = np.bincount(treated_pre, minlength=n_pre + 1).cumsum()[:n_pre]
    by_need = np.zeros((len(targets) + 1, n_post), dtype=np.int64)
    np.cumsum(targets[np.argsort(treated_pre, kind="stable")][:, post_order], axis=0, out=by_need[1:])
    n_targets = by_need[n_treated][:, ::-1].cumsum(axis=1)[:, ::-1]

    pre_kept, post_kept = np.arange(n_pre, 0, -1)[:, None], np.arange(n_post, 0, -1)
    n_cells = n_donors * (pre_kept + post_kept) + n_treated[:, None] * pre_kept + n_targets
    usable = (n_donors > 0) & (n_targets > 0)
    if not usable.any():
        return None
    rank = ((n_cells / block.n_observed >= min_share) * (n_targets.max() + 1) + n_targets) * (
        n_cells.max() + 1
    ) + n_cells
    i, j = np.unravel_index(int(np.argmax(np.where(usable, rank, -1))), rank.shape)
    kept = np.zeros(n_pre + n_post, dtype=np.bool_)
    kept[pre_order[i:]] = True
    kept[n_pre + post_order[j:]] = True
    return kept


def _weights(missing: Bools, discount: float) -> Floats:
    """(n_units,) weight of each missing cell of a unit: whole numbers, so that sums do not depend on their order."""
    n_missing = np.maximum(np.count_nonzero(missing, axis=1), 1)
    return np.asarray(np.ceil(_UNDISCOUNTED * n_missing.astype(np.float64) ** -discount))


def _n_to_drop(missing: Bools) -> Ints:
    """(n_units,) how many leading columns must go until a unit has nothing missing."""
    last = missing.shape[1] - missing[:, ::-1].argmax(axis=1)
    return np.asarray(np.where(missing.any(axis=1), last, 0), dtype=np.intp)


def _any_part(block: _Block) -> BalancedPart | None:
    """The part around the pair of a pre- and a post-period with the most target cells and donors; None without any."""
    n_pre = block.n_pre
    # Counts below 2^24 are exact in single precision, which is enough to find a pair.
    donors, treated = block.donors.astype(np.float32), block.treated.astype(np.float32)
    n_donors = donors[:, :n_pre].T @ donors[:, n_pre:]
    n_targets = treated[:, :n_pre].T @ treated[:, n_pre:]
    rank = np.where((n_donors > 0) & (n_targets > 0), n_targets * (n_donors.max(initial=0.0) + 1) + n_donors, 0.0)
    if not rank.any():
        return None
    i, j = np.unravel_index(int(rank.argmax()), rank.shape)
    periods = np.zeros(block.donors.shape[1], dtype=np.bool_)
    periods[[i, n_pre + j]] = True
    return block.part(periods)
