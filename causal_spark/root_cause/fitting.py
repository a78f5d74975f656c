"""Mechanisms fitted to rows: least squares on lines or splines of the parents, multinomial logits of discrete nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import optimize, special

from causal_spark.errors import SolverError, TooFewRowsError
from causal_spark.root_cause.components import (
    KNOTS,
    Component,
    Line,
    Steps,
    curve,
    level_columns,
    spline_columns,
    spline_knots,
    summed,
)
from causal_spark.root_cause.mechanisms import ContinuousMechanism, DiscreteMechanism, Mechanism
from causal_spark.root_cause.types import Floats, MechanismKind

#: Rows per parameter, the intercept included, below which a spline is not tried; fewest rows of any fit beside those
#: that parameters take.
_ROWS_PER_PARAMETER, _SPARE_ROWS = 10, 3
#: A residual variance below this share of the variance is rounding.
_NOTHING = 1e-14
#: Of squared coefficients of standardised columns in a multinomial logit: a level that some value of a parent always
#: has would otherwise drive them to infinity.
_RIDGE = 1.0
#: Rows that are added to every level of a discrete node without parents, in all: no level is impossible.
_PRIOR = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Parent:
    """One parent's values (n_rows,); n_levels: 0 for a continuous one."""

    values: Floats
    n_levels: int


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A way in which a parent may enter.

    columns: (n_rows, n). build: coefficients, (n,) or (n, n_levels) of a discrete child, to the component.
    """

    columns: Floats
    build: Callable[[Floats], Component]

    @property
    def n_columns(self) -> int:
        return int(self.columns.shape[1])


def _line(coefficients: Floats) -> Component:
    return Line(coefficients[0])


def _steps(coefficients: Floats) -> Component:
    return Steps(np.concatenate([np.zeros((1, *coefficients.shape[1:])), coefficients]))


def _curve(knots: Floats, coefficients: Floats) -> Component:
    return curve(knots, np.concatenate([[0.0], coefficients]))


def _simplest(parent: Parent) -> _Block:
    if parent.n_levels:
        return _Block(level_columns(parent.values, parent.n_levels), _steps)
    return _Block(parent.values[:, None], _line)


def _blocks(parent: Parent, kind: MechanismKind) -> list[_Block]:
    """From simple to rich."""
    found = [_simplest(parent)]
    if kind == "linear" or parent.n_levels:
        return found
    for n_knots in KNOTS:
        knots = spline_knots(parent.values, n_knots)
        if knots is not None:
            found.append(_Block(spline_columns(knots, parent.values), partial(_curve, knots)))
    return found


def fit_continuous(values: Floats, parents: Sequence[Parent], kind: MechanismKind) -> ContinuousMechanism:
    """The mechanism of a continuous node.

    values: (n_rows,) of the node, finite. kind: ``linear``, or ``additive``: each parent by a line or by a natural
    spline of few or more knots, as Schwarz's criterion falls, the steepest fall first.
    Raises `TooFewRowsError`, `SolverError` where numbers are not finite.
    """
    choices = [_blocks(parent, kind) for parent in parents]
    n_least = 1 + sum(blocks[0].n_columns for blocks in choices) + _SPARE_ROWS
    if len(values) < n_least:
        raise TooFewRowsError(
            f"{len(values)} rows are too few for a node with {len(parents)} parents.", f"It takes {n_least} or more."
        )
    chosen = _select(values, choices) if any(len(blocks) > 1 for blocks in choices) else [0] * len(choices)
    blocks = [options[place] for options, place in zip(choices, chosen, strict=True)]
    components = tuple(_least_squares(values, blocks))
    fitted = [component(parent.values) for component, parent in zip(components, parents, strict=True)]
    rest = values - np.sum(fitted, axis=0) if fitted else values
    intercept = float(rest.mean())
    residuals = rest - intercept
    if not np.isfinite(residuals).all():
        raise SolverError("A mechanism is not finite.", "Rescale the nodes: some are near the largest double.")
    return ContinuousMechanism(intercept, components, residuals, sum(block.n_columns for block in blocks))


def _standardised(columns: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns with mean zero and variance one (zero where they are constant), their means, and what divides them."""
    means = columns.mean(axis=0)
    centred = columns - means
    scales = np.sqrt(np.mean(centred**2, axis=0))
    constant = scales <= 1e-12 * np.abs(columns).max(axis=0, initial=0.0)
    scales = np.where(constant, 1.0, scales)
    return np.where(constant, 0.0, centred / scales), means, scales


def _least_squares(values: Floats, blocks: Sequence[_Block]) -> list[Component]:
    if not blocks:
        return []
    columns, _, scales = _standardised(np.concatenate([block.columns for block in blocks], axis=1))
    coefficients = np.linalg.lstsq(columns, values - values.mean(), rcond=1e-10)[0] / scales
    ends = np.cumsum([block.n_columns for block in blocks])[:-1]
    return [block.build(part) for block, part in zip(blocks, np.split(coefficients, ends), strict=True)]


