"""Simulation designs calibrated to real panels: untreated outcomes like theirs, and treatment that does nothing.

Arkhangelsky, Athey, Hirshberg, Imbens, Wager (2021), section 3: a rank-4 matrix plus AR(2) noise fitted to the panel;
at most ten units are treated in the last ten periods, drawn independently with probabilities from a logit of a real
policy on the four unit factors, or all alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from causal_spark.examples import load_example
from causal_spark.panel.calibration import Calibration, calibrate, draw_treated, logit_probabilities
from causal_spark.panel.types import Floats, Panel

N_TREATED = 10
N_POST = 10
# With equal probabilities a draw has ten treated units all but always, as the published figures for random assignment
# imply: at 10/n_units it would have 8.8 on average, and errors a tenth larger than theirs.
_EQUAL = 0.5


@dataclass(frozen=True, slots=True)
class Design:
    """A panel to calibrate to. policy: whether treated units are drawn like those with the policy, else uniformly.

    published: row of the published table of the same simulation, None where there is none.
    """

    name: str
    source: str
    outcome: str
    policy: bool
    published: str | None


DESIGNS = {
    design.name: design
    for design in (
        Design("cps_log_wage", "cps_placebo", "log_wage", True, "baseline"),
        Design("cps_urate", "cps_placebo", "urate", True, "urate"),
        Design("cps_hours", "cps_placebo", "hours", True, "hours"),
        Design("cps_log_wage_random", "cps_placebo", "log_wage", False, "random"),
        Design("pwt_democracy", "pwt_placebo", "log_gdp", True, "penn.democracy"),
        Design("pwt_random", "pwt_placebo", "log_gdp", False, "penn.random"),
        Design("smoking_random", "prop99", "packs_per_capita", False, None),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A design ready to draw from. probability: (n_units,) of being treated."""

    calibration: Calibration
    probability: Floats


@cache
def model_of(name: str) -> Model:
    """Calibrate a design.

    Placebo policies have no effect, so all their cells are used. In Smoking California, which truly was treated, is
    dropped: what it would have smoked after 1988 is not known, and a fit's guess would enter draws as if it were.
    """
    design = DESIGNS[name]
    table = load_example("policies")
    table = table[(table["source"] == design.source) & (table["outcome_name"] == design.outcome)]
    outcome = table.pivot_table(index="unit", columns="year", values="outcome").to_numpy(np.float64)
    treated = table.pivot_table(index="unit", columns="year", values="treated").to_numpy() > 0
    if design.source == "prop99":
        outcome, treated = outcome[~treated.any(axis=1)], treated[~treated.any(axis=1)]
    calibration = calibrate(outcome, np.isfinite(outcome))
    if design.policy:
        probability = logit_probabilities(calibration.unit_factors, np.asarray(treated.any(axis=1)))
    else:
        probability = np.full(outcome.shape[0], _EQUAL)
    return Model(calibration, probability)


def seed_of(*parts: object) -> int:
    """A seed from the study's seed, the kind of draws, the design and the draw: 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def draw(name: str, seed: int) -> Panel:
    """One panel without an effect, outcomes in standard deviations of the design's panel."""
    model, rng = model_of(name), np.random.default_rng(seed)
    outcome = (model.calibration.draw(rng, 1)[0] - model.calibration.centre) / model.calibration.scale
    treated = np.zeros(outcome.shape, dtype=bool)
    treated[draw_treated(model.probability, N_TREATED, rng), -N_POST:] = True
    return Panel(outcome, treated, np.ones_like(treated), np.arange(outcome.shape[0]), np.arange(outcome.shape[1]))


def with_effect(panel: Panel, shape: Floats) -> Panel:
    """The panel with an effect added that all treated units share. shape: (N_POST,) over the treated periods."""
    effect = np.zeros(panel.n_periods)
    effect[-N_POST:] = shape
    return replace(panel, outcome=panel.outcome + panel.treated * effect)


def shapes() -> dict[str, Floats]:
    """Effects over the treated periods, in standard deviations, all of mean zero; a constant may be added to any.

    The estimators' errors do not change by such a constant (a test of each says so), so ``constant`` stands for every
    constant effect, zero included. Ramps rise in equal steps from minus to plus their size; the jump comes halfway.
    """
    ramp = np.linspace(-1.0, 1.0, N_POST)
    return {
        "constant": np.zeros(N_POST),
        "ramp_0.1": 0.1 * ramp,
        "ramp_0.2": 0.2 * ramp,
        "jump": np.where(ramp > 0, 0.1, -0.1),
    }
