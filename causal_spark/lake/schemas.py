"""The result tables as a contract: names, types, comments, constraints. `docs/tables.md` is checked against it."""

from __future__ import annotations

import re

from causal_spark.errors import InputError
from causal_spark.lake.contract import (
    CONF_LEVEL,
    ESTIMATOR,
    INTERVAL,
    PENALTIES,
    Column,
    TableSchema,
    correlation,
    count,
    number,
    or_null,
    positive,
    share,
    text,
)

#: Raised when a change to the tables is one that readers could notice. 2: ``failures`` holds warnings too, so whoever
#: counts its rows as things that went wrong must look at ``kind``. 3: ``panel_effects`` ends in three more columns,
#: NULL in rows of older runs, and ``tuning`` may be block: whoever reads columns by position, or knows all the ways of
#: tuning, must look. 4: ``panel_variances`` ends in one more column, and ``panel_cells.std_error`` may be filled.
#: 5: ``response_curves`` and ``balance``. 6: ``response_curves`` ends in ``expected_bias``, and its intervals hold it.
#: 7: the tables of individual effects, one of which holds bytes. 8: the tables of root causes.
CONTRACT_VERSION = 8

#: Types every reader of protocol version 1 understands.
TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP", "DOUBLE", "BINARY")

#: Types a group column may have in a result table.
KEY_TYPES = ("STRING", "BIGINT", "INT", "BOOLEAN", "DATE", "TIMESTAMP")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


RUNS = TableSchema(
    "runs",
    "attempt",
    (
        text("run_key", "Hash of input version, configuration and code version, or the user's own key."),
        text("job", "Job that ran."),
        text("status", "Whether the attempt's rows may be shown.", one_of=("succeeded", "failed")),
        Column("started_at", "TIMESTAMP", "Start of the attempt (UTC).", required=True),
        Column("finished_at", "TIMESTAMP", "End of the attempt (UTC); the newest succeeded one per run_key counts."),
        text("config_json", "Configuration as run, JSON."),
        text("input", "Where the input was read."),
        text("input_version", "Version or fingerprint of the input."),
        text("package_version", "Version of causal_spark."),
        Column("contract_version", "INT", "Version of this table contract.", required=True),
        count("n_groups", "Groups in the input."),
        count("n_succeeded", "Groups with at least one estimate and nothing failed."),
        count("n_declined", "Groups without any estimate because every method declined."),
        count("n_failed", "Groups in which something failed."),
        count("rows_read", "Input rows read."),
        count("rows_written", "Rows this attempt appended to result tables, runs excluded."),
        text("seconds_by_estimator", "JSON object: worker seconds per estimator, its variances included."),
        Column("seed", "BIGINT", "Seed of the run.", required=True),
    ),
    keyed=False,
    has_group_columns=False,
)

FAILURES = TableSchema(
    "failures",
    "group, stage, estimator, error_class",
    (
        text("stage", "Where it happened: read, estimate or variance:<name>."),
        text("estimator", "Estimator concerned; NULL when the whole group is.", required=False),
        text("job", "Job that ran."),
        text(
            "kind",
            "declined: the method has no meaning on this group; failed: something went wrong; "
            "warned: there is an estimate, and this is what to know of it.",
            one_of=("declined", "failed", "warned"),
        ),
        text("error_class", "Class of the error, or name of the warning."),
        text("message", "What is wrong, or what to know."),
        text("hint", "What to do about it."),
        count("n_rows", "Input rows of the group."),
    ),
    has_group_columns=False,
)

