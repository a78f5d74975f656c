"""MEMENTO: networks matched, trees stacked in, means calibrated."""

import numpy as np
import pytest

from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.boosting import BoostingOptions
from causal_spark.multi_treatment.ensembles import Ensemble
from causal_spark.multi_treatment.memento import MementoOptions, memento, stacking_weights
from causal_spark.multi_treatment.meta_learners import CrossFit, LearnerOptions
from causal_spark.multi_treatment.types import ArmSample
from tests.multi_treatment.samples import confounded, effect_error, true_chances

TREES = LearnerOptions(BoostingOptions(leaves=(4,), max_iter=30))
QUICK = {"weight_decays": (1e-2,), "hidden": 8, "representation": 6, "head_units": 4, "learner": TREES}


def fitted(sample, seed=0, **settings):
    return memento([sample], [true_chances(sample)], MementoOptions(**QUICK | settings), [seed])[0]


def test_effects_are_found_under_confounding():
    sample, means = confounded(600)
    options = MementoOptions(weight_decays=(3e-3, 1e-2), trees_from=600, learner=TREES)
    found_by = memento([sample], [true_chances(sample)], options, [0])[0]
    found = found_by.outcomes(sample.covariates)
    assert effect_error(found, means) < 0.5
    networks = found_by.models[0]
    assert {spec.matching for spec in networks.losses} == {"none", "population", "pairwise"}
    assert {spec.head for spec in networks.losses} == {"shared", "offset"}


@pytest.mark.parametrize("is_binary", [False, True])
def test_trees_have_a_share_where_there_are_rows_for_them(brief, is_binary):
    sample, _ = confounded(150, is_binary=is_binary)
    without, found = (fitted(sample, trees_from=least) for least in (151, 150))
    assert [type(one) for one in without.models] == [Ensemble]
    assert without.weights.tolist() == [1.0]
    assert [type(one) for one in found.models] == [Ensemble, CrossFit]
    assert found.weights.sum() == pytest.approx(1)
    parts = [one.with_folds(sample.covariates) for one in found.models]
    outcomes, folds = found.with_folds(sample.covariates)
    for mine, theirs in ((outcomes, [one[0] for one in parts]), (folds, [one[1] for one in parts])):
        wanted = found.weights[0] * theirs[0] + found.weights[1] * theirs[1] + found.shifts
        np.testing.assert_allclose(mine, wanted, rtol=1e-12)
    np.testing.assert_array_equal(found.outcomes(sample.covariates), outcomes)
    crossed = [one.cross_fitted(sample) for one in found.models]
    wanted = found.weights[0] * crossed[0] + found.weights[1] * crossed[1] + found.shifts
    np.testing.assert_allclose(found.cross_fitted(sample), wanted, rtol=1e-12)


def test_shares_are_those_that_predict_rows_held_out_best():
    sample, means = confounded(500)
    rng = np.random.default_rng(1)
    noisy = [means + spread * rng.normal(size=means.shape) for spread in (0.3, 0.6)]
    found = stacking_weights(sample, noisy)
    own = np.stack([one[np.arange(500), sample.arm] for one in noisy], axis=1)
    scores = [np.mean((own @ [share, 1 - share] - sample.outcome) ** 2) for share in np.linspace(0, 1, 101)]
    assert found[0] == pytest.approx(np.argmin(scores) / 100, abs=0.05)
    # Nobody knows better who is only wrong.
    assert stacking_weights(sample, [means, rng.normal(size=means.shape)])[0] > 0.97
    flat = ArmSample(sample.covariates, sample.arm, np.ones(500), 3, False)
    assert stacking_weights(flat, [np.ones((500, 3))] * 2).tolist() == [1.0, 0.0]


def test_calibrated_means_are_the_doubly_robust_ones(brief):
    sample, means = confounded(3000)
    plain, found = (fitted(sample, trees_from=3001, calibrate=calibrate) for calibrate in (False, True))
    assert not plain.shifts.any()
    scores = doubly_robust_scores(sample, plain.cross_fitted(sample), true_chances(sample), TREES.clip)
    np.testing.assert_allclose(found.cross_fitted(sample).mean(axis=0), scores.mean(axis=0))
    moved = found.outcomes(sample.covariates) - plain.outcomes(sample.covariates)
    np.testing.assert_allclose(moved, np.tile(found.shifts, (3000, 1)), atol=1e-12)
    # Forty steps leave much bias, of which the chances know.
    errors = [np.abs((one.outcomes(sample.covariates) - means).mean(axis=0)).sum() for one in (plain, found)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": ("sharde",)}, "sharde"),
        ({"heads": ()}, "heads"),
        ({"matchings": ("all",)}, "all"),
        ({"trees_from": -1}, "trees_from is -1"),
        ({"weight_decays": ()}, "weight_decays"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        MementoOptions(**settings)
