"""Mechanisms: how a node comes from its parents and its noise, and back.

Continuous nodes are a sum of functions of the parents and a noise that is independent of them, so the noise of a row
is its residual. Discrete nodes take the level with the largest sum of a logit and Gumbel noise (Gumbel-max): their
noise is not known but can be drawn given what was observed (truncated Gumbels; Maddison, Tarlow, Minka, "A* sampling",
NIPS 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from causal_spark.root_cause.components import Component, Line, summed
from causal_spark.root_cause.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousMechanism:
    """x = intercept + sum of components of the parents + noise.

    components: one per parent. residuals: (n_rows,) of the rows of the fit. n_parameters: beside the intercept.
    """

    intercept: float
    components: tuple[Component, ...]
    residuals: Floats
    n_parameters: int

    @property
    def name(self) -> str:
        """What it is."""
        if not self.components:
            return "empirical"
        return "linear" if self.is_linear else "additive"

    @property
    def is_linear(self) -> bool:
        """Whether the components are lines."""
        return all(isinstance(component, Line) for component in self.components)

    def expected(self, parents: Sequence[Floats]) -> Floats:
        """What it is but for the noise. parents: their values, arrays of one shape."""
        parts = [component(values) for component, values in zip(self.components, parents, strict=True)]
        return summed(self.intercept, parts)

    def value(self, parts: Sequence[Floats], noise: Floats) -> Floats:
        """The node from components that were evaluated and noise, arrays that can be broadcast."""
        return summed(self.intercept, [*parts, noise])

    def draws(self, ranks: Floats) -> Floats:
        """(n_draws,) noise at ranks in (0, 1) of the residuals."""
        ordered = np.sort(self.residuals)
        return np.asarray(ordered[np.minimum((ranks * len(ordered)).astype(np.intp), len(ordered) - 1)])


@dataclass(frozen=True, slots=True, eq=False)
class DiscreteMechanism:
    """A multinomial logit of the parents.

    intercepts: (n_levels,) logits where all components are zero. components: one per parent, to n_levels logits each.
    surprises: (n_rows,) minus the log probability of what was observed in the rows of the fit.
    """

    intercepts: Floats
    components: tuple[Component, ...]
    surprises: Floats
    n_parameters: int

    name = "multinomial"
    is_linear = False

    @property
    def n_levels(self) -> int:
        """Levels of the node."""
        return len(self.intercepts)

    def log_chances(self, parents: Sequence[Floats]) -> Floats:
        """Log probabilities of the levels, a last axis behind the parents' shape."""
        parts = [component(values) for component, values in zip(self.components, parents, strict=True)]
        logits = summed(self.intercepts, parts)
        return np.asarray(logits - special.logsumexp(logits, axis=-1, keepdims=True))

    def value(self, parts: Sequence[Floats], noise: Floats) -> Floats:
        """The level from components that were evaluated and noise (..., n_levels)."""
        return np.asarray(summed(self.intercepts, [*parts, noise]).argmax(axis=-1), dtype=float)

    def draws(self, ranks: Floats) -> Floats:
        """(n_draws, n_levels) standard Gumbel noise at ranks (n_draws, n_levels) in (0, 1)."""
        return np.asarray(-np.log(-np.log(ranks)))

    def posterior_draws(self, ranks: Floats, parents: Sequence[Floats], observed: int) -> Floats:
        """(n_draws, n_levels) noise given the level that came of it. parents: numbers, those of the row."""
        log_chances = self.log_chances(parents)
        gumbels = self.draws(ranks)
        # The largest sum is Gumbel whatever level it is of, and the others are Gumbel cut off at it.
        largest = gumbels[:, [observed]]
        sums = -np.logaddexp(-largest, -(log_chances + gumbels))
        sums[:, [observed]] = largest
        return np.asarray(sums - log_chances)


Mechanism = ContinuousMechanism | DiscreteMechanism
