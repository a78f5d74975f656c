"""Simulation designs for effects of several treatments: covariates, a confounded arm, an outcome, all mean outcomes.

None of them is published with its code. synth2k has what the arms share, a nonlinear prognostic part, and effects on
top of it; synth2k_strong assigns arms two and a half times as strongly by it. ihdp4 has covariates like those of the
Infant Health and Development Program as Hill (2011) uses them, and surfaces of the arms that share nothing. acic4 has
the covariates of the ACIC 2016 competition (Dorie et al. 2019) and responses of random terms, some of them shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal_spark.examples import installed_file

Floats = NDArray[np.float64]

#: Arm shares of the first designs; of two arms the first two, of eight each of them split in two.
_SHARES = np.array([0.36, 0.30, 0.20, 0.14])


@dataclass(frozen=True, slots=True, eq=False)
class ArmDraw:
    """covariates: (n_rows, n_covariates), arm: (n_rows,) from 0 to n_arms - 1, outcome: (n_rows,).

    means: (n_rows, n_arms) true mean outcomes, propensities: (n_rows, n_arms).
    """

    covariates: Floats
    arm: NDArray[np.intp]
    outcome: Floats
    means: Floats
    propensities: Floats

    def of_rows(self, rows: slice) -> ArmDraw:
        """Some of the rows."""
        return ArmDraw(
            self.covariates[rows], self.arm[rows], self.outcome[rows], self.means[rows], self.propensities[rows]
        )


@dataclass(frozen=True, slots=True)
class ArmDesign:
    """draw: (n_rows, n_arms, generator) -> data. n_rows: that estimators are fitted on."""

    draw: Callable[[int, int, np.random.Generator], ArmDraw]
    n_rows: int
    description: str


def _shares(n_arms: int) -> Floats:
    shares = np.repeat(_SHARES, max(1, n_arms // 4))[:n_arms]
    return np.asarray(shares / shares.sum())


def _draw_arms(logits: Floats, rng: np.random.Generator) -> tuple[NDArray[np.intp], Floats]:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    arm = (rng.random((len(chances), 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    return arm.astype(np.intp), chances


def _finish(x: Floats, means: Floats, logits: Floats, noise: float, rng: np.random.Generator) -> ArmDraw:
    arm, chances = _draw_arms(logits, rng)
    outcome = means[np.arange(len(arm)), arm] + noise * rng.normal(size=len(arm))
    return ArmDraw(x, arm, outcome, means, chances)


def _synth(strength: float, n_rows: int, n_arms: int, rng: np.random.Generator) -> ArmDraw:
    x = rng.normal(size=(n_rows, 25))
    prognostic = 1.5 * np.sin(1.5 * x[:, 0]) + 0.7 * (x[:, 1] ** 2 - 1) + 0.8 * x[:, 2] * x[:, 3] + 0.8 * x[:, 4]
    means, logits = np.empty((n_rows, n_arms)), np.empty((n_rows, n_arms))
    for k in range(n_arms):
        # The same arms whatever the draw; turning through the covariates, so that no two are modified alike.
        first, second, third = x[:, k % 5], x[:, (k + 2) % 7], x[:, (k + 1) % 6]
        effect = 0.5 * k**0.5 + np.tanh(1.5 * first) + 0.5 * second * (third > 0)
        means[:, k] = prognostic + (effect if k else 0.0)
        sign = 1 if k % 2 else -1
        logits[:, k] = strength * (0.35 * sign * prognostic + 0.3 * first - 0.2 * third)
    return _finish(x, means, np.log(_shares(n_arms)) + logits, 1.0, rng)


def _ihdp(n_rows: int, n_arms: int, rng: np.random.Generator) -> ArmDraw:
    latent = rng.normal(size=(n_rows, 25)) + 0.6 * rng.normal(size=(n_rows, 1))
    latent /= np.sqrt(1.36)
    # Six continuous covariates and nineteen binary ones, common and rare.
    cuts = np.linspace(-1.0, 1.2, 19)
    x = np.concatenate([latent[:, :6], (latent[:, 6:] > cuts).astype(float)], axis=1)
    means, logits = np.empty((n_rows, n_arms)), np.empty((n_rows, n_arms))
    centred = x - np.r_[np.zeros(6), (cuts < 0)]
    for k in range(n_arms):
        coefficients = rng.choice([0.0, 0.1, 0.2, 0.3, 0.4], size=25, p=[0.6, 0.1, 0.1, 0.1, 0.1])
        index = centred @ coefficients
        # Exponential and linear surfaces in turn, as the response surface B has one of each.
        surface = np.exp(np.clip(index, None, 2.5)) if k % 2 == 0 else 2.0 * index
        means[:, k] = surface - surface.mean() + 4.0 * k / n_arms
        logits[:, k] = centred[:, :8] @ rng.normal(scale=0.35, size=8)
    return _finish(x, means, np.log(_shares(n_arms)) + logits, 1.0, rng)


@cache
def _acic_covariates() -> Floats:
    """(4802, n_columns): standardised numbers, and a column per level of the categories."""
    table = pd.read_csv(installed_file("causallib", "datasets/data/acic_challenge_2016/x.csv"))
    columns = pd.get_dummies(table, drop_first=True).to_numpy(dtype=np.float64)
    return np.asarray((columns - columns.mean(axis=0)) / columns.std(axis=0))


def _terms(x: Floats, n_terms: int, rng: np.random.Generator) -> Floats:
    """(n_rows,) a sum of random terms, with mean zero and variance one over the rows: lines, bends, steps, products."""
    total = np.zeros(len(x))
    for _ in range(n_terms):
        first, second = x[:, rng.choice(x.shape[1], 2, replace=False)].T
        kind = rng.integers(4)
        if kind == 0:
            term = first
        elif kind == 1:
            term = np.minimum(first**2, 9)
        elif kind == 2:
            term = (first > np.quantile(first, rng.uniform(0.3, 0.7))).astype(float)
        else:
            term = np.clip(first * second, -4, 4)
        spread = term.std()
        total += rng.normal() * (term - term.mean()) / (spread if spread > 0 else 1.0)
    return np.asarray((total - total.mean()) / total.std())


def _acic(n_rows: int, n_arms: int, rng: np.random.Generator) -> ArmDraw:
    every = _acic_covariates()
    x = every[rng.choice(len(every), n_rows, replace=False)]
    shared = _terms(x, 12, rng)
    means, logits = np.empty((n_rows, n_arms)), np.empty((n_rows, n_arms))
    for k in range(n_arms):
        means[:, k] = 1.5 * shared + 0.7 * _terms(x, 6, rng) + 0.6 * rng.normal()
        logits[:, k] = 0.5 * _terms(x, 4, rng) + 0.4 * rng.choice([-1, 1]) * shared
    return _finish(x, means, np.log(_shares(n_arms)) + logits, 1.0, rng)


ARM_DESIGNS: Mapping[str, ArmDesign] = MappingProxyType(
    {
        "synth2k": ArmDesign(
            lambda n, k, rng: _synth(1.0, n, k, rng), 2000, "25 normal covariates, shared nonlinear prognostic part"
        ),
        "synth2k_strong": ArmDesign(
            lambda n, k, rng: _synth(2.5, n, k, rng), 2000, "the same, confounded two and a half times as strongly"
        ),
        "ihdp4": ArmDesign(_ihdp, 600, "6 continuous and 19 binary covariates, surfaces that share nothing"),
        "acic4": ArmDesign(_acic, 1500, "covariates of ACIC 2016, responses of random terms, partly shared"),
    }
)
"""Designs by name."""
