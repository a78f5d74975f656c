"""A work that, the first time a task runs it, does what machines do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causal_spark.engine.work import Group, GroupResult

#: Seconds a task hangs.
HANGS = 60


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])


@dataclass(frozen=True)
class Dying:
    """A work that stops once, in the middle of its first bundle of groups.

    how: worker (the Python process is killed), executor (its JVM is), slow (it hangs for long, so that a speculative
    attempt overtakes it). marker: a file that says it has happened.
    """

    inner: Any
    how: str
    marker: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def within(self, memory_limit: int | None) -> Dying:
        """See `Work`."""
        return Dying(self.inner.within(memory_limit), self.how, self.marker)

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """See `Work`."""
        first, *others = groups
        found = list(self.inner.run_bundle([first]))
        self._once()
        return found + (list(self.inner.run_bundle(others)) if others else [])

    def _once(self) -> None:
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if self.how == "slow":
            time.sleep(HANGS)
            return
        me = os.getpid()
        # The process was forked by a daemon that the executor's JVM started.
        os.kill(me if self.how == "worker" else _parent(_parent(me)), signal.SIGKILL)
        time.sleep(HANGS)
