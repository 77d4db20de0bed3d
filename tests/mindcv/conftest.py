"""Small models and batches, and MindSpore's mode put back after each test."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
pytest.importorskip("mindcv")

from mindspore import nn  # noqa: E402

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}


@pytest.fixture(autouse=True)
def mode(request, tmp_path, monkeypatch):
    """PyNative mode, which compiles nothing, unless a test asks for the graph; files land in a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[getattr(request, "param", "pynative")])
    yield
    ms.set_context(mode=before)


@pytest.fixture
def images():
    """Two images, (2, channels, size, size), float32."""

    def make(size=32, channels=3):
        values = np.random.default_rng(0).random((2, channels, size, size), np.float32)
        return ms.Tensor(values)

    return make


@pytest.fixture
def train():
    """Steps of SGD on a cell; the losses, and the names of the parameters that did not change."""

    def run(network, x, steps=2):
        network.set_train()
        weights = network.trainable_params()
        before = {p.name: p.asnumpy().copy() for p in weights}
        optimizer = nn.SGD(weights, learning_rate=0.01)
        step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
        labels = ms.Tensor([0, 1], ms.int32)
        losses = [float(step(x, labels).asnumpy()) for _ in range(steps)]
        return losses, [p.name for p in weights if np.array_equal(p.asnumpy(), before[p.name])]

    return run
