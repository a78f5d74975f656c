"""Ensembles of networks: what is chosen, and what rows held out are told by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_spark.errors import ShapeError
from causal_spark.multi_treatment import ensembles, networks
from causal_spark.multi_treatment.ensembles import NetworkOptions, cfr, fit_ensembles, split_of, tarnet
from causal_spark.multi_treatment.networks import NetworkSpec
from tests.multi_treatment.samples import confounded, effect_error

QUICK = {"weight_decays": (1e-2,), "alphas": (0.1,), "hidden": 8, "representation": 6, "head_units": 4}
HEADS, MATCHINGS = ("shared", "offset"), ("population", "pairwise")


def fitted(sample, seed=0, matchings=MATCHINGS, **settings):
    return fit_ensembles([sample], NetworkOptions(**QUICK | settings), [seed], HEADS, matchings)[0]


def test_members_hold_out_a_fold_each_and_draw_folds_anew_after_five():
    splits = [split_of(3, member) for member in range(7)]
    assert [fold for _, fold in splits] == [0, 1, 2, 3, 4, 0, 1]
    assert len({seed for seed, _ in splits[:5]}) == 1
    assert splits[5][0] == splits[6][0] != splits[0][0]


def test_cross_fitted_outcomes_are_those_of_members_that_held_the_row_out(brief):
    sample, _ = confounded(100)
    found_by = fitted(sample, 4)
    found = found_by.cross_fitted(sample)
    inputs = found_by.scaling.inputs(sample.covariates)
    for member in range(5):
        out = networks.held_out(sample.arm, *split_of(4, member))
        places = [5 * spec + member for spec in range(len(found_by.specs))]
        outputs = np.stack([found_by.networks.predict(inputs[out])[place] for place in places])
        output = np.tensordot(5 * found_by.weights[places], outputs, 1)
        wanted = found_by.scaling.centre + found_by.scaling.scale * output
        np.testing.assert_allclose(found[out], wanted, rtol=1e-5, atol=1e-5)
    lonely = replace(sample, arm=np.where(np.arange(100) == 7, 2, sample.arm % 2))
    alone = fitted(lonely, 4)
    np.testing.assert_allclose(alone.cross_fitted(lonely)[7:8], alone.outcomes(lonely.covariates[7:8]), rtol=1e-5)


def test_models_of_folds_are_the_members_that_held_them_out(brief):
    sample, _ = confounded(100)
    found_by = fitted(sample, 4, n_members=7)
    outcomes, folds = found_by.with_folds(sample.covariates)
    np.testing.assert_array_equal(outcomes, found_by.outcomes(sample.covariates))
    each = found_by.scaling.centre + found_by.scaling.scale * found_by.networks.predict(
        found_by.scaling.inputs(sample.covariates)
    )
    weights = found_by.weights.reshape(len(found_by.specs), 7)
    by_member = np.einsum("sm,smnk->mnk", weights, each.reshape(len(found_by.specs), 7, 100, 3)) / weights.sum(0)[0]
    wanted = [by_member[[0, 5]].mean(0), by_member[[1, 6]].mean(0), *by_member[2:5]]
    np.testing.assert_allclose(folds, np.stack(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [tarnet, cfr])
def test_effects_are_found_under_confounding(family):
    sample, means = confounded(600)
    found_by = family([sample], NetworkOptions(weight_decays=(3e-3, 1e-2)), [0])[0]
    found = found_by.outcomes(sample.covariates)
    assert found.shape == (600, 3)
    assert effect_error(found, means) < 0.6
    assert found_by.losses[found_by.specs[0]] == min(found_by.losses.values())
    assert {spec.matching for spec in found_by.losses} == {tarnet: {"none"}, cfr: {"none", "control"}}[family]
    assert {spec.head for spec in found_by.losses} == {"shared"}
    assert found_by.networks.converged.all()


def test_binary_outcomes_have_chances(brief):
    sample, _ = confounded(200, is_binary=True)
    found = fitted(sample).outcomes(sample.covariates)
    assert 0 < found.min() < found.max() < 1


def test_units_of_outcome_and_covariates_do_not_matter(brief):
    sample, _ = confounded(150)
    moved = replace(sample, covariates=5 + 100 * sample.covariates)
    base, found = (fitted(one, 1) for one in (sample, moved))
    np.testing.assert_allclose(found.outcomes(moved.covariates), base.outcomes(sample.covariates), atol=1e-3)
    scaled = fitted(replace(sample, outcome=7 + 10 * sample.outcome), 1)
    np.testing.assert_allclose(scaled.outcomes(sample.covariates), 7 + 10 * base.outcomes(sample.covariates), atol=2e-2)


def test_what_is_chosen_has_the_lowest_loss_and_members_differ(brief, monkeypatch):
    sample, _ = confounded(150)
    seen = []
    real = ensembles.train_networks

    def counted(samples, scalings, jobs, shape, device):
        seen.append(jobs)
        return real(samples, scalings, jobs, shape, device=device)

    monkeypatch.setattr(ensembles, "train_networks", counted)
    found_by = fitted(sample, 5, n_members=6)
    assert [len(jobs) for jobs in seen] == [2 * 2, 2 * 2, 4 * len(found_by.specs)]
    assert found_by.specs[0] == min(found_by.losses, key=found_by.losses.__getitem__)
    assert found_by.weights.sum() == pytest.approx(1)
    assert found_by.n_members == 6
    inputs = found_by.scaling.inputs(sample.covariates)
    outputs = found_by.networks.predict(inputs)
    assert min(np.abs(a - b).max() for i, a in enumerate(outputs) for b in outputs[:i]) > 1e-3
    wanted = found_by.scaling.centre + found_by.scaling.scale * np.tensordot(found_by.weights, outputs, 1)
    np.testing.assert_allclose(found_by.outcomes(sample.covariates), wanted)


def test_of_networks_that_are_matched_otherwise_and_alike_in_all_else_the_best_is_in_the_ensemble():
    plain = NetworkSpec("shared", "none", 0.0, 1e-2)
    matched = [replace(plain, matching=kind, alpha=0.1) for kind in ("population", "pairwise")]
    other = replace(plain, weight_decay=3e-2)
    losses = dict(zip([plain, *matched, other], (1.0, 0.99, 1.01, 1.005), strict=True))
    assert list(ensembles._weights(losses)) == [matched[0], other]


def test_weights_fall_with_losses_and_those_far_off_have_none():
    specs = [NetworkSpec(weight_decay=decay) for decay in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    found = ensembles._weights(dict(zip(specs, (2.0, 2.06, 2.0, 2.2, 2.01, 2.02), strict=True)))
    assert list(found) == [specs[0], specs[2], specs[4], specs[5]]
    assert found[specs[0]] == found[specs[2]] == pytest.approx(found[specs[4]] * np.exp(0.005 / 0.03))
    assert sum(found.values()) == pytest.approx(1)
    assert list(ensembles._weights({specs[0]: 1.0, specs[1]: 1.2})) == [specs[0]]


def test_samples_that_differ_in_shape_are_trained_apart():
    first, second = confounded(100)[0], confounded(100, n_arms=2)[0]
    with pytest.raises(ShapeError, match="arms"):
        tarnet([first, second], NetworkOptions(**QUICK), [0, 1])


def test_samples_with_few_rows_have_small_networks(brief):
    options = NetworkOptions(**QUICK | {"hidden": 9}, small_below=101)
    sizes = [tuple(tarnet([confounded(n)[0]], options, [0])[0].networks.parameters[0].shape[1:]) for n in (100, 101)]
    assert sizes == [(4, 5), (4, 9)]
    with pytest.raises(ShapeError, match="networks"):
        tarnet([confounded(100)[0], confounded(101)[0]], options, [0, 1])


def test_more_networks_than_are_trained_at_once_are_as_they_would_be(brief, monkeypatch):
    samples = [confounded(90, seed=seed)[0] for seed in range(3)]
    whole = tarnet(samples, NetworkOptions(**QUICK), [0, 1, 2])
    monkeypatch.setattr(ensembles, "_TOGETHER", 2)
    parts = tarnet(samples, NetworkOptions(**QUICK), [0, 1, 2])
    for one, other, sample in zip(whole, parts, samples, strict=True):
        np.testing.assert_allclose(one.outcomes(sample.covariates), other.outcomes(sample.covariates), atol=1e-3)


def test_a_gpu_is_used_where_it_is_wanted_and_there(brief, monkeypatch):
    seen = []
    real = ensembles.train_networks

    def told(samples, scalings, jobs, shape, device):
        seen.append(device.type)
        return real(samples, scalings, jobs, shape)

    monkeypatch.setattr(ensembles, "train_networks", told)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        tarnet([confounded(60)[0]], NetworkOptions(**QUICK), [0])
        tarnet([confounded(60)[0]], NetworkOptions(**QUICK, device="auto"), [0])
    assert set(seen[:2]) == {"cpu"}
    assert seen.count("cuda") == len(seen) // 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight_decays": ()}, "weight_decays"),
        ({"weight_decays": (-1.0,)}, "weight_decays"),
        ({"alphas": (0.0,)}, "alphas"),
        ({"n_members": 4}, "n_members is 4; it is at least 5"),
        ({"n_splits": 6}, "n_splits is 6"),
        ({"hidden": 0}, "hidden"),
        ({"divergence": "wasserstein"}, "wasserstein"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        NetworkOptions(**settings)
