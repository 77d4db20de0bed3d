"""Fixtures of PyTorch's tests: layers in all variants, and one training step to compare."""

import pytest
import torch

from maam.torch import MAAM
from maam.weights.match import strip_prefix
from tests.frameworks import VARIANTS


def scramble(module):
    """Give all tensors of a module arbitrary values: the initial ones (alpha 0, mean 0, variance 1) hide a lost one."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(values + 0.5 if name.endswith("running_var") else values - 0.5)
    return module


def step(module, x):
    """Return the output and all gradients by canonical name, of a loss that weights every output differently."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = module(x)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    (y.double() * weights).sum().backward()
    gradients = {strip_prefix(name): p.grad.clone() for name, p in module.named_parameters()}
    assert y.abs().sum() > 0  # or there is nothing to compare
    return {"output": y.detach(), "input": x.grad, **gradients}


@pytest.fixture(scope="session", name="scramble")
def _scramble():
    return scramble


@pytest.fixture(name="step")
def _step():
    return step


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture
def layer(variant):
    """A layer from 4 to 8 channels, in train mode, in every variant."""
    return scramble(MAAM(4, 8, **variant))


@pytest.fixture
def x():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
