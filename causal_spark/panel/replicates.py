"""Replicates: the same estimator on changed panels, in lists that can be computed in slices, anywhere and in any order.

Placebos, bootstraps and jackknives are all of this kind. What comes of a slice depends on panel, fit, options, seed and
the slice's place in the list only. Variances that need the same list share one computation of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from causal_spark.errors import GroupError
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.event_study import event_study
from causal_spark.panel.stages import Arrays
from causal_spark.panel.summary import att
from causal_spark.panel.types import Fit, Ints, Panel, PanelSize

_Made = TypeVar("_Made")

#: Replicates computed in one go, whether here or elsewhere: the seconds they take, the numbers they make, and how many
#: they are, at most.
CHUNK_SECONDS, CHUNK_NUMBERS, MOST_PER_CHUNK = 2.0, 4_000_000, 100


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """An estimate whose variance is wanted.

    definition, options: how it was made; fit: what came of it on the panel.
    seed: label of what is random -> its seed. It does not depend on the estimator, so that all estimators are judged on
    the same placebo assignments.
    """

    panel: Panel
    definition: EstimatorDefinition
    options: Any
    fit: Fit
    seed: Callable[[str], int]
    _kept: dict[Hashable, object] = field(default_factory=dict, repr=False)

    def keep(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        """What ``make`` gave the first time somebody asked with this key; it follows from the setting alone."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast(_Made, self._kept[key])


class ReplicateSet(Protocol):
    """A list of replicates. Implementations are frozen dataclasses: equal ones stand for the same list.

    retune: whether each replicate chooses its penalties anew.
    """

    @property
    def retune(self) -> bool:
        """See above."""
        ...

    def n_fits(self, size: PanelSize) -> int:
        """How many there are at most, from what a plan knows of a panel; 0 where there cannot be any."""
        ...

    def seconds(self, size: PanelSize, definition: EstimatorDefinition, options: Any) -> float:
        """Core seconds of one replicate."""
        ...

    def numbers(self, size: PanelSize) -> int:
        """Floating point numbers that all results hold, at most."""
        ...

    def count(self, of: Setting) -> int:
        """How many there are. Raises `DeclinedError` where there cannot be any."""
        ...

    def covers(self, other: ReplicateSet) -> bool:
        """Whether results of this list can stand for those of the other one."""
        ...

    def run(self, of: Setting, start: int, stop: int) -> Arrays:
        """Results of replicates start to stop; arrays have one entry per replicate along their first axis.

        Raises the first `GroupError` of a replicate that has no estimate: leaving it out would bias the variance.
        """
        ...


class Replicates:
    """Results of lists of replicates for one setting, each computed at most once.

    planned: every list somebody will ask for. done: results of chunks that ran elsewhere, by list and chunk; a chunk
    may have ended in an exception.
    """

    def __init__(
        self,
        of: Setting,
        planned: Sequence[ReplicateSet] = (),
        done: Mapping[ReplicateSet, Mapping[int, Arrays | Exception]] | None = None,
    ) -> None:
        self._of = of
        self._planned = distinct(planned)
        self._done = dict(done or {})
        self._known: dict[ReplicateSet, Arrays | Exception] = {}

    def of(self, wanted: ReplicateSet) -> Arrays:
        """All results of a list, nothing for an empty one.

        Raises what the first chunk with an error raised, to everybody who asks.
        """
        wanted = next((other for other in self._planned if other.covers(wanted)), wanted)
        if wanted not in self._known:
            try:
                self._known[wanted] = self._computed(wanted)
            except Exception as error:  # noqa: BLE001 - raised below, to everybody who asks
                self._known[wanted] = error
        found = self._known[wanted]
        if isinstance(found, Exception):
            raise found
        return found

    def _computed(self, wanted: ReplicateSet) -> Arrays:
        done = self._done.get(wanted, {})
        parts = []
        for chunk in range(n_chunks(wanted, self._of)):
            part = done[chunk] if chunk in done else run_chunk(wanted, self._of, chunk)
            if isinstance(part, Exception):
                raise part
            parts.append(part)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def distinct(sets: Sequence[ReplicateSet]) -> tuple[ReplicateSet, ...]:
    """The lists that cover all of these, in their order; of two that cover each other the first."""
    kept: list[ReplicateSet] = []
    for one in sets:
        if not any(other.covers(one) for other in kept):
            kept = [other for other in kept if not one.covers(other)] + [one]
    return tuple(kept)


