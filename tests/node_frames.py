"""Frames of services whose latency has known causes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

EDGES = [
    ("load", "queue"),
    ("load", "cpu"),
    ("queue", "latency"),
    ("cpu", "latency"),
    ("release", "latency"),
    ("latency", "complaints"),
]
#: Little work: few draws, few refits.
QUICK: dict[str, Any] = {"graph": EDGES, "target": "latency", "draws": 300, "replicates": 3}


def services(n_rows: int, seed: int, region: str = "north", push: float = 0.0) -> pd.DataFrame:
    """Rows of one region; push: added to the noise of the queue."""
    generator = np.random.default_rng(seed)
    load = generator.normal(size=n_rows)
    queue = load + generator.normal(size=n_rows) + push
    cpu = np.tanh(load) + 0.5 * generator.normal(size=n_rows)
    release = np.where(generator.random(n_rows) < 0.3, "new", "old")
    latency = queue + cpu + (release == "new") + generator.normal(size=n_rows)
    return pd.DataFrame(
        {
            "region": region,
            "load": load,
            "queue": queue,
            "cpu": cpu,
            "release": release,
            "latency": latency,
            "complaints": latency + generator.normal(size=n_rows),
        }
    )


def incidents(n_rows: int, seed: int, region: str = "north") -> pd.DataFrame:
    """Events whose queue was pushed."""
    return services(n_rows, seed, region, push=6.0).assign(incident=range(n_rows))
