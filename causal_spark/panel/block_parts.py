"""What of each block can be used when cells are missing, and what a reader must know of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causal_spark.errors import MissingCellsError
from causal_spark.panel.balance import balanced_part
from causal_spark.panel.cohorts import BlockDesign, CohortDesign
from causal_spark.panel.labels import label, listed
from causal_spark.panel.types import Bools, Ints, Notice, Panel


@dataclass(frozen=True, slots=True, eq=False)
class BlockPart:
    """The balanced part of one block, as positions in the panel.

    donors: (n_donors,); treated: (n_treated,); periods: (n_pre + n_post,), the first n_pre of them the pre-period.
    """

    donors: Ints
    treated: Ints
    periods: Ints
    n_pre: int


def read_parts(
    panel: Panel, design: CohortDesign, min_balanced_share: float
) -> tuple[tuple[BlockPart | None, ...], tuple[Notice, ...]]:
    """The part of each block to fit, and notices of all target cells and data left out.

    None stands for a block that has no donors, no target cells, or no balanced part with ``min_balanced_share`` of its
    observed cells. Raises MissingCellsError when no block is left to fit.
    """
    if panel.observed.all():
        parts = tuple(_whole(block) if block.donors.size else None for block in design.blocks)
        return parts, _structural(panel, design)
    dropped = _Dropped(panel, min_balanced_share)
    parts = tuple(dropped.read(block) for block in design.blocks)
    if all(part is None for part in parts):
        raise dropped.error()
    return parts, (*_structural(panel, design), *dropped.notices())


def _whole(block: BlockDesign) -> BlockPart:
    periods = np.concatenate([np.arange(block.start), np.arange(block.first, block.end)])
    return BlockPart(block.donors, block.treated, periods, block.start)


def _structural(panel: Panel, design: CohortDesign) -> tuple[Notice, ...]:
    """Notices of target cells that no block can predict, whether or not cells are missing."""
    notices: list[Notice] = []
    target = panel.target_cells
    always = design.always_treated
    if always.size:
        notices.append(
            Notice(
                "AlwaysTreatedUnits",
                f"{_count(always.size, 'unit')} treated from the first period on cannot be used "
                f"({listed(np.sort(panel.units[always]))}): without periods before treatment there is no prediction "
                f"for {_count(int(target[always].sum()), 'treated cell')}, and the estimate is about the other units.",
                "Add earlier periods of these units, or take the estimate as one of the others.",
            )
        )
    bare = [block for block in design.blocks if block.donors.size == 0]
    n_bare = sum(int(target[block.treated, block.first : block.end].sum()) for block in bare)
    if n_bare:
        first = min(block.first for block in bare)
        notices.append(
            Notice(
                "NoDonorsLeft",
                f"From {label(panel.periods[first])} on no unit is left untreated, so there is no prediction for "
                f"{_count(n_bare, 'treated cell')}, and the estimate is about the periods before.",
                "Add units that are untreated in these periods, or take the estimate as one of the earlier periods.",
            )
        )
    return tuple(notices)


class _Dropped:
    """Reads blocks of an incomplete panel and keeps account of what their balanced parts leave out."""

    def __init__(self, panel: Panel, min_balanced_share: float) -> None:
        self._panel = panel
        self._min_share = min_balanced_share
        self._missing: Bools = np.zeros(panel.observed.shape, dtype=np.bool_)
        self._donors: Bools = np.zeros(panel.n_units, dtype=np.bool_)
        self._treated: Bools = np.zeros(panel.n_units, dtype=np.bool_)
        self._before: Bools = np.zeros(panel.n_periods, dtype=np.bool_)
        self._after: Bools = np.zeros(panel.n_periods, dtype=np.bool_)
        self._n_observed = self._n_kept = self._n_targets = self._n_lost = 0
        self._n_blocks = self._n_reduced = self._n_unfitted = 0
        self._best_share = 0.0

    def read(self, block: BlockDesign) -> BlockPart | None:
        """The block's balanced part, over treated units and post-periods that have a target cell."""
        observed = self._panel.observed
        target = observed[block.treated, block.first : block.end]
        if block.donors.size == 0 or not target.any():
            return None
        treated = block.treated[target.any(axis=1)]
        post = block.first + np.flatnonzero(target.any(axis=0))
        periods, n_pre = np.concatenate([np.arange(block.start), post]), block.start
        of_donors, of_treated = observed[np.ix_(block.donors, periods)], observed[np.ix_(treated, periods)]
        n_observed = int(np.count_nonzero(of_donors)) + int(np.count_nonzero(of_treated))
        n_targets = int(np.count_nonzero(of_treated[:, n_pre:]))
        self._n_blocks += 1
        self._n_observed += n_observed
        self._n_targets += n_targets
        if of_donors.all() and of_treated[:, :n_pre].all():
            self._n_kept += n_observed
            return BlockPart(block.donors, treated, periods, n_pre)
        self._missing[np.ix_(block.donors, periods)] |= ~of_donors
        self._missing[np.ix_(treated, periods[:n_pre])] |= ~of_treated[:, :n_pre]
        part = balanced_part(of_donors, of_treated, n_pre, self._min_share)
        self._best_share = max(self._best_share, 0.0 if part is None else part.share)
        if part is None or part.share < self._min_share:
            self._n_unfitted += 1
            self._n_lost += n_targets
            return None
        self._n_reduced += 1
        self._n_kept += part.n_cells
        self._n_lost += n_targets - part.n_targets
        self._donors[block.donors[~part.donors]] = True
        self._treated[treated[~part.treated]] = True
        left_out = periods[~part.periods]
        self._before[left_out[left_out < block.start]] = True
        self._after[left_out[left_out >= block.start]] = True
        kept = periods[part.periods]
        return BlockPart(
            block.donors[part.donors], treated[part.treated], kept, int(np.count_nonzero(kept < block.start))
        )

    def error(self) -> MissingCellsError:
        """Why no block of the panel can be fitted."""
        best = f"the best keeps {_percent(self._best_share)}" if self._best_share else "none keeps anything"
        return MissingCellsError(
            f"Missing where none may be: {_count(int(self._missing.sum()), 'cell')} of "
            f"{_count(int(self._missing.any(axis=1).sum()), 'unit')}. No balanced part keeps "
            f"{_percent(self._min_share)} of the observed cells: {best}.",
            "Use did, mc or dwcp, which take missing cells, leave out the units or periods with most gaps, or lower "
            "min_balanced_share.",
        )

    def notices(self) -> tuple[Notice, ...]:
        """One notice of everything left out for missing cells, or none."""
        if not (self._n_reduced or self._n_unfitted):
            return ()
        units, periods = self._panel.units, self._panel.periods
        left_out = [
            f"{_count(int(mask.sum()), what)}{when} ({listed(np.sort(labels[mask]))})"
            for mask, what, when, labels in (
                (self._donors, "donor", "", units),
                (self._treated, "treated unit", "", units),
                (self._before, "period", " before treatment", periods),
                (self._after, "period", " after its start", periods),
            )
            if mask.any()
        ]
        among = " by at least one cohort or window" if self._n_blocks > 1 else ""
        kept = _percent(self._n_kept / self._n_observed)
        message = (
            "Cells are missing where none may be, so the estimate rests on the largest balanced part found: "
            f"{kept} of the observed cells."
        )
        if left_out:
            message += f" Left out{among}: {'; '.join(left_out)}."
        if self._n_unfitted:
            least = f"less than {_percent(self._min_share)}" if self._min_share else "nothing"
            message += (
                f" {self._n_unfitted} of {self._n_blocks} cohorts or windows would keep {least} and have no prediction."
            )
        if self._n_lost:
            message += (
                f" {self._n_lost} of {_count(self._n_targets, 'treated cell')} have no prediction for this reason."
            )
        else:
            message += " No treated cell loses its prediction."
        hint = (
            "Fill the gaps in the input, use did, mc or dwcp, which take missing cells, or raise min_balanced_share to "
            "have no estimate rather than this one."
        )
        return (Notice("DroppedCells", message, hint),)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _percent(share: float) -> str:
    """A share in percent, rounded down, so that 100% means all."""
    return f"{math.floor(share * 1000.0) / 10.0:g}%"
