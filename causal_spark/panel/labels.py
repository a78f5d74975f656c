"""Labels of units and periods in messages and in names of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Labels a message lists before it says how many more there are.
N_LISTED = 10


def label(value: Any) -> str:
    """A label as text: dates and timestamps in ISO 8601 without a fraction of zero seconds, others as such."""
    text = str(value)
    if isinstance(value, np.datetime64):
        whole, _, fraction = text.partition(".")
        return text if fraction.strip("0") else whole
    return text


def listed(values: NDArray[Any]) -> str:
    """The first ten labels, and how many more there are."""
    shown = ", ".join(label(value) for value in values[:N_LISTED])
    n_more = len(values) - N_LISTED
    return f"{shown} and {n_more} more" if n_more > 0 else shown
