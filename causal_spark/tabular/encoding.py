"""From raw covariates, with gaps and categories, to columns of numbers: learned on some rows, applied to any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_spark.errors import CovariateValueError, NoCovariatesError

Floats = NDArray[np.float64]
#: Levels of a category beyond so many, the commonest first, are one; so are those with fewer rows than these.
MOST_LEVELS = 20
FEWEST_ROWS = 5
_REST = "(rest)"
_MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class NumberEncoding:
    """A number: the value, or the mean in a gap; and, where gaps were seen, a column that says where they are."""

    name: str
    mean: float
    marks_gaps: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns."""
        return (self.name, f"{self.name}={_MISSING}") if self.marks_gaps else (self.name,)

    def columns(self, values: NDArray[Any]) -> list[Floats]:
        """(n_rows,) each. Raises `CovariateValueError` for an infinite number."""
        missing = _gaps(self.name, values)
        filled = np.where(missing, self.mean, values)
        return [filled, missing.astype(float)] if self.marks_gaps else [filled]


@dataclass(frozen=True, slots=True)
class CategoryEncoding:
    """A category: a column per level but the commonest. A gap is a level.

    levels: those with a column; baseline: the commonest. has_rest: whether all others, those never seen among them,
    have a column; otherwise they count as the commonest.
    """

    name: str
    baseline: str
    levels: tuple[str, ...]
    has_rest: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns."""
        rest = (f"{self.name}={_REST}",) if self.has_rest else ()
        return (*(f"{self.name}={level}" for level in self.levels), *rest)

    def columns(self, values: NDArray[Any]) -> list[Floats]:
        """(n_rows,) each."""
        labels = _labels(values)
        found = [(labels == level).astype(float) for level in self.levels]
        if self.has_rest:
            found.append((~np.isin(labels, [self.baseline, *self.levels])).astype(float))
        return found


@dataclass(frozen=True, slots=True)
class Encoding:
    """What raw covariates become. parts: of each covariate. kept: positions of the columns that vary."""

    parts: tuple[NumberEncoding | CategoryEncoding, ...]
    kept: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        every = [name for part in self.parts for name in part.names]
        return tuple(every[place] for place in self.kept)

    def apply(self, raw: Mapping[str, NDArray[Any]]) -> Floats:
        """(n_rows, n_columns), finite.

        raw: name to (n_rows,) numbers, NaN where missing, or labels, None where missing. Raises `CovariateValueError`
        for an infinite number.
        """
        columns = [column for part in self.parts for column in part.columns(raw[part.name])]
        return np.stack([columns[place] for place in self.kept], axis=1)


def learn_encoding(raw: Mapping[str, NDArray[Any]], weights: Floats) -> Encoding:
    """How to encode covariates like these.

    raw: as in `Encoding.apply`. weights: (n_rows,) sample weights that sum to one.
    A gap in a number becomes the mean, and a column says where the gaps were: whether something is known may matter by
    itself. A category becomes a column per level but the commonest; a gap is a level, rare levels are one.
    Raises `CovariateValueError` for an infinite number, `NoCovariatesError` where no column varies.
    """
    parts: list[NumberEncoding | CategoryEncoding] = []
    for name, values in raw.items():
        parts += _numbers(name, values, weights) if values.dtype.kind == "f" else _levels(name, values)
    columns = [column for part in parts for column in part.columns(raw[part.name])]
    kept = tuple(place for place, column in enumerate(columns) if np.ptp(column) > 0)
    if not kept:
        raise NoCovariatesError(
            "No covariate varies within the group.", "Name covariates that do, or use larger groups."
        )
    return Encoding(tuple(parts), kept)


def _numbers(name: str, values: Floats, weights: Floats) -> Sequence[NumberEncoding]:
    missing = _gaps(name, values)
    if missing.all():
        return []
    known = weights[~missing]
    mean = float(known @ values[~missing] / known.sum())
    return [NumberEncoding(name, mean, bool(missing.any()))]


def _gaps(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise CovariateValueError(
            f"Covariate {name!r} is infinite in {infinite} rows.",
            "Set it to NULL to mark it missing, or drop the rows.",
        )
    return np.asarray(np.isnan(values))


def _labels(values: NDArray[Any]) -> NDArray[np.str_]:
    return np.array([_MISSING if value is None else str(value) for value in values], dtype=np.str_)


def _levels(name: str, values: NDArray[Any]) -> Sequence[CategoryEncoding]:
    labels = _labels(values)
    levels, counts = np.unique(labels, return_counts=True)
    # By count, then by name, so that the order of rows decides nothing.
    order = np.lexsort([levels, -counts])
    kept = [str(levels[place]) for place in order[:MOST_LEVELS] if counts[place] >= FEWEST_ROWS]
    if not kept:
        return []
    return [CategoryEncoding(name, kept[0], tuple(kept[1:]), bool((~np.isin(labels, kept)).any()))]
