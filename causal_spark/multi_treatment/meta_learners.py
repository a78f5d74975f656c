"""Meta-learners for several arms, with boosted trees inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.boosting import BoostingOptions, Regression, Regressions
from causal_spark.multi_treatment.types import N_FOLDS, ArmSample, Floats, derived_seed, held_out

#: Occasion of a seed: of the folds within which doubly robust effects are found.
_INNER = 5


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """boosting: the trees inside. clip: propensities below it are moved there by the dr_learner."""

    boosting: BoostingOptions = field(default_factory=BoostingOptions)
    clip: float = 0.02

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """A learner's model of all rows, and those of all rows but a fold. split_seed: of the folds."""

    whole: ByArm | WithArm | WithEffects
    folds: tuple[ByArm | WithArm | WithEffects, ...]
    split_seed: int

    def outcomes(self, covariates: Floats) -> Floats:
        """See `ArmModel`."""
        return self.whole.outcomes(covariates)

    def with_folds(self, covariates: Floats) -> tuple[Floats, Floats]:
        """See `FittedModel`."""
        return self.outcomes(covariates), np.stack([one.outcomes(covariates) for one in self.folds])

    def cross_fitted(self, sample: ArmSample) -> Floats:
        """See `FittedModel`."""
        found = self.whole.outcomes(sample.covariates)
        for fold, model in enumerate(self.folds):
            out = held_out(sample.arm, self.split_seed, fold)
            found[out] = model.outcomes(sample.covariates[out])
        return found


Learner = Callable[[ArmSample, Floats, LearnerOptions, Regressions], ByArm | WithArm | WithEffects]


def cross_fit(learner: Learner, sample: ArmSample, chances: Floats, options: LearnerOptions, seed: int) -> CrossFit:
    """A learner on all rows, where its trees are tuned, and on all but each of the folds.

    chances: (n_rows, n_arms) cross-fitted propensities.
    """
    regressions = Regressions(options.boosting, seed)
    whole = learner(sample, chances, options, regressions)
    folds = []
    for fold in range(N_FOLDS):
        rows = np.flatnonzero(~held_out(sample.arm, seed, fold))
        again = Regressions(options.boosting, seed, regressions.sizes)
        folds.append(learner(sample.of_rows(rows), chances[rows], options, again))
    return CrossFit(whole, tuple(folds), seed)


def s_learner(sample: ArmSample, chances: Floats, options: LearnerOptions, regressions: Regressions) -> WithArm:
    """One regression of the outcome on covariates and arm (Künzel et al. 2019)."""
    del chances, options
    columns = _with_arm(sample.covariates, sample.arm, sample.n_arms)
    return WithArm(regressions.fit("outcome", columns, sample.outcome, sample.is_binary), sample.n_arms)


def t_learner(sample: ArmSample, chances: Floats, options: LearnerOptions, regressions: Regressions) -> ByArm:
    """A regression of the outcome in each arm (Künzel et al. 2019)."""
    del chances, options
    return _by_arm(sample, regressions)


def x_learner(sample: ArmSample, chances: Floats, options: LearnerOptions, regressions: Regressions) -> WithEffects:
    """Imputed effects regressed in each of two arms, and weighted by the chance of either (Künzel et al. 2019).

    Of several arms each is paired with the control arm; the weight of what was imputed with the control arm's outcomes
    is the chance of the control arm among the two.
    """
    del chances, options
    base = _by_arm(sample, regressions)
    outcomes = base.outcomes(sample.covariates)
    control = sample.arm == 0
    effects = []
    for k in range(1, sample.n_arms):
        mine = sample.arm == k
        both = control | mine
        imputed = {
            "treated": (mine, sample.outcome[mine] - outcomes[mine, 0]),
            "control": (control, outcomes[control, k] - sample.outcome[control]),
        }
        of_mine, of_control = (
            regressions.fit(f"effect {k} {name}", sample.covariates[rows], values, False)
            for name, (rows, values) in imputed.items()
        )
        is_mine = mine[both].astype(float)
        chance = regressions.fit(f"chance {k}", sample.covariates[both], is_mine, True)
        # Künzel et al., eq. 9: the effect imputed in the control arm counts by the chance of treatment.
        effects.append(Effect(of_mine, of_control, chance))
    return WithEffects(base.regressions[0], tuple(effects))


def dr_learner(sample: ArmSample, chances: Floats, options: LearnerOptions, regressions: Regressions) -> WithEffects:
    """Doubly robust pseudo-effects, from models fitted without the row's fold, regressed on the covariates.

    Kennedy (2023). Each arm against the control arm.
    """
    predicted = _by_arm(sample, regressions).outcomes(sample.covariates)
    for fold in range(N_FOLDS):
        out = held_out(sample.arm, derived_seed(regressions.seed, _INNER), fold)
        others = sample.of_rows(np.flatnonzero(~out))
        predicted[out] = _by_arm(others, regressions).outcomes(sample.covariates[out])
    scores = doubly_robust_scores(sample, predicted, chances, options.clip)
    effects = [
        Effect(regressions.fit(f"effect {k}", sample.covariates, scores[:, k] - scores[:, 0], False))
        for k in range(1, sample.n_arms)
    ]
    rows = sample.arm == 0
    control = regressions.fit("arm 0", sample.covariates[rows], sample.outcome[rows], sample.is_binary)
    return WithEffects(control, tuple(effects))


def _by_arm(sample: ArmSample, regressions: Regressions) -> ByArm:
    """The outcome's regressions."""
    rows_of = [sample.arm == k for k in range(sample.n_arms)]
    return ByArm(
        tuple(
            regressions.fit(f"arm {k}", sample.covariates[rows], sample.outcome[rows], sample.is_binary)
            for k, rows in enumerate(rows_of)
        )
    )


def _with_arm(covariates: Floats, arm: np.ndarray, n_arms: int) -> Floats:
    columns = (arm[:, None] == np.arange(1, n_arms)).astype(float)
    return np.concatenate([covariates, columns], axis=1)
