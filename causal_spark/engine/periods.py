"""Whether the periods of a panel are evenly spaced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_spark.panel.labels import label
from causal_spark.panel.types import Notice

#: A step this many times longer or shorter than the median one is irregular. Months (28 to 31 days), quarters, years
#: and days of 23 and 25 hours stay within it; a weekend between days does not.
IRREGULAR = 1.5


def uneven_periods(periods: NDArray[Any]) -> Notice | None:
    """A notice when distinct periods are not evenly spaced, else None.

    periods: (n_periods,) distinct integers, dates or timestamps, ascending. Estimators measure time in periods, so that
    a gap of ten years counts as one step where nothing lies between.
    """
    if len(periods) < 3:
        return None
    # Differences of 64-bit integers may not fit into one with a sign; without it they wrap around to the right value.
    steps = np.diff(periods.astype(np.int64).view(np.uint64)).astype(np.float64)
    # Of two in the middle the shorter one: their mean would call steps of 1 and 2 alike.
    middle = (len(steps) - 1) // 2
    share = steps / np.partition(steps, middle)[middle]
    irregular = (share > IRREGULAR) | (share < 1.0 / IRREGULAR)
    if not irregular.any():
        return None
    odd = int(np.argmax(np.abs(np.log(share))))
    return Notice(
        "UnevenPeriods",
        f"{int(irregular.sum())} of {len(steps)} steps between neighbouring periods differ from the usual one; the "
        f"oddest, from {label(periods[odd])} to {label(periods[odd + 1])}, is {share[odd]:.3g} times the median step. "
        "Distances in time count periods, not the time between them.",
        "Add rows with a NULL outcome for the missing periods if they should count, or aggregate time to even periods.",
    )
