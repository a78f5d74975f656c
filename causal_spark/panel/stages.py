"""Estimators whose work on one panel comes in pieces: rounds of chunks that may run here, or anywhere and in any order.

A round's chunks depend on panel, options, seed and the rounds before, never on each other. Their results are folded, in
the order of chunks, into a state, from which the next round starts. What comes out is the same bit for bit however
chunks are dealt out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_spark.errors import LostChunksError
from causal_spark.panel.types import Fit, Panel, PanelSize, Penalties

#: Arrays of numbers or truth values by name, of any shape. Results of chunks should be small beside the panel.
Arrays = Mapping[str, NDArray[Any]]


class Staged(Protocol):
    """One estimator's work on one panel, with options, penalties and seed.

    The first state is empty. An implementation may keep what follows from panel, options and seed; what it kept from
    chunks that it happened to run (a warm start, the best so far) would make results depend on the spreading.
    """

    def n_chunks(self, state: Arrays) -> int:
        """Chunks of the round that follows a state; 0: only `finish` is left."""
        ...

    def run(self, state: Arrays, chunk: int) -> Arrays:
        """One chunk of that round, 0 <= chunk < n_chunks. May raise as the estimator does."""
        ...

    def fold(self, state: Arrays, results: Sequence[Arrays]) -> Arrays:
        """The state after that round. results: of its chunks, in order."""
        ...

    def finish(self, state: Arrays) -> Fit:
        """The fit, from the state after the last round."""
        ...


@dataclass(frozen=True, slots=True)
class StagedDefinition:
    """How an estimator is split.

    start: (panel, options, penalties, seed) -> its work. Repeated wherever chunks run, so cheap beside a chunk.
    seconds: (size, options) -> core seconds of each round while tuning, which decides on the number of tasks. As many
    rounds are spread; how many depends on options alone. Any further ones run where the fit is finished.
    most_chunks: (size, options) -> chunks of each round at most, beyond which no task has anything to do.
    """

    start: Callable[[Panel, Any, Penalties | None, int], Staged]
    seconds: Callable[[PanelSize, Any], tuple[float, ...]]
    most_chunks: Callable[[PanelSize, Any], tuple[int, ...]]


def run_in_process(staged: Staged, done: Iterable[Mapping[int, Arrays]] = ()) -> Fit:
    """Every round that is not done yet, one chunk after the other, and the fit. done: see `state_after`."""
    state = state_after(staged, done)
    while n_chunks := staged.n_chunks(state):
        state = staged.fold(state, [_in_order(staged.run(state, chunk)) for chunk in range(n_chunks)])
    return staged.finish(state)


def state_after(staged: Staged, done: Iterable[Mapping[int, Arrays]]) -> Arrays:
    """The state after rounds whose chunks ran elsewhere.

    done: per round, chunk number to result; a round is empty where nothing was left to do. Raises `LostChunksError`
    when chunks are missing.
    """
    state: Arrays = {}
    for number, results in enumerate(done, start=1):
        n_chunks = staged.n_chunks(state)
        n_lost = n_chunks - sum(chunk in results for chunk in range(n_chunks))
        if n_lost:
            raise LostChunksError(
                f"{n_lost} of {n_chunks} pieces of round {number} did not come back.",
                "Run again; if they stay lost, report it as a defect of causal_spark.",
            )
        if n_chunks:
            state = staged.fold(state, [results[chunk] for chunk in range(n_chunks)])
    return state


def to_bytes(arrays: Arrays) -> bytes:
    """Arrays as bytes, exactly. Raises ValueError for arrays of objects."""
    buffer = io.BytesIO()
    # A prefix, since some names are parameters of savez.
    np.savez(buffer, allow_pickle=False, **{f"_{name}": array for name, array in _in_order(arrays).items()})
    return buffer.getvalue()


def _in_order(arrays: Arrays) -> Arrays:
    # Sums over the same numbers laid out otherwise may differ in the last bits.
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def from_bytes(content: bytes) -> Arrays:
    """What `to_bytes` was given. Raises ValueError for anything that would have to be unpickled."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name[1:]: stored[name] for name in stored.files}
