"""Tables of root causes."""

from __future__ import annotations

from causal_spark.lake.contract import (
    CONF_LEVEL,
    INTERVAL,
    Column,
    TableSchema,
    count,
    number,
    positive,
    share,
    text,
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
