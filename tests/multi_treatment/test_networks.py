from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_spark.errors import ShapeError
from causal_spark.multi_treatment import memento as families
from causal_spark.multi_treatment import networks
from causal_spark.multi_treatment.arm_effects import doubly_robust_scores
from causal_spark.multi_treatment.discrepancy import matching_terms, squared_mmd
from causal_spark.multi_treatment.memento import MementoOptions, NetworkOptions, cfr, memento, split_of, tarnet
from causal_spark.multi_treatment.networks import Job, NetworkShape, NetworkSpec, scaling_of, train_networks
from tests.multi_treatment.samples import confounded, effect_error

SMALL = NetworkShape(8, 6, 4)
QUICK = {"weight_decays": (1e-2,), "alphas": (0.1,), "hidden": 8, "representation": 6, "head_units": 4}


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(networks, "_TRAINING", replace(networks._TRAINING, max_steps=40))


def shares_of(arm, n_arms):
    return torch.tensor((arm[:, None] == np.arange(n_arms)) / len(arm))[None]


def direct_mmd(first, second):
    """The definition, kernel by kernel and pair by pair."""

    def kernel(a, b):
        squares = ((a[:, None] - b[None]) ** 2).sum(2) / (2 * a.shape[1])
        return np.mean([np.exp(-squares / width).mean() for width in (0.25, 0.5, 1.0)])

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)


def test_discrepancies_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    rows, arm = rng.normal(size=(60, 3)), rng.integers(3, size=60)
    rows[arm == 2] += 1
    pairs, against_all = squared_mmd(torch.tensor(rows)[None], shares_of(arm, 3))
    for k in range(3):
        assert against_all[0, k] == pytest.approx(direct_mmd(rows[arm == k], rows), abs=1e-9)
        for j in range(3):
            assert pairs[0, k, j] == pytest.approx(direct_mmd(rows[arm == k], rows[arm == j]), abs=1e-9)
    assert pairs[0, 0, 2] > 5 * pairs[0, 0, 1]


def test_terms_weigh_discrepancies_as_the_bounds_do_and_arms_without_rows_have_none():
    rng = np.random.default_rng(1)
    rows, arm = torch.tensor(rng.normal(size=(80, 2)))[None], rng.integers(3, size=80)
    shares = shares_of(arm, 3)
    of_arms = shares.sum(1)[0]
    pairs, against_all = squared_mmd(rows, shares)
    d = pairs[0].sqrt()
    control, pairwise, population = matching_terms(rows, shares)[0]
    wanted = sum((of_arms[0] + of_arms[k]) * d[0, k] for k in (1, 2))
    assert control == pytest.approx(float(wanted), rel=1e-3)
    assert pairwise == pytest.approx(float(wanted + (of_arms[1] + of_arms[2]) * d[1, 2]), rel=1e-3)
    assert population == pytest.approx(float(against_all[0].sqrt().sum()), rel=1e-3)
    with_empty = matching_terms(rows, torch.cat([shares, torch.zeros(1, 80, 1)], dim=2))
    torch.testing.assert_close(with_empty, matching_terms(rows, shares))


def test_the_population_bound_never_exceeds_the_pairwise_one():
    rng = np.random.default_rng(2)
    for _ in range(20):
        arm = rng.integers(4, size=100)
        rows = torch.tensor(rng.normal(size=(100, 2)) + arm[:, None] * rng.normal(size=2))[None]
        _, pairwise, population = matching_terms(rows, shares_of(arm, 4))[0]
        assert population <= pairwise + 1e-3


@pytest.mark.parametrize("is_binary", [False, True])
def test_networks_side_by_side_are_as_each_alone(brief, is_binary):
    samples = [confounded(n, seed=n, is_binary=is_binary)[0] for n in (120, 90, 300)]
    scalings = [scaling_of(one) for one in samples]
    specs = [NetworkSpec(), NetworkSpec("offset", "pairwise", 0.2, 1e-2), NetworkSpec("shared", "population", 0.1)]
    jobs = [Job(k, spec, 7 * k + s, k, s) for k in range(3) for s, spec in enumerate(specs)]
    together = train_networks(samples, scalings, jobs, SMALL, torch.float64)
    for place, job in enumerate(jobs):
        alone = train_networks(
            [samples[job.sample]], [scalings[job.sample]], [replace(job, sample=0)], SMALL, torch.float64
        )
        inputs = scalings[job.sample].inputs(samples[job.sample].covariates)
        np.testing.assert_allclose(together.predict(inputs, place), alone.predict(inputs, 0), atol=1e-8)
        assert together.held_out[place] == pytest.approx(alone.held_out[0], abs=1e-9)


