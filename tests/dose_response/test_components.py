import numpy as np
import pytest
from scipy.optimize import minimize

from causal_spark.dose_response.components import fit_components


def unit(block):
    centred = block - block.mean(axis=0)
    return centred / np.sqrt(np.sum(np.mean(centred**2, axis=0)))


def simulated(n_rows, seed, sizes=(3, 6), shares=(0.5, 0.2)):
    """Blocks and values of variance one of which each block explains about its share."""
    rng = np.random.default_rng(seed)
    blocks = [unit(rng.normal(size=(n_rows, size))) for size in sizes]
    values = np.sqrt(1 - sum(shares)) * rng.normal(size=n_rows)
    for block, share in zip(blocks, shares, strict=True):
        part = block @ rng.normal(size=block.shape[1])
        values += np.sqrt(share) * part / part.std()
    return blocks, (values - values.mean()) / values.std()


def covariance(blocks, weights, logs):
    """Of the values, rows by rows; a row's noise counts in proportion to its weight."""
    parts = sum(np.exp(log) * block @ block.T for log, block in zip(logs, blocks, strict=False))
    return parts + np.exp(logs[-1]) * np.diag(1 / (len(weights) * weights))


def surprise(blocks, values, weights, logs):
    """Minus the log likelihood of the values."""
    dense = covariance(blocks, weights, logs)
    return float(np.linalg.slogdet(dense)[1] + values @ np.linalg.solve(dense, values)) / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shares", [(0.5, 0.2), (0.0, 0.6)])
def test_variances_maximise_the_dense_marginal_likelihood(weighted, shares):
    blocks, values = simulated(60, seed=1, shares=shares)
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.full(60, 5.0)) if weighted else np.full(60, 1 / 60)
    found = fit_components(blocks, values, weights)
    direct = [
        minimize(
            lambda logs: surprise(blocks, values, weights, logs),
            start,
            method="L-BFGS-B",
            bounds=[(-9, 3)] * 3,
            options={"ftol": 1e-13, "gtol": 1e-8},
        )
        for start in (np.full(3, -1.0), np.array([-3.0, 0.0, -1.0]))
    ]
    best = min(direct, key=lambda one: one.fun)
    logs = np.log(np.r_[found.variances, found.noise])
    assert surprise(blocks, values, weights, logs) <= best.fun + 1e-4
    np.testing.assert_allclose(np.exp(logs), np.exp(best.x), rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_the_best_linear_prediction_under_the_variances(weighted):
    blocks, values = simulated(50, seed=3)
    weights = np.random.default_rng(3).dirichlet(np.full(50, 5.0)) if weighted else np.full(50, 1 / 50)
    found = fit_components(blocks, values, weights)
    solved = np.linalg.solve(covariance(blocks, weights, np.log(np.r_[found.variances, found.noise])), values)
    assert [len(one) for one in found.coefficients] == [3, 6]
    for block, variance, coefficients in zip(blocks, found.variances, found.coefficients, strict=True):
        np.testing.assert_allclose(coefficients, variance * block.T @ solved, rtol=1e-6, atol=1e-9)


def test_each_block_gets_about_the_share_that_it_explains():
    blocks, values = simulated(2000, seed=4, sizes=(20, 30), shares=(0.5, 0.2))
    found = fit_components(blocks, values, np.full(2000, 1 / 2000))
    np.testing.assert_allclose(found.variances, [0.5, 0.2], atol=0.06)
    assert found.noise == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_of_pure_noise_little_is_explained(seed):
    blocks, values = simulated(400, seed, sizes=(5, 15), shares=(0.0, 0.0))
    found = fit_components(blocks, values, np.full(400, 1 / 400))
    assert found.variances.max() < 0.05
    assert found.noise == pytest.approx(1, abs=0.05)


def test_weights_that_are_multiplicities_stand_for_repeated_rows():
    blocks, values = simulated(80, seed=5)
    counts = np.bincount(np.random.default_rng(5).integers(80, size=80), minlength=80)
    found = fit_components(blocks, values, counts / 80)
    repeated = fit_components(
        [np.repeat(one, counts, axis=0) for one in blocks], np.repeat(values, counts), np.full(80, 1 / 80)
    )
    np.testing.assert_allclose(found.variances, repeated.variances, rtol=1e-6)
    assert found.noise == pytest.approx(repeated.noise, rel=1e-6)
    for mine, other in zip(found.coefficients, repeated.coefficients, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-9)


def test_more_functions_than_rows_do_no_harm():
    blocks, values = simulated(40, seed=6, sizes=(5, 90), shares=(0.6, 0.0))
    found = fit_components(blocks, values, np.full(40, 1 / 40))
    assert np.isfinite(found.variances).all()
    fitted = blocks[0] @ found.coefficients[0] + blocks[1] @ found.coefficients[1]
    assert np.corrcoef(fitted, values)[0, 1] > 0.6
