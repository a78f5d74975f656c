"""Effects by learners of econml on one draw, as arrays; runs in their environment.

Arguments: a file of arrays (covariates, arm, outcome, fresh), and the file that effects (n_fresh, n_arms) of each
learner are written to.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

_SEED = 0
_N_TREES = 500


def regressor() -> HistGradientBoostingRegressor:
    """What the learners are given: boosted trees that stop early."""
    return HistGradientBoostingRegressor(max_leaf_nodes=8, early_stopping=True, random_state=_SEED)


def classifier() -> HistGradientBoostingClassifier:
    """The same for arms."""
    return HistGradientBoostingClassifier(max_leaf_nodes=4, early_stopping=True, random_state=_SEED)


def learners() -> dict[str, Any]:
    """By name, as their authors' defaults have them."""
    from econml.dml import CausalForestDML, LinearDML
    from econml.dr import DRLearner, ForestDRLearner
    from econml.metalearners import XLearner

    nuisance = {"model_propensity": classifier(), "model_regression": regressor(), "random_state": _SEED}
    partial = {"model_y": regressor(), "model_t": classifier(), "discrete_treatment": True, "random_state": _SEED}
    return {
        "econml_x_learner": XLearner(models=regressor(), propensity_model=classifier()),
        "econml_dr_learner": DRLearner(model_final=regressor(), **nuisance),
        "econml_forest_dr": ForestDRLearner(n_estimators=_N_TREES, **nuisance),
        "econml_causal_forest": CausalForestDML(n_estimators=_N_TREES, **partial),
        "econml_linear_dml": LinearDML(**partial),
    }


def main(source: str, target: str) -> None:
    """Fit all."""
    given = np.load(source)
    n_arms = int(given["arm"].max()) + 1
    found: dict[str, np.ndarray] = {}
    for name, learner in learners().items():
        started = time.perf_counter()
        learner.fit(given["outcome"], given["arm"], X=given["covariates"])
        effects = np.zeros((len(given["fresh"]), n_arms))
        for arm in range(1, n_arms):
            effects[:, arm] = np.ravel(learner.effect(given["fresh"], T0=0, T1=arm))
        found[name] = effects
        found[f"{name}_seconds"] = np.array(time.perf_counter() - started)
    np.savez(target, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
