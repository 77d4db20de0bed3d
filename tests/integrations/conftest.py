"""Small networks, images and checks for timm, torchvision and MindCV; each framework is imported only if it is used."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

SMALL = {"width_multiplier": 0.25, "cifar": True}
"""Options of a MobileNet preset that make it small."""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def import_library(name):
    """Import timm or MindCV with maam's module for it, or skip the test."""
    pytest.importorskip("torch" if name == "timm" else "mindspore")
    native = pytest.importorskip(name)
    module = importlib.import_module(f"maam.{name}")
    presets = importlib.import_module(f"maam.{name}.presets")
    registry = importlib.import_module("timm.models._registry" if name == "timm" else "mindcv.models.registry")
    return SimpleNamespace(name=name, native=native, maam=module, presets=presets, registry=registry)


@pytest.fixture(params=["timm", "mindcv"])
def library(request):
    return import_library(request.param)


@pytest.fixture
def timm():
    return import_library("timm").native


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def seeded(torch):
    torch.manual_seed(0)


@pytest.fixture
def images(torch, seeded):
    return lambda size=32, channels=3: torch.rand(2, channels, size, size)


@pytest.fixture
def made(seeded, timm):
    def make(name, **options):
        return timm.create_model(name, **(SMALL if name.startswith("mafc") else {}) | options)

    return make


@pytest.fixture
def exported(torch):
    """Return the output for three images of a PyTorch model that was exported with a free batch size."""

    def run(model, x):
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        return program.module()(torch.cat((x, x[:1])))

    return run


@pytest.fixture
def without_gradient():
    """Return the names of the parameters of a PyTorch model without a finite gradient."""

    def missing(model, x):
        model(x).square().sum().backward()
        return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]

    return missing


@pytest.fixture
def mode(request):
    """Use MindSpore's PyNative mode, which compiles nothing, or the mode that the test parameter names.

    The fixture `mindspore_mode` of all tests restores the mode.
    """
    ms = pytest.importorskip("mindspore")
    ms.set_context(mode=ms.GRAPH_MODE if getattr(request, "param", "pynative") == "graph" else ms.PYNATIVE_MODE)
    return ms


@pytest.fixture
def ms_images(mode):
    def make(size=32, channels=3):
        return mode.Tensor(np.random.default_rng(0).random((2, channels, size, size), np.float32))

    return make


@pytest.fixture
def ms_train():
    """Run steps of SGD on a cell; return the losses and the names of the unchanged parameters."""
    ms = importlib.import_module("mindspore")

    def run(network, x, steps=2):
        weights = network.set_train().trainable_params()
        before = {p.name: p.asnumpy().copy() for p in weights}
        loss = ms.nn.WithLossCell(network, ms.nn.CrossEntropyLoss())
        step = ms.nn.TrainOneStepCell(loss, ms.nn.SGD(weights, learning_rate=0.01))
        losses = [float(step(x, ms.Tensor([0, 1], ms.int32)).asnumpy()) for _ in range(steps)]
        return losses, [p.name for p in weights if np.array_equal(p.asnumpy(), before[p.name])]

    return run
