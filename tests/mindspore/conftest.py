"""Fixtures of MindSpore's tests: both modes, a user's network, and helpers."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from tests.frameworks import MindSpore, small, working_folder, x  # noqa: F401


class Net(nn.Cell):
    """A user's network: a layer between two other cells."""

    def __init__(self, layer):
        super().__init__()
        weight = np.random.default_rng(6).normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32)
        self.stem = nn.Conv2d(4, 4, 3, weight_init=ms.Tensor(weight))
        self.layer = layer
        self.act = nn.ReLU()

    def construct(self, maps):
        return self.act(self.layer(self.stem(maps)))


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    with MindSpore(request.param):
        yield request.param


@pytest.fixture
def scramble():
    return MindSpore().scramble


@pytest.fixture
def reference():
    return MindSpore().reference


@pytest.fixture(name="network")
def _network():
    return Net
