"""Frames of individuals with arms that the tests share, and estimators that are quick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

TREES = {"boosting": {"leaves": [4], "max_iter": 8}}
X_LEARNER: Any = {"name": "x_learner", **TREES}
S_LEARNER: Any = {"name": "s_learner", **TREES}
MEMENTO: Any = {
    "name": "memento",
    "weight_decays": [1e-2],
    "alphas": [0.1],
    "matchings": ["population"],
    "hidden": 8,
    "representation": 6,
    "head_units": 4,
    "small_below": 0,
}
ROLES: dict[str, Any] = {
    "row_id": "id",
    "treatment": "offer",
    "outcome": "y",
    "covariates": ["x", "z", "kind"],
    "groups": ["region"],
}


def customers(n_rows: int = 150, seed: int = 0, region: str = "r", is_binary: bool = False) -> pd.DataFrame:
    """Offers go by x, which raises the outcome; mail adds 1 + z, a call 2 where z is positive."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n_rows))
    offer = np.where(rng.random(n_rows) < 0.4, "none", np.where(x + rng.normal(size=n_rows) > 0, "mail", "call"))
    mean = x + np.where(offer == "mail", 1 + z, 0) + np.where(offer == "call", 2 * (z > 0), 0)
    outcome = mean + 0.5 * rng.normal(size=n_rows)
    return pd.DataFrame(
        {
            "region": region,
            "id": np.arange(n_rows),
            "x": np.where(rng.random(n_rows) < 0.05, np.nan, x),
            "z": z,
            "kind": rng.choice(["p", "q", None], n_rows),
            "offer": offer,
            "y": (rng.random(n_rows) < 1 / (1 + np.exp(-mean))).astype(int) if is_binary else outcome,
            "price": np.round(rng.random(n_rows), 2),
        }
    )
