"""The layer class as Python sees it: signature, arguments, repr, subclasses, composites of one's own."""

import inspect

import pytest
import torch
from torch import nn

from maam import spec
from maam.errors import PresetError, SpecError
from maam.torch import MAAM, build
from maam.torch.layers import Layer

SIGNATURE = (
    "(in_channels, out_channels=None, *, hidden_channels=None, num_agents=3, kernel_sizes=3, scales=1, pool=1, "
    "fusion='softmax', reduce=True, depthwise=False, act_layer='relu', norm_layer='batch_norm', "
    "device=None, dtype=None)"
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
        super().__init__(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(super().forward(x).mean((2, 3)))


def test_signature():
    assert bare(inspect.signature(MAAM)) == SIGNATURE


def test_documentation_comes_from_the_composite():
    assert inspect.getdoc(MAAM).startswith("The Multi-Agent Aggregation Module")
    assert "in_channels:" in inspect.getdoc(MAAM)


def test_spec():
    assert MAAM(4, scales=(1, 2, 1)).spec == spec.maam(4, scales=(1, 2, 1))
    assert build("maam_digits").spec == spec.preset("maam_digits")
    assert build(spec.preset("mlp", image_size=8)).spec == spec.preset("mlp", image_size=8)


def test_spec_of_a_primitive():
    node = spec.Activation(function="tanh")
    assert build(node).spec is node


def test_repr():
    text = repr(MAAM(4, 8, scales=(1, 2, 1)))
    assert text.startswith("MAAM(\n  in_channels=4, out_channels=8, scales=(1, 2, 1)\n  (agents): Parallel(")
    assert "    merge='softmax'\n    (0): Sequential(\n      (conv1): Conv2d(4, 4, " in text
    assert "    (1): Resize(\n      (scale): AvgPool2d(kernel_size=2" in text
    assert repr(build("maam_digits")).startswith("Model(\n  (agents): Parallel(")
    assert "(rnn): RowRNN(24, 128)" in repr(build(spec.preset("rnn", image_size=8)))


@pytest.mark.parametrize(("act", "name"), [(nn.SiLU, "silu"), (nn.LeakyReLU, "leaky_relu"), (nn.ReLU, "relu")])
def test_activation_by_class(act, name):
    assert MAAM(4, act_layer=act).spec == MAAM(4, act_layer=name).spec
    assert type(MAAM(4, act_layer=name).agents.get_submodule("0.act1")) is act


def test_norm_by_class():
    assert MAAM(4, norm_layer=nn.BatchNorm2d).spec == MAAM(4).spec
    assert MAAM(4, norm_layer=nn.Identity).spec == MAAM(4, norm_layer="identity").spec
    assert not [m for m in MAAM(4, norm_layer=nn.Identity).modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_agent": 3}, "unexpected keyword argument 'num_agent'"),
        ({"fusion": "max"}, "fusion: .*'softmax', 'mean' or 'dynamic', got 'max'"),
        ({"kernel_sizes": 2}, "expected an odd kernel size"),
        ({"kernel_sizes": (3, 3)}, "one for each of 3 agents, got 2"),
        ({"num_agents": 0}, "num_agents"),
        ({"act_layer": nn.Softplus}, "act_layer: no name for torch.*Softplus; expected one of relu"),
        ({"act_layer": "softmax"}, "act_layer: input should be 'relu', .*, got 'softmax'"),
        ({"norm_layer": nn.LayerNorm}, "norm_layer: no name for torch.*LayerNorm"),
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


def test_subclass(x):
    model = WithHead(4, 3)
    plain = MAAM(4)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
    torch.testing.assert_close(model(x), model.head(plain(x).mean((2, 3))), rtol=0, atol=0)
    assert repr(model).startswith("WithHead(\n  in_channels=4\n")


def test_signature_of_a_subclass():
    assert bare(inspect.signature(WithHead)) == "(channels, classes)"
    assert bare(inspect.signature(type("Same", (MAAM,), {}))) == SIGNATURE


def test_one_activation_module_in_two_places(x, scramble):
    layer = scramble(MAAM(4, act_layer="tanh")).eval()
    expected = layer(x)
    for block in layer.agents.children():
        block.act1 = block.act2  # `children()` would run it once
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_composite_of_ones_own(x):
    layer = Gate(4, act_layer=nn.Tanh)
    expected = x * torch.tanh(nn.functional.conv2d(x, layer.conv.weight, layer.conv.bias))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    assert bare(inspect.signature(Gate)) == "(channels, *, act_layer='sigmoid', device=None, dtype=None)"