def test_matching_brings_arms_together_and_decay_shrinks_weights():
    sample, _ = confounded(600)
    scaling = scaling_of(sample)
    settings = ((0.0, 1e-3), (10.0, 1e-3), (0.0, 3e-2))
    specs = [NetworkSpec("shared", "pairwise", alpha, decay) for alpha, decay in settings]
    found = train_networks([sample], [scaling], [Job(0, spec, 0, 0, 0) for spec in specs], SMALL, torch.float64)
    inputs = scaling.inputs(sample.covariates)
    apart = []
    for place in range(2):
        own = [one[place : place + 1] for one in found.parameters]
        features = (networks._represent(own, torch.tensor(inputs)[None]) - found.centre[place]) / found.spread[place]
        apart.append(float(squared_mmd(features, shares_of(sample.arm, 3))[0].sum()))
    assert apart[1] < 0.5 * apart[0]
    sizes = sum(one.square().sum((1, 2)) for one in found.parameters[::2])
    assert sizes[2] < 0.5 * sizes[0]


def test_every_row_is_held_out_once_but_the_only_one_of_an_arm():
    arm = np.repeat([0, 1, 2, 3], [50, 25, 1, 4])
    for seed in range(10):
        out = np.array([networks.held_out(arm, seed, fold) for fold in range(5)])
        np.testing.assert_array_equal(out.sum(axis=0), np.where(arm == 2, 0, 1))
        assert ((out[:, :50].sum(axis=1) == 10) & (out[:, 50:75].sum(axis=1) == 5)).all()


def test_members_hold_out_a_fold_each_and_draw_folds_anew_after_five():
    splits = [split_of(3, member) for member in range(7)]
    assert [fold for _, fold in splits] == [0, 1, 2, 3, 4, 0, 1]
    assert len({seed for seed, _ in splits[:5]}) == 1
    assert splits[5][0] == splits[6][0] != splits[0][0]


def test_cross_fitted_outcomes_are_those_of_members_that_held_the_row_out(brief):
    sample, _ = confounded(100)
    fitted = memento([sample], MementoOptions(**QUICK), [4])[0]
    found = fitted.cross_fitted(sample)
    inputs = fitted.scaling.inputs(sample.covariates)
    for member in range(5):
        out = networks.held_out(sample.arm, *split_of(4, member))
        places = [5 * spec + member for spec in range(len(fitted.specs))]
        outputs = np.stack([fitted.networks.predict(inputs[out], place) for place in places])
        output = np.tensordot(5 * fitted.weights[places], outputs, 1)
        np.testing.assert_allclose(found[out], fitted.scaling.centre + fitted.scaling.scale * output)
    lonely = replace(sample, arm=np.where(np.arange(100) == 7, 2, sample.arm % 2))
    alone = memento([lonely], MementoOptions(**QUICK), [4])[0]
    np.testing.assert_allclose(alone.cross_fitted(lonely)[7:8], alone.outcomes(lonely.covariates[7:8]))


@pytest.mark.parametrize("family", [tarnet, cfr, memento])
def test_effects_are_found_under_confounding(family):
    sample, means = confounded(1000)
    options = (MementoOptions if family is memento else NetworkOptions)(weight_decays=(3e-3, 1e-2), alphas=(0.1,))
    fitted = family([sample], options, [0])[0]
    found = fitted.outcomes(sample.covariates)
    assert found.shape == (1000, 3)
    assert effect_error(found, means) < 0.6
    assert fitted.losses[fitted.specs[0]] == min(fitted.losses.values())
    assert {spec.matching for spec in fitted.losses} == {
        tarnet: {"none"},
        cfr: {"none", "control"},
        memento: {"none", "population", "pairwise"},
    }[family]
    assert fitted.networks.converged.all()


def test_binary_outcomes_have_chances(brief):
    sample, _ = confounded(200, is_binary=True)
    found = memento([sample], MementoOptions(**QUICK), [0])[0].outcomes(sample.covariates)
    assert 0 < found.min() < found.max() < 1


