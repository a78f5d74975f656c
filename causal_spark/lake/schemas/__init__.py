"""The result tables as a contract: names, types, comments, constraints. `docs/tables.md` is checked against it."""

from __future__ import annotations

import re

from causal_spark.errors import InputError
from causal_spark.lake.contract import Column
from causal_spark.lake.schemas.arms import ARM_EFFECTS, INDIVIDUAL_EFFECTS, MODELS, OVERLAP, POLICIES, POLICY_VALUES
from causal_spark.lake.schemas.curves import BALANCE, RESPONSE_CURVES
from causal_spark.lake.schemas.nodes import (
    DISTRIBUTION_CHANGES,
    GRAPH_DIAGNOSTICS,
    INTRINSIC_CONTRIBUTIONS,
    ROOT_CAUSES,
)
from causal_spark.lake.schemas.panels import (
    ESTIMATOR_STUDY,
    PANEL_CELLS,
    PANEL_EFFECTS,
    PANEL_EVENT_STUDY,
    PANEL_VARIANCES,
    PANEL_WEIGHTS,
    RECOMMENDATIONS,
    TUNING_PATH,
    VARIANCE_STUDY,
)
from causal_spark.lake.schemas.runs import FAILURES, RUNS

#: Raised when a change to the tables is one that readers could notice. 2: ``failures`` holds warnings too, so whoever
#: counts its rows as things that went wrong must look at ``kind``. 3: ``panel_effects`` ends in three more columns,
#: NULL in rows of older runs, and ``tuning`` may be block: whoever reads columns by position, or knows all the ways of
#: tuning, must look. 4: ``panel_variances`` ends in one more column, and ``panel_cells.std_error`` may be filled.
#: 5: ``response_curves`` and ``balance``. 6: ``response_curves`` ends in ``expected_bias``, and its intervals hold it.
#: 7: the tables of individual effects, one of which holds bytes. 8: the tables of root causes. 9: the tables of the
#: estimator study. 10: ``runs`` ends in ``series``, and catalogs have ``_latest`` views.
CONTRACT_VERSION = 10

#: Types every reader of protocol version 1 understands.
TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP", "DOUBLE", "BINARY")

#: Types a group column may have in a result table.
KEY_TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP")

_NAME = re.compile(r"[a-z][a-z0-9_]*")

TABLES = {
    table.name: table
    for table in (
        RUNS,
        FAILURES,
        PANEL_EFFECTS,
        PANEL_VARIANCES,
        PANEL_EVENT_STUDY,
        PANEL_CELLS,
        PANEL_WEIGHTS,
        TUNING_PATH,
        ESTIMATOR_STUDY,
        VARIANCE_STUDY,
        RECOMMENDATIONS,
        RESPONSE_CURVES,
        BALANCE,
        INDIVIDUAL_EFFECTS,
        ARM_EFFECTS,
        POLICIES,
        POLICY_VALUES,
        OVERLAP,
        MODELS,
        GRAPH_DIAGNOSTICS,
        ROOT_CAUSES,
        DISTRIBUTION_CHANGES,
        INTRINSIC_CONTRIBUTIONS,
    )
}

#: Partition columns of the engine's scratch folders.
RESERVED_PARTITIONS = ("cs_wave", "cs_attempt")

_RESERVED = frozenset(column.name for table in TABLES.values() for column in table.all_columns) | {*RESERVED_PARTITIONS}


def group_columns(names_and_types: tuple[tuple[str, str], ...]) -> tuple[Column, ...]:
    """Contract columns for the user's group columns.

    Raises `InputError` for a name that collides with a result column or is not ``[a-z][a-z0-9_]*``.
    """
    for name, _ in names_and_types:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"Group column {name!r} cannot name a column of a result table.",
                f"Names are lower case letters, digits and underscores: set columns.rename: {{{name}: other_name}}.",
            )
        if name in _RESERVED:
            raise InputError(
                f"Group column {name!r} has the name of a result column.",
                f"Rename it: columns.rename: {{{name}: group_{name}}}.",
            )
    return tuple(Column(name, type_, "Group column of the input.") for name, type_ in names_and_types)
