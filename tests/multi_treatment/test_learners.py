import numpy as np
import pytest

from causal_spark.multi_treatment import boosting
from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.boosting import BoostingOptions, Regressions
from causal_spark.multi_treatment.meta_learners import (
    LearnerOptions,
    cross_fit,
    dr_learner,
    s_learner,
    t_learner,
    x_learner,
)
from causal_spark.multi_treatment.propensity import fit_propensities
from causal_spark.multi_treatment.types import N_FOLDS, ArmSample, folds_of, held_out
from tests.multi_treatment.samples import confounded, effect_error, true_chances

LEARNERS = pytest.mark.parametrize("learner", [s_learner, t_learner, x_learner, dr_learner])
QUICK = LearnerOptions(BoostingOptions(leaves=(4,), max_iter=40))


def fitted(learner, sample, options=QUICK, seed=0):
    return learner(sample, true_chances(sample), options, Regressions(options.boosting, seed))


def regression(x, target, is_binary=False):
    return Regressions(BoostingOptions(), 0).fit("it", x, target, is_binary)


def test_folds_have_their_share_of_every_arm():
    arm = np.repeat([0, 1, 2], [50, 23, 3])
    folds = folds_of(arm, 5, np.random.default_rng(0))
    counts = np.array([np.bincount(folds[arm == k], minlength=5) for k in range(3)])
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    assert (folds != folds_of(arm, 5, np.random.default_rng(1))).any()


@pytest.mark.parametrize("is_binary", [False, True])
def test_a_regression_has_as_many_trees_as_help(is_binary):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    signal, noise = x[:, 0] > 0, rng.random(400) > 0.5
    target = signal.astype(float) if is_binary else 3.0 * signal + 0.1 * rng.normal(size=400)
    found = regression(x, target, is_binary).predict(x)
    assert np.mean((found - target) ** 2) < 0.05 * target.var()
    nothing = regression(x, noise.astype(float), is_binary)
    assert nothing.predict(x).std() < 0.1


def test_a_handful_of_rows_and_what_does_not_vary_are_told_by_their_mean():
    x = np.arange(40.0)[:, None]
    few = regression(x[:9], x[:9, 0])
    np.testing.assert_array_equal(few.predict(x), np.full(40, 4.0))
    ones = regression(x, np.ones(40), True)
    np.testing.assert_array_equal(ones.predict(x), np.ones(40))
    rare = regression(x, (x[:, 0] == 3).astype(float), True)
    np.testing.assert_allclose(rare.predict(x), 1 / 40)


@LEARNERS
@pytest.mark.parametrize("n_arms", [2, 4])
def test_effects_are_found_under_confounding(learner, n_arms):
    sample, means = confounded(1200, n_arms)
    found = fitted(learner, sample, LearnerOptions(BoostingOptions(leaves=(8,)))).outcomes(sample.covariates)
    assert found.shape == (1200, n_arms)
    naive = np.array([sample.outcome[sample.arm == k].mean() for k in range(n_arms)])
    errors = found - found[:, :1] - (means - means[:, :1])
    bias = np.abs(errors.mean(axis=0)[1:])
    naive_bias = np.abs(naive - naive[0] - (means - means[:, :1]).mean(axis=0))[1:]
    assert (bias < 0.5 * naive_bias).all()
    # Inverse chances of four arms make the doubly robust one noisy.
    share = 1.0 if learner is dr_learner else 0.6
    assert effect_error(found, means) < share * (means - means[:, :1])[:, 1:].std(axis=0).mean()


