"""Which mechanisms changed a quantile of the target, or its distribution: samples from mixtures of two models.

A coalition of mechanisms is taken from the new model, the others from the old one, and the target is sampled; the
contributions are Shapley values of the functional (Budhathoki, Janzing, Bloebaum, Ng, "Why did the distribution
change?", AISTATS 2021, section 3). Both models draw their noise at the same ranks, so that mechanisms that did not
change contribute nothing but what estimation makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from causal_spark.root_cause.coalitions import DrawOptions, coalitions_of
from causal_spark.root_cause.evaluation import State, schedule, target_values
from causal_spark.root_cause.model import GraphModel
from causal_spark.root_cause.types import Floats

#: Bins per cube root of draws: where a divergence is read from counts.
_BINS = 2.0


class Functional(Protocol):
    """A number of the target's distribution, or of how far it is from another."""

    @property
    def name(self) -> str:
        """As in the result table."""
        ...

    def __call__(self, values: Floats, base: Floats) -> Floats:
        """(n_samples,) of samples (n_samples, n_draws), each row sorted; base: (n_draws,) the sorted old one."""
        ...


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of the target, in its units."""

    level: float

    @property
    def name(self) -> str:
        """See `Functional`."""
        return f"quantile:{self.level:g}"

    def __call__(self, values: Floats, base: Floats) -> Floats:
        """See `Functional`."""
        del base
        place = self.level * (values.shape[1] - 1)
        low = int(place)
        high = min(low + 1, values.shape[1] - 1)
        return np.asarray(values[:, low] + (place - low) * (values[:, high] - values[:, low]))


@dataclass(frozen=True, slots=True)
class Divergence:
    """Kullback-Leibler divergence, in nats, of the target's distribution from the old one; from counts in bins that
    the old one and that of the last sample fill evenly together. What happens within a bin is not seen.
    """

    name = "kl"

    def __call__(self, values: Floats, base: Floats) -> Floats:
        """See `Functional`."""
        n_draws = len(base)
        n_bins = int(np.ceil(_BINS * np.cbrt(n_draws)))
        # Tails of either are told apart, not those of the old one alone.
        pooled = np.concatenate([base, values[-1]])
        edges = np.unique(np.quantile(pooled, np.arange(1, n_bins) / n_bins))
        shares, old = (self._shares(rows, edges) for rows in (values, base[None]))
        return np.asarray((shares * np.log(shares / old)).sum(axis=1))

    @staticmethod
    def _shares(values: Floats, edges: Floats) -> Floats:
        n_draws, n_bins = values.shape[1], len(edges) + 1
        below = np.stack([np.searchsorted(row, edges, side="left") for row in values])
        counts = np.diff(below, axis=1, prepend=0, append=n_draws)
        return np.asarray((counts + 0.5) / (n_draws + 0.5 * n_bins))


def plug_in_changes(
    old: GraphModel, new: GraphModel, functionals: Sequence[Functional], options: DrawOptions, seed: int
) -> Floats:
    """(n_functionals, n_nodes) contributions, which sum to the functional of the new model less that of the old one.

    old, new: models of one graph, whose last node is the target and all others its ancestors.
    """
    players = coalitions_of(old.graph.n_nodes, options.n_pairs, seed)
    # The same seed gives the same ranks to both.
    before, after = (State(model.mechanisms, model.draw(options.n_draws, seed).of) for model in (old, new))
    plan = schedule(old.graph, players.members)
    target = np.empty((len(players.members), options.n_draws))
    for block, values in target_values(plan, after, before, options.n_draws):
        target[:, block] = values
    target.sort(axis=1)
    base = target[0].copy()
    return np.stack([players.shapley(functional(target, base)) for functional in functionals])