def n_chunks(wanted: ReplicateSet, of: Setting) -> int:
    """Chunks of a list. Raises as its `count` does."""
    return -(-wanted.count(of) // _per_chunk(wanted, PanelSize.of(of.panel), of.definition, of.options))


def most_chunks(wanted: ReplicateSet, size: PanelSize, definition: EstimatorDefinition, options: Any) -> int:
    """Chunks of a list at most, from what a plan knows of a panel."""
    return -(-wanted.n_fits(size) // _per_chunk(wanted, size, definition, options))


def run_chunk(wanted: ReplicateSet, of: Setting, chunk: int) -> Arrays:
    """Results of one chunk. Raises as the list's `count` and `run` do."""
    n = _per_chunk(wanted, PanelSize.of(of.panel), of.definition, of.options)
    return wanted.run(of, chunk * n, min((chunk + 1) * n, wanted.count(of)))


def _per_chunk(wanted: ReplicateSet, size: PanelSize, definition: EstimatorDefinition, options: Any) -> int:
    seconds = wanted.seconds(size, definition, options)
    numbers = wanted.numbers(size) / max(wanted.n_fits(size), 1)
    most = min(float(MOST_PER_CHUNK), CHUNK_SECONDS / max(seconds, 1e-9), CHUNK_NUMBERS / max(numbers, 1.0))
    return max(1, int(most))


def refit_seconds(wanted: ReplicateSet, size: PanelSize, definition: EstimatorDefinition, options: Any) -> float:
    """Core seconds of a replicate that is a fit like the estimate's, or, unless retuned, one with its penalties."""
    return definition.cost(size, options, wanted.retune)


def event_times(panel: Panel) -> Ints:
    """Every event time a panel with this treatment can have, ascending."""
    start = panel.treated[panel.ever_treated].argmax(axis=1)
    return np.arange(-int(start.max()), panel.n_periods - int(start.min()), dtype=np.intp)


def estimates(fits: Sequence[Callable[[], tuple[Panel, Fit]]], event_time: Ints, what: str) -> Arrays:
    """``att`` (n,) and ``event_effects`` (n, k) of replicates, NaN where one has no cell at an event time.

    fits: each makes a replicate's panel and fit. event_time: (k,) ascending. what: names the kind of replicate in the
    message of the error, see `raise_first`.
    """
    effects = np.full(len(fits), np.nan)
    event_effects = np.full((len(fits), event_time.size), np.nan)
    failures: list[GroupError] = []
    for b, make in enumerate(fits):
        try:
            panel, fit = make()
            effects[b] = att(panel, fit)
        except GroupError as error:
            failures.append(error)
            continue
        study = event_study(panel, fit)
        event_effects[b, np.searchsorted(event_time, study.event_time)] = study.estimate
    raise_first(failures, len(fits), what)
    return {"att": effects, "event_effects": event_effects}


def raise_first(failures: Sequence[GroupError], n: int, what: str) -> None:
    """Raise the class of the first of these errors, if any, with the number of replicates that failed."""
    if failures:
        first = failures[0]
        raise type(first)(
            f"{len(failures)} of {n} {what} replicates have no estimate; the first: {first.message}",
            first.hint or f"Leave the {what} variance out.",
        )


def replicate_seed(seed: int, *what: int) -> int:
    """Seed of one replicate from the seed of its list and the numbers that tell it from others."""
    return int(np.random.SeedSequence([seed, *what]).generate_state(1, np.uint64)[0])
