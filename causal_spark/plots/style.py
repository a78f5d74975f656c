"""One look for all pictures: colours that colour-blind readers tell apart, and marks and dashes for print in black.

Colours are those of Okabe and Ito, and one of Tol's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from causal_spark.errors import ConfigError, InputError

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, GREY = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"),
)
INDIGO = "#332288"
_RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 130,
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one method is drawn, in every picture."""

    colour: str
    dashes: Any
    mark: str


_SOLID, _DOTS, _SHORT, _LONG = "solid", (0, (1, 1.2)), (0, (2.5, 1)), (0, (5, 1.5))
_DASH_DOT, _DASH_DOTS = (0, (3, 1.2, 1, 1.2)), (0, (7, 1.5, 1, 1.5, 1, 1.5))
_KNOWN: Mapping[str, Look] = {
    # Panel estimators.
    "did": Look(ORANGE, _DOTS, "v"),
    "sc": Look(BLUE, _LONG, "s"),
    "difp": Look(PURPLE, _DASH_DOT, "D"),
    "mc": Look(GREEN, _DASH_DOTS, "^"),
    "sdid": Look(VERMILION, _SOLID, "o"),
    "dwcp": Look(SKY, _SHORT, "P"),
    "dwcp_constant": Look(GREY, _DASH_DOT, "X"),
    "dwcp_adaptive": Look(INDIGO, _SOLID, "*"),
    # Variances.
    "placebo": Look(BLACK, _SHORT, "D"),
    "jackknife": Look(PURPLE, _DASH_DOTS, "P"),
    "bootstrap": Look(SKY, _DASH_DOT, "X"),
    "marginal": Look(ORANGE, _DOTS, "s"),
    "unit": Look(BLUE, _LONG, "^"),
    "time": Look(GREEN, _DASH_DOT, "v"),
    "unit_time": Look(VERMILION, _SOLID, "o"),
    # Weightings of doses.
    "unweighted": Look(GREY, _LONG, "s"),
    "gps": Look(PURPLE, _DASH_DOT, "D"),
    "permutation": Look(SKY, _DASH_DOTS, "X"),
    "ebct1": Look(GREEN, _SHORT, "^"),
    "ebct2": Look(ORANGE, _DOTS, "v"),
    "dcow": Look(BLACK, _SHORT, "P"),
    "e2b": Look(BLUE, _SOLID, "o"),
}
_CYCLE = (
    Look(BLUE, _SOLID, "o"),
    Look(ORANGE, _DOTS, "s"),
    Look(GREEN, _LONG, "^"),
    Look(VERMILION, _SHORT, "D"),
    Look(PURPLE, _DASH_DOT, "v"),
    Look(SKY, _DASH_DOTS, "P"),
    Look(GREY, _SHORT, "X"),
)

P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw with the common look and leave matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> T:
        with mpl.rc_context(_RC):
            return draw(*arguments, **options)

    return drawn


def looks(names: Iterable[str]) -> dict[str, Look]:
    """How each of these is drawn: known methods always alike, others in turn."""
    wanted = list(dict.fromkeys(names))
    strangers = [name for name in wanted if name not in _KNOWN]
    turns = {name: _CYCLE[place % len(_CYCLE)] for place, name in enumerate(strangers)}
    return {name: _KNOWN.get(name) or turns[name] for name in wanted}


def group_columns(table: pd.DataFrame, first: str) -> list[str]:
    """The user's group columns: those between ``group_id`` and the table's own first column."""
    names = list(table.columns)
    return names[names.index("group_id") + 1 : names.index(first)]


def of_group(table: Any, group: Mapping[str, Any] | None, first: str) -> tuple[pd.DataFrame, str]:
    """Rows of one group, as pandas, and the group's name for a title.

    table: a result table, of pandas or Spark. group: group columns to values; None where there is one group only.
    first: the table's first column behind the group columns. Raises `ConfigError` when several groups or columns that
    are none are meant, `InputError` when no row is left.
    """
    wanted = dict(group or {})
    known = group_columns(pd.DataFrame(columns=list(table.columns)), first)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{name!r} is no group column.", f"Group columns: {', '.join(known) or 'none'}.")
    if isinstance(table, pd.DataFrame):
        rows = table
        for name, value in wanted.items():
            rows = rows[rows[name] == value]
    else:
        chosen = table
        for name, value in wanted.items():
            chosen = chosen.where(chosen[name] == value)
        rows = chosen.toPandas()
    if rows.empty:
        raise InputError("There is nothing to draw.", "Check group; what could not be estimated is in .failures.")
    groups = rows[["group_id", *known]].drop_duplicates("group_id")
    if len(groups) > 1:
        some = [dict(zip(known, values, strict=True)) for values in groups[known].head(3).itertuples(index=False)]
        raise ConfigError(f"There are {len(groups)} groups.", f"Pass group=, such as {' or '.join(map(str, some))}.")
    return rows, ", ".join(str(groups[name].iloc[0]) for name in known)


def chosen(rows: pd.DataFrame, names: Iterable[str] | None, column: str = "estimator") -> list[str]:
    """Methods to draw, in their order, all by default. Raises `ConfigError` for one that is not there."""
    there = list(dict.fromkeys(rows[column]))
    wanted = there if names is None else list(names)
    for name in wanted:
        if name not in there:
            raise ConfigError(f"There is no {column} {name!r}.", f"There are: {', '.join(map(str, there))}.")
    return wanted


def zero_line(axes: Axes, *, vertical: bool = False) -> None:
    """A line where nothing is."""
    (axes.axvline if vertical else axes.axhline)(0.0, color="0.55", linewidth=0.8, zorder=1)
