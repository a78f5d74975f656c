"""The result tables as a contract: names, types, comments, constraints. `docs/tables.md` is checked against it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from causal_spark.errors import InputError

#: Raised when a change to the tables is one that readers could notice. 2: ``failures`` holds warnings too, so whoever
#: counts its rows as things that went wrong must look at ``kind``. 3: ``panel_effects`` ends in three more columns,
#: NULL in rows of older runs, and ``tuning`` may be block: whoever reads columns by position, or knows all the ways of
#: tuning, must look. 4: ``panel_variances`` ends in one more column, and ``panel_cells.std_error`` may be filled.
#: 5: ``response_curves`` and ``balance``. 6: ``response_curves`` ends in ``expected_bias``, and its intervals hold it.
CONTRACT_VERSION = 6

#: Types every reader of protocol version 1 understands.
TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP", "DOUBLE")

#: Types a group column may have in a result table.
KEY_TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


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


def _or_null(name: str, condition: str) -> str:
    # Delta takes a condition that is NULL for a violation.
    return f"{name} IS NULL OR {name} {condition}"


def _finite(name: str) -> str:
    return f"{name} IS NULL OR ({name} > double('-Infinity') AND {name} < double('Infinity'))"


def _non_negative(name: str) -> str:
    return f"{name} IS NULL OR ({name} >= 0 AND {name} < double('Infinity'))"


def _text(name: str, comment: str, *, required: bool = True, one_of: tuple[str, ...] = ()) -> Column:
    listed = ", ".join(f"'{value}'" for value in one_of)
    return Column(name, "STRING", comment, required, f"{name} IN ({listed})" if one_of else None)


def _number(name: str, comment: str, *, required: bool = False) -> Column:
    return Column(name, "DOUBLE", comment, required, _finite(name))


def _positive(name: str, comment: str, *, required: bool = False) -> Column:
    return Column(name, "DOUBLE", comment, required, _non_negative(name))


def _share(name: str, comment: str) -> Column:
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= 0 AND {name} <= 1)")


def _correlation(name: str, comment: str) -> Column:
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= -1 AND {name} <= 1)")


def _penalty(name: str, comment: str) -> Column:
    # NaN sorts above every number in Spark, so "not NaN" has to be said apart from "not negative".
    return Column(name, "DOUBLE", comment, check=f"{name} IS NULL OR ({name} >= 0 AND NOT isnan({name}))")


def _count(name: str, comment: str) -> Column:
    return Column(name, "BIGINT", comment, required=True, check=f"{name} >= 0")


RUN_ID = _text("run_id", "Attempt that wrote the row; visible when it is the newest succeeded one of its run_key.")
GROUP_ID = _text("group_id", "Canonical, type-tagged JSON of the group key.")

_CONF_LEVEL = Column(
    "conf_level", "DOUBLE", "Confidence level of the interval.", True, "conf_level > 0 AND conf_level < 1"
)
_ESTIMATOR = _text("estimator", "Name of the point estimator, as in the configuration.")
_PENALTIES = (
    _penalty("lambda_time", "Decay of time weights per period; NULL where the estimator has none."),
    _penalty("lambda_unit", "Decay of unit weights per standard deviation of distance; NULL where there is none."),
    _penalty("lambda_nn", "Nuclear-norm penalty, outcomes in standard deviations; Infinity: no low-rank part."),
)
_INTERVAL = (
    _number("conf_low", "Lower end of the confidence interval."),
    _number("conf_high", "Upper end of the confidence interval."),
)

RUNS = TableSchema(
    "runs",
    "attempt",
    (
        _text("run_key", "Hash of input version, configuration and code version, or the user's own key."),
        _text("job", "Job that ran."),
        _text("status", "Whether the attempt's rows may be shown.", one_of=("succeeded", "failed")),
        Column("started_at", "TIMESTAMP", "Start of the attempt (UTC).", required=True),
        Column("finished_at", "TIMESTAMP", "End of the attempt (UTC); the newest succeeded one per run_key counts."),
        _text("config_json", "Configuration as run, JSON."),
        _text("input", "Where the input was read."),
        _text("input_version", "Version or fingerprint of the input."),
        _text("package_version", "Version of causal_spark."),
        Column("contract_version", "INT", "Version of this table contract.", required=True),
        _count("n_groups", "Groups in the input."),
        _count("n_succeeded", "Groups with at least one estimate and nothing failed."),
        _count("n_declined", "Groups without any estimate because every method declined."),
        _count("n_failed", "Groups in which something failed."),
        _count("rows_read", "Input rows read."),
        _count("rows_written", "Rows this attempt appended to result tables, runs excluded."),
        _text("seconds_by_estimator", "JSON object: worker seconds per estimator, its variances included."),
        Column("seed", "BIGINT", "Seed of the run.", required=True),
    ),
    keyed=False,
    has_group_columns=False,
)

FAILURES = TableSchema(
    "failures",
    "group, stage, estimator, error_class",
    (
        _text("stage", "Where it happened: read, estimate or variance:<name>."),
        _text("estimator", "Estimator concerned; NULL when the whole group is.", required=False),
        _text("job", "Job that ran."),
        _text(
            "kind",
            "declined: the method has no meaning on this group; failed: something went wrong; "
            "warned: there is an estimate, and this is what to know of it.",
            one_of=("declined", "failed", "warned"),
        ),
        _text("error_class", "Class of the error, or name of the warning."),
        _text("message", "What is wrong, or what to know."),
        _text("hint", "What to do about it."),
        _count("n_rows", "Input rows of the group."),
    ),
    has_group_columns=False,
)

PANEL_EFFECTS = TableSchema(
    "panel_effects",
    "group, estimator",
    (
        _ESTIMATOR,
        _text("estimand", "What is estimated: att, the mean effect over treated cells.", one_of=("att",)),
        _number("estimate", "The estimated effect, in units of the outcome.", required=True),
        _count("n_units", "Units of the panel."),
        _count("n_periods", "Distinct periods of the panel."),
        _count("n_treated_units", "Units treated in at least one period."),
        _count("n_treated_cells", "Treated cells with an observed outcome."),
        _count("n_cells_not_identified", "Treated cells left out because their untreated outcome is not identified."),
        _count("n_control_units", "Units never treated."),
        _count("n_pre_periods", "Periods before the first treated one."),
        _positive("pre_rmse", "Root mean squared gap of treated units before treatment."),
        _text("tuning", "How penalties were chosen: none, analytic, cross_validation, loocv, race, block or fixed."),
        _number("criterion", "Score of the chosen penalties; NULL without a search."),
        *_PENALTIES,
        Column(
            "fitted_rank",
            "INT",
            "Rank of the low-rank part; NULL where there is none.",
            check=_or_null("fitted_rank", ">= 0"),
        ),
        Column("converged", "BOOLEAN", "Every solve reached its stated optimality.", required=True),
        _positive("seconds", "Worker seconds of the point estimate, tuning included.", required=True),
        # New columns come last: Delta adds them to tables that are there already.
        _positive("constancy_statistic", "Statistic of the test that the effect is constant; NULL: not tested."),
        _share("constancy_p_value", "P-value of that test, against its placebo distribution; NULL: not tested."),
        _share("constancy_weight", "Weight of the constant effect in the estimate; NULL: the estimator weighs none."),
    ),
)

PANEL_VARIANCES = TableSchema(
    "panel_variances",
    "group, estimator, variance_estimator",
    (
        _ESTIMATOR,
        _text("variance_estimator", "Name of the variance estimator."),
        _text("conditioning", "What the variance is given.", one_of=("none", "unit", "time", "unit_time")),
        _positive("std_error", "Standard error of the estimate; NULL: not estimable, see failures."),
        Column(
            "df",
            "DOUBLE",
            "Degrees of freedom of the t quantiles; NULL: normal quantiles.",
            check=_or_null("df", "> 0"),
        ),
        _number("statistic", "Estimate over standard error."),
        _share("p_value", "Two-sided p-value of no effect."),
        _CONF_LEVEL,
        *_INTERVAL,
        _count("n_replicates", "Replicates behind the standard error; 0 where not estimable."),
        # New columns come last: Delta adds them to tables that are there already.
        _share(
            "permutation_p_value",
            "Share of all assignments with an estimate as far from zero; NULL where not all were tried.",
        ),
    ),
)

PANEL_EVENT_STUDY = TableSchema(
    "panel_event_study",
    "group, estimator, event_time",
    (
        _ESTIMATOR,
        Column("event_time", "INT", "Periods since a unit's first treated period; negative: before it.", True),
        _number("estimate", "Mean gap between outcome and predicted untreated outcome.", required=True),
        _positive("std_error", "Standard error; NULL where no variance was asked for or estimable."),
        *_INTERVAL,
        _count("n_cells", "Cells averaged."),
    ),
)

PANEL_CELLS = TableSchema(
    "panel_cells",
    "group, estimator, unit, time",
    (
        _ESTIMATOR,
        _text("unit", "Unit label."),
        _text("time", "Time label: the integer, or the date or timestamp in ISO 8601 (UTC)."),
        Column("treated", "BOOLEAN", "The unit is treated at that time.", required=True),
        _number("outcome", "Observed outcome; NULL where missing."),
        _number("counterfactual", "Predicted untreated outcome; NULL where not identified."),
        _number("effect", "Outcome minus counterfactual."),
        _positive("std_error", "Standard error of the effect; NULL where not estimable."),
    ),
)

PANEL_WEIGHTS = TableSchema(
    "panel_weights",
    "group, estimator, kind, label",
    (
        _ESTIMATOR,
        _text(
            "kind",
            "unit or time; with :<first treated period> per cohort when adoption is staggered, and :<first period of "
            "the window> behind it with donors: not_yet_treated.",
        ),
        _text("label", "Unit or time label the weight belongs to."),
        _number("weight", "Weight, larger than 1e-6.", required=True),
    ),
)

TUNING_PATH = TableSchema(
    "tuning_path",
    "group, estimator, step",
    (
        _ESTIMATOR,
        Column("step", "INT", "Order in which candidates were scored, from 0.", True, "step >= 0"),
        *_PENALTIES,
        _number("criterion", "Score of the candidate, smaller is better; a bound or estimate where abandoned."),
    ),
)

RESPONSE_CURVES = TableSchema(
    "response_curves",
    "group, estimator, dose",
    (
        _ESTIMATOR,
        _number("dose", "Level of the treatment, in its units.", required=True),
        _number("estimate", "Mean outcome had every row of the group received the dose.", required=True),
        _number("slope", "Change of the estimate per unit of the dose.", required=True),
        _positive("std_error", "Standard error of the estimate; NULL: not estimable, see failures."),
        _positive("slope_std_error", "Standard error of the slope; NULL: not estimable, see failures."),
        *_INTERVAL,
        _CONF_LEVEL,
        _count("n_replicates", "Bootstrap replicates behind the standard errors; 0 where not estimable."),
        _positive(
            "expected_bias",
            "Root of the expected squared error from confounding that the weights leave and bends that the second "
            "stage cannot follow; the interval holds it beside std_error.",
        ),
    ),
)

BALANCE = TableSchema(
    "balance",
    "group, estimator, covariate, moment",
    (
        _ESTIMATOR,
        _text("covariate", "Covariate, or a level of it: name=level; name=(missing) marks where it is missing."),
        _text("moment", "Its values, or their squared distances from the mean.", one_of=("mean", "square")),
        _correlation("correlation_before", "Correlation with the treatment under the sample weights."),
        _correlation("correlation_after", "Correlation with the treatment under the balancing weights."),
        _positive("effective_sample_size", "Kish's, of the balancing weights of the group.", required=True),
    ),
)

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
        RESPONSE_CURVES,
        BALANCE,
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
