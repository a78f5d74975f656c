"""Functions of one parent that mechanisms are sums of: lines, natural cubic splines, steps of a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from causal_spark.root_cause.types import Floats

#: Numbers of knots that are tried; one less than that are the parameters.
KNOTS = (4, 7, 12)
#: Quantiles of the parent between which a curve bends; it is straight outside.
_MIDDLE = (0.01, 0.99)
#: Knots closer than this share of their range are one.
_APART = 1e-3
#: Cells of the table that a spline is read from: many times faster than the spline, and as good to five digits.
_CELLS = 1024


class Component(Protocol):
    """A function of one parent."""

    def __call__(self, values: Floats) -> Floats:
        """Values of any shape to one number each, or to one for each level of a discrete child (a last axis more)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A slope; of a discrete child, (n_levels,) slopes."""

    slope: Floats

    def __call__(self, values: Floats) -> Floats:
        """See `Component`."""
        return np.multiply.outer(values, self.slope)


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A height for each level of a discrete parent, (n_levels,); of a discrete child, (n_levels, its n_levels)."""

    heights: Floats

    def __call__(self, values: Floats) -> Floats:
        """See `Component`."""
        return np.asarray(self.heights[values.astype(np.intp)])


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A natural cubic spline as a table: straight between equally spaced points, and on beyond the outer ones, so that
    outliers are extrapolated tamely.

    low: the first point; per_unit: cells per unit. heights, slopes: (n_cells,) of the line of each cell, by the number
    of cells from the first point.
    """

    low: float
    per_unit: float
    heights: Floats
    slopes: Floats

    def __call__(self, values: Floats) -> Floats:
        """See `Component`."""
        place = (values - self.low) * self.per_unit
        # Unlike clip, these give what is missing some cell; it stays missing all the same.
        cell = np.fmax(np.fmin(place, len(self.slopes) - 1), 0).astype(np.intp)
        place *= self.slopes[cell]
        place += self.heights[cell]
        return np.asarray(place)


def curve(knots: Floats, heights: Floats) -> Curve:
    """The natural spline through heights (n_knots,)."""
    spline = CubicSpline(knots, heights, bc_type="natural")
    points = np.linspace(knots[0], knots[-1], _CELLS + 1)
    table = spline(points)
    slopes = np.diff(table)
    return Curve(float(knots[0]), _CELLS / float(knots[-1] - knots[0]), table[:-1] - slopes * np.arange(_CELLS), slopes)


def spline_knots(values: Floats, n_knots: int) -> Floats | None:
    """(n_knots,) knots at quantiles of the values; None where so many do not lie apart."""
    found = np.quantile(values, np.linspace(*_MIDDLE, n_knots))
    return found if np.all(np.diff(found) > _APART * max(np.ptp(found), np.finfo(float).tiny)) else None


def spline_columns(knots: Floats, values: Floats) -> Floats:
    """(n_rows, n_knots - 1) the splines that are one at a knot and zero at the others, less the first: with an
    intercept they span all natural splines with these knots.
    """
    n_knots = len(knots)
    spline = CubicSpline(knots, np.eye(n_knots), bc_type="natural", extrapolate=True)
    inside = np.clip(values, knots[0], knots[-1])
    beyond = (values - inside)[:, None]
    slopes = np.where(beyond < 0, spline(knots[0], 1), spline(knots[-1], 1))
    return np.asarray(spline(inside) + slopes * beyond)[:, 1:]


def level_columns(values: Floats, n_levels: int) -> Floats:
    """(n_rows, n_levels - 1) indicators of the levels but the first."""
    return np.asarray(values[:, None] == np.arange(1, n_levels), dtype=float)


def pair_products(parts: Sequence[Floats]) -> list[Floats]:
    """Products of every column with those of all later parts; parts: (n_rows, .) each."""
    return [
        (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
        for place, first in enumerate(parts)
        for second in parts[place + 1 :]
    ]


def summed(start: Floats | float, parts: Sequence[Floats]) -> Floats:
    """An intercept and components, arrays that can be broadcast."""
    if not parts:
        return np.asarray(start, dtype=float)
    found = np.asarray(parts[0] + start)
    for part in parts[1:]:
        if np.shape(part) == found.shape:
            found += part
        else:
            found = found + part
    return found
