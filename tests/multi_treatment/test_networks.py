from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_spark.multi_treatment import networks
from causal_spark.multi_treatment.batches import row_class
from causal_spark.multi_treatment.discrepancy import matching_terms, sinkhorn_divergence, squared_mmd
from causal_spark.multi_treatment.networks import Job, NetworkShape, NetworkSpec, scaling_of, train_networks
from tests.multi_treatment.samples import confounded

SMALL = NetworkShape(8, 6, 4)


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


def test_gradients_of_discrepancies_are_their_slopes():
    rng = np.random.default_rng(5)
    shares = torch.cat([shares_of(rng.integers(3, size=20), 4), shares_of(rng.integers(4, size=20), 4)])
    rows = torch.tensor(rng.normal(size=(2, 20, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: squared_mmd(one, shares), (rows,))
    assert torch.autograd.gradcheck(lambda one: matching_terms(one, shares), (rows,))


def long_transport(cost, source, target, blur):
    """Entropic transport by many plain rounds in the log domain, its entropy relative to the product of the weights."""
    f, g = np.zeros(len(source)), np.zeros(len(target))
    for _ in range(2000):
        f = -blur * np.log(np.exp((g[None] - cost) / blur + np.log(target)[None]).sum(1))
        g = -blur * np.log(np.exp((f[:, None] - cost) / blur + np.log(source)[:, None]).sum(0))
    return source @ f + target @ g


def test_sinkhorn_divergences_are_those_of_long_runs():
    rng = np.random.default_rng(3)
    rows, arm = rng.normal(size=(45, 3)), rng.integers(3, size=45)
    rows[arm == 2] += 0.7
    pairs, against_all = sinkhorn_divergence(torch.tensor(rows)[None], shares_of(arm, 3))

    def direct(first, second):
        def between(a, b):
            cost = np.minimum(((a[:, None] - b[None]) ** 2).sum(2) / 6, 6.0)
            return long_transport(cost, np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), 0.1)

        return between(first, second) - (between(first, first) + between(second, second)) / 2

    for k in range(3):
        assert against_all[0, k] == pytest.approx(direct(rows[arm == k], rows), rel=0.05, abs=2e-3)
        for j in range(k):
            assert pairs[0, k, j] == pytest.approx(direct(rows[arm == k], rows[arm == j]), rel=0.05, abs=2e-3)


def test_gradients_of_sinkhorn_divergences_are_their_slopes():
    rng = np.random.default_rng(4)
    rows, shares = torch.tensor(rng.normal(size=(1, 30, 2))), shares_of(rng.integers(2, size=30), 2)
    moved = torch.tensor(rng.normal(size=(1, 30, 2)))
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = sinkhorn_divergence(rows + step * moved, shares)[0][0, 0, 1]
    (slope,) = torch.autograd.grad(value, step)
    ends = [float(sinkhorn_divergence(rows + size * moved, shares)[0][0, 0, 1]) for size in (1e-4, -1e-4)]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=0.05)


@pytest.mark.parametrize("divergence", [squared_mmd, sinkhorn_divergence])
def test_arms_without_rows_have_no_divergence(divergence):
    rng = np.random.default_rng(1)
    rows, shares = torch.tensor(rng.normal(size=(80, 2)))[None], shares_of(rng.integers(3, size=80), 3)
    pairs, against_all = divergence(rows, torch.cat([shares, torch.zeros(1, 80, 1)], dim=2))
    assert not pairs[0, 3].any()
    assert not pairs[0, :, 3].any()
    assert not against_all[0, 3]
    torch.testing.assert_close(pairs[:, :3, :3], divergence(rows, shares)[0])


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
    # Of the last one batches are drawn.
    samples = [confounded(n, seed=n, is_binary=is_binary)[0] for n in (120, 90, 500)]
    scalings = [scaling_of(one) for one in samples]
    specs = [
        NetworkSpec(),
        NetworkSpec("offset", "pairwise", 0.2, 1e-2),
        NetworkSpec("shared", "population", 0.1, divergence="sinkhorn"),
    ]
    jobs = [Job(k, spec, 7 * k + s, k, s) for k in range(3) for s, spec in enumerate(specs)]
    together = train_networks(samples, scalings, jobs, SMALL, torch.float64)
    for place, job in enumerate(jobs):
        alone = train_networks(
            [samples[job.sample]], [scalings[job.sample]], [replace(job, sample=0)], SMALL, torch.float64
        )
        inputs = scalings[job.sample].inputs(samples[job.sample].covariates)
        np.testing.assert_allclose(together.predict(inputs)[place], alone.predict(inputs)[0], atol=1e-8)
        assert together.held_out[place] == pytest.approx(alone.held_out[0], abs=1e-9)


@pytest.mark.parametrize("matching", ["none", "population"])
def test_networks_beside_others_of_their_class_are_as_alone_to_the_last_bit(brief, matching):
    samples = [confounded(n, seed=n)[0] for n in (97, 110, 128)]
    assert {row_class(one.n_rows) for one in samples} == {128}
    scalings = [scaling_of(one) for one in samples]
    jobs = [Job(k % 3, NetworkSpec("shared", matching, 0.1, 1e-2), k, k, k % 5) for k in range(9)]
    together = train_networks(samples, scalings, jobs, SMALL)
    for place, job in enumerate(jobs):
        own = job.sample
        alone = train_networks([samples[own]], [scalings[own]], [replace(job, sample=0)], SMALL)
        for mine, stacked in zip(alone.parameters, together.of([place]).parameters, strict=True):
            assert torch.equal(mine, stacked)


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
