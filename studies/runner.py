"""Runs tasks of a study, on several processes if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

from threadpoolctl import threadpool_limits

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def run_all(run: Callable[[_Task], _Result], tasks: Sequence[_Task], processes: int) -> Iterator[_Result]:
    """Results of every task, in the order in which they are done; one thread per process."""
    if processes == 1:
        with threadpool_limits(limits=1):
            yield from map(run, tasks)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, task) for task in tasks]):
            yield done.result()
