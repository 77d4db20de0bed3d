"""Values near a kink are found, and can be moved across it."""

import numpy as np
import pytest
import torch

from maam import spec
from maam.torch import build
from maam.torch.kinks import across, near_kinks

LEAST = 1e-9


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


@pytest.mark.parametrize(
    ("function", "kink", "slopes"),
    [
        ("relu", 0.0, (0, 1)),
        ("leaky_relu", 0.0, (0.01, 1)),
        ("relu6", 0.0, (0, 1)),
        ("relu6", 6.0, (1, 0)),
        ("hard_swish", -3.0, (0, -0.5)),
        ("hard_swish", 3.0, (1.5, 1)),
        ("hard_sigmoid", -3.0, (0, 1 / 6)),
        ("hard_sigmoid", 3.0, (1 / 6, 0)),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_activations(function, kink, slopes, side):
    total = 6 if function == "relu6" or "hard" in function else 3
    x = image(1.7, kink + (LEAST if side else -LEAST), 2.3)
    check_kink(spec.Activation(function=function), x, total, lambda g: g[1] / 2, slopes[side], slopes[1 - side])


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (spec.MaxPool2d(kernel_size=2), (1, 1, 2, 2)),
        (spec.MaxPool2d(kernel_size=3, stride=2, padding=1), (1, 1, 2, 2)),
        (spec.GlobalPool(function="max"), (1, 1, 2, 2)),
        (spec.GlobalPool(function="max", axis="channels"), (1, 4, 1, 1)),
    ],
)
def test_pooling(pool, shape):
    x = np.array([0.5, 0.7, 0.7 + LEAST, 0.1]).reshape(shape)
    check_kink(pool, x, 3, lambda g: g, [0, 0, 1, 0], [0, 1, 0, 0])


def test_exact_ties_are_left_out():
    assert near_kinks(*models(spec.MaxPool2d(kernel_size=2)), np.full((1, 1, 2, 2), 0.3)).kinks == []


def test_the_nearest_come_first_and_far_ones_are_left_out():
    found, *_ = near_kinks(*models(spec.Activation(function="relu")), image(4e-8, -1e-8, 1.0, 1e-4))
    assert [near.place for near in found] == [1, 0]
    assert found[0].distance < found[1].distance
