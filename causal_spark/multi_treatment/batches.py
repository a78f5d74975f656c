"""Rows of many networks that are trained at once: those of every step, and what goes beside padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from causal_spark.multi_treatment.types import Rows

_BATCH_ROWS = 256
_ROW_CLASS = 32
#: Steps whose batches are drawn at once.
_WINDOW = 16


def row_class(n_rows: int) -> int:
    """Rows that a sample, or a part of one, is padded to.

    Samples of one class are padded alike, whoever is trained beside them: sums are of the same numbers in the same
    order. Steps are multiples of the width of vector instructions, whose results differ in the last bit from those of
    the rest that is left at the end of an array.
    """
    return -(-n_rows // _ROW_CLASS) * _ROW_CLASS


class Batches:
    """Training rows of each step: all of a job that has few, else a batch of them, shuffled anew in every epoch."""

    def __init__(
        self, kept: Sequence[Rows], seeds: Sequence[int], least: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._kept, self._seeds, self._least, self._dtype, self._device = kept, seeds, least, dtype, device
        self._sizes = [min(_BATCH_ROWS, len(rows)) for rows in kept]
        self._shuffled = [place for place, rows in enumerate(kept) if len(rows) > _BATCH_ROWS]
        firsts = [rows[:size] for rows, size in zip(kept, self._sizes, strict=True)]
        self._first, self._weights = (one.to(device) for one in padded(firsts, min(least, _BATCH_ROWS), dtype))
        self._window = -1, self._first

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """(n_jobs, n_batch) rows of a step, and weights that sum to one in each job."""
        if not self._shuffled:
            return self._first, self._weights
        number, place = divmod(step, _WINDOW)
        if self._window[0] != number:
            self._window = number, self._drawn(number * _WINDOW)
        return self._window[1][place], self._weights

    def _drawn(self, start: int) -> Tensor:
        """(_WINDOW, n_jobs, n_batch) rows of some steps."""
        rows = np.repeat(self._first.cpu().numpy()[None], _WINDOW, axis=0)
        for place in self._shuffled:
            kept, size = self._kept[place], self._sizes[place]
            # What is left at the end of an epoch is less than a batch, and other rows in every epoch.
            per_epoch = len(kept) // size
            epochs = range(start // per_epoch, (start + _WINDOW - 1) // per_epoch + 1)
            generators = (np.random.default_rng((self._seeds[place], epoch)) for epoch in epochs)
            orders = np.concatenate([one.permutation(kept)[: per_epoch * size] for one in generators])
            skipped = start % per_epoch
            rows[:, place, :size] = orders.reshape(-1, size)[skipped : skipped + _WINDOW]
        return torch.from_numpy(rows).to(self._device)

    def of_jobs(self, places: Sequence[int]) -> Batches:
        """Those of some jobs."""
        kept, seeds = [self._kept[place] for place in places], [self._seeds[place] for place in places]
        return Batches(kept, seeds, self._least, self._dtype, self._device)


def padded(rows: Sequence[Rows], least: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(n_jobs, n_most) rows, so many at least, and weights that sum to one over those of each job."""
    most = max(least, *map(len, rows))
    padded = np.stack([np.pad(one, (0, most - len(one))) for one in rows])
    mask = np.stack([np.arange(most) < len(one) for one in rows]) / np.array([[len(one)] for one in rows])
    return torch.tensor(padded), torch.tensor(mask, dtype=dtype)
