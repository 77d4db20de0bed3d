"""`set_inputs` with None: one graph for batches and maps of any size."""

import mindspore as ms
import numpy as np
import pytest

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import MAAM, build
from tests.errors import error_of
from tests.frameworks import VARIANTS, MindSpore

SHAPES = {"batch": (None, 8, 4, 4), "all": (None, 8, None, None)}
PATTERNS = ["(g=2 c) h w -> (c g) h w", "c h w -> 1 c (h w)", "c (a b=2) w -> (c r=3) (b w) a", "c h w -> w (h c)"]
LAYERS = {"eca": spec.eca(8), "agent": spec.agent(8)}
LAYERS |= {name: spec.maam(8, **VARIANTS[name]) for name in ("softmax", "dynamic", "scales")}
CASES = [("eca", "batch"), ("agent", "batch"), ("softmax", "batch"), ("softmax", "all")]
SLOW = [("eca", "all"), ("agent", "all"), ("dynamic", "batch"), ("dynamic", "all"), ("scales", "batch")]
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]


def batch(*shape):
    return ms.Tensor(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def declare(cell, *shape):
    cell.set_inputs(ms.Tensor(shape=shape, dtype=ms.float32))
    return cell


def check(cell, shape, *sizes, atol=1e-6):
    """Check that a cell with declared sizes computes what the reference computes, and in graph mode with one graph."""
    inputs = [batch(count, shape[1], *size) for size in sizes for count in (1, 3, 5)]
    reference = MindSpore().reference(declare(cell, *shape))
    expected = [reference(x.asnumpy()) for x in inputs]
    for mode in ("pynative", "graph"):
        with MindSpore(mode):
            for x, y in zip(inputs, expected, strict=True):
                np.testing.assert_allclose(cell(x).asnumpy(), y, rtol=1e-5, atol=atol)
    assert len(cell.compile_cache) == 1


@pytest.mark.parametrize("free", [pytest.param("batch", marks=pytest.mark.slow), "all"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rearrangements(pattern, free):
    check(build(spec.Sequential(children={"rearrange": spec.Rearrange(pattern=pattern)})), SHAPES[free], (4, 4))


@pytest.mark.parametrize(("name", "free"), CASES)
def test_layers(name, free, scramble):
    sizes = [(4, 4)] if free == "batch" else [(5, 12), (9, 12)]
    check(scramble(build(LAYERS[name])), SHAPES[free], *sizes, atol=1e-5 if name in VARIANTS else 1e-6)


def test_a_free_map_cannot_be_resized():
    with pytest.raises(ShapeError, match="a graph with a free height or width cannot resize a map; pass both sizes"):
        check(MAAM(8, num_agents=2, scales=(1, 2)), SHAPES["all"], (8, 8))


@pytest.mark.slow
def test_a_network():
    network = build("mobilenet_v2", attention="eca", cifar=True, width_multiplier=0.25, num_classes=3, seed=0)
    check(network.set_train(False), (None, 3, 32, 32), (32, 32))


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_every_size_has_its_graph_otherwise(mode):
    cell = build(spec.maam(4, num_agents=1))
    for size in (1, 3):
        cell(batch(size, 4, 8, 8))
    assert len(cell.compile_cache) == 2


@pytest.mark.usefixtures("mode")
def test_a_layer_inside_a_network_in_train_mode(network, scramble):
    node = spec.maam(4, num_agents=2, scales=(1, 3))
    net, other = (network(scramble(build(node))).set_train() for _ in range(2))
    declare(net, None, 4, 8, 8)
    x = batch(3, 4, 8, 8)
    assert net(batch(2, 4, 8, 8)).shape == (2, 4, 8, 8)
    np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("mode")
def test_wrong_channels():
    cell = declare(build(spec.maam(4, num_agents=1)), None, 4, 8, 8)
    assert "got (2, 3, 8, 8)" in error_of(ShapeError, cell, batch(2, 3, 8, 8))
