"""Tables of the panel jobs."""

from __future__ import annotations

from causal_spark.lake.contract import (
    CONF_LEVEL,
    ESTIMATOR,
    INTERVAL,
    PENALTIES,
    Column,
    TableSchema,
    count,
    number,
    or_null,
    positive,
    share,
    text,
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


_DESIGN = text("design", "Variant of the model that panels are drawn from; calibrated: as fitted to the panel.")
_N_DRAWS = count("n_replicates", "Drawn panels behind the figures.")

ESTIMATOR_STUDY = TableSchema(
    "estimator_study",
    "group, design, effect_shape, estimator",
    (
        _DESIGN,
        text(
            "effect_shape",
            "How the effect changes over treated periods: constant, or rising or jumping around its mean.",
            one_of=("constant", "ramp", "jump"),
        ),
        ESTIMATOR,
        _N_DRAWS,
        positive("rmse", "Root mean squared error of the ATT, in units of the outcome.", required=True),
        positive("rmse_mc_error", "Monte Carlo standard error of it.", required=True),
        number("bias", "Mean error of the ATT.", required=True),
        positive("bias_mc_error", "Monte Carlo standard error of it.", required=True),
        positive("normalised_rmse", "RMSE over that of the best, on draws that both have; NULL: too few of them."),
        positive("normalised_rmse_mc_error", "Monte Carlo standard error of it, paired draw by draw."),
        Column("place", "INT", "Rank of the RMSE, 1 the smallest.", True, "place >= 1"),
        Column(
            "best_or_tied", "BOOLEAN", "The best, or above it by no more than two Monte Carlo errors.", required=True
        ),
    ),
)

VARIANCE_STUDY = TableSchema(
    "variance_study",
    "group, design, estimator, variance_estimator, noise_quartile",
    (
        _DESIGN,
        ESTIMATOR,
        text("variance_estimator", "Name of the variance, as in the configuration."),
        Column(
            "noise_quartile",
            "INT",
            "Quarter of the draws by how noisy treated cells are, 1 the quietest; 0: all draws.",
            True,
            "noise_quartile >= 0 AND noise_quartile <= 4",
        ),
        _N_DRAWS,
        CONF_LEVEL,
        share("coverage", "Share of intervals that hold the true effect."),
        positive("coverage_mc_error", "Monte Carlo standard error of it.", required=True),
        share("power", "Share of intervals that leave zero out if the effect is power_effect."),
        number("power_effect", "Effect by which power is judged, in units of the outcome.", required=True),
        positive("mean_width", "Mean width of the intervals, in units of the outcome.", required=True),
    ),
)

RECOMMENDATIONS = TableSchema(
    "recommendations",
    "group",
    (
        text("estimator", "Estimator to use."),
        text("variance_estimator", "Variance to use; NULL: none was tried, or none gave intervals.", required=False),
        text("reason", "Why, for people."),
    ),
)
