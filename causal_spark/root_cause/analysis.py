"""Everything that is asked of one segment: its model, refits of it, and what they say of events and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from causal_spark.errors import GroupError, TooFewRowsError
from causal_spark.root_cause.coalitions import Coalitions, DrawOptions, all_coalitions, sampled_coalitions
from causal_spark.root_cause.diagnostics import NodeDiagnostics, diagnose
from causal_spark.root_cause.graph import CausalGraph
from causal_spark.root_cause.intrinsic import intrinsic_contributions
from causal_spark.root_cause.model import GraphModel, fit_model
from causal_spark.root_cause.multiply_robust import N_FOLDS, robust_changes
from causal_spark.root_cause.outliers import Tail, attribute_outliers, outlier_scores
from causal_spark.root_cause.plug_in import Divergence, Functional, Quantile, plug_in_changes
from causal_spark.root_cause.types import Bools, Floats, MechanismKind, NodeTable, Places

#: What a change may be of, beside ``quantile:<level>``.
MOMENTS = ("mean", "variance")
DIVERGENCE = "kl"
#: Nodes of which all coalitions are looked at where each has a regression of its own.
EXACT_REGRESSIONS = 10
#: Share of refits that must succeed for there to be standard errors.
_LEAST_SHARE = 0.8
#: What a node's surprise counts where its contribution is nothing; chosen on systems of their own, see the study.
_BASE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class RootCauseOptions:
    """How a segment is analysed.

    mechanism, mechanisms: kind of the continuous nodes' mechanisms, and of nodes that differ. tail: which values of
    the target are extreme. min_score: events whose score is less are left out. functionals: of the target, whose
    change is attributed: mean, variance, quantile:<level>, kl. n_draws: of noise. n_pairs: random orders, each with its
    reverse, where there are too many nodes for all coalitions. n_refits: behind standard errors; 0: none.
    """

    mechanism: MechanismKind = "additive"
    mechanisms: Mapping[str, MechanismKind] = field(default_factory=lambda: MappingProxyType({}))
    tail: Tail = "two_sided"
    min_score: float = 0.0
    functionals: tuple[str, ...] = (*MOMENTS, "quantile:0.9", DIVERGENCE)
    n_draws: int = 3000
    n_pairs: int = 24
    n_refits: int = 20


@dataclass(frozen=True, slots=True, eq=False)
class EventCauses:
    """Of the events that are extreme enough: ``chosen`` (n_chosen,) are their places.

    scores, floored: (n_chosen,), see `OutlierScores`. contributions, residual_z, evidence: (n_chosen, n_nodes) of all
    nodes of the graph, contributions 0 of those that are no ancestors. std_errors: the same of contributions; None
    without refits. evidence: absolute residual z times a tenth and the node's share of the score: a node is suspect
    whose mechanism broke and who matters; none are those that are no ancestors of the target.
    """

    chosen: Places
    scores: Floats
    floored: Bools
    contributions: Floats
    std_errors: Floats | None
    residual_z: Floats
    evidence: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ChangeCauses:
    """Contributions (n_nodes,) of all nodes to the change of one functional, and its observed change, None where a
    sample does not tell it. std_errors: None where there are none.
    """

    functional: str
    contributions: Floats
    std_errors: Floats | None
    observed: float | None


def functional_of(name: str) -> Functional | None:
    """A functional by name, None for the mean and the variance. Raises `ValueError` for what is none."""
    if name in MOMENTS:
        return None
    if name == DIVERGENCE:
        return Divergence()
    kind, _, level = name.partition(":")
    try:
        share = float(level)
    except ValueError:
        share = np.nan
    if kind != "quantile" or not 0 < share < 1:
        raise ValueError(
            f"functional {name!r}: it is one of mean, variance, kl and quantile:LEVEL, such as quantile:0.9"
        )
    return Quantile(share)


class Analysis:
    """A segment whose mechanisms were fitted to its normal rows.

    graph: with the target in it. normal: rows of all nodes. seed: of everything random.
    Raises `TooFewRowsError` and `SolverError` where the model cannot be fitted.
    """

    def __init__(
        self, graph: CausalGraph, target: str, normal: NodeTable, options: RootCauseOptions, seed: int
    ) -> None:
        self.graph, self.normal, self.options, self.seed = graph, normal, options, seed
        self.lineage = graph.lineage(graph.place(target))
        self.model = self._fitted(graph, normal)
        self._line = self.model.within(self.lineage)

    def _fitted(self, graph: CausalGraph, table: NodeTable) -> GraphModel:
        return fit_model(graph, table, self.options.mechanism, self.options.mechanisms)

    def _seed(self, *of: int) -> int:
        return int(np.random.SeedSequence([self.seed, *of]).generate_state(1, np.uint64)[0] >> 1)

    def diagnostics(self) -> list[NodeDiagnostics]:
        """Of all nodes."""
        return diagnose(self.model, self.normal)

    def events(self, events: NodeTable) -> EventCauses:
        """What made events extreme, from rows in which the target and its ancestors are known."""
        options = self.options
        chosen = np.arange(events.n_rows)
        draws = DrawOptions(options.n_draws, options.n_pairs)
        seed = self._seed(0)
        if options.min_score > 0:
            scores = outlier_scores(
                self._line, events.nodes(self.lineage).values[:, -1], options.tail, options.n_draws, seed
            )
            chosen = np.flatnonzero(scores >= options.min_score)
        some = events.rows(chosen)
        table = some.nodes(self.lineage)
        found = attribute_outliers(self._line, table, options.tail, draws, seed)
        errors = self._errors(
            [attribute_outliers(model, table, options.tail, draws, one).contributions for model, one in self._refits]
            if len(chosen)
            else []
        )
        z = self.model.residual_z(some.values)
        contributions = self._spread(found.contributions)
        shares = np.maximum(contributions, 0) / np.maximum(found.scores, np.finfo(float).tiny)[:, None]
        ancestral = self._spread(np.ones(len(self.lineage)))
        evidence = np.abs(np.nan_to_num(z)) * (_BASE_SHARE * ancestral + np.minimum(shares, 1.0))
        return EventCauses(
            chosen,
            found.scores,
            found.floored,
            contributions,
            None if errors is None else self._spread(errors),
            z,
            evidence,
        )

    def intrinsic(self) -> tuple[Floats, Floats | None]:
        """(n_nodes,) contributions to the target's variance, and their standard errors."""
        options = DrawOptions(self.options.n_draws, self.options.n_pairs)
        found = intrinsic_contributions(self._line, options, self._seed(1))
        errors = self._errors([intrinsic_contributions(model, options, seed) for model, seed in self._refits])
        return self._spread(found), None if errors is None else self._spread(errors)

    def changes(self, new: NodeTable, number: int) -> list[ChangeCauses]:
        """What changed the target from the normal rows to others. number: of the comparison, for its seeds.

        Raises `TooFewRowsError`, also where standard errors of the mean need more rows.
        """
        line = self._line.graph
        old, other = self.normal.nodes(self.lineage), new.nodes(self.lineage)
        everywhere = tuple(range(len(self.lineage)))
        old, other = old.rows(old.complete(everywhere)), other.rows(other.complete(everywhere))
        for table, what in ((old, "normal"), (other, "changed")):
            if table.n_rows < 2 * N_FOLDS * (1 + max(len(parents) for parents in line.parents)):
                raise TooFewRowsError(
                    f"{table.n_rows} {what} rows know the target and all its ancestors.", "Compare longer periods."
                )
        found = {}
        wanted = {name: functional_of(name) for name in self.options.functionals}
        if any(functional is None for functional in wanted.values()):
            seed = self._seed(2, number)
            robust = robust_changes(line, old, other, self._regressed(line.n_nodes, seed), seed)
            for place, name in enumerate(MOMENTS):
                found[name] = (robust.contributions[place], robust.std_errors[place])
        plugged = [functional for functional in wanted.values() if functional is not None]
        if plugged:
            for functional, own, error in self._plugged(line, old, other, plugged, number):
                found[functional.name] = (own, error)
        before, after = old.values[:, -1], other.values[:, -1]
        return [
            ChangeCauses(
                name,
                self._spread(found[key][0]),
                None if found[key][1] is None else self._spread(found[key][1]),
                _observed(functional, name, before, after),
            )
            for name, functional in wanted.items()
            for key in [name if functional is None else functional.name]
        ]

    def _plugged(
        self, line: CausalGraph, old: NodeTable, new: NodeTable, functionals: Sequence[Functional], number: int
    ) -> list[tuple[Functional, Floats, Floats | None]]:
        options = DrawOptions(self.options.n_draws, self.options.n_pairs)
        after = self._fitted(line, new)
        own = plug_in_changes(self._line, after, functionals, options, self._seed(3, number))
        again = []
        for replicate, (before, _) in enumerate(self._refits):
            seed = self._seed(4, number, replicate)
            try:
                refitted = self._fitted(line, new.rows(_resampled(new.n_rows, seed)))
            except GroupError:
                continue
            again.append(plug_in_changes(before, refitted, functionals, options, seed))
        errors = self._errors(again)
        return [
            (functional, own[place], None if errors is None else errors[place])
            for place, functional in enumerate(functionals)
        ]

    def _regressed(self, n_nodes: int, seed: int) -> Coalitions:
        if n_nodes <= EXACT_REGRESSIONS:
            return all_coalitions(n_nodes)
        return sampled_coalitions(n_nodes, self.options.n_pairs, seed)

    @cached_property
    def _refits(self) -> list[tuple[GraphModel, int]]:
        """The model of the target and its ancestors fitted to rows drawn with replacement, and a seed for each."""
        line, table = self._line.graph, self.normal.nodes(self.lineage)
        found = []
        for replicate in range(self.options.n_refits):
            seed = self._seed(5, replicate)
            try:
                found.append((self._fitted(line, table.rows(_resampled(table.n_rows, seed))), seed))
            except GroupError:
                continue
        return found

    def _errors(self, again: Sequence[Floats]) -> Floats | None:
        """Standard deviations over refits, each with draws of its own: of a finite sample and of finite draws."""
        if len(again) < max(2, _LEAST_SHARE * self.options.n_refits):
            return None
        return np.asarray(np.std(again, axis=0, ddof=1))

    def _spread(self, of_lineage: Floats) -> Floats:
        """(..., n_nodes) from (..., n_lineage): zero of nodes that are no ancestors of the target."""
        found = np.zeros((*of_lineage.shape[:-1], self.graph.n_nodes))
        found[..., list(self.lineage)] = of_lineage
        return found


def _resampled(n_rows: int, seed: int) -> Places:
    return np.asarray(np.random.default_rng([seed, n_rows]).integers(n_rows, size=n_rows))


def _observed(functional: Functional | None, name: str, before: Floats, after: Floats) -> float | None:
    if isinstance(functional, Quantile):
        return float(np.quantile(after, functional.level) - np.quantile(before, functional.level))
    if functional is not None:
        return None
    return float(after.mean() - before.mean()) if name == "mean" else float(after.var() - before.var())
