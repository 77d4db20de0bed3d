"""Fixtures of MindSpore's tests: both modes, a user's network, and helpers."""

import importlib.util
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from tests.frameworks import MindSpore

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
SMALL = {"channels": 8, "hidden_features": 16, "in_channels": 1, "image_size": 8, "num_classes": 3}


class Net(nn.Cell):
    """A user's network: a layer between two other cells."""

    def __init__(self, layer):
        super().__init__()
        weight = np.random.default_rng(6).normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32)
        self.stem = nn.Conv2d(4, 4, 3, weight_init=ms.Tensor(weight))
        self.layer = layer
        self.act = nn.ReLU()

    def construct(self, x):
        return self.act(self.layer(self.stem(x)))


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """Run in an empty folder: MindSpore leaves `rank_0` of a failed compilation, `rewritten_network` of O1."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=MODES)
def mode(request):
    """Graph and PyNative mode; MindSpore has one for the whole process."""
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[request.param])
    yield request.param
    ms.set_context(mode=before)


@pytest.fixture
def x():
    """A batch of maps with 4 channels."""
    return np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.fixture
def scramble():
    """Give all arrays of a cell arbitrary values."""
    return MindSpore().scramble


@pytest.fixture
def reference():
    """Return the NumPy reference with the present arrays of a cell."""
    return MindSpore().reference


@pytest.fixture(name="network")
def _network():
    return Net


@pytest.fixture(scope="session")
def small():
    """The spec of a classifier of 8x8 images that compiles in a second."""
    return spec.maam_classifier(**SMALL)


@pytest.fixture
def load(monkeypatch):
    """Load a module of this folder by name; pytest's importlib mode does not put the folder on the path."""

    def from_file(name):
        path = Path(__file__).with_name(f"{name}.py")
        module_spec = importlib.util.spec_from_file_location(f"mindspore_tests_{name}", path)
        module = importlib.util.module_from_spec(module_spec)
        monkeypatch.setitem(sys.modules, module.__name__, module)  # graph mode looks for the source there
        module_spec.loader.exec_module(module)
        return module

    return from_file
