"""What root cause analyses take: rows of the graph's nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]
#: What the mechanisms of continuous nodes may be: lines only, or sums of splines and lines by an information criterion.
MechanismKind = Literal["linear", "additive"]


@dataclass(frozen=True, slots=True, eq=False)
class NodeTable:
    """Rows of a graph's nodes.

    values: (n_rows, n_nodes) numbers; of a discrete node the place of its level; NaN where missing. n_levels: levels of
    each node, 0 for those that are continuous.
    """

    values: Floats
    n_levels: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """Rows."""
        return len(self.values)

    def rows(self, chosen: Places | Bools) -> NodeTable:
        """Some of the rows."""
        return NodeTable(self.values[chosen], self.n_levels)

    def nodes(self, places: tuple[int, ...]) -> NodeTable:
        """Some of the nodes."""
        return NodeTable(self.values[:, list(places)], tuple(self.n_levels[place] for place in places))

    def complete(self, places: tuple[int, ...]) -> Bools:
        """(n_rows,) whether all of some nodes are known."""
        return np.asarray(np.isfinite(self.values[:, list(places)]).all(axis=1))