PANEL_EFFECTS = TableSchema(
    "panel_effects",
    "group, estimator",
    (
        ESTIMATOR,
        text("estimand", "What is estimated: att, the mean effect over treated cells.", one_of=("att",)),
        number("estimate", "The estimated effect, in units of the outcome.", required=True),
        count("n_units", "Units of the panel."),
        count("n_periods", "Distinct periods of the panel."),
        count("n_treated_units", "Units treated in at least one period."),
        count("n_treated_cells", "Treated cells with an observed outcome."),
        count("n_cells_not_identified", "Treated cells left out because their untreated outcome is not identified."),
        count("n_control_units", "Units never treated."),
        count("n_pre_periods", "Periods before the first treated one."),
        positive("pre_rmse", "Root mean squared gap of treated units before treatment."),
        text("tuning", "How penalties were chosen: none, analytic, cross_validation, loocv, race, block or fixed."),
        number("criterion", "Score of the chosen penalties; NULL without a search."),
        *PENALTIES,
        Column(
            "fitted_rank",
            "INT",
            "Rank of the low-rank part; NULL where there is none.",
            check=or_null("fitted_rank", ">= 0"),
        ),
        Column("converged", "BOOLEAN", "Every solve reached its stated optimality.", required=True),
        positive("seconds", "Worker seconds of the point estimate, tuning included.", required=True),
        # New columns come last: Delta adds them to tables that are there already.
        positive("constancy_statistic", "Statistic of the test that the effect is constant; NULL: not tested."),
        share("constancy_p_value", "P-value of that test, against its placebo distribution; NULL: not tested."),
        share("constancy_weight", "Weight of the constant effect in the estimate; NULL: the estimator weighs none."),
    ),
)

PANEL_VARIANCES = TableSchema(
    "panel_variances",
    "group, estimator, variance_estimator",
    (
        ESTIMATOR,
        text("variance_estimator", "Name of the variance estimator."),
        text("conditioning", "What the variance is given.", one_of=("none", "unit", "time", "unit_time")),
        positive("std_error", "Standard error of the estimate; NULL: not estimable, see failures."),
        Column(
            "df",
            "DOUBLE",
            "Degrees of freedom of the t quantiles; NULL: normal quantiles.",
            check=or_null("df", "> 0"),
        ),
        number("statistic", "Estimate over standard error."),
        share("p_value", "Two-sided p-value of no effect."),
        CONF_LEVEL,
        *INTERVAL,
        count("n_replicates", "Replicates behind the standard error; 0 where not estimable."),
        # New columns come last: Delta adds them to tables that are there already.
        share(
            "permutation_p_value",
            "Share of all assignments with an estimate as far from zero; NULL where not all were tried.",
        ),
    ),
)

PANEL_EVENT_STUDY = TableSchema(
    "panel_event_study",
    "group, estimator, event_time",
    (
        ESTIMATOR,
        Column("event_time", "INT", "Periods since a unit's first treated period; negative: before it.", True),
        number("estimate", "Mean gap between outcome and predicted untreated outcome.", required=True),
        positive("std_error", "Standard error; NULL where no variance was asked for or estimable."),
        *INTERVAL,
        count("n_cells", "Cells averaged."),
    ),
)

PANEL_CELLS = TableSchema(
    "panel_cells",
    "group, estimator, unit, time",
    (
        ESTIMATOR,
        text("unit", "Unit label."),
        text("time", "Time label: the integer, or the date or timestamp in ISO 8601 (UTC)."),
        Column("treated", "BOOLEAN", "The unit is treated at that time.", required=True),
        number("outcome", "Observed outcome; NULL where missing."),
        number("counterfactual", "Predicted untreated outcome; NULL where not identified."),
        number("effect", "Outcome minus counterfactual."),
        positive("std_error", "Standard error of the effect; NULL where not estimable."),
    ),
)

PANEL_WEIGHTS = TableSchema(
    "panel_weights",
    "group, estimator, kind, label",
    (
        ESTIMATOR,
        text(
            "kind",
            "unit or time; with :<first treated period> per cohort when adoption is staggered, and :<first period of "
            "the window> behind it with donors: not_yet_treated.",
        ),
        text("label", "Unit or time label the weight belongs to."),
        number("weight", "Weight, larger than 1e-6.", required=True),
    ),
)

TUNING_PATH = TableSchema(
    "tuning_path",
    "group, estimator, step",
    (
        ESTIMATOR,
        Column("step", "INT", "Order in which candidates were scored, from 0.", True, "step >= 0"),
        *PENALTIES,
        number("criterion", "Score of the candidate, smaller is better; a bound or estimate where abandoned."),
    ),
)