def _select(values: Floats, choices: Sequence[Sequence[_Block]]) -> list[int]:
    """Which block of each parent, all from the products of all columns, which are formed once."""
    n_rows = len(values)
    everything, *_ = _standardised(np.concatenate([block.columns for blocks in choices for block in blocks], axis=1))
    gram, moments = everything.T @ everything / n_rows, everything.T @ (values - values.mean()) / n_rows
    variance = float(np.var(values))
    ends = iter(np.cumsum([0, *(block.n_columns for blocks in choices for block in blocks)]).tolist())
    starts = [[next(ends) for _ in blocks] for blocks in choices]

    def criterion(chosen: Sequence[int]) -> float:
        picked = zip(choices, starts, chosen, strict=True)
        used = np.concatenate([np.arange(at[k], at[k] + blocks[k].n_columns) for blocks, at, k in picked])
        if _ROWS_PER_PARAMETER * (len(used) + 1) > n_rows and any(chosen):
            return np.inf
        found = np.linalg.lstsq(gram[np.ix_(used, used)], moments[used], rcond=1e-10)[0]
        left = max(variance - float(found @ moments[used]), _NOTHING * variance)
        return n_rows * float(np.log(max(left, np.finfo(float).tiny))) + float(np.log(n_rows)) * len(used)

    chosen = [0] * len(choices)
    best = criterion(chosen)
    while True:
        steps = [
            [*chosen[:parent], k, *chosen[parent + 1 :]]
            for parent, blocks in enumerate(choices)
            for k in range(chosen[parent] + 1, len(blocks))
        ]
        scores = [criterion(step) for step in steps]
        if not scores or min(scores) >= best:
            return chosen
        best = min(scores)
        chosen = steps[scores.index(best)]


def fit_discrete(values: Floats, n_levels: int, parents: Sequence[Parent]) -> DiscreteMechanism:
    """The mechanism of a discrete node: places of its levels (n_rows,). Raises as `fit_continuous`."""
    counts = np.bincount(values.astype(np.intp), minlength=n_levels).astype(float)
    if len(values) < _SPARE_ROWS + len(parents):
        raise TooFewRowsError(f"{len(values)} rows are too few for a node.", "Drop the group, or widen it.")
    logits = np.log((counts + _PRIOR / n_levels) / (counts.sum() + _PRIOR))
    if not parents:
        return DiscreteMechanism(logits, (), -logits[values.astype(np.intp)], n_levels - 1)
    blocks = [_simplest(parent) for parent in parents]
    columns, means, scales = _standardised(np.concatenate([block.columns for block in blocks], axis=1))
    hot = np.asarray(values[:, None] == np.arange(n_levels), dtype=float)
    found = _multinomial(columns, hot, logits)
    coefficients = found[1:] / scales[:, None]
    # Coefficients are of centred columns, components of the parents as they are.
    intercepts = found[0] - means @ coefficients
    ends = np.cumsum([block.n_columns for block in blocks])[:-1]
    parts = np.split(coefficients, ends)
    components = tuple(block.build(part) for block, part in zip(blocks, parts, strict=True))
    parts = [component(parent.values) for component, parent in zip(components, parents, strict=True)]
    surprises = -(special.log_softmax(summed(intercepts, parts), axis=-1) * hot).sum(axis=1)
    return DiscreteMechanism(intercepts, components, surprises, (1 + columns.shape[1]) * (n_levels - 1))


def _multinomial(columns: Floats, hot: Floats, start: Floats) -> Floats:
    """(1 + n_columns, n_levels) intercepts and coefficients under a ridge."""
    design = np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
    shape = design.shape[1], hot.shape[1]
    ridge = np.full(shape, _RIDGE)
    # Levels are told apart by differences only: a little ridge on intercepts makes them unique.
    ridge[0] = 1e-3

    def loss(flat: Floats) -> tuple[float, Floats]:
        coefficients = flat.reshape(shape)
        logits = design @ coefficients
        norm = special.logsumexp(logits, axis=1, keepdims=True)
        slope = design.T @ (np.exp(logits - norm) - hot) + ridge * coefficients
        value = float((norm[:, 0] - (logits * hot).sum(axis=1)).sum() + 0.5 * (ridge * coefficients**2).sum())
        return value, slope.ravel()

    first = np.zeros(shape)
    first[0] = start - start.mean()
    found = optimize.minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    if not np.isfinite(found.x).all():
        raise SolverError("A multinomial logit is not finite.", "Rescale the nodes.")
    return np.asarray(found.x.reshape(shape))


def fit_mechanism(values: Floats, n_levels: int, parents: Sequence[Parent], kind: MechanismKind) -> Mechanism:
    """The mechanism of a node; see `fit_continuous` and `fit_discrete`."""
    return fit_discrete(values, n_levels, parents) if n_levels else fit_continuous(values, parents, kind)
