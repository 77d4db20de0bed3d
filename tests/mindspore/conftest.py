"""Fixtures of the MindSpore room's tests: both modes, layers in all variants, and the referee beside them."""

import importlib.util
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.mindspore import build
from maam.mindspore.arrays import read_arrays, write_arrays
from maam.reference import ReferenceModel

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
VARIANTS = {
    "softmax": {},
    "mean": {"fusion": "mean", "num_agents": 2},
    "dynamic": {"fusion": "dynamic", "num_agents": 2},
    "scales": {"scales": (2, 1, 3), "reduce": False},
    "kernels": {"kernel_sizes": (1, 5), "num_agents": 2},
    "depthwise": {"depthwise": True, "num_agents": 2},
    "pool": {"pool": (2, 2), "scales": (1, 2), "num_agents": 2},
    "no_norm": {"norm_layer": "identity", "act_layer": "gelu", "num_agents": 2},
}
SMALL = {"channels": 8, "hidden_features": 16, "in_channels": 1, "image_size": 8, "num_classes": 3}


class Net(nn.Cell):
    """A user's network: a layer between two cells of their own."""

    def __init__(self, layer):
        super().__init__()
        weight = np.random.default_rng(6).normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32)
        self.stem = nn.Conv2d(4, 4, 3, weight_init=ms.Tensor(weight))
        self.layer = layer
        self.act = nn.ReLU()

    def construct(self, x):
        return self.act(self.layer(self.stem(x)))


def scramble(cell):
    """Arbitrary values everywhere: fresh ones (alpha 0, mean 0, variance 1) would hide a lost array."""
    generator = np.random.default_rng(5)
    arrays = {}
    for p in cell.spec.parameters():
        low = 0.5 if p.role in (spec.Role.RUNNING_VAR, spec.Role.NORM_WEIGHT) else -0.5
        arrays[p.name] = generator.uniform(low, low + 1, p.shape).astype(np.float32)
    write_arrays(cell, arrays)
    return cell


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """MindSpore leaves folders where it works: `rank_0` of a failed compilation, `rewritten_network` of O1."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=MODES)
def mode(request):
    """Graph and PyNative mode, which MindSpore keeps for the whole process."""
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[request.param])
    yield request.param
    ms.set_context(mode=before)


@pytest.fixture(params=VARIANTS)
def variant(request):
    """The arguments of one variant of the layer."""
    return VARIANTS[request.param]


@pytest.fixture
def cell(variant):
    """A layer from 4 to 8 channels, in inference state, in every variant."""
    return scramble(build(spec.maam(4, 8, **variant)))


@pytest.fixture
def x():
    """A batch for `cell`, as NumPy array."""
    return np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.fixture(name="scramble")
def _scramble():
    return scramble


@pytest.fixture
def referee():
    """The referee with a cell's present arrays."""
    return lambda cell: ReferenceModel(cell.spec, read_arrays(cell))


@pytest.fixture(name="network")
def _network():
    return Net


@pytest.fixture(scope="session")
def small():
    """The spec of a classifier of 8x8 images that compiles in a second."""
    return spec.maam_classifier(**SMALL)


@pytest.fixture
def load(monkeypatch):
    """A helper module of this folder, by name (importlib mode puts none on sys.path)."""

    def from_file(name):
        path = Path(__file__).with_name(f"{name}.py")
        module_spec = importlib.util.spec_from_file_location(f"mindspore_tests_{name}", path)
        module = importlib.util.module_from_spec(module_spec)
        monkeypatch.setitem(sys.modules, module.__name__, module)  # graph mode looks for the source there
        module_spec.loader.exec_module(module)
        return module

    return from_file
