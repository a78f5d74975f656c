"""Runs tasks of a study, on several processes if wanted, and finds which are still to be run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import pandas as pd
from threadpoolctl import threadpool_limits

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_Cell = TypeVar("_Cell")


def run_all(run: Callable[[_Task], _Result], tasks: Sequence[_Task], processes: int) -> Iterator[_Result]:
    """Results of every task, in the order in which they are done; one thread per process."""
    if processes == 1:
        with threadpool_limits(limits=1):
            yield from map(run, tasks)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, task) for task in tasks]):
            yield done.result()


def reported(results: Iterator[_Result], total: int, what: str, every: int) -> Iterator[_Result]:
    """The results, with a line for people whenever so many of them have been taken care of."""
    start = time.perf_counter()
    for k, one in enumerate(results, start=1):
        yield one
        if k % every == 0 or k == total:
            print(f"{k}/{total} {what}, {time.perf_counter() - start:.0f} s", flush=True)


def stored_draws(path: Path) -> set[int]:
    """Numbers of the draws that a file of rows has."""
    return set(pd.read_csv(path, usecols=["draw"])["draw"]) if path.is_file() else set()


def missing_batches(
    done: Mapping[_Cell, Collection[int]], n: int, size_of: Callable[[_Cell], int]
) -> list[tuple[_Cell, tuple[int, ...]]]:
    """What is not done of the first n draws, in batches; cells in turn, so that a run cut short has as many of each.

    done: numbers of the draws that each cell has. size_of: draws of a batch.
    """
    batches = []
    for cell, known in done.items():
        wanted = [number for number in range(n) if number not in known]
        size = size_of(cell)
        batches += [(cell, tuple(wanted[k : k + size])) for k in range(0, len(wanted), size)]
    return sorted(batches, key=lambda batch: batch[1][0])
