"""What the room refuses, in the PyTorch room's words, as a root and inside a user's network, in both modes."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.errors import ShapeError, SpecError
from maam.mindspore import MAAM, build

EXPECTED = "expected an input (N, 4, H, W) with H, W >= 2, got "
INTEGER = (
    "expected a floating-point input (N, 4, H, W) with H, W >= 2, got int32; convert it and scale images to [0, 1]"
)
WIDE = "expected an input of dtype float32, the dtype of the parameters, got float64; convert one"
BAD = {
    "rank": ((4, 8, 8), "float32", EXPECTED + "3 dimensions: (4, 8, 8)"),
    "vector": ((2, 4), "float32", EXPECTED + "2 dimensions: (2, 4)"),
    "channels": ((2, 3, 8, 8), "float32", EXPECTED + "(2, 3, 8, 8)"),
    "height": ((2, 4, 1, 8), "float32", EXPECTED + "(2, 4, 1, 8)"),
    "width": ((2, 4, 8, 1), "float32", EXPECTED + "(2, 4, 8, 1)"),
    "integer": ((2, 4, 8, 8), "int32", INTEGER),
    "float64": ((2, 4, 8, 8), "float64", WIDE),
}


class Bare(nn.Cell):
    """A network whose first cell is the layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, x):
        return self.layer(x) + 1


WAYS = {
    "root": lambda layer: layer,
    "network": Bare,
    "chain": lambda layer: nn.SequentialCell(layer, nn.ReLU()),
    "jit": lambda layer: ms.jit(layer),
}
pytestmark = pytest.mark.usefixtures("mode")


def refused(function, x):
    with pytest.raises(ShapeError) as caught:
        function(x)
    return str(caught.value)


@pytest.fixture(scope="module")
def layer():
    return MAAM(4, scales=(1, 2, 1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_refused(layer, way, bad):
    shape, dtype, message = BAD[bad]
    assert refused(WAYS[way](layer), ms.Tensor(np.zeros(shape, dtype))) == message


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_a_narrower_float(layer, dtype):
    message = f"expected an input of dtype float32, the dtype of the parameters, got {str(dtype).lower()}; convert one"
    assert refused(layer, ms.Tensor(np.zeros((2, 4, 8, 8)), dtype)) == message


def test_model_of_one_size(small):
    model = build(small)
    x = ms.Tensor(np.zeros((2, 1, 9, 9), np.float32))
    assert refused(model, x) == "expected an input (N, 1, 8, 8), got (2, 1, 9, 9)"
    assert refused(nn.SequentialCell(model), x) == "expected an input (N, 1, 8, 8), got (2, 1, 9, 9)"


def test_works_after_a_refusal(layer):
    network = nn.SequentialCell(layer)
    assert refused(network, ms.Tensor(np.zeros((2, 4, 1, 8), np.float32)))
    assert network(ms.Tensor(np.zeros((2, 4, 2, 3), np.float32))).shape == (2, 4, 2, 3)


def test_only_the_root_checks(layer):
    assert layer.rule is not None
    assert all(getattr(cell, "rule", None) is None for _, cell in layer.cells_and_names() if cell is not layer)


@pytest.mark.parametrize("name", ["kind", "phase", "construct", "cell_list", "cells", "set_train", "rule"])
def test_reserved_names(name):
    node = spec.Sequential(children={name: spec.Activation(function="relu")})
    with pytest.raises(SpecError, match=f"layer name '{name}' is an attribute of a MindSpore cell; choose another"):
        build(node)


@pytest.mark.parametrize("name", ["merge", "weights", "stride", "count", "append_", "forward"])
def test_free_names(name):
    conv = spec.Conv2d(in_channels=1, out_channels=1, kernel_size=1, bias=False)
    model = build(spec.Sequential(children={name: conv, "act": spec.Activation(function="relu")}), seed=1)
    weight = model._cells[name].weight.asnumpy().item()
    x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(model(ms.Tensor(x)).asnumpy(), np.maximum(weight * x, 0), rtol=1e-6)
