"""What is kept of a fit: all that new rows need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_spark.multi_treatment.intervals import EffectErrors
from causal_spark.multi_treatment.overlap import in_support
from causal_spark.multi_treatment.propensity import PropensityModel
from causal_spark.multi_treatment.types import FittedModel, Floats

#: Rows predicted at once: what is held for them stays small.
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Of each row and arm, (n_rows, n_arms) each.

    outcomes: means had the row received the arm. effects: against the control arm. std_errors: of the effects. chances:
    propensities. in_support: whether the arm and the control arm are likely enough for a row like it.
    """

    outcomes: Floats
    effects: Floats
    std_errors: Floats
    chances: Floats
    in_support: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A fitted model with the propensities and the errors that go with it. least_chance: of an arm in support."""

    model: FittedModel
    propensity: PropensityModel
    errors: EffectErrors
    least_chance: float

    def predict(self, covariates: Floats) -> Predictions:
        """Of rows (n_rows, n_covariates), which need not be those of the fit."""
        starts = range(0, max(len(covariates), 1), _BLOCK)
        parts = [self._predicted(covariates[start : start + _BLOCK]) for start in starts]
        return Predictions(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("outcomes", "effects", "std_errors", "chances", "in_support")
            )
        )

    def _predicted(self, covariates: Floats) -> Predictions:
        outcomes, folds = self.model.with_folds(covariates)
        chances = self.propensity.chances(covariates)
        return predictions_of(outcomes, folds, chances, self.errors, self.least_chance)


def predictions_of(
    outcomes: Floats, folds: Floats, chances: Floats, errors: EffectErrors, least_chance: float
) -> Predictions:
    """From outcomes (n_rows, n_arms), those by the models of the folds (n_folds, n_rows, n_arms), and propensities."""
    supported = in_support(chances, least_chance)
    return Predictions(
        outcomes,
        outcomes - outcomes[:, :1],
        errors.std_errors(folds, chances),
        chances,
        supported & supported[:, :1],
    )
