"""The layer class as Python sees it: signature, arguments, repr, subclasses, copies, composites of one's own."""

import copy
import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from maam import spec
from maam.errors import PresetError, SpecError
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays
from maam.mindspore.layers import Layer

SIGNATURE = (
    "(in_channels, out_channels=None, *, hidden_channels=None, num_agents=3, kernel_sizes=3, scales=1, pool=1, "
    "fusion='softmax', reduce=True, depthwise=False, act_layer='relu', norm_layer='batch_norm')"
)


def bare(signature):
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()]))


@spec.composite
def gate(channels: int, *, act_layer: spec.primitives.ActivationName = "sigmoid") -> spec.Scale:
    """x * act(conv1x1(x))."""
    conv = spec.Conv2d(in_channels=channels, out_channels=1, kernel_size=1)
    return spec.Scale(children={"conv": conv, "act": spec.Activation(function=act_layer)})


class Gate(Layer, composite=gate):
    pass


class WithHead(MAAM):
    def __init__(self, channels, classes):
        super().__init__(channels, num_agents=2)
        self.head = nn.Dense(channels, classes)

    def construct(self, x):
        return self.head(super().construct(x).mean((2, 3)))


def test_signature():
    assert bare(inspect.signature(MAAM)) == SIGNATURE


def test_documentation_comes_from_the_composite():
    assert inspect.getdoc(MAAM).startswith("The Multi-Agent Aggregation Module")
    assert "in_channels:" in inspect.getdoc(MAAM)


def test_spec(small):
    assert MAAM(4, scales=(1, 2, 1)).spec == spec.maam(4, scales=(1, 2, 1))
    assert build("maam_digits").spec == spec.preset("maam_digits")
    assert build(small).spec is small


def test_spec_of_a_primitive():
    node = spec.Activation(function="tanh")
    assert build(node).spec is node


def test_initial_state_is_inference():
    assert not any(cell.training for _, cell in MAAM(4).cells_and_names())
    assert not any(cell.training for _, cell in build("maam_digits").cells_and_names())


def test_repr(small):
    text = repr(MAAM(4, 8, scales=(1, 2, 1)))
    assert text.startswith("MAAM(\n  in_channels=4, out_channels=8, scales=(1, 2, 1)\n  (agents): Parallel(")
    assert "    merge='softmax'\n    (0): Sequential(\n      (conv1): Conv2d(input_channels=4, " in text
    assert "    (1): Resize(\n      (scale): AvgPool2d(kernel_size=2" in text
    assert "weight_init=Normal(0.2357), bias_init=None" in text  # a distribution, where MindSpore writes addresses
    assert " at 0x" not in text
    assert repr(build(small)).startswith("Model(\n  (agents): Parallel(")


@pytest.mark.parametrize(("act", "name"), [(nn.SiLU, "silu"), (nn.LeakyReLU, "leaky_relu"), (nn.HSwish, "hard_swish")])
def test_activation_by_class(act, name):
    assert MAAM(4, act_layer=act).spec == MAAM(4, act_layer=name).spec
    assert type(MAAM(4, act_layer=name).agents[0].act1) is act


def test_norm_by_class():
    assert MAAM(4, norm_layer=nn.BatchNorm2d).spec == MAAM(4).spec
    assert MAAM(4, norm_layer=nn.Identity).spec == MAAM(4, norm_layer="identity").spec
    cells = [cell for _, cell in MAAM(4, norm_layer=nn.Identity).cells_and_names()]
    assert not [cell for cell in cells if isinstance(cell, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_agent": 3}, "unexpected keyword argument 'num_agent'"),
        ({"dtype": ms.float16}, "unexpected keyword argument 'dtype'"),
        ({"fusion": "max"}, "fusion: .*'softmax', 'mean' or 'dynamic', got 'max'"),
        ({"kernel_sizes": 2}, "expected an odd kernel size"),
        ({"kernel_sizes": (3, 3)}, "one for each of 3 agents, got 2"),
        ({"num_agents": 0}, "num_agents"),
        ({"act_layer": nn.Mish}, "act_layer: no name for mindspore.*Mish; expected one of relu"),
        ({"act_layer": "softmax"}, "act_layer: input should be 'relu', .*, got 'softmax'"),
        ({"norm_layer": nn.LayerNorm}, "norm_layer: no name for mindspore.*LayerNorm"),
        ({"in_channels": 4}, "multiple values for argument 'in_channels'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(SpecError, match=message):
        MAAM(4, **arguments)


def test_missing_argument():
    with pytest.raises(SpecError, match="missing a required argument: 'in_channels'"):
        MAAM()


def test_wrong_build():
    with pytest.raises(PresetError, match="did you mean 'maam_digits'"):
        build("maam_digit")
    with pytest.raises(SpecError, match="seed: expected an integer"):
        build("maam_digits", seed=-1)


@pytest.mark.usefixtures("mode")
def test_subclass(x, scramble, referee):
    model = scramble(WithHead(4, 3))
    mean = referee(model)(x).mean((2, 3))
    expected = mean @ model.head.weight.asnumpy().T + model.head.bias.asnumpy()
    np.testing.assert_allclose(model(ms.Tensor(x)).asnumpy(), expected, rtol=1e-5, atol=1e-5)
    assert repr(model).startswith("WithHead(\n  in_channels=4, num_agents=2\n")


def test_signature_of_a_subclass():
    assert bare(inspect.signature(WithHead)) == "(channels, classes)"
    assert bare(inspect.signature(type("Same", (MAAM,), {}))) == SIGNATURE


@pytest.mark.usefixtures("mode")
def test_composite_of_ones_own(x):
    layer = Gate(4, act_layer=nn.Tanh)
    inner = ops.conv2d(ms.Tensor(x), layer.conv.weight, layer.conv.bias)
    expected = x * np.tanh(inner.asnumpy())
    np.testing.assert_allclose(layer(ms.Tensor(x)).asnumpy(), expected, rtol=1e-5, atol=1e-6)
    assert bare(inspect.signature(Gate)) == "(channels, *, act_layer='sigmoid')"


@pytest.mark.usefixtures("mode")
def test_deepcopy(x, scramble):
    layer = scramble(MAAM(4, num_agents=2, scales=(1, 2)))
    tensor = ms.Tensor(x)
    expected = layer(tensor).asnumpy()
    other = copy.deepcopy(layer)  # of a cell that has a graph already
    assert other.spec == layer.spec
    assert repr(other) == repr(layer)
    np.testing.assert_array_equal(other(tensor).asnumpy(), expected)
    other.set_train()(tensor)
    assert np.all(read_arrays(other)["reduce.bn.running_mean"] != read_arrays(layer)["reduce.bn.running_mean"])
    np.testing.assert_array_equal(layer(tensor).asnumpy(), expected)
