"""One estimator's work on one panel in rounds of chunks: what finds its penalties and its fit, then the replicates.

An estimator that comes in pieces has its own rounds; another has one, of a single chunk, that gives the penalties. If
there are replicates worth spreading, one more round follows: chunks of all lists of replicates, in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from causal_spark import errors
from causal_spark.engine.work import Failure, Piece, RoundSize
from causal_spark.errors import GroupError
from causal_spark.panel.definitions import EstimatorDefinition
from causal_spark.panel.replicates import ReplicateSet, Setting, most_chunks, n_chunks, run_chunk
from causal_spark.panel.stages import Arrays, Staged, from_bytes, run_in_process, state_after
from causal_spark.panel.types import Fit, Panel, PanelSize, Penalties

#: Replicates that take less, in core seconds, run where the group is finished.
REPLICATE_SECONDS = 10.0

#: Per round, chunk number to result.
Rounds = Sequence[Mapping[int, Arrays]]


class FailedElsewhereError(Exception):
    """A chunk of replicates failed in another task, and not for what is wrong with the group. failure: how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def round_sizes(
    definition: EstimatorDefinition, options: Any, sets: Sequence[ReplicateSet], size: PanelSize
) -> list[RoundSize]:
    """Rounds of an estimator and its replicates; none where nothing can be split."""
    staged = definition.staged
    if staged is None:
        sizes = [RoundSize(definition.cost(size, options, True), 1)]
    else:
        found = zip(staged.seconds(size, options), staged.most_chunks(size, options), strict=True)
        sizes = [RoundSize(*one) for one in found]
    seconds = sum(replicate_seconds(definition, options, one, size) for one in sets)
    if seconds > REPLICATE_SECONDS:
        sizes.append(RoundSize(seconds, sum(most_chunks(one, size, definition, options) for one in sets)))
    elif staged is None:
        return []
    return sizes


def replicate_seconds(definition: EstimatorDefinition, options: Any, one: ReplicateSet, size: PanelSize) -> float:
    """Core seconds of a list of replicates."""
    return one.n_fits(size) * one.seconds(size, definition, options)


class PanelParts:
    """The rounds of one estimator on one panel.

    tuning_seed: of the estimator; seed: of replicates, see `Setting`.
    """

    def __init__(
        self,
        panel: Panel,
        definition: EstimatorDefinition,
        options: Any,
        sets: Sequence[ReplicateSet],
        tuning_seed: int,
        seed: Callable[[str], int],
    ) -> None:
        self._panel, self._definition, self._options = panel, definition, options
        self._sets, self._tuning_seed, self._seed = sets, tuning_seed, seed

    @property
    def n_fit_rounds(self) -> int:
        """Rounds before that of the replicates."""
        staged = self._definition.staged
        return 1 if staged is None else len(staged.seconds(PanelSize.of(self._panel), self._options))

    def chunks(self, number: int, done: Sequence[Piece]) -> tuple[int, Callable[[int], Arrays]]:
        """Chunks of a round and what computes one. done: pieces of the rounds before."""
        rounds = _results(done)
        if number < self.n_fit_rounds:
            if self._definition.staged is None:
                return 1, lambda _: _as_arrays(self._whole_fit(None).penalties)
            staged = self._start()
            state = state_after(staged, rounds)
            return staged.n_chunks(state), partial(staged.run, state)
        setting = self.setting(self._fit_for_replicates(rounds))
        jobs = self._jobs(setting)
        return len(jobs), lambda k: run_chunk(jobs[k][0], setting, jobs[k][1])

    def setting(self, fit: Fit) -> Setting:
        """What replicates of a fit are made of."""
        return Setting(self._panel, self._definition, self._options, fit, self._seed)

    def fit(self, done: Sequence[Piece]) -> Fit:
        """The fit. done: pieces of its rounds, none where it was not split."""
        if not done or self._definition.staged is None:
            return self._whole_fit(None)
        return run_in_process(self._start(), _results(done))

    def replicates(self, setting: Setting, done: Sequence[Piece]) -> dict[ReplicateSet, dict[int, Arrays | Exception]]:
        """Results of chunks that ran elsewhere. done: pieces of the replicates' round."""
        found: dict[ReplicateSet, dict[int, Arrays | Exception]] = {}
        pieces = {piece.chunk: piece for piece in done if piece.chunk is not None}
        for place, (one, chunk) in enumerate(self._jobs(setting) if pieces else []):
            piece = pieces.get(place)
            if piece is not None and piece.failure is not None:
                found.setdefault(one, {})[chunk] = _as_error(piece.failure)
            elif piece is not None and piece.content is not None:
                found.setdefault(one, {})[chunk] = from_bytes(piece.content)
        return found

    def _jobs(self, setting: Setting) -> list[tuple[ReplicateSet, int]]:
        jobs: list[tuple[ReplicateSet, int]] = []
        for one in self._sets:
            try:
                n = n_chunks(one, setting)
            except GroupError:
                # Whoever asks for these replicates will be told why there are none.
                n = 0
            jobs += [(one, chunk) for chunk in range(n)]
        return jobs

    def _fit_for_replicates(self, rounds: Rounds) -> Fit:
        if self._definition.staged is not None:
            return run_in_process(self._start(), rounds)
        return self._whole_fit(_as_penalties(rounds[0][0]))

    def _whole_fit(self, penalties: Penalties | None) -> Fit:
        return self._definition.fit(self._panel, self._options, penalties, self._tuning_seed)

    def _start(self) -> Staged:
        staged = self._definition.staged
        assert staged is not None  # noqa: S101 - asked before
        return staged.start(self._panel, self._options, None, self._tuning_seed)


def _as_error(failure: Failure) -> Exception:
    """The error that a chunk ended in."""
    kind = getattr(errors, failure.error_class, None)
    if isinstance(kind, type) and issubclass(kind, GroupError):
        return kind(failure.message, failure.hint)
    return FailedElsewhereError(failure)


def _results(pieces: Sequence[Piece]) -> list[dict[int, Arrays]]:
    rounds: list[dict[int, Arrays]] = [{} for _ in range(max((piece.round + 1 for piece in pieces), default=0))]
    for piece in pieces:
        if piece.chunk is not None and piece.content is not None:
            rounds[piece.round][piece.chunk] = from_bytes(piece.content)
    return rounds


def _as_arrays(penalties: Penalties) -> Arrays:
    given = {field.name: getattr(penalties, field.name) for field in dataclasses.fields(penalties)}
    return {name: np.array(value, dtype=float) for name, value in given.items() if value is not None}


def _as_penalties(arrays: Arrays) -> Penalties:
    values: dict[str, Any] = {name: tuple(v.tolist()) if v.ndim else float(v) for name, v in arrays.items()}
    return Penalties(**values)