@LEARNERS
def test_the_same_seed_gives_the_same_effects(learner):
    sample, _ = confounded(150)
    first, again = (fitted(learner, sample, QUICK, 3).outcomes(sample.covariates) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@LEARNERS
def test_an_arm_with_three_rows_is_no_trouble(learner):
    sample, _ = confounded(200)
    arm = np.where(np.arange(200) < 3, 2, sample.arm % 2)
    found = fitted(learner, ArmSample(sample.covariates, arm, sample.outcome, 3, False))
    assert np.isfinite(found.outcomes(sample.covariates)).all()


@pytest.mark.parametrize("learner", [s_learner, t_learner])
def test_chances_of_binary_outcomes_are_chances(learner):
    sample, means = confounded(800, is_binary=True)
    found = fitted(learner, sample).outcomes(sample.covariates)
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.sqrt(np.mean((found - means) ** 2)) < 0.25


def test_propensities_of_rows_not_seen_are_calibrated():
    sample, _ = confounded(2000)
    chances, model = fit_propensities(sample, 5, 0)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    for k in range(3):
        likely = chances[:, k] > np.median(chances[:, k])
        assert (sample.arm == k)[likely].mean() == pytest.approx(chances[likely, k].mean(), abs=0.04)
    fresh, _ = confounded(500, seed=9)
    own = model.chances(fresh.covariates)[np.arange(500), fresh.arm]
    assert np.log(own).mean() > np.log(1 / 3) + 0.1
    assert model.chosen.startswith("logistic")


def test_an_arm_that_some_folds_have_not_seen_has_a_small_chance():
    sample, _ = confounded(60)
    arm = np.where(np.arange(60) == 7, 2, sample.arm % 2)
    chances, _ = fit_propensities(ArmSample(sample.covariates, arm, sample.outcome, 3, False), 5, 0)
    assert (chances > 0).all()
    assert chances[7, 2] < 0.1


def test_doubly_robust_outcomes_are_right_with_either_part():
    sample, means = confounded(4000)
    chances = true_chances(sample)
    wanted = means.mean(axis=0)
    no_regression = doubly_robust_scores(sample, np.zeros((4000, 3)), chances, 1e-3)
    np.testing.assert_allclose(no_regression.mean(axis=0), wanted, atol=0.3)
    no_chances = doubly_robust_scores(sample, means, np.full((4000, 3), 1 / 3), 1e-3)
    np.testing.assert_allclose(no_chances.mean(axis=0), wanted, atol=0.08)
    learned = fitted(dr_learner, sample).outcomes(sample.covariates)
    np.testing.assert_allclose((learned - learned[:, :1]).mean(axis=0), wanted - wanted[0], atol=0.15)


def test_trees_of_a_name_are_tuned_once(monkeypatch):
    sample, _ = confounded(200)
    tuned = []
    real = boosting.choose_size

    def counted(covariates, target, is_binary, options, seed):
        tuned.append(len(target))
        return real(covariates, target, is_binary, options, seed)

    monkeypatch.setattr(boosting, "choose_size", counted)
    cross_fit(t_learner, sample, true_chances(sample), QUICK, 0)
    assert tuned == sample.counts.tolist()
    regressions = Regressions(QUICK.boosting, 0, {"a": boosting.TreeSize(4, 3)})
    forest = regressions.fit("a", sample.covariates, sample.outcome, False).forest
    assert len(forest.sizes) == 3
    assert len(tuned) == 3


@LEARNERS
def test_rows_are_told_by_the_models_of_other_folds(learner):
    sample, _ = confounded(150)
    found = cross_fit(learner, sample, true_chances(sample), QUICK, 4)
    outcomes, folds = found.with_folds(sample.covariates)
    np.testing.assert_array_equal(outcomes, found.outcomes(sample.covariates))
    assert folds.shape == (N_FOLDS, 150, 3)
    crossed = found.cross_fitted(sample)
    for fold in range(N_FOLDS):
        out = held_out(sample.arm, 4, fold)
        np.testing.assert_array_equal(crossed[out], folds[fold][out])
        rest = sample.of_rows(np.flatnonzero(~out))
        sizes = Regressions(QUICK.boosting, 4)
        learner(sample, true_chances(sample), QUICK, sizes)
        again = Regressions(QUICK.boosting, 4, sizes.sizes)
        alone = learner(rest, true_chances(sample)[~out], QUICK, again)
        np.testing.assert_array_equal(alone.outcomes(sample.covariates), folds[fold])
    lonely = np.where(np.arange(150) == 7, 2, sample.arm % 2)
    alone = ArmSample(sample.covariates, lonely, sample.outcome, 3, False)
    own = cross_fit(learner, alone, true_chances(sample), QUICK, 4)
    np.testing.assert_array_equal(own.cross_fitted(alone)[7], own.outcomes(alone.covariates)[7])


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"clip": 0.5}], ids=str)
def test_options_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LearnerOptions(**settings)


@pytest.mark.parametrize(
    "settings", [{"leaves": ()}, {"leaves": (1,)}, {"max_iter": 0}, {"learning_rate": 0.0}], ids=str
)
def test_options_of_trees_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        BoostingOptions(**settings)
