"""Rows of a table with a row per individual to a `Segment` and its outcome: checked, gaps and categories encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from causal_spark.dose_response.types import Floats, Notice, Segment, normalised
from causal_spark.engine.read_rows import read_covariates, read_numbers
from causal_spark.errors import (
    NoRowsError,
    OutcomeValueError,
    SampleWeightError,
    TreatmentSupportError,
    TreatmentValueError,
)
from causal_spark.tabular.encoding import learn_encoding


@dataclass(frozen=True, slots=True, eq=False)
class BuiltSegment:
    """A segment, the outcome (n_rows,) of its rows, and what to know of them."""

    segment: Segment
    outcome: Floats
    notices: tuple[Notice, ...]


def build_segment(rows: pa.Table) -> BuiltSegment:
    """Arrays of one segment from its rows (columns ``_treatment, _outcome, _covariate_*`` and, if given, ``_weight``).

    Rows without treatment or outcome are left out and told of; rows of weight zero stand for nobody and are left out.
    Raises `SampleWeightError`, `TreatmentValueError`, `OutcomeValueError` for values that cannot be, `NoRowsError`,
    `TreatmentSupportError` where all have the same treatment, and as `learn_encoding`.
    """
    treatment, outcome = read_numbers(rows["_treatment"]), read_numbers(rows["_outcome"])
    weights = read_numbers(rows["_weight"]) if "_weight" in rows.column_names else np.ones(len(rows))
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        raise SampleWeightError(
            f"The sample weight is missing, negative or infinite in {int(bad.sum())} of {len(rows)} rows.",
            "Set it to 0 for rows that stand for nobody.",
        )
    for values, role, error in ((treatment, "treatment", TreatmentValueError), (outcome, "outcome", OutcomeValueError)):
        infinite = int(np.isinf(values).sum())
        if infinite:
            raise error(
                f"The {role} is infinite in {infinite} of {len(rows)} rows.",
                "Set it to NULL to leave the rows out.",
            )
    counts = weights > 0
    known = np.isfinite(treatment) & np.isfinite(outcome)
    used = np.flatnonzero(counts & known)
    if not len(used):
        raise NoRowsError(
            f"None of {len(rows)} rows has a treatment, an outcome and a positive sample weight.", "Drop the group."
        )
    treatment, outcome, weights = treatment[used], outcome[used], normalised(weights[used])
    if np.ptp(treatment) == 0:
        raise TreatmentSupportError(f"All rows have the treatment {treatment[0]:g}.", "Drop the group.")
    raw = read_covariates(rows, used)
    encoding = learn_encoding(raw, weights)
    segment = Segment(encoding.apply(raw), treatment, weights, encoding.names)
    n_left_out = int(np.sum(counts & ~known))
    if not n_left_out:
        return BuiltSegment(segment, outcome, ())
    told = Notice(
        "RowsLeftOut",
        f"{n_left_out} of {int(counts.sum())} rows have no treatment or no outcome and are left out.",
        "The curve is that of the other rows: look whether those that are missing differ.",
    )
    return BuiltSegment(segment, outcome, (told,))