def test_units_of_outcome_and_covariates_do_not_matter(brief):
    sample, _ = confounded(150)
    moved = replace(sample, covariates=5 + 100 * sample.covariates)
    base, found = (memento([one], MementoOptions(**QUICK), [1])[0] for one in (sample, moved))
    np.testing.assert_allclose(found.outcomes(moved.covariates), base.outcomes(sample.covariates), atol=1e-3)
    scaled = memento([replace(sample, outcome=7 + 10 * sample.outcome)], MementoOptions(**QUICK), [1])[0]
    np.testing.assert_allclose(scaled.outcomes(sample.covariates), 7 + 10 * base.outcomes(sample.covariates), atol=2e-2)


def test_what_is_chosen_has_the_lowest_loss_and_members_differ(brief, monkeypatch):
    sample, _ = confounded(150)
    seen = []
    real = families.train_networks

    def counted(samples, scalings, jobs, shape):
        seen.append(jobs)
        return real(samples, scalings, jobs, shape)

    monkeypatch.setattr(families, "train_networks", counted)
    fitted = memento([sample], MementoOptions(**QUICK | {"n_members": 6}), [5])[0]
    assert [len(jobs) for jobs in seen] == [2 * 2, 2 * 2, 4 * len(fitted.specs)]
    assert fitted.specs[0] == min(fitted.losses, key=fitted.losses.__getitem__)
    assert fitted.weights.sum() == pytest.approx(1)
    assert fitted.n_members == 6
    inputs = fitted.scaling.inputs(sample.covariates)
    outputs = np.stack([fitted.networks.predict(inputs, place) for place in range(len(fitted.weights))])
    assert min(np.abs(a - b).max() for i, a in enumerate(outputs) for b in outputs[:i]) > 1e-3
    wanted = fitted.scaling.centre + fitted.scaling.scale * np.tensordot(fitted.weights, outputs, 1)
    np.testing.assert_allclose(fitted.outcomes(sample.covariates), wanted)


def test_weights_fall_with_losses_and_those_far_off_have_none():
    specs = [NetworkSpec(weight_decay=decay) for decay in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    found = families._weights(dict(zip(specs, (2.0, 2.06, 2.0, 2.2, 2.01, 2.02), strict=True)))
    assert list(found) == [specs[0], specs[2], specs[4], specs[5]]
    assert found[specs[0]] == found[specs[2]] == pytest.approx(found[specs[4]] * np.exp(0.005 / 0.03))
    assert sum(found.values()) == pytest.approx(1)
    assert list(families._weights({specs[0]: 1.0, specs[1]: 1.2})) == [specs[0]]


def test_calibrated_means_are_the_doubly_robust_ones(brief):
    sample, means = confounded(600)
    fitted = memento([sample], MementoOptions(**QUICK), [2])[0]
    chances = np.exp(0.8 * sample.covariates[:, :1] * np.arange(3))
    chances /= chances.sum(axis=1, keepdims=True)
    found = fitted.calibrated(sample, chances, 0.01)
    scores = doubly_robust_scores(sample, fitted.cross_fitted(sample), chances, 0.01)
    np.testing.assert_allclose(found.cross_fitted(sample).mean(axis=0), scores.mean(axis=0))
    moved = found.outcomes(sample.covariates) - fitted.outcomes(sample.covariates)
    np.testing.assert_allclose(moved, np.tile(found.shifts, (600, 1)), atol=1e-12)
    # Forty steps leave much bias, of which the chances know.
    errors = [np.abs((one.outcomes(sample.covariates) - means).mean(axis=0)).sum() for one in (fitted, found)]
    assert errors[1] < 0.6 * errors[0]
    np.testing.assert_allclose(found.calibrated(sample, chances, 0.01).shifts, found.shifts, atol=1e-9)


def test_samples_that_differ_in_shape_are_trained_apart():
    first, second = confounded(100)[0], confounded(100, n_arms=2)[0]
    with pytest.raises(ShapeError, match="arms"):
        memento([first, second], MementoOptions(**QUICK), [0, 1])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight_decays": ()}, "weight_decays"),
        ({"weight_decays": (-1.0,)}, "weight_decays"),
        ({"alphas": (0.0,)}, "alphas"),
        ({"n_members": 4}, "n_members is 4; it is at least 5"),
        ({"n_splits": 6}, "n_splits is 6"),
        ({"hidden": 0}, "hidden"),
        ({"heads": ("sharde",)}, "sharde"),
        ({"heads": ()}, "heads"),
        ({"matchings": ("all",)}, "all"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        MementoOptions(**settings)
