"""Meta-learners for several arms, with boosted trees inside."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.boosting import BoostingOptions, Regression, fit_regression
from causal_spark.multi_treatment.propensity import fit_propensities
from causal_spark.multi_treatment.types import ArmSample, Floats, folds_of


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """boosting: the trees inside. n_folds: of cross-fitting. clip: propensities below it are moved there."""

    boosting: BoostingOptions = field(default_factory=BoostingOptions)
    n_folds: int = 5
    clip: float = 0.02

    def __post_init__(self) -> None:
        if self.n_folds < 2:
            raise ValueError(f"n_folds is {self.n_folds}; it is at least 2")
        if not 0 < self.clip < 0.5:
            raise ValueError(f"clip is {self.clip}; it lies between 0 and .5")


@dataclass(frozen=True, slots=True, eq=False)
class ByArm:
    """A regression of the outcome per arm."""

    regressions: tuple[Regression, ...]

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        return np.stack([one.predict(covariates) for one in self.regressions], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class WithArm:
    """One regression on the covariates and a column per arm."""

    regression: Regression
    n_arms: int

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        found = [
            self.regression.predict(_with_arm(covariates, np.full(len(covariates), k), self.n_arms))
            for k in range(self.n_arms)
        ]
        return np.stack(found, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class WithEffects:
    """A regression of the outcome in the control arm, and the effects of the others.

    effects: per arm but the control one.
    """

    control: Regression
    effects: tuple[Effect, ...]

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        control = self.control.predict(covariates)
        return np.stack([control, *[control + one.predict(covariates) for one in self.effects]], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """An effect: one regression, or the mean of two, the second with the chance of its arm among the two as weight."""

    first: Regression
    second: Regression | None = None
    chance: Regression | None = None

    def predict(self, covariates: Floats) -> Floats:
        """(n_rows,) effects."""
        found = self.first.predict(covariates)
        if self.second is None or self.chance is None:
            return found
        weight = self.chance.predict(covariates)
        return np.asarray((1 - weight) * found + weight * self.second.predict(covariates))


def s_learner(sample: ArmSample, options: LearnerOptions, seed: int) -> WithArm:
    """One regression of the outcome on covariates and arm (Künzel et al. 2019)."""
    columns = _with_arm(sample.covariates, sample.arm, sample.n_arms)
    regression = fit_regression(columns, sample.outcome, sample.is_binary, options.boosting, seed)
    return WithArm(regression, sample.n_arms)


def t_learner(sample: ArmSample, options: LearnerOptions, seed: int) -> ByArm:
    """A regression of the outcome in each arm (Künzel et al. 2019)."""
    return ByArm(tuple(_of_arm(sample, k, options, seed) for k in range(sample.n_arms)))


def x_learner(sample: ArmSample, options: LearnerOptions, seed: int) -> WithEffects:
    """Imputed effects regressed in each of two arms, and weighted by the chance of either (Künzel et al. 2019).

    Of several arms each is paired with the control arm; the weight of what was imputed with the control arm's outcomes
    is the chance of the control arm among the two.
    """
    base = t_learner(sample, options, seed)
    outcomes = base.outcomes(sample.covariates)
    control = sample.arm == 0
    effects = []
    for k in range(1, sample.n_arms):
        mine = sample.arm == k
        both = control | mine
        imputed = sample.outcome[mine] - outcomes[mine, 0], outcomes[control, k] - sample.outcome[control]
        of_mine, of_control = (
            fit_regression(sample.covariates[rows], values, False, options.boosting, seed + k)
            for rows, values in zip((mine, control), imputed, strict=True)
        )
        chance = fit_regression(sample.covariates[both], mine[both].astype(float), True, options.boosting, seed + k)
        # Künzel et al., eq. 9: the effect imputed in the control arm counts by the chance of treatment.
        effects.append(Effect(of_mine, of_control, chance))
    return WithEffects(base.regressions[0], tuple(effects))


def dr_learner(sample: ArmSample, options: LearnerOptions, seed: int) -> WithEffects:
    """Doubly robust pseudo-effects, from models fitted without the row's fold, regressed on the covariates.

    Kennedy (2023). Each arm against the control arm.
    """
    scores = doubly_robust_outcomes(sample, options, seed)
    effects = [
        Effect(fit_regression(sample.covariates, scores[:, k] - scores[:, 0], False, options.boosting, seed + k))
        for k in range(1, sample.n_arms)
    ]
    return WithEffects(_of_arm(sample, 0, options, seed), tuple(effects))


def doubly_robust_outcomes(sample: ArmSample, options: LearnerOptions, seed: int) -> Floats:
    """(n_rows, n_arms) `doubly_robust_scores` from trees, fitted without the row's fold."""
    chances, _ = fit_propensities(sample, options.n_folds, seed)
    folds = folds_of(sample.arm, options.n_folds, np.random.default_rng(seed))
    predicted = np.empty((sample.n_rows, sample.n_arms))
    for fold in range(options.n_folds):
        held = folds == fold
        train = sample.of_rows(np.flatnonzero(~held))
        predicted[held] = t_learner(train, options, seed + fold).outcomes(sample.covariates[held])
    return doubly_robust_scores(sample, predicted, chances, options.clip)


def _of_arm(sample: ArmSample, arm: int, options: LearnerOptions, seed: int) -> Regression:
    """The outcome's regression in one arm."""
    rows = sample.arm == arm
    return fit_regression(sample.covariates[rows], sample.outcome[rows], sample.is_binary, options.boosting, seed + arm)


def _with_arm(covariates: Floats, arm: np.ndarray, n_arms: int) -> Floats:
    columns = (arm[:, None] == np.arange(1, n_arms)).astype(float)
    return np.concatenate([covariates, columns], axis=1)
