"""Names of groups and seeds: what makes results independent of the order of work."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    return value.isoformat() if isinstance(value, dt.date) else value


def group_id(key: Mapping[str, Any], types: Mapping[str, str]) -> str:
    """Canonical JSON of a group key, sorted by column, each value tagged with its type.

    key: group column to value (str, int, bool, date, aware datetime or None); types: group column to contract type.
    """
    tagged = {name: {types[name].lower(): _plain(value)} for name, value in key.items()}
    return json.dumps(tagged, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def canonical_json(value: Any) -> str:
    """JSON that is the same for equal values and that every reader takes: infinities become text."""

    def strict(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(key): strict(inner) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [strict(inner) for inner in part]
        return str(part) if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(strict(value), sort_keys=True, ensure_ascii=False, default=str)


def seed_for(run_seed: int, group: str, purpose: str) -> int:
    """A 63-bit seed from SHA-256 of (run seed, group id, purpose); the same on every machine and partitioning."""
    digest = hashlib.sha256(json.dumps([run_seed, group, purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def digest_of(parts: Iterable[str]) -> str:
    """A short stable hash of strings in the order given."""
    running = hashlib.sha256()
    for part in parts:
        running.update(part.encode())
        running.update(b"\x00")
    return running.hexdigest()[:32]
