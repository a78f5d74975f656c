"""Tables of individual effects."""

from __future__ import annotations

from causal_spark.lake.contract import (
    CONF_LEVEL,
    ESTIMATOR,
    INTERVAL,
    Column,
    TableSchema,
    count,
    number,
    positive,
    share,
    text,
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
