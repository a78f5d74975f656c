"""Tables of response curves."""

from __future__ import annotations

from causal_spark.lake.contract import (
    CONF_LEVEL,
    ESTIMATOR,
    INTERVAL,
    TableSchema,
    correlation,
    count,
    number,
    positive,
    text,
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
