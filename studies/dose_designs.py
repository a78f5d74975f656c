"""Simulation designs for response curves: covariates, a confounded continuous treatment, an outcome, the true curve.

L1 and L2 are ours, with coefficients set before any weighting but the classic ones was run on them, so that these miss
by what an earlier prototype's did. HI is the simulation of Hirano, Imbens (2004, section 7.4.1), VG that of Vegetabile
et al. (2021) as Huling, Greifer, Chen (2023) use it, VC the first of Nie et al. (2021, VCNet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np

from causal_spark.dose_response.second_stage import StageName
from causal_spark.dose_response.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class DoseDraw:
    """covariates: (n_rows, n_covariates), treatment, outcome: (n_rows,). curve: treatment -> mean potential outcome."""

    covariates: Floats
    treatment: Floats
    outcome: Floats
    curve: Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class DoseDesign:
    """draw: (n_rows, generator) -> data. second_stage: what curves are fitted with."""

    draw: Callable[[int, np.random.Generator], DoseDraw]
    second_stage: StageName
    description: str


def _linear(n_rows: int, rng: np.random.Generator) -> DoseDraw:
    x = rng.normal(size=(n_rows, 5))
    shared = x[:, :4].sum(axis=1)
    a = shared / 2 + rng.normal(size=n_rows)
    y = a + 0.9 * shared + 0.5 * x[:, 4] + rng.normal(size=n_rows)
    return DoseDraw(x, a, y, lambda dose: dose)


def _quadratic(n_rows: int, rng: np.random.Generator) -> DoseDraw:
    x = rng.normal(size=(n_rows, 5))
    curved = x[:, 1] ** 2 - 1 + x[:, 2] * x[:, 3]
    a = 0.8 * x[:, 0] + 0.5 * curved + rng.normal(size=n_rows)
    y = a + 1.1 * x[:, 0] + 0.65 * curved + 0.5 * x[:, 4] + rng.normal(size=n_rows)
    return DoseDraw(x, a, y, lambda dose: dose)


def _hirano_imbens(n_rows: int, rng: np.random.Generator) -> DoseDraw:
    x = rng.exponential(size=(n_rows, 2))
    rate = x.sum(axis=1)
    a = rng.exponential(size=n_rows) / rate
    y = a + rate * np.exp(-a * rate) + rng.normal(size=n_rows)
    return DoseDraw(x, a, y, lambda dose: dose + 2 / (1 + dose) ** 3)


def _vegetabile(n_rows: int, rng: np.random.Generator) -> DoseDraw:
    mean1, mean2 = -0.5, 1.0
    x1, x2, x3, x4 = rng.normal(size=(4, n_rows)) + np.array([mean1, mean2, 0.0, mean2])[:, None]
    x5 = (rng.random(n_rows) < 0.3).astype(float)
    seen = [np.exp(x1 / 2), x2 / (1 + np.exp(x1)) + 10, x1 * x3 / 25 + 0.6, (x4 - mean2) ** 2, x5]
    a = rng.noncentral_chisquare(3, 5 * np.abs(x1) + 6 * np.abs(x2) + 3 * x5 + np.abs(x4))
    level = (mean1 + 3) ** 2 + 1 + 2 * ((mean2 - 25) ** 2 + 1)
    of_covariates = (x1 + 3) ** 2 + 2 * (x2 - 25) ** 2 + x3 - level
    y = (-0.15 * a**2 + a * (x1**2 + x2**2) - 15 + of_covariates + rng.normal(size=n_rows)) / 50
    slope = 2 + mean1**2 + mean2**2
    return DoseDraw(np.stack(seen, axis=1), a, y, lambda dose: (-0.15 * dose**2 + dose * slope - 15) / 50)


def _vcnet_factor(x: Floats) -> Floats:
    return np.asarray(4 * np.maximum(x[:, 0], x[:, 5]) ** 3 / (1 + 2 * x[:, 2] ** 2) * np.sin(x[:, 3]))


@cache
def _mean_vcnet_factor() -> float:
    return float(_vcnet_factor(np.random.default_rng(0).random((2_000_000, 6))).mean())


def _vcnet(n_rows: int, rng: np.random.Generator) -> DoseDraw:
    x = rng.random((n_rows, 6))
    x1, _, x3, x4, x5, _ = x.T
    index = (10 * np.sin(x[:, :3].max(axis=1)) + x[:, 2:5].max(axis=1) ** 3) / (1 + (x1 + x5) ** 2)
    index += np.sin(x3 / 2) * (1 + np.exp(x4 - x3 / 2)) + x3**2 + 2 * np.sin(x4) + 2 * x5 - 6.5
    a = 1 / (1 + np.exp(-(index + 0.5 * rng.normal(size=n_rows))))
    wave = np.cos(2 * np.pi * (a - 0.5))
    y = wave * (a**2 + _vcnet_factor(x)) + 0.5 * rng.normal(size=n_rows)
    return DoseDraw(x, a, y, lambda dose: np.cos(2 * np.pi * (dose - 0.5)) * (dose**2 + _mean_vcnet_factor()))


DESIGNS: Mapping[str, DoseDesign] = MappingProxyType(
    {
        "L1": DoseDesign(_linear, "line", "linear response, linear confounding"),
        "L2": DoseDesign(_quadratic, "line", "linear response, quadratic confounding"),
        "HI": DoseDesign(_hirano_imbens, "spline", "Hirano and Imbens: skewed treatment, little overlap"),
        "VG": DoseDesign(_vegetabile, "spline", "Vegetabile et al.: transformed covariates are seen"),
        "VC": DoseDesign(_vcnet, "spline", "VCNet: covariates nearly determine the treatment"),
    }
)
"""Designs by name."""
