"""DoWhy's model of a made-up system: the peer of the study and of the benchmark of root causes."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pandas as pd
from dowhy import gcm

from causal_spark.root_cause.types import NodeTable
from studies.root_cause_designs import System


def fitted_model(system: System, rows: NodeTable, *, linear: bool) -> Any:
    """Fitted to ordinary rows; mechanisms are linear regressions or boosted trees, both with additive noise."""
    names = list(system.graph.nodes)
    parents = zip(names, system.graph.parents, strict=True)
    graph = nx.DiGraph([(names[parent], name) for name, own in parents for parent in own])
    model: Any = gcm.InvertibleStructuralCausalModel(graph)
    regressor = gcm.ml.create_linear_regressor if linear else gcm.ml.create_hist_gradient_boost_regressor
    for node in graph.nodes:
        parentless = graph.in_degree(node) == 0
        mechanism = gcm.EmpiricalDistribution() if parentless else gcm.AdditiveNoiseModel(regressor())
        model.set_causal_mechanism(node, mechanism)
    gcm.config.disable_progress_bars()
    gcm.config.set_default_n_jobs(1)
    gcm.fit(model, frame_of(system, rows))
    return model


def frame_of(system: System, rows: NodeTable) -> pd.DataFrame:
    """Rows with the names of the nodes."""
    return pd.DataFrame(rows.values, columns=list(system.graph.nodes))
