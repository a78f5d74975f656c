"""The root causes job's work on groups: what events, changes and variances come from, rows of result tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from causal_spark.engine.build_nodes import CHANGED, EVENT, BuiltNodes, build_nodes
from causal_spark.engine.keys import seed_for
from causal_spark.engine.memory import GroupMemory
from causal_spark.engine.tasks import failure_of, warning_of
from causal_spark.engine.whole import WholeWork
from causal_spark.engine.work import Group, GroupResult, GroupSize, Row
from causal_spark.root_cause import costs
from causal_spark.root_cause.analysis import Analysis, ChangeCauses, EventCauses, RootCauseOptions
from causal_spark.root_cause.costs import SegmentSize
from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.types import Floats

DIAGNOSTICS, EVENTS, CHANGES, INTRINSIC = (
    "graph_diagnostics",
    "root_causes",
    "distribution_changes",
    "intrinsic_contributions",
)
#: Bytes of an input row while it is read and coded, beyond those of its columns, and of each of these; and of a row of
#: results.
_ROW, _ROW_COLUMN, _RESULT = 300, 80, 400
#: Periods that a message names.
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCauseWork(WholeWork):
    """Root causes of groups; see `causal_spark.engine.work.Work`.

    graph: of all nodes. target: the one whose events and changes are explained.
    """

    graph: CausalGraph
    target: str
    options: RootCauseOptions

    job = "root_causes"
    # Every group that can be read has diagnostics; whether it has events or changes is for the rows to say.
    tables = (DIAGNOSTICS, EVENTS, CHANGES, INTRINSIC)
    measures = ("events", "changed_rows")
    remedy = "use fewer draws, or a graph with fewer nodes"

    def measure(self, rows: pa.Table) -> tuple[int, ...]:
        """Events and changed rows of an ordered slice."""
        roles = rows["_role"]
        return tuple(int(pc.sum(pc.equal(roles, role)).as_py() or 0) for role in (EVENT, CHANGED))

    def segment_size(self, size: GroupSize) -> SegmentSize:
        """Dimensions of a group; all changed rows as one period."""
        n_events, n_changed = size.measures["events"], size.measures["changed_rows"]
        n_nodes = len(self.graph.lineage(self.graph.place(self.target)))
        return SegmentSize(size.n_rows - n_events - n_changed, n_events, n_changed, self.graph.n_nodes, n_nodes)

    def cost(self, size: GroupSize) -> Mapping[str, float]:
        """Seconds per analysis; fits and refits of the model are the first one's."""
        fitting = self.memory(size).fitting(self.memory_limit)
        found = costs.seconds(self.segment_size(size), self.options)
        return {name: found[name] for name in self._wanted(size) if name in fitting}

    def memory(self, size: GroupSize) -> GroupMemory:
        """Peak bytes to read the group's rows and for each analysis."""
        segment = self.segment_size(size)
        base = size.n_rows * (_ROW + _ROW_COLUMN * (3 + self.graph.n_nodes))
        results = _RESULT * self.graph.n_nodes * (segment.n_events + 1)
        numbers = costs.numbers(segment, self.options)
        return GroupMemory(base, {name: base + results + int(8 * numbers[name]) for name in self._wanted(size)})

    @staticmethod
    def _wanted(size: GroupSize) -> list[str]:
        asked = {EVENTS: size.measures["events"], CHANGES: size.measures["changed_rows"]}
        return [name for name in (DIAGNOSTICS, EVENTS, CHANGES, INTRINSIC) if asked.get(name, 1)]

    def described(self, size: GroupSize) -> str:
        """Rows and nodes."""
        return f"{size.n_rows} rows of {self.graph.n_nodes} nodes"

    def companions(self, size: GroupSize) -> int:
        """A group gains nothing from others beside it."""
        del size
        return 1

    def run_bundle(self, groups: Sequence[Group]) -> Sequence[GroupResult]:
        """Everything that is said of each of several groups."""
        return [self._one(group) for group in groups]

    def _one(self, group: Group) -> GroupResult:
        result = GroupResult({name: [] for name in self.tables})
        started = time.perf_counter()
        try:
            built = build_nodes(group.rows, self.graph, self.target)
            result.failures += [warning_of("read", None, notice) for notice in built.notices]
            seed = seed_for(self.seed, group.group_id, self.job)
            analysis = Analysis(self.graph, self.target, built.normal, self.options, seed)
        except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
            result.failures.append(failure_of("read", None, error))
            return result
        measures = {"events": built.events.n_rows, "changed_rows": sum(one.n_rows for one in built.periods.values())}
        size = GroupSize(group.group_id, group.key, len(group.rows), measures)
        steps: dict[str, Callable[[], list[Row]]] = {
            DIAGNOSTICS: lambda: _diagnostic_rows(analysis),
            EVENTS: lambda: self._event_rows(built, analysis.events(built.events)),
            CHANGES: lambda: self._change_rows(built, analysis, result),
            INTRINSIC: lambda: self._intrinsic_rows(*analysis.intrinsic()),
        }
        for name in self._wanted(size):
            if self.fits(name, size, result):
                try:
                    result.tables[name] += steps[name]()
                except Exception as error:  # noqa: BLE001 - one bad group must never fail a job
                    result.failures.append(failure_of("estimate", name, error))
            # The model itself is the first one's.
            result.seconds[name] = time.perf_counter() - started
            started = time.perf_counter()
        return result

    def _event_rows(self, built: BuiltNodes, found: EventCauses) -> list[Row]:
        rows: list[Row] = []
        for number, event in enumerate(found.chosen):
            errors = None if found.std_errors is None else found.std_errors[number]
            intervals = self._intervals(found.contributions[number], errors)
            places = _places(found.contributions[number])
            evidence_places = _places(found.evidence[number])
            z = found.residual_z[number]
            rows += [
                {
                    "event_id": built.event_ids[event],
                    "node": name,
                    "outlier_score": float(found.scores[number]),
                    **intervals[node],
                    "place": places[node],
                    "residual_z": float(z[node]) if np.isfinite(z[node]) else None,
                    "evidence": float(found.evidence[number, node]),
                    "evidence_place": evidence_places[node],
                    "score_floored": bool(found.floored[number]),
                }
                for node, name in enumerate(self.graph.nodes)
            ]
        return rows

    def _change_rows(self, built: BuiltNodes, analysis: Analysis, result: GroupResult) -> list[Row]:
        rows: list[Row] = []
        troubles: dict[str, tuple[list[str], Exception]] = {}
        for number, (period, table) in enumerate(built.periods.items()):
            try:
                changes = analysis.changes(table, number)
            except Exception as error:  # noqa: BLE001 - one bad period must never cost the others
                troubles.setdefault(type(error).__name__, ([], error))[0].append(period)
                continue
            n_rows = int(table.complete(analysis.lineage).sum())
            for change in changes:
                rows += self._functional_rows(period, n_rows, change)
        for periods, trouble in troubles.values():
            failure = failure_of("estimate", CHANGES, trouble)
            named = ", ".join(periods[:_NAMED]) + (" ..." if len(periods) > _NAMED else "")
            message = f"{len(periods)} of {len(built.periods)} periods ({named}): {failure.message}"
            result.failures.append(replace(failure, message=message))
        return rows

    def _functional_rows(self, period: str, n_rows: int, change: ChangeCauses) -> list[Row]:
        intervals = self._intervals(change.contributions, change.std_errors)
        places = _places(np.abs(change.contributions))
        return [
            {
                "period": period,
                "functional": change.functional,
                "node": name,
                **intervals[node],
                "place": places[node],
                "attributed_change": float(change.contributions.sum()),
                "observed_change": change.observed,
                "n_rows": n_rows,
            }
            for node, name in enumerate(self.graph.nodes)
        ]

    def _intrinsic_rows(self, contributions: Floats, std_errors: Floats | None) -> list[Row]:
        intervals = self._intervals(contributions, std_errors)
        places, total = _places(contributions), float(contributions.sum())
        return [
            {
                "node": name,
                **intervals[node],
                "variance_share": float(contributions[node] / total) if total > 0 else None,
                "place": places[node],
            }
            for node, name in enumerate(self.graph.nodes)
        ]

    def _intervals(self, estimates: Floats, std_errors: Floats | None) -> list[Row]:
        """Columns of each node's contribution."""
        reach = float(stats.norm.ppf((1 + self.confidence_level) / 2))
        found: list[Row] = []
        for node, estimate in enumerate(estimates.tolist()):
            error = None if std_errors is None else float(std_errors[node])
            known = error is not None and np.isfinite(error)
            found.append(
                {
                    "contribution": estimate,
                    "std_error": error if known else None,
                    "conf_low": estimate - reach * error if error is not None and known else None,
                    "conf_high": estimate + reach * error if error is not None and known else None,
                    "conf_level": self.confidence_level,
                }
            )
        return found


def _diagnostic_rows(analysis: Analysis) -> list[Row]:
    graph = analysis.graph
    return [
        {
            "node": one.node,
            "parents": json.dumps([graph.nodes[parent] for parent in graph.parents[node]], ensure_ascii=False),
            "mechanism": one.mechanism,
            "n_rows": one.n_rows,
            "fit": one.fit,
            "parent_dependence": None if one.on_parents is None else one.on_parents.strength,
            "parent_p_value": None if one.on_parents is None else one.on_parents.p_value,
            "other_node": one.other,
            "other_dependence": None if one.on_others is None else one.on_others.strength,
            "other_p_value": None if one.on_others is None else one.on_others.p_value,
            "refuted": one.refuted,
        }
        for node, one in enumerate(analysis.diagnostics())
    ]


def _places(values: Floats) -> list[int]:
    """Rank of each, 1 the largest; equals in the order of the graph."""
    found = np.empty(len(values), dtype=int)
    found[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return [int(place) for place in found]
