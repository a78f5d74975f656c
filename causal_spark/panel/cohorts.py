"""Block designs: who is treated from when, in which windows, and who can serve as donor there.

A cohort is the units first treated in one period. Against never-treated donors it forms one block with all of them, as
Arkhangelsky et al. (2021, appendix A) propose for staggered adoption. Where units not yet treated serve as well, the
donors grow fewer each time a later cohort starts, so the cohort's post-period is cut into windows at these starts, and
each window is a block with the donors that stay untreated to its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from causal_spark.errors import (
    NoControlUnitsError,
    NoPrePeriodsError,
    NoTreatedCellsError,
    UnsupportedCovariatesError,
    UnsupportedPatternError,
)
from causal_spark.panel.labels import label
from causal_spark.panel.types import Bools, Ints, Panel, Penalties

#: Who may be a donor: units never treated, or also those first treated only after the window in question.
Donors = Literal["never_treated", "not_yet_treated"]


@dataclass(frozen=True, slots=True, eq=False)
class BlockDesign:
    """A cohort in one window of its post-period.

    start: position of the cohort's first treated period; first, end: the window [first, end), first = start for the
    first one; treated: (n_treated,) positions of the cohort's units; donors: (n_donors,) those of its donors, perhaps
    none. suffix: what tells the block's weights from others', empty when it is the only one.
    """

    start: int
    first: int
    end: int
    treated: Ints
    donors: Ints
    suffix: str


@dataclass(frozen=True, slots=True, eq=False)
class CohortDesign:
    """The blocks of a panel by cohort and window, as the treatment indicator alone gives them.

    always_treated: (k,) positions of units treated from the first period on; they are in no block and never donors.
    """

    blocks: tuple[BlockDesign, ...]
    always_treated: Ints


def check_block_options(donors: str, min_balanced_share: float) -> None:
    """Raise ValueError naming the field when an option that block estimators share is out of range."""
    if donors not in ("never_treated", "not_yet_treated"):
        raise ValueError(f"donors must be never_treated or not_yet_treated, not {donors!r}.")
    if not 0.0 <= min_balanced_share <= 1.0:
        raise ValueError(f"min_balanced_share must lie between 0 and 1, not {min_balanced_share}.")


def first_treated(treated: Bools) -> Ints:
    """(n_units,) position of each unit's first treated period, n_periods for the never treated."""
    return np.asarray(np.where(treated.any(axis=1), treated.argmax(axis=1), treated.shape[1]))


def read_cohorts(panel: Panel, donors: Donors = "never_treated") -> CohortDesign:
    """Blocks of a panel with absorbing treatment; some block has both donors and target cells.

    A treated unit counts as treated from its first treated period on, even where later cells are absent. Units treated
    in every period belong to no cohort: their cells cannot be identified and stay NaN in the counterfactual.

    Raises NoTreatedCellsError, UnsupportedPatternError (treatment that ends), NoControlUnitsError, NoPrePeriodsError
    and UnsupportedCovariatesError.
    """
    if panel.covariates is not None:
        raise UnsupportedCovariatesError(
            "This estimator cannot adjust for covariates.", "Leave the covariates out, or use an estimator with them."
        )
    target = panel.target_cells
    if not target.any():
        raise NoTreatedCellsError("No observed cell is treated.", "Check the treatment column.")
    start = first_treated(panel.treated)
    _check_absorbing(panel, start)
    counts = np.bincount(start, minlength=panel.n_periods + 1)
    starts = [int(s) for s in counts[:-1].nonzero()[0] if s > 0]
    if donors == "never_treated" and not counts[-1]:
        raise NoControlUnitsError(
            "Every unit is treated at some time, so there are no donors.",
            "Set donors: not_yet_treated, add untreated units, or use did, mc or dwcp."
            if len(starts) > 1
            else "Add untreated units, or use did, mc or dwcp.",
        )
    always_treated = np.flatnonzero(start == 0)
    if not target[start > 0].any():
        raise NoPrePeriodsError(
            "Every treated unit is treated from the first period on.", "Add earlier periods of the treated units."
        )
    blocks = _blocks(panel, start, starts, donors)
    if not any(block.donors.size and target[block.treated, block.first : block.end].any() for block in blocks):
        raise NoControlUnitsError(
            "Whenever a treated cell is observed, every unit is treated or soon will be, so there are no donors.",
            "Add units that are untreated in these periods, or use did, mc or dwcp.",
        )
    return CohortDesign(blocks, always_treated)


def _blocks(panel: Panel, start: Ints, starts: list[int], donors: Donors) -> tuple[BlockDesign, ...]:
    end = panel.n_periods
    windows = [
        (cohort, first, last)
        for k, cohort in enumerate(starts)
        for first, last in ([(cohort, end)] if donors == "never_treated" else pairwise([*starts[k:], end]))
    ]
    return tuple(
        BlockDesign(
            cohort,
            first,
            last,
            np.flatnonzero(start == cohort),
            np.flatnonzero(start >= (end if donors == "never_treated" else last)),
            _suffix(panel, cohort, first, donors) if len(windows) > 1 else "",
        )
        for cohort, first, last in windows
    )


def _suffix(panel: Panel, cohort: int, first: int, donors: Donors) -> str:
    suffix = f":{label(panel.periods[cohort])}"
    return suffix if donors == "never_treated" else f"{suffix}:{label(panel.periods[first])}"


def _check_absorbing(panel: Panel, start: Ints) -> None:
    back = panel.control_cells & (np.arange(panel.n_periods) > start[:, None])
    if back.any():
        n_back = int(back.any(axis=1).sum())
        raise UnsupportedPatternError(
            f"Treatment ends again in {n_back} unit(s), but this estimator takes it as lasting.",
            "Use did, mc or dwcp, which take any pattern.",
        )


def zetas_for(penalties: Penalties, panel: Panel, changed: Panel, donors: Donors) -> Penalties:
    """Ridge levels of a panel's blocks, for those of a changed panel with the same periods.

    A block of the changed panel has those of the panel's block of the same cohort and window, NaN where there is none.
    """
    if penalties.zeta_unit is None:
        return penalties
    places = {_window(block): place for place, block in enumerate(read_cohorts(panel, donors).blocks)}
    found = [places.get(_window(block)) for block in read_cohorts(changed, donors).blocks]

    def chosen(zetas: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if zetas is None else tuple(math.nan if k is None else zetas[k] for k in found)

    return replace(penalties, zeta_unit=chosen(penalties.zeta_unit), zeta_time=chosen(penalties.zeta_time))


def _window(block: BlockDesign) -> tuple[int, int, int]:
    return block.start, block.first, block.end
