"""Simulation designs calibrated to real panels: untreated outcomes like theirs, and treatment that does nothing.

Arkhangelsky, Athey, Hirshberg, Imbens, Wager (2021), section 3, and Athey, Imbens, Qu, Viviano (2025), section 5: see
`causal_spark.panel.simulation`. Outcomes are in standard deviations of the design's panel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from causal_spark.examples import installed_file, load_example
from causal_spark.panel.simulation import Assignment, Simulation, SimulationOptions, effect_of_shape, fit_simulation
from causal_spark.panel.types import Bools, Floats, Panel

#: Units that are treated at most; fewer where a draw has fewer, or where those truly treated are fewer.
N_TREATED = 10


@dataclass(frozen=True, slots=True)
class Design:
    """A panel to calibrate to, and who is treated in its last ``n_post`` periods.

    source, outcome: of the example policies. policy: column of the package's own file of units that treated ones are
    like, None for the truly treated. published: row of the published table of the same simulation, None where there is
    none; published_dwcp: the same of the table of the paper behind DWCP.
    """

    source: str
    outcome: str
    assignment: Assignment
    policy: str | None = None
    n_post: int = 10
    published: str | None = None
    published_dwcp: str | None = None


_CPS = Design("cps_placebo", "log_wage", "factors", "min_wage")
_PWT = Design("pwt_placebo", "log_gdp", "factors", "dem")
_SMOKING = Design("prop99", "packs_per_capita", "uniform")
_CASTLE = Design("castle_doctrine", "l_homicide", "factors", n_post=4)
_TEXAS = Design("texas_prisons", "bmprison", "uniform", n_post=6)

DESIGNS = {
    "cps_log_wage": replace(_CPS, published="baseline", published_dwcp="CPS log_wage min_wage"),
    "cps_urate": replace(_CPS, outcome="urate", published="urate", published_dwcp="CPS urate min_wage"),
    "cps_hours": replace(_CPS, outcome="hours", published="hours", published_dwcp="CPS hours min_wage"),
    "cps_log_wage_gun": replace(_CPS, policy="open_carry", published="gun.law", published_dwcp="CPS log_wage gun_law"),
    "cps_log_wage_abortion": replace(
        _CPS, policy="abort_ban", published="abortion", published_dwcp="CPS log_wage abortion"
    ),
    "cps_log_wage_random": replace(
        _CPS, assignment="uniform", published="random", published_dwcp="CPS log_wage random"
    ),
    "pwt_democracy": replace(_PWT, published="penn.democracy", published_dwcp="PWT log_gdp democracy"),
    "pwt_education": replace(_PWT, policy="educ", published="penn.education", published_dwcp="PWT log_gdp education"),
    "pwt_random": replace(_PWT, assignment="uniform", published="penn.random", published_dwcp="PWT log_gdp random"),
    "smoking_random": replace(_SMOKING, published_dwcp="Smoking packs random"),
    "smoking_simulated": replace(_SMOKING, assignment="synthetic_control", published_dwcp="Smoking packs simulated"),
    "smoking_treated_unit": replace(_SMOKING, assignment="truly_treated", published_dwcp="Smoking packs treated_unit"),
    "castle_law": _CASTLE,
    "castle_random": replace(_CASTLE, assignment="uniform"),
    "texas_random": _TEXAS,
    "texas_simulated": replace(_TEXAS, assignment="synthetic_control"),
    "texas_treated_unit": replace(_TEXAS, assignment="truly_treated", n_post=4),
}

#: Files of synthdid-py by source, and their column of units.
_FILES = {"cps_placebo": ("CPS", "state"), "pwt_placebo": ("PENN", "country")}


@cache
def model_of(name: str) -> Simulation:
    """Calibrate a design."""
    design = DESIGNS[name]
    panel, policy = observed_panel(design.source, design.outcome, design.policy)
    options = SimulationOptions(design.assignment, treated_units=N_TREATED, treated_periods=design.n_post)
    return fit_simulation(panel, options, policy)


def observed_panel(source: str, outcome: str, policy: str | None) -> tuple[Panel, Bools | None]:
    """A panel, its outcomes in standard deviations, and the units (n_units,) that have a policy, None without one.

    Treatment of placebo sources has no effect, and is left out.
    """
    table = load_example("policies")
    table = table[(table["source"] == source) & (table["outcome_name"] == outcome)]
    wide = table.pivot_table(index="unit", columns="year", values="outcome")
    treated = table.pivot_table(index="unit", columns="year", values="treated").to_numpy() > 0
    if source in _FILES:
        treated[:] = False
    values = wide.to_numpy(np.float64)
    used = np.isfinite(values) & ~treated
    standard = (values - values[used].mean()) / values[used].std()
    panel = Panel(standard, treated, np.isfinite(values), wide.index.to_numpy(), wide.columns.to_numpy())
    if policy is None:
        return panel, None
    file, unit = _FILES[source]
    path = installed_file("synthdid", f"data/{file}.csv", distribution="synthdid-py")
    own = pd.read_csv(path, sep=";", true_values=["TRUE"], false_values=["FALSE"])
    return panel, own.groupby(unit)[policy].max().reindex(wide.index).to_numpy() > 0


def seed_of(*parts: object) -> int:
    """A seed from the study's seed, the kind of draws, the design and the draw: 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def draw(name: str, seed: int) -> Panel:
    """One panel without an effect, outcomes in standard deviations of the design's panel."""
    return model_of(name).draw(seed).panel


#: Effects by name: what they add to an effect of zero, of mean zero over treated cells, in standard deviations. Errors
#: of estimators do not change by a constant effect (a test of each says so), so ``constant`` stands for any, zero
#: included. Ramps rise in equal steps from minus to plus their size; the jump comes halfway.
SHAPES: dict[str, Callable[[Panel], Floats]] = {
    "constant": lambda panel: effect_of_shape(panel, "constant", 0.0),
    "ramp_0.1": lambda panel: effect_of_shape(panel, "ramp", 0.1),
    "ramp_0.2": lambda panel: effect_of_shape(panel, "ramp", 0.2),
    "jump": lambda panel: effect_of_shape(panel, "jump", 0.1),
}
