"""From raw covariates, with gaps and categories, to the columns that weightings balance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_spark.dose_response.types import Floats
from causal_spark.errors import CovariateValueError, NoCovariatesError

#: Levels of a category beyond so many, the commonest first, are one; so are those with fewer rows than these.
MOST_LEVELS = 20
FEWEST_ROWS = 5
_REST = "(rest)"
_MISSING = "(missing)"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCovariates:
    """columns: (n_rows, n_columns), finite, each of which varies. names: of the columns."""

    columns: Floats
    names: tuple[str, ...]


def encode_covariates(raw: Mapping[str, NDArray[Any]], weights: Floats) -> EncodedCovariates:
    """Columns of numbers and categories.

    raw: name to (n_rows,) numbers, NaN where missing, or labels, None where missing. weights: (n_rows,) sample weights
    that sum to one.
    A gap in a number becomes the mean, and a column says where the gaps were: whether something is known may matter by
    itself. A category becomes a column per level but the commonest; a gap is a level, rare levels are one.
    Raises `CovariateValueError` for an infinite number, `NoCovariatesError` where no column varies.
    """
    columns: list[Floats] = []
    names: list[str] = []
    for name, values in raw.items():
        made = _numbers(name, values, weights) if values.dtype.kind == "f" else _levels(name, values)
        for label, column in made.items():
            if np.ptp(column) > 0:
                columns.append(column)
                names.append(label)
    if not columns:
        raise NoCovariatesError(
            "No covariate varies within the group.", "Name covariates that do, or use larger groups."
        )
    return EncodedCovariates(np.stack(columns, axis=1), tuple(names))


def _numbers(name: str, values: Floats, weights: Floats) -> dict[str, Floats]:
    if np.isinf(values).any():
        raise CovariateValueError(
            f"Covariate {name!r} is infinite in {int(np.isinf(values).sum())} rows.",
            "Set it to NULL to mark it missing, or drop the rows.",
        )
    missing = np.isnan(values)
    if not missing.any():
        return {name: values}
    if missing.all():
        return {}
    known = weights[~missing]
    mean = float(known @ values[~missing] / known.sum())
    return {name: np.where(missing, mean, values), f"{name}={_MISSING}": missing.astype(float)}


def _levels(name: str, values: NDArray[Any]) -> dict[str, Floats]:
    labels = np.array([_MISSING if value is None else str(value) for value in values])
    levels, counts = np.unique(labels, return_counts=True)
    # By count, then by name, so that the order of rows decides nothing.
    order = np.lexsort([levels, -counts])
    kept = [place for place in order[:MOST_LEVELS] if counts[place] >= FEWEST_ROWS]
    rare = ~np.isin(labels, levels[kept])
    made = {f"{name}={levels[place]}": (labels == levels[place]).astype(float) for place in kept[1:]}
    if rare.any() and kept:
        made[f"{name}={_REST}"] = rare.astype(float)
    return made
