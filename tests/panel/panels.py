"""Panels the tests share: generated ones with a known effect, and the real ones that ship with synthdid-py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from causal_spark.panel.types import Bools, Floats, Panel

N_PLACEBO_PERIODS = 10


def panel_of(
    outcome: Floats, treated: Bools, units: Sequence[object] | None = None, periods: Sequence[object] | None = None
) -> Panel:
    """A panel from arrays of shape (n_units, n_periods); NaN outcomes are unobserved cells."""
    outcome = np.asarray(outcome, dtype=np.float64)
    n_units, n_periods = outcome.shape
    return Panel(
        outcome=outcome,
        treated=np.asarray(treated, dtype=bool),
        observed=np.isfinite(outcome),
        units=np.asarray([f"u{i:04d}" for i in range(n_units)] if units is None else units),
        periods=np.asarray(range(n_periods) if periods is None else periods),
    )


def treated_from(n_units: int, n_periods: int, starts: Sequence[int]) -> Bools:
    """Absorbing treatment of the last ``len(starts)`` units, each from its own period position on."""
    treated = np.zeros((n_units, n_periods), dtype=bool)
    for unit, start in zip(range(n_units - len(starts), n_units), starts, strict=True):
        treated[unit, start:] = True
    return treated


def untreated_outcomes(n_units: int, n_periods: int, seed: int, rank: int = 2, noise: float = 0.3) -> Floats:
    """Two-way effects plus a low-rank part plus white noise, (n_units, n_periods), spread about 1."""
    rng = np.random.default_rng(seed)
    additive = rng.normal(size=(n_units, 1)) + 0.3 * np.cumsum(rng.normal(size=n_periods))
    trends = np.cumsum(rng.normal(size=(rank, n_periods)), axis=1) / np.sqrt(n_periods)
    loadings = rng.normal(size=(n_units, rank))
    return np.asarray(additive + 0.5 * loadings @ trends + noise * rng.normal(size=(n_units, n_periods)))


def block_panel(
    n_units: int = 20,
    n_periods: int = 15,
    n_treated: int = 2,
    n_post: int = 4,
    effect: float = 0.0,
    seed: int = 0,
    rank: int = 2,
    noise: float = 0.3,
) -> Panel:
    """The last n_treated units are treated in the last n_post periods, with a constant effect."""
    return staggered_panel(n_units, n_periods, [n_periods - n_post] * n_treated, effect, seed, rank, noise)


def staggered_panel(
    n_units: int = 20,
    n_periods: int = 15,
    starts: Sequence[int] = (8, 8, 11),
    effect: float = 0.0,
    seed: int = 0,
    rank: int = 2,
    noise: float = 0.3,
) -> Panel:
    """The last ``len(starts)`` units are treated, each from its own period position on, with a constant effect."""
    treated = treated_from(n_units, n_periods, starts)
    return panel_of(untreated_outcomes(n_units, n_periods, seed, rank, noise) + effect * treated, treated)


@cache
def _table(name: str) -> pd.DataFrame:
    with resources.files("synthdid.data").joinpath(name).open() as file:
        return pd.read_csv(file, sep=";", true_values=["TRUE"], false_values=["FALSE"])


def _wide(table: pd.DataFrame, unit: str, time: str, value: str) -> pd.DataFrame:
    return table.pivot(index=unit, columns=time, values=value).sort_index(axis=0).sort_index(axis=1)  # noqa: PD010


def prop99() -> Panel:
    """California's Proposition 99: packs of cigarettes per head, 39 states, 1970-2000, California from 1989."""
    table = _table("california_prop99.csv")
    outcome = _wide(table, "State", "Year", "PacksPerCapita")
    treated = _wide(table, "State", "Year", "treated").to_numpy() == 1
    return panel_of(outcome.to_numpy(float), treated, list(outcome.index), list(outcome.columns))


def _placebo(table: pd.DataFrame, unit: str, outcome_name: str, policy: str) -> Panel:
    outcome = _wide(table, unit, "year", outcome_name)
    adopters = _wide(table, unit, "year", policy).to_numpy(bool).any(axis=1)
    treated = np.zeros(outcome.shape, dtype=bool)
    treated[adopters, -N_PLACEBO_PERIODS:] = True
    return panel_of(outcome.to_numpy(float), treated, list(outcome.index), list(outcome.columns))


def cps(outcome: str = "log_wage", policy: str = "min_wage") -> Panel:
    """Placebo panel of 50 states x 40 years; the policy says which states are taken as treated, never when."""
    return _placebo(_table("CPS.csv"), "state", outcome, policy)


def pwt(policy: str = "dem") -> Panel:
    """Placebo panel of 111 countries x 48 years of log GDP; the policy says which countries, never when."""
    return _placebo(_table("PENN.csv"), "country", "log_gdp", policy)
