"""Pictures of results, from their tables: a matplotlib figure each, to be shown or saved.

Every function takes result tables (pandas or Spark) and, where they hold several groups, ``group``: group columns to
values. Needs the extra ``plots``.
"""

from causal_spark.plots.arms import arm_effects, policy_values
from causal_spark.plots.curves import balance, response_curves
from causal_spark.plots.nodes import distribution_changes, root_cause_graph
from causal_spark.plots.panels import counterfactual, event_study, weights
from causal_spark.plots.studies import coverage_and_power, estimator_race

__all__ = [
    "arm_effects",
    "balance",
    "counterfactual",
    "coverage_and_power",
    "distribution_changes",
    "estimator_race",
    "event_study",
    "policy_values",
    "response_curves",
    "root_cause_graph",
    "weights",
]
