import numpy as np
import pytest
import torch
from torch.nn import functional

from causal_spark.neural.stacked import apply_stacked, stacked_layers

CPU = torch.device("cpu")


def layers_of(seeds, widths=(4, 8, 6, 2), zero_last=False, dtype=torch.float64):
    return stacked_layers(widths, seeds, dtype, CPU, zero_last)


def test_a_stack_is_a_loop_over_networks():
    layers = layers_of([1, 2, 3])
    generator = torch.Generator().manual_seed(0)
    layers = [one + 0.1 * torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in layers]
    inputs = torch.randn(3, 20, 4, generator=generator, dtype=torch.float64)
    found = apply_stacked(layers, inputs)
    assert found.shape == (3, 20, 2)
    for model in range(3):
        hidden = inputs[model]
        for depth in range(3):
            hidden = functional.linear(hidden, layers[2 * depth][model].T, layers[2 * depth + 1][model, 0])
            hidden = hidden * torch.sigmoid(hidden) if depth < 2 else hidden
        torch.testing.assert_close(found[model], hidden, rtol=1e-12, atol=1e-12)


def test_a_single_layer_is_linear():
    layers = layers_of([5], widths=(3, 2))
    inputs = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(apply_stacked(layers, -2 * inputs), -2 * apply_stacked(layers, inputs))


def test_parameters_of_a_model_do_not_depend_on_who_shares_the_stack():
    alone = layers_of([7])
    for seeds, place in (([7, 8], 0), ([9, 3, 7], 2)):
        for mine, stacked in zip(alone, layers_of(seeds), strict=True):
            assert torch.equal(mine[0], stacked[place])


def test_models_with_different_seeds_differ_and_the_global_seed_does_not_matter():
    torch.manual_seed(0)
    first = layers_of([1, 2])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = layers_of([1, 2])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], first[0][1])


def test_layers_have_their_shapes_type_and_spread():
    layers = layers_of(range(20), widths=(50, 100, 10), dtype=torch.float32)
    assert [tuple(one.shape) for one in layers] == [(20, 50, 100), (20, 1, 100), (20, 100, 10), (20, 1, 10)]
    assert all(one.dtype == torch.float32 for one in layers)
    assert not layers[1].any()
    assert not layers[3].any()
    # Variance one over n_in: what goes in with variance one comes out with variance one.
    assert layers[0].var().item() == pytest.approx(1 / 50, rel=0.03)
    assert layers[2].var().item() == pytest.approx(1 / 100, rel=0.05)
    assert np.abs(layers[0].mean().item()) < 0.01


def test_models_start_as_zero_where_that_is_asked_for():
    inputs = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert not apply_stacked(layers_of([1, 2], zero_last=True), inputs).any()
    assert apply_stacked(layers_of([1, 2], zero_last=False), inputs).any()
    assert torch.equal(layers_of([1, 2], zero_last=True)[0], layers_of([1, 2], zero_last=False)[0])
