"""What is kept of a fit: the same answers from it as from the fit, as text and tensors too."""

import json
from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import InputError
from causal_spark.multi_treatment import predictor
from causal_spark.multi_treatment.boosting import BoostingOptions
from causal_spark.multi_treatment.ensembles import NetworkOptions
from causal_spark.multi_treatment.intervals import EffectErrors, effect_errors
from causal_spark.multi_treatment.memento import MementoOptions
from causal_spark.multi_treatment.meta_learners import LearnerOptions
from causal_spark.multi_treatment.packing import pack, to_json, unpack
from causal_spark.multi_treatment.predictor import Predictor
from causal_spark.multi_treatment.propensity import fit_propensities
from causal_spark.multi_treatment.registry import ESTIMATORS, shape_of
from tests.multi_treatment.samples import confounded

PARTS = ("outcomes", "effects", "std_errors", "chances", "in_support")
NETWORKS = {"weight_decays": (1e-2,), "hidden": 8, "representation": 6, "head_units": 4, "small_below": 0}
TREES = LearnerOptions(BoostingOptions(leaves=(4,), max_iter=8))
QUICK = {
    LearnerOptions: TREES,
    NetworkOptions: NetworkOptions(**NETWORKS),
    MementoOptions: MementoOptions(**NETWORKS, trees_from=120, learner=TREES),
}
NAMES = pytest.mark.parametrize("name", ESTIMATORS)


pytestmark = pytest.mark.usefixtures("brief")


def fitted(name, sample):
    chances, propensity = fit_propensities(sample, 3, 0)
    model = ESTIMATORS[name].fit([sample], [chances], QUICK[ESTIMATORS[name].options], [5])[0]
    return Predictor(model, propensity, effect_errors(sample, model.cross_fitted(sample)), 0.1)


@NAMES
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_model_read_back_says_what_it_said(name, is_binary, monkeypatch):
    monkeypatch.setattr(predictor, "_BLOCK", 50)
    sample, _ = confounded(160, is_binary=is_binary)
    found = fitted(name, sample)
    described, tensors = pack(found)
    again = unpack(json.loads(to_json(described)), tensors)
    fresh, _ = confounded(120, seed=1)
    first, second = found.predict(fresh.covariates), again.predict(fresh.covariates)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))
        assert getattr(first, part).shape == (120, 3)
    np.testing.assert_array_equal(first.effects, first.outcomes - first.outcomes[:, :1])
    np.testing.assert_array_equal(first.chances, found.propensity.chances(fresh.covariates))
    likely = first.chances >= 0.1
    np.testing.assert_array_equal(first.in_support, likely & likely[:, :1])
    assert first.in_support.any()
    assert not first.in_support.all()
    assert not first.std_errors[:, 0].any()
    assert (first.std_errors[:, 1:] > 0).all()
    assert found.predict(fresh.covariates[:0]).effects.shape == (0, 3)


@NAMES
def test_samples_fitted_together_are_as_each_alone(name):
    samples = [confounded(n, seed=n)[0] for n in (100, 125)]
    chances = [fit_propensities(one, 3, 0)[0] for one in samples]
    definition = ESTIMATORS[name]
    options = QUICK[definition.options]
    first, second, binary, *_ = (shape_of(one, options) for one in (*samples, confounded(100, is_binary=True)[0]))
    assert first == second != binary
    together = definition.fit(samples, chances, options, [3, 4])
    for one, of_rows, seed, found in zip(samples, chances, (3, 4), together, strict=True):
        alone = definition.fit([one], [of_rows], options, [seed])[0]
        np.testing.assert_array_equal(found.outcomes(one.covariates), alone.outcomes(one.covariates))


def test_what_is_no_model_is_refused():
    described, tensors = pack(fitted("t_learner", confounded(80)[0]))
    text = json.loads(to_json(described))
    for broken in (
        {"format": 0, "model": text["model"]},
        {"format": 1},
        {"format": 1, "model": {"type": "Popen", "fields": {}}},
        {"format": 1, "model": {"shell": "rm"}},
        {"format": 1, "model": {"list": [], "tuple": []}},
        {"format": 1, "model": {"array": "none"}},
        {"format": 1, "model": {"type": "EffectErrors", "fields": {"noise": 1.0, "n_rows": 2, "n_covariates": 1}}},
    ):
        with pytest.raises(InputError, match=r"format 0|cannot be read|no predictor"):
            unpack(broken, tensors)
    with pytest.raises(InputError, match="cannot be read"):
        unpack(text, tensors[: len(tensors) // 2])
    with pytest.raises(TypeError, match="slice"):
        pack(Predictor(slice(0), None, None, 0.1))


def test_errors_grow_with_the_spread_of_folds_with_noise_and_where_arms_are_rare():
    rng = np.random.default_rng(0)
    folds = np.concatenate([np.zeros((5, 40, 1)), 0.3 * rng.normal(size=(5, 40, 1))], axis=2)
    chances = np.full((40, 2), 0.5)
    base = EffectErrors(1.0, 1000, 9)
    found = base.std_errors(folds, chances)[:, 1]
    # The rule itself, a row of it by hand.
    spread = folds[:, 0, 1].var(ddof=1)
    assert found[0] ** 2 == pytest.approx(3 * spread + 0.36 * np.sqrt(9 * 4 / 1000))
    assert (replace(base, noise=2.0).std_errors(folds, chances)[:, 1] > found).all()
    assert (replace(base, n_rows=100).std_errors(folds, chances)[:, 1] > found).all()
    assert (base.std_errors(folds, np.tile([0.9, 0.1], (40, 1)))[:, 1] > found).all()
    assert (base.std_errors(2 * folds, chances)[:, 1] > found).all()
    assert np.isfinite(base.std_errors(folds, np.tile([1.0, 0.0], (40, 1)))).all()


def test_noise_is_what_predictions_for_rows_held_out_leave():
    sample, means = confounded(4000)
    found = effect_errors(sample, means)
    assert found.noise == pytest.approx(0.25, rel=0.1)
    assert (found.n_rows, found.n_covariates) == (4000, 4)
