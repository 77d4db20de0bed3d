"""Gradients: finite differences, activation checkpointing, torch.func, and values near a kink."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from maam import spec
from maam.torch import MAAM, build
from maam.torch.kinks import across, near_kinks

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
LEAST = 1e-9
"""The distance from a kink."""
KINKS = [("relu", 0.0, (0, 1)), ("leaky_relu", 0.0, (0.01, 1)), ("relu6", 0.0, (0, 1)), ("relu6", 6.0, (1, 0))]
KINKS += [("hard_swish", -3.0, (0, -0.5)), ("hard_swish", 3.0, (1.5, 1))]
KINKS += [("hard_sigmoid", -3.0, (0, 1 / 6)), ("hard_sigmoid", 3.0, (1 / 6, 0))]
"""Functions with the places of their kinks and the slopes before and after them."""
POOLS = [
    (spec.MaxPool2d(kernel_size=2), (1, 1, 2, 2)),
    (spec.MaxPool2d(kernel_size=3, stride=2, padding=1), (1, 1, 2, 2)),
    (spec.GlobalPool(function="max"), (1, 1, 2, 2)),
    (spec.GlobalPool(function="max", axis="channels"), (1, 4, 1, 1)),
]


def wave(*shape):
    return torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).sin().reshape(shape)


def gradcheck(module, x, **options):
    """Compare the gradients of a module with finite differences."""
    names, parameters = zip(*module.named_parameters(), strict=True)

    def function(x, *given):
        return functional_call(module, dict(zip(names, given, strict=True)), (x,))

    return torch.autograd.gradcheck(function, (x.requires_grad_(), *parameters), **options)


@pytest.mark.parametrize("training", [True, False])
def test_against_finite_differences(variant, scramble, training):
    layer = scramble(MAAM(2, **{"act_layer": "silu", **variant}, dtype=torch.float64)).train(training)
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradcheck(layer, x, fast_mode=True)


def test_every_entry_against_finite_differences(scramble):
    layer = scramble(MAAM(2, 2, num_agents=2, scales=(1, 2), act_layer="tanh", dtype=torch.float64))
    assert gradcheck(layer, wave(2, 2, 4, 4))


def test_recurrent_layer(scramble):
    model, x = scramble(build(spec.RNN(input_size=6, hidden_size=3), dtype=torch.float64)), wave(2, 2, 4, 3)
    assert gradcheck(model, x)
    reference = nn.RNN(6, 3, batch_first=True, dtype=torch.float64)
    reference.load_state_dict(model.state_dict(), strict=True)
    _, state = reference(x.transpose(1, 2).flatten(2))
    torch.testing.assert_close(model(x), state[0])


@pytest.mark.parametrize("training", [True, False])
def test_checkpointing(layer, x, step, training):
    expected, calls = step(layer.train(training), x), []
    layer.get_submodule("agents.1.conv2").register_forward_hook(lambda *_: calls.append(1))
    wrapper = nn.Module()
    wrapper.layer, wrapper.forward = layer, lambda x: checkpoint(layer, x, use_reentrant=False)
    found = {name.removeprefix("layer."): tensor for name, tensor in step(wrapper, x).items()}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(calls) == 2  # in the forward pass, and again for the backward pass


# A warning of functorch about speed: its adaptive pooling has no rule for as_strided_ on channels_last maps.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("channels_last", [False, True])
def test_vmap_over_inputs(layer, x, channels_last):
    layer.eval()
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    torch.testing.assert_close(vmap(lambda one: layer(one[None])[0])(x), layer(x), **CLOSE)
    batches = torch.stack([x, x + 1, 2 * x])
    expected = torch.stack([layer(batch) for batch in batches])
    torch.testing.assert_close(vmap(layer)(batches), expected, **CLOSE)


def test_gradients_per_sample(layer, x):
    layer.eval()
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(p, one):
        return functional_call(layer, p, (one[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for index, one in enumerate(x):
        layer.zero_grad()
        layer(one[None]).square().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(each[name][index], parameter.grad, rtol=1e-4, atol=1e-4)


def models(node):
    chain = spec.Sequential(children={"layer": node})
    return build(chain, dtype=torch.float64), build(chain, dtype=torch.float32)


def gradient(model, x):
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = model(tensor)
    (y * torch.arange(1.0, 1 + y.numel()).view_as(y)).sum().backward()
    return tensor.grad.numpy().ravel()


def image(*values):
    return np.array(values, np.float64).reshape(1, 1, 1, -1)


def check_kink(node, x, total, part, here, across_it):
    """Check that the value at place 1 is near a kink; its gradients here and across are given, in a part of all."""
    exact, rounded = models(node)
    found, count, layers = near_kinks(exact, rounded, x)
    assert (count, layers) == (total, 1)
    assert [(near.layer, near.place) for near in found] == [("layer", 1)]
    assert part(gradient(exact, x)) == pytest.approx(here, abs=1e-6)
    with across(exact, found[0]):
        assert part(gradient(exact, x)) == pytest.approx(across_it, abs=1e-6)
    assert part(gradient(exact, x)) == pytest.approx(here, abs=1e-6)


@pytest.mark.parametrize(("function", "kink", "slopes"), KINKS)
@pytest.mark.parametrize("side", [0, 1])
def test_kinks_of_activations(function, kink, slopes, side):
    total = 6 if function == "relu6" or "hard" in function else 3
    x = image(1.7, kink + (LEAST if side else -LEAST), 2.3)
    check_kink(spec.Activation(function=function), x, total, lambda g: g[1] / 2, slopes[side], slopes[1 - side])


@pytest.mark.parametrize(("pool", "shape"), POOLS)
def test_kinks_of_pooling(pool, shape):
    x = np.array([0.5, 0.7, 0.7 + LEAST, 0.1]).reshape(shape)
    check_kink(pool, x, 3, lambda g: g, [0, 0, 1, 0], [0, 1, 0, 0])


def test_the_nearest_kinks_come_first_and_far_ones_and_exact_ties_are_left_out():
    assert near_kinks(*models(spec.MaxPool2d(kernel_size=2)), np.full((1, 1, 2, 2), 0.3)).kinks == []
    found, *_ = near_kinks(*models(spec.Activation(function="relu")), image(4e-8, -1e-8, 1.0, 1e-4))
    assert [near.place for near in found] == [1, 0]
    assert found[0].distance < found[1].distance