RESPONSE_CURVES = TableSchema(
    "response_curves",
    "group, estimator, dose",
    (
        ESTIMATOR,
        number("dose", "Level of the treatment, in its units.", required=True),
        number("estimate", "Mean outcome had every row of the group received the dose.", required=True),
        number("slope", "Change of the estimate per unit of the dose.", required=True),
        positive("std_error", "Standard error of the estimate; NULL: not estimable, see failures."),
        positive("slope_std_error", "Standard error of the slope; NULL: not estimable, see failures."),
        *INTERVAL,
        CONF_LEVEL,
        count("n_replicates", "Bootstrap replicates behind the standard errors; 0 where not estimable."),
        positive(
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
        ESTIMATOR,
        text("covariate", "Covariate, or a level of it: name=level; name=(missing) marks where it is missing."),
        text("moment", "Its values, or their squared distances from the mean.", one_of=("mean", "square")),
        correlation("correlation_before", "Correlation with the treatment under the sample weights."),
        correlation("correlation_after", "Correlation with the treatment under the balancing weights."),
        positive("effective_sample_size", "Kish's, of the balancing weights of the group.", required=True),
    ),
)

_ARM = text("treatment", "Arm, as text.")
_ROW = text("row_id", "Identifier of the row, as text.")

INDIVIDUAL_EFFECTS = TableSchema(
    "individual_effects",
    "group, estimator, row_id, treatment",
    (
        ESTIMATOR,
        _ROW,
        _ARM,
        number("outcome_estimate", "Mean outcome of rows like this one had they received the arm.", required=True),
        number("effect", "The same less that of the control arm; 0 for the control arm.", required=True),
        positive("std_error", "Standard error of the effect; NULL for the control arm."),
        *INTERVAL,
        CONF_LEVEL,
        share("propensity", "Chance that a row like this one receives the arm."),
        Column(
            "in_support",
            "BOOLEAN",
            "The arm and the control arm are both likely enough for a row like this one.",
            required=True,
        ),
    ),
)

ARM_EFFECTS = TableSchema(
    "arm_effects",
    "group, estimator, treatment, reference",
    (
        ESTIMATOR,
        _ARM,
        text("reference", "Arm it is compared with."),
        number("estimate", "Mean effect over all rows of the group, doubly robust and cross-fitted.", required=True),
        positive("std_error", "Standard error, from the influence function; NULL: not estimable."),
        *INTERVAL,
        CONF_LEVEL,
        share("p_value", "Two-sided p-value of no effect."),
        count("n_rows", "Rows of the treatment's arm."),
        number("difference_in_means", "Mean outcome of the arm less that of the reference, nothing adjusted."),
    ),
)

POLICIES = TableSchema(
    "policies",
    "group, estimator, row_id",
    (
        ESTIMATOR,
        _ROW,
        text("recommended_treatment", "Arm with the largest expected gain net of costs, or the control arm."),
        number("expected_gain", "Expected gain of it over the control arm, net of costs.", required=True),
        text("runner_up", "The next best arm; where abstained, the one that was not recommended."),
        Column(
            "abstained",
            "BOOLEAN",
            "The control arm is recommended because the interval of the best gain holds zero.",
            required=True,
        ),
    ),
)

POLICY_VALUES = TableSchema(
    "policy_values",
    "group, estimator, policy",
    (
        ESTIMATOR,
        text("policy", "policy: the recommended arms; none: the control arm for all; all:<arm>: that arm for all."),
        number("value", "Mean outcome net of costs, doubly robust and cross-fitted.", required=True),
        positive("std_error", "Standard error of the value; NULL: not estimable."),
        *INTERVAL,
        CONF_LEVEL,
        number("gain", "Value less that of the policy none.", required=True),
        positive("gain_std_error", "Standard error of the gain; NULL: not estimable."),
        number("gain_conf_low", "Lower end of the confidence interval of the gain."),
        number("gain_conf_high", "Upper end of the confidence interval of the gain."),
        count("n_rows", "Rows averaged."),
    ),
)

OVERLAP = TableSchema(
    "overlap",
    "group, treatment, covariate",
    (
        _ARM,
        text("covariate", "Covariate, or a level of it: name=level; name=(missing) marks where it is missing."),
        number("smd_before", "Mean of the arm's rows less that of all rows, in standard deviations of all rows."),
        number("smd_after", "The same with rows weighted by the inverse of their propensities."),
        share("propensity_min", "Least chance of the arm over all rows."),
        share("propensity_max", "Largest chance of the arm over all rows."),
        positive("effective_sample_size", "Kish's, of the arm's rows under these weights.", required=True),
        count("n_rows", "Rows of the arm."),
        share("share_in_support", "Share of all rows for which the arm and the control arm are likely enough."),
    ),
)

MODELS = TableSchema(
    "models",
    "group, estimator",
    (
        ESTIMATOR,
        text("schema_json", "What the tensors are, how covariates are encoded, and the arms, as JSON."),
        Column("tensors", "BINARY", "Fitted parameters in the format of safetensors.", required=True),
    ),
)

_NODE = text("node", "Node of the causal graph.")
_PLACE = Column("place", "INT", "Rank of the contribution among all nodes, 1 the largest.", True, "place >= 1")
_CONTRIBUTION_ERROR = positive("std_error", "Standard error, from refits; NULL: not estimable, or not asked for.")

GRAPH_DIAGNOSTICS = TableSchema(
    "graph_diagnostics",
    "group, node",
    (
        _NODE,
        text("parents", "JSON list of the node's parents."),
        text(
            "mechanism",
            "empirical: no parents; linear; additive: splines and lines; multinomial: a discrete node.",
            one_of=("empirical", "linear", "additive", "multinomial"),
        ),
        count("n_rows", "Normal rows in which the node and its parents are known."),
        number("fit", "Share of the variance (discrete: the deviance) due to the parents, adjusted; NULL without any."),
        share("parent_dependence", "How far the noise depends on the parents: mean squared canonical correlation."),
        share("parent_p_value", "P-value of no such dependence; NULL without parents."),
        text("other_node", "Earlier node the noise depends on most, though it should not.", required=False),
        share("other_dependence", "How far the noise depends on it."),
        share("other_p_value", "P-value of no such dependence on any earlier node; NULL where there is none."),
        Column(
            "refuted",
            "BOOLEAN",
            "The rows refute the graph or the mechanism here: a dependence is significant (1% over the graph) and not "
            "negligible.",
            required=True,
        ),
    ),
)

ROOT_CAUSES = TableSchema(
    "root_causes",
    "group, event_id, node",
    (
        text("event_id", "Identifier of the event, as text."),
        _NODE,
        positive("outlier_score", "Minus the log probability of a target as extreme as the event's.", required=True),
        number("contribution", "What the node's noise adds to the score; sums to it over nodes.", required=True),
        _CONTRIBUTION_ERROR,
        *INTERVAL,
        CONF_LEVEL,
        _PLACE,
        number("residual_z", "The node given its parents, in standard deviations; NULL where that is not known."),
        positive(
            "evidence",
            "Absolute residual_z, weighted with the share of the score; 0 of nodes that are no ancestors.",
            required=True,
        ),
        Column("evidence_place", "INT", "Rank of the evidence, 1 the largest.", True, "evidence_place >= 1"),
        Column(
            "score_floored",
            "BOOLEAN",
            "No draw was as extreme: the score is a bound from below, and contributions are what they can be at most.",
            required=True,
        ),
    ),
)

DISTRIBUTION_CHANGES = TableSchema(
    "distribution_changes",
    "group, period, functional, node",
    (
        text("period", "What was compared with the normal rows: a value of the period column, or changed."),
        text("functional", "Of the target: mean, variance, quantile:<level>, or kl (divergence from normal, nats)."),
        _NODE,
        number(
            "contribution", "What the change of the node's mechanism adds to that of the functional.", required=True
        ),
        positive("std_error", "Standard error; NULL: not estimable, or not asked for."),
        *INTERVAL,
        CONF_LEVEL,
        Column("place", "INT", "Rank of the contribution's size among all nodes, 1 the largest.", True, "place >= 1"),
        number("attributed_change", "Sum of the contributions over nodes.", required=True),
        number("observed_change", "Change of the functional between the rows themselves; NULL for kl."),
        count("n_rows", "Rows of the period that know the target and all its ancestors."),
    ),
)

INTRINSIC_CONTRIBUTIONS = TableSchema(
    "intrinsic_contributions",
    "group, node",
    (
        _NODE,
        number("contribution", "What the node's noise adds to the variance of the target.", required=True),
        _CONTRIBUTION_ERROR,
        *INTERVAL,
        CONF_LEVEL,
        number("variance_share", "The same as a share of the sum; NULL where nothing varies."),
        _PLACE,
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
