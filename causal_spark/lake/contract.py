"""What tables are described by: columns with their constraints, keys, and columns that several tables share."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``check`` is a SQL condition that every row meets; NULL passes unless ``required``."""

    name: str
    type: str
    comment: str
    required: bool = False
    check: str | None = None


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table: what a row is, which columns identify it, and the columns beyond ``run_id``, ``group_id``, groups.

    keyed: rows belong to a group, so ``group_id`` is there; has_group_columns: the user's group columns follow it.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    keyed: bool = True
    has_group_columns: bool = True
    group_columns: tuple[Column, ...] = ()

    def with_groups(self, group_columns: tuple[Column, ...]) -> TableSchema:
        """This table for one shape of group columns."""
        return replace(self, group_columns=group_columns if self.has_group_columns else ())

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Every column in order, the keys first."""
        keys = (RUN_ID, GROUP_ID) if self.keyed else (RUN_ID,)
        return keys + self.group_columns + self.columns


def or_null(name: str, condition: str) -> str:
    """SQL: a column is NULL or meets a condition."""
    # Delta takes a condition that is NULL for a violation.
    return f"{name} IS NULL OR {name} {condition}"


def finite(name: str) -> str:
    """SQL: a column is NULL or a finite number."""
    return f"{name} IS NULL OR ({name} > double('-Infinity') AND {name} < double('Infinity'))"


def non_negative(name: str) -> str:
    """SQL: a column is NULL or a finite number not below zero."""
    return f"{name} IS NULL OR ({name} >= 0 AND {name} < double('Infinity'))"


def text(name: str, comment: str, *, required: bool = True, one_of: tuple[str, ...] = ()) -> Column:
    """A column of text, of some values only where they are given."""
    listed = ", ".join(f"'{value}'" for value in one_of)
    return Column(name, "STRING", comment, required, f"{name} IN ({listed})" if one_of else None)


def number(name: str, comment: str, *, required: bool = False) -> Column:
    """A finite number."""
    return Column(name, "DOUBLE", comment, required, finite(name))


def positive(name: str, comment: str, *, required: bool = False) -> Column:
    """A finite number not below zero."""
    return Column(name, "DOUBLE", comment, required, non_negative(name))


def share(name: str, comment: str) -> Column:
    """A number from 0 to 1."""
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= 0 AND {name} <= 1)")


def correlation(name: str, comment: str) -> Column:
    """A number from -1 to 1."""
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= -1 AND {name} <= 1)")


def penalty(name: str, comment: str) -> Column:
    """A number not below zero, infinity included."""
    # NaN sorts above every number in Spark, so "not NaN" has to be said apart from "not negative".
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= 0 AND NOT isnan({name}))")


def count(name: str, comment: str) -> Column:
    """A number of things."""
    return Column(name, "BIGINT", comment, required=True, check=f"{name} >= 0")


RUN_ID = text("run_id", "Attempt that wrote the row; visible when it is the newest succeeded one of its run_key.")
GROUP_ID = text("group_id", "Canonical, type-tagged JSON of the group key.")

CONF_LEVEL = Column(
    "conf_level", "DOUBLE", "Confidence level of the interval.", True, "conf_level > 0 AND conf_level < 1"
)
ESTIMATOR = text("estimator", "Name of the point estimator, as in the configuration.")
PENALTIES = (
    penalty("lambda_time", "Decay of time weights per period; NULL where the estimator has none."),
    penalty("lambda_unit", "Decay of unit weights per standard deviation of distance; NULL where there is none."),
    penalty("lambda_nn", "Nuclear-norm penalty, outcomes in standard deviations; Infinity: no low-rank part."),
)
INTERVAL = (
    number("conf_low", "Lower end of the confidence interval."),
    number("conf_high", "Upper end of the confidence interval."),
)
