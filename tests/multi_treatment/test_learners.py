import numpy as np
import pytest

from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.boosting import BoostingOptions, fit_regression
from causal_spark.multi_treatment.meta_learners import (
    LearnerOptions,
    doubly_robust_outcomes,
    dr_learner,
    s_learner,
    t_learner,
    x_learner,
)
from causal_spark.multi_treatment.propensity import fit_propensities
from causal_spark.multi_treatment.types import ArmSample, folds_of
from tests.multi_treatment.samples import confounded, effect_error

LEARNERS = pytest.mark.parametrize("learner", [s_learner, t_learner, x_learner, dr_learner])
QUICK = LearnerOptions(BoostingOptions(leaves=(4,), max_iter=40), n_folds=3)


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
    found = fit_regression(x, target, is_binary, BoostingOptions(), 0).predict(x)
    assert np.mean((found - target) ** 2) < 0.05 * target.var()
    nothing = fit_regression(x, noise.astype(float), is_binary, BoostingOptions(), 0)
    assert nothing.predict(x).std() < 0.1


def test_a_handful_of_rows_and_what_does_not_vary_are_told_by_their_mean():
    x = np.arange(40.0)[:, None]
    few = fit_regression(x[:9], x[:9, 0], False, BoostingOptions(), 0)
    np.testing.assert_array_equal(few.predict(x), np.full(40, 4.0))
    ones = fit_regression(x, np.ones(40), True, BoostingOptions(), 0)
    np.testing.assert_array_equal(ones.predict(x), np.ones(40))
    rare = fit_regression(x, (x[:, 0] == 3).astype(float), True, BoostingOptions(), 0)
    np.testing.assert_allclose(rare.predict(x), 1 / 40)


@LEARNERS
@pytest.mark.parametrize("n_arms", [2, 4])
def test_effects_are_found_under_confounding(learner, n_arms):
    sample, means = confounded(1200, n_arms)
    found = learner(sample, LearnerOptions(BoostingOptions(leaves=(8,)), n_folds=3), 0).outcomes(sample.covariates)
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
    first, again = (learner(sample, QUICK, 3).outcomes(sample.covariates) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@LEARNERS
def test_an_arm_with_three_rows_is_no_trouble(learner):
    sample, _ = confounded(200)
    arm = np.where(np.arange(200) < 3, 2, sample.arm % 2)
    found = learner(ArmSample(sample.covariates, arm, sample.outcome, 3, False), QUICK, 0)
    assert np.isfinite(found.outcomes(sample.covariates)).all()


@pytest.mark.parametrize("learner", [s_learner, t_learner])
def test_chances_of_binary_outcomes_are_chances(learner):
    sample, means = confounded(800, is_binary=True)
    found = learner(sample, QUICK, 0).outcomes(sample.covariates)
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
    chances = np.exp(0.8 * sample.covariates[:, :1] * np.arange(3))
    chances /= chances.sum(axis=1, keepdims=True)
    wanted = means.mean(axis=0)
    no_regression = doubly_robust_scores(sample, np.zeros((4000, 3)), chances, 1e-3)
    np.testing.assert_allclose(no_regression.mean(axis=0), wanted, atol=0.3)
    no_chances = doubly_robust_scores(sample, means, np.full((4000, 3), 1 / 3), 1e-3)
    np.testing.assert_allclose(no_chances.mean(axis=0), wanted, atol=0.08)
    fitted = doubly_robust_outcomes(sample, QUICK, 0)
    np.testing.assert_allclose(fitted.mean(axis=0), wanted, atol=0.15)


@pytest.mark.parametrize("settings", [{"n_folds": 1}, {"clip": 0.0}, {"clip": 0.5}], ids=str)
def test_options_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LearnerOptions(**settings)


@pytest.mark.parametrize(
    "settings", [{"leaves": ()}, {"leaves": (1,)}, {"max_iter": 0}, {"learning_rate": 0.0}], ids=str
)
def test_options_of_trees_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        BoostingOptions(**settings)
