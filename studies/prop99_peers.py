"""Placebo standard errors of other packages on Proposition 99, as JSON; runs in their environment.

Input: outcomes (n_units, n_periods) as JSON on standard input, the treated unit last; argument: its periods before
treatment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

_SEED = 0
_REPLICATES = 200


def panelkit(outcome: Any, n_pre: int) -> dict[str, tuple[float, int]]:
    """Every control once, weights to the optimum; divisor n - 1."""
    import panelkit as library

    names = {"sc": "SyntheticControl", "difp": "DemeanedSC", "sdid": "SyntheticDiD"}
    found = {}
    for name, method in names.items():
        fit = getattr(library, method)(inference="placebo").fit(outcome, [len(outcome) - 1], n_pre)
        found[name] = float(fit.se), len(fit.placebo_atts)
    return found


def synthdid_py(outcome: Any, n_pre: int) -> dict[str, tuple[float, int]]:
    """Random draws of controls, weights stopped early as in the authors' package."""
    import synthdid as library

    found = {}
    for name, estimate in (("did", "did_estimate"), ("sc", "sc_estimate"), ("sdid", "synthdid_estimate")):
        fit = getattr(library, estimate)(outcome, len(outcome) - 1, n_pre)
        variance = library.vcov(fit, method="placebo", replications=_REPLICATES, random_state=_SEED)
        found[name] = float(np.sqrt(variance.item())), _REPLICATES
    return found


def diff_diff(outcome: Any, n_pre: int) -> dict[str, tuple[float, int]]:
    """Random draws of controls."""
    import diff_diff as library
    import pandas as pd

    unit, period = (axis.ravel() for axis in np.indices(outcome.shape))
    ever = (unit == len(outcome) - 1).astype(int)
    data = pd.DataFrame({"outcome": outcome.ravel(), "unit": unit, "period": period, "ever": ever})
    method = library.SyntheticDiD(variance_method="placebo", n_bootstrap=_REPLICATES, seed=_SEED)
    post = list(range(n_pre, outcome.shape[1]))
    fit = method.fit(data, "outcome", "ever", "unit", "period", post_periods=post)
    return {"sdid": (float(fit.se), _REPLICATES)}


if __name__ == "__main__":
    given, n_before = np.array(json.load(sys.stdin)), int(sys.argv[1])
    answers = {make.__name__: make(given, n_before) for make in (panelkit, synthdid_py, diff_diff)}
    json.dump(answers, sys.stdout)
