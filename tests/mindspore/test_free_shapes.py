"""Graphs with a free batch, height and width, as `set_inputs` declares them."""

import mindspore as ms
import numpy as np
import pytest

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import ECA, MAAM, AgentAttention, build
from maam.mindspore.cells import instantiate
from tests.frameworks import MindSpore

BATCH, ALL = [None, 8, 4, 4], [None, 8, None, None]
PATTERNS = ["(g=2 c) h w -> (c g) h w", "c h w -> 1 c (h w)", "c (a b=2) w -> (c r=3) (b w) a", "c h w -> w (h c)"]


def check(cell, shape, size=(4, 4)):
    """Check that a cell with declared sizes computes what it computes in PyNative mode, for two batches."""
    x = np.random.default_rng(0).normal(size=(3, shape[1], *size)).astype(np.float32)
    with MindSpore("pynative"):
        expected = cell(ms.Tensor(x)).asnumpy()
    with MindSpore("graph"):
        cell.set_inputs(ms.Tensor(shape=shape, dtype=ms.float32))
        for batch in (1, 3):
            np.testing.assert_allclose(cell(ms.Tensor(x[:batch])).asnumpy(), expected[:batch], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [pytest.param(BATCH, marks=pytest.mark.slow), ALL], ids=["batch", "all"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rearrangements(pattern, shape):
    check(instantiate(spec.Rearrange(pattern=pattern)), shape)


@pytest.mark.parametrize("shape", [BATCH, pytest.param(ALL, marks=pytest.mark.slow)], ids=["batch", "all"])
@pytest.mark.parametrize("kind", [ECA, AgentAttention])
def test_layers(kind, shape):
    check(kind(8), shape)


def test_a_free_map_cannot_be_resized():
    with pytest.raises(ShapeError, match="a graph with a free height or width cannot resize a map; pass both sizes"):
        check(MAAM(8, num_agents=2, scales=(1, 2)), ALL, (8, 8))


@pytest.mark.slow
def test_a_network():
    network = build("mobilenet_v2", attention="eca", cifar=True, width_multiplier=0.25, num_classes=3, seed=0)
    check(network.set_train(False), [None, 3, 32, 32], (32, 32))
