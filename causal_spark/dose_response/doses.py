"""Doses at which a segment's curve is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_spark.dose_response.second_stage import middle_of
from causal_spark.dose_response.types import Floats, Notice, Segment
from causal_spark.errors import TreatmentSupportError


def choose_doses(segment: Segment, wanted: int | Sequence[float]) -> tuple[Floats, tuple[Notice, ...]]:
    """(n_grid,) ascending doses, and what to know of them.

    wanted: a number of doses, equally spaced between the 5% and the 95% quantile of the treatment, or the doses
    themselves, of which those beyond the segment's treatments are left out. Raises `TreatmentSupportError` where none
    stay, or where the two quantiles are the same.
    """
    if isinstance(wanted, int):
        low, high = middle_of(segment.treatment, segment.sample_weights)
        if low == high:
            raise TreatmentSupportError(
                f"Nine rows of ten have the treatment {low:g}.",
                "Name the doses with `grid`, or take the rest by itself.",
            )
        return np.linspace(low, high, wanted), ()
    doses = np.unique(np.asarray(wanted, dtype=np.float64))
    low, high = segment.treatment.min(), segment.treatment.max()
    inside = doses[(doses >= low) & (doses <= high)]
    if not len(inside):
        raise TreatmentSupportError(
            f"No dose of the grid lies between the lowest treatment, {low:g}, and the highest, {high:g}.",
            "Ask for other doses in this group.",
        )
    if len(inside) == len(doses):
        return inside, ()
    outside = ", ".join(f"{dose:g}" for dose in np.setdiff1d(doses, inside)[:5])
    told = Notice(
        "DosesOutOfRange",
        f"{len(doses) - len(inside)} doses lie beyond the treatments of the group, {low:g} to {high:g}: {outside}.",
        "There is no curve at doses that nobody received.",
    )
    return inside, (told,)
