"""Rows of a table with a row per individual and an arm each to an `ArmSample`: checked, gaps and categories encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from causal_spark.engine.columns import COST
from causal_spark.engine.frames import escaped
from causal_spark.engine.read_rows import check_ids, read_covariates, read_numbers
from causal_spark.engine.tasks import Notice
from causal_spark.errors import (
    ConstantOutcomeError,
    CostValueError,
    NoControlRowsError,
    NoRowsError,
    OutcomeValueError,
    TreatmentSupportError,
)
from causal_spark.multi_treatment.types import ArmSample, Floats
from causal_spark.tabular.encoding import Encoding, learn_encoding

#: More arms than these are levels of a dose.
MOST_ARMS = 50


@dataclass(frozen=True, slots=True, eq=False)
class BuiltArms:
    """A sample, and what its numbers stand for.

    arms: labels, the control arm first. row_ids: (n_rows,) of the sample's rows. costs: (n_rows, n_arms). encoding: of
    covariates. notices: what to know of rows that are not there.
    """

    sample: ArmSample
    arms: tuple[str, ...]
    row_ids: pa.Array
    costs: Floats
    encoding: Encoding
    notices: tuple[Notice, ...]


def build_arms(rows: pa.Table, control: str, costs: Mapping[str, float], least_rows: int) -> BuiltArms:
    """Arrays of one group from its rows (columns ``_row_id, _treatment, _outcome, _covariate_*`` and ``_cost_*``).

    costs: of arms that cost all rows alike; those of others are in columns, or nothing. least_rows: arms with fewer are
    left out and told of, as are rows without treatment or outcome.
    Raises `KeyValueError`, `DuplicateRowError`, `OutcomeValueError`, `CostValueError` for values that cannot be,
    `NoRowsError`, `NoControlRowsError`, `TreatmentSupportError`, `ConstantOutcomeError` where there is nothing to
    estimate, and as `learn_encoding`.
    """
    row_ids = rows["_row_id"].combine_chunks()
    check_ids(row_ids, "row")
    outcome = read_numbers(rows["_outcome"])
    infinite = int(np.isinf(outcome).sum())
    if infinite:
        raise OutcomeValueError(
            f"The outcome is infinite in {infinite} of {len(rows)} rows.", "Set it to NULL to leave the rows out."
        )
    labels = np.array(rows["_treatment"].to_pylist(), dtype=object)
    known = np.isfinite(outcome) & np.array([label is not None for label in labels], dtype=bool)
    if not known.any():
        raise NoRowsError(f"None of {len(rows)} rows has a treatment and an outcome.", "Drop the group.")
    arms, told = _arms(labels[known], control, least_rows)
    used = np.flatnonzero(known & np.isin(labels, np.array(arms, dtype=object)))
    place = {label: number for number, label in enumerate(arms)}
    arm = np.array([place[label] for label in labels[used]], dtype=np.intp)
    outcome = outcome[used]
    if np.ptp(outcome) == 0:
        raise ConstantOutcomeError(f"All outcomes are {outcome[0]:g}.", "Drop the group: no arm changes anything.")
    raw = read_covariates(rows, used)
    encoding = learn_encoding(raw, np.full(len(used), 1 / len(used)))
    is_binary = bool(np.isin(outcome, (0.0, 1.0)).all())
    sample = ArmSample(encoding.apply(raw), arm, outcome, len(arms), is_binary)
    n_unknown = int((~known).sum())
    if n_unknown:
        told.append(
            Notice(
                "RowsLeftOut",
                f"{n_unknown} of {len(rows)} rows have no treatment or no outcome and are left out.",
                "Effects on them come from `score`; look whether those that are missing differ.",
            )
        )
    return BuiltArms(
        sample, arms, row_ids.take(pa.array(used)), read_costs(rows, used, arms, costs), encoding, tuple(told)
    )


def _arms(labels: NDArray[Any], control: str, least_rows: int) -> tuple[tuple[str, ...], list[Notice]]:
    """Labels of arms with rows enough, the control arm first, and what to know of the others."""
    found, counts = np.unique(labels.astype(str), return_counts=True)
    of_arm = dict(zip(found.tolist(), counts.tolist(), strict=True))
    if len(of_arm) > MOST_ARMS:
        raise TreatmentSupportError(
            f"The treatment has {len(of_arm)} values, more than {MOST_ARMS}.",
            "If it is a dose, estimate response curves; otherwise merge arms.",
        )
    n_control = of_arm.get(control, 0)
    if n_control < least_rows:
        raise NoControlRowsError(
            f"The control arm {control!r} has {n_control} rows, fewer than {least_rows}; there are "
            f"{', '.join(found.tolist())}.",
            "Name the control arm as the column has it, set min_arm_rows, or drop the group.",
        )
    kept = [label for label, n_rows in of_arm.items() if label != control and n_rows >= least_rows]
    if not kept:
        raise TreatmentSupportError(
            f"No arm but the control arm has {least_rows} rows.", "Use larger groups, set min_arm_rows, or drop it."
        )
    small = {label: n_rows for label, n_rows in of_arm.items() if label != control and n_rows < least_rows}
    told = [
        Notice(
            "ArmLeftOut",
            f"{', '.join(f'{label} ({n_rows} rows)' for label, n_rows in small.items())}: fewer than {least_rows} "
            "rows, left out.",
            "Use larger groups, merge arms, or set min_arm_rows.",
        )
    ]
    return (control, *kept), told if small else []


def read_costs(rows: pa.Table, used: NDArray[np.intp], arms: Sequence[str], given: Mapping[str, float]) -> Floats:
    """(n_used, n_arms) costs, of arms with a column ``_cost_*`` by row. Raises `CostValueError`."""
    costs = np.zeros((len(used), len(arms)))
    for place, label in enumerate(arms):
        name = f"{COST}{escaped(label)}"
        if name in rows.column_names:
            values = read_numbers(rows[name])[used]
            bad = int((~np.isfinite(values)).sum())
            if bad:
                raise CostValueError(
                    f"The cost of arm {label!r} is missing or infinite in {bad} rows.", "Give every row a number."
                )
            costs[:, place] = values
        else:
            costs[:, place] = given.get(label, 0.0)
    return costs
