"""Which arm to choose for each row, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_spark.multi_treatment.types import Floats, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """recommended, runner_up: (n_rows,) arms with the largest and the second largest gain over the control arm, net of
    costs. expected_gain: (n_rows,) of the recommended one. abstained: (n_rows,) whether the control arm is recommended
    because nothing else is better for sure.
    """

    recommended: Rows
    runner_up: Rows
    expected_gain: Floats
    abstained: NDArray[np.bool_]


def choose_arms(
    effects: Floats,
    costs: Floats,
    std_errors: Floats | None = None,
    reach: float = 0.0,
    allowed: NDArray[np.bool_] | None = None,
) -> Policy:
    """The arm with the largest expected gain: its effect less what it costs more than the control arm.

    effects: (n_rows, n_arms) against the control arm. costs: (n_arms,), or (n_rows, n_arms), in units of the outcome.
    std_errors: (n_rows, n_arms) of the effects; with them the control arm is recommended instead where the gain less
    ``reach`` standard errors is not above zero. allowed: (n_rows, n_arms) whether an arm may be recommended for a row;
    the control arm always may.
    """
    cost = np.broadcast_to(costs, effects.shape)
    gains = effects - (cost - cost[:, :1])
    if allowed is not None:
        gains = np.where(allowed, gains, -np.inf)
    gains[:, 0] = 0.0
    every = np.arange(len(gains))
    order = np.argsort(-gains, axis=1, kind="stable")
    best, second = order[:, 0], order[:, 1]
    gain = gains[every, best]
    abstained = np.zeros(len(gains), dtype=bool)
    if std_errors is not None:
        abstained = (best != 0) & (gain - reach * std_errors[every, best] <= 0)
    return Policy(
        np.where(abstained, 0, best), np.where(abstained, best, second), np.where(abstained, 0.0, gain), abstained
    )


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """Mean outcome net of costs under a policy, and how much more that is than without any treatment."""

    value: float
    std_error: float
    gain: float
    gain_std_error: float


def policy_values(scores: Floats, recommended: Rows, costs: Floats) -> Mapping[str, PolicyValue]:
    """Of a policy, of giving everybody one arm (``all:k``), and of giving everybody the control arm (``none``).

    scores: (n_rows, n_arms) doubly robust ones. recommended: (n_rows,), by models fitted without the row: otherwise the
    policy would be judged by the noise that it was made of. costs: as in `choose_arms`.
    """
    net = scores - np.broadcast_to(costs, scores.shape)
    n_rows, n_arms = scores.shape
    chosen = {"policy": recommended, "none": np.zeros(n_rows, dtype=np.intp)}
    chosen |= {f"all:{k}": np.full(n_rows, k, dtype=np.intp) for k in range(1, n_arms)}
    found = {}
    for name, arms in chosen.items():
        of_rows = net[np.arange(n_rows), arms]
        gains = of_rows - net[:, 0]
        found[name] = PolicyValue(*_mean(of_rows), *_mean(gains))
    return found


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
