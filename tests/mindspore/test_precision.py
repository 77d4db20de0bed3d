"""Half precision: automatic mixed precision at every level, and parameters in float16."""

import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import amp, nn

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import GCT, MAAM, SE, AgentAttention, SoftmaxAttention, build
from maam.mindspore.arrays import read_arrays, unwrap
from maam.tolerance import signal_to_noise
from tests.errors import error_of
from tests.frameworks import MindSpore

pytestmark = pytest.mark.usefixtures("mode")
every_level = pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3", "auto"])
PLAIN = {"num_agents": 1}
VARIED = {"num_agents": 2, "fusion": "dynamic", "scales": (1, 3), "depthwise": True}


@pytest.fixture(autouse=True)
def _import_path(monkeypatch):
    """Undo the work of O1, which writes a new source of the network and changes the import path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("mindspore", "maam")):
            del sys.modules[name]


def check(level, actual, expected):
    """Check that the outputs are close, and that they were computed in half precision: float32 reaches over 120 dB."""
    quality = signal_to_noise(actual, expected)
    assert quality >= 40
    assert (quality < 100) == (level != "O0")


@pytest.mark.slow_in("auto", "O3", "graph-O0")
@pytest.mark.parametrize("training", [False, True])
@every_level
def test_model(level, training, scramble, reference, x):
    cell = scramble(build(spec.maam(4, **(VARIED if training else PLAIN))))
    expected, arrays = reference(cell)(x, training=training), read_arrays(cell)
    mixed = amp.auto_mixed_precision(cell, level).set_train(training)
    found = read_arrays(unwrap(mixed))
    assert unwrap(mixed).spec == cell.spec
    np.testing.assert_equal(found, arrays)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    y = mixed(ms.Tensor(x))
    assert y.dtype == ms.float32
    check(level, y.asnumpy(), expected)


@pytest.mark.slow_in("auto", "O3", "graph-O0")
@every_level
def test_layer_in_a_network_trains(level, network, scramble, reference, x):
    layer = scramble(MAAM(4, num_agents=2))
    net, before = network(layer), read_arrays(layer)
    expected = np.maximum(reference(layer)(net.stem(ms.Tensor(x)).asnumpy(), training=True), 0)
    mixed = amp.auto_mixed_precision(net, level).set_train()
    weights = mixed.trainable_params()

    def forward(x):
        y = mixed(x)
        return ((y - 1) ** 2).mean(), y

    step = MindSpore().compile(ms.value_and_grad(forward, None, ms.ParameterTuple(weights), has_aux=True))
    (first, y), gradients = step(ms.Tensor(x))
    check(level, y.asnumpy(), expected)
    nn.SGD(weights, 0.01)(gradients)
    (second, _), _ = step(ms.Tensor(x))
    assert second < first
    after = read_arrays(layer)
    assert [name for name in before if np.array_equal(before[name], after[name])] == []
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}


class WithNorm(MAAM):
    def __init__(self, channels):
        super().__init__(channels, num_agents=1)
        self.norm = nn.BatchNorm2d(channels)
        self.norm.beta.set_data(ms.Tensor(np.ones(channels, np.float32)))

    def construct(self, x):
        return self.norm(super().construct(x))


@pytest.mark.slow_in("WithNorm-O2")
@pytest.mark.parametrize(("kind", "level"), [("MAAM", "O1"), ("MAAM", "O2"), ("WithNorm", "O2"), ("WithNorm", "O3")])
def test_root_layer(kind, level, scramble, reference, x):
    """O1 leaves a root unchanged whose class has no construct method itself; cells of a subclass run once."""
    layer = scramble(MAAM(4, num_agents=2) if kind == "MAAM" else WithNorm(4))
    expected = reference(layer)(x)
    if kind == "WithNorm":
        expected = expected / np.sqrt(1 + 1e-5) + 1
    y = amp.auto_mixed_precision(layer, level).set_train(False)(ms.Tensor(x))
    check("O0" if level == "O1" else level, y.asnumpy(), expected)


@pytest.mark.slow_in("graph")
@pytest.mark.parametrize("kind", [SE, GCT, SoftmaxAttention, AgentAttention])
def test_layers_in_a_chain(kind):
    """O1 used to copy the source of primitives such as GlobalPool, where the names of their functions are missing."""
    x = ms.Tensor(np.random.default_rng(0).random((2, 8, 8, 8), np.float32))
    chain = nn.SequentialCell(nn.Conv2d(8, 8, 3), kind(8)).set_train(False)
    expected = chain(x).asnumpy()
    check("O1", amp.auto_mixed_precision(chain, "O1")(x).asnumpy(), expected)


def test_parameters_in_half_precision(x):
    cell, wide = (build(spec.maam(4, num_agents=1), seed=5, dtype=dtype) for dtype in (ms.float16, ms.float32))
    y, expected = cell(ms.Tensor(x, ms.float16)), wide(ms.Tensor(x)).asnumpy()
    assert y.dtype == ms.float16
    assert signal_to_noise(y.asnumpy(), expected) >= 40


@pytest.mark.parametrize("level", ["O2", "auto"])
def test_wrong_input(level):
    mixed = amp.auto_mixed_precision(build(spec.maam(4, num_agents=1)), level).set_train(False)
    assert "got (2, 3, 8, 8)" in error_of(ShapeError, mixed, ms.Tensor(np.zeros((2, 3, 8, 8), np.float32)))
