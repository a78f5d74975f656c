"""Standard errors of the effects on single rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.multi_treatment.types import ArmSample, Floats

#: What the variance of folds' effects counts, and what is told from the noise. Found on draws of four simulation
#: designs with 2, 4 and 8 arms that no study uses; nothing in theory gives them.
_OF_FOLDS, _OF_NOISE = 3.0, 0.36
_SMALLEST_CHANCE = 0.02


@dataclass(frozen=True, slots=True)
class EffectErrors:
    """What a sample tells of the errors of effects learned from it.

    noise: variance of outcomes about predictions for rows held out. n_rows, n_covariates: of the sample.
    """

    noise: float
    n_rows: int
    n_covariates: int

    def std_errors(self, fold_outcomes: Floats, chances: Floats) -> Floats:
        """(n_rows, n_arms) standard errors of effects against the control arm, whose own is zero.

        fold_outcomes: (n_folds, n_rows, n_arms) by models without a fold each. chances: (n_rows, n_arms) propensities.
        Models of the same rows err alike, so that their spread alone says too little. The rest grows with the noise and
        the covariates, and falls with the rows like this one in both arms: noise sqrt(d (1/e_k + 1/e_0) / n). That
        intervals of these cover is measured in studies, not proved.
        """
        effects = fold_outcomes - fold_outcomes[:, :, :1]
        spread = effects.var(axis=0, ddof=1)
        inverse = 1 / np.maximum(chances, _SMALLEST_CHANCE)
        rare = self.n_covariates * (inverse + inverse[:, :1]) / self.n_rows
        variance = _OF_FOLDS * spread + _OF_NOISE * self.noise * np.sqrt(rare)
        variance[:, 0] = 0.0
        return np.asarray(np.sqrt(variance))


def effect_errors(sample: ArmSample, cross_fitted: Floats) -> EffectErrors:
    """Of a sample with (n_rows, n_arms) outcomes predicted by models that held the row out."""
    residuals = sample.outcome - cross_fitted[np.arange(sample.n_rows), sample.arm]
    return EffectErrors(float(residuals.var()), sample.n_rows, sample.covariates.shape[1])
