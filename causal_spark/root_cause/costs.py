"""What analyses take in time and memory, from sizes alone: good for dealing work to tasks, within a factor of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from causal_spark.root_cause.analysis import DIVERGENCE, EXACT_REGRESSIONS, MOMENTS, RootCauseOptions
from causal_spark.root_cause.coalitions import EXACT_UP_TO
from causal_spark.root_cause.intrinsic import MORE_DRAWS
from causal_spark.root_cause.multiply_robust import N_FOLDS

#: Seconds per row and node of a fit: lines; splines and their choice.
_LINE, _SPLINE = 2e-7, 6e-6
#: Seconds per draw and coalition: a sum that is sorted; a target that is computed, with its ancestors.
_SORTED, _COMPUTED = 1e-8, 1.2e-8
#: Seconds per row and coalition of the regressions of a change.
_REGRESSED = 2e-7


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """Normal rows, events, changed rows, nodes of the graph, and of the target with its ancestors."""

    n_rows: int
    n_events: int
    n_changed: int
    n_nodes: int
    n_players: int

    def n_coalitions(self, n_pairs: int, exact_up_to: int = EXACT_UP_TO) -> int:
        """Of mechanisms that are looked at: all of so many."""
        if self.n_players <= exact_up_to:
            return int(2**self.n_players)
        return 2 * n_pairs * (self.n_players - 1) + 2


def seconds(size: SegmentSize, options: RootCauseOptions) -> Mapping[str, float]:
    """Per analysis."""
    n_coalitions, n_fits = size.n_coalitions(options.n_pairs), 1 + options.n_refits
    per_fit = (_LINE if options.mechanism == "linear" else _SPLINE) * size.n_nodes
    n_regressed = size.n_coalitions(options.n_pairs, EXACT_REGRESSIONS)
    drawn = n_coalitions * options.n_draws
    if options.mechanism == "linear":
        events = drawn * (_SORTED + 1e-10 * size.n_events)
        intrinsic = 0.0
    else:
        events = drawn * _COMPUTED * size.n_events
        intrinsic = MORE_DRAWS * drawn * _COMPUTED
    plugged = sum(name not in MOMENTS for name in options.functionals)
    robust = any(name in MOMENTS for name in options.functionals)
    rows = size.n_rows + size.n_changed
    return {
        "graph_diagnostics": 0.005 * size.n_nodes + per_fit * size.n_rows,
        "root_causes": n_fits * (events + per_fit * size.n_rows),
        "distribution_changes": robust * _REGRESSED * N_FOLDS * rows * n_regressed
        + n_fits * (drawn * (_COMPUTED + _SORTED * plugged) + per_fit * size.n_changed),
        "intrinsic_contributions": n_fits * intrinsic,
    }


def numbers(size: SegmentSize, options: RootCauseOptions) -> Mapping[str, float]:
    """Float64 numbers held at the peak of each analysis."""
    n_coalitions = size.n_coalitions(options.n_pairs)
    models = (1 + options.n_refits) * size.n_rows * size.n_nodes
    computed = 2 * size.n_players * options.n_draws + 2**18 * size.n_players
    held = (size.n_rows + size.n_changed) / N_FOLDS * size.n_coalitions(options.n_pairs, EXACT_REGRESSIONS) * 6
    return {
        "graph_diagnostics": 20.0 * size.n_rows * size.n_nodes,
        "root_causes": models + computed + 4.0 * n_coalitions * (size.n_events + size.n_players) + 2**22,
        "distribution_changes": 2 * models
        + max(held, 3.0 * n_coalitions * options.n_draws if DIVERGENCE in options.functionals else 0.0),
        "intrinsic_contributions": models + MORE_DRAWS * computed,
    }
