"""Arguments of layers: numbers of NumPy and frameworks, and errors for invalid values."""

import operator
from typing import get_args

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec.heads import with_num_classes
from maam.spec.primitives import ElementwiseName
from tests.errors import error_of


@pytest.mark.parametrize("make", [np.int64, np.int32, np.uint8, np.array])
def test_integers(make):
    given = make(4)
    conv = spec.Conv2d(in_channels=given, out_channels=given, kernel_size=3, padding=given)
    assert conv == spec.Conv2d(in_channels=4, out_channels=4, kernel_size=3, padding=4)
    assert {type(conv.in_channels), type(conv.padding)} == {int}
    assert spec.parse_json(conv.to_json()) == conv
    layer = spec.maam(given, num_agents=given, pool=(given, 1))
    assert layer.to_json() == spec.maam(4, num_agents=4, pool=(4, 1)).to_json()
    assert spec.maam(4, kernel_sizes=make(3)) == spec.maam(4, kernel_sizes=3)
    assert spec.Model(name="m", input_shape=(given, 8, 8), children={"conv": conv}).to_json()


def test_integers_that_are_counted_from_labels():
    count = np.array([0, 3, 1]).max() + 1
    model = spec.preset("maam_digits", num_classes=count)
    like_a_tensor = type("Countable", (), {"__index__": lambda self: 4})()
    assert model == spec.preset("maam_digits", num_classes=4) == spec.preset("maam_digits", num_classes=like_a_tensor)
    assert with_num_classes(spec.preset("maam_digits"), count) == model
    assert spec.patch_widths(np.int64(16), np.int64(64)) == spec.patch_widths(16, 64)


@pytest.mark.parametrize("value", [np.True_, np.array(True), np.float64(4), np.array([4, 4]), np.str_("4"), True])
def test_values_that_are_not_integers(value):
    with pytest.raises(SpecError, match="in_channels: input should be a valid integer, got "):
        spec.Conv2d(in_channels=value, out_channels=4, kernel_size=3)


def test_a_bool_tensor_is_not_an_integer():
    torch = pytest.importorskip("torch")
    assert operator.index(torch.tensor(True)) == 1
    with pytest.raises(SpecError, match=r"num_agents: input should be a valid integer, got tensor\(True\)"):
        spec.maam(4, num_agents=torch.tensor(True))
    assert spec.maam(4, num_agents=torch.tensor(2)) == spec.maam(4, num_agents=2)


@pytest.mark.parametrize("make", [np.float32, np.float64, np.float16])
def test_numbers(make):
    norm = spec.BatchNorm2d(num_features=4, momentum=make(0.25), eps=make(0.5))
    assert norm == spec.BatchNorm2d(num_features=4, momentum=0.25, eps=0.5)
    assert {type(norm.momentum), type(norm.eps)} == {float}
    assert spec.parse_json(norm.to_json()) == norm
    assert spec.mobilenet("v1", width_multiplier=make(0.5)) == spec.mobilenet("v1", width_multiplier=0.5)
    assert spec.maf(8, rd_ratio=make(0.25)) == spec.maf(8, rd_ratio=0.25)


@pytest.mark.parametrize("value", ["0.5", True, np.True_, None, [0.5]])
def test_values_that_are_not_numbers(value):
    with pytest.raises(SpecError, match="width_multiplier: input should be a valid number, got "):
        spec.preset("mafc_v2", width_multiplier=value)
    with pytest.raises(SpecError, match="momentum: input should be a valid number, got "):
        spec.BatchNorm2d(num_features=4, momentum=value)


ELEMENTWISE = " or ".join(", ".join(map(repr, get_args(ElementwiseName))).rsplit(", ", 1))
VALUES = [
    ("in_channels", 0, "in_channels: input should be greater than or equal to 1, got 0"),
    ("in_channels", "8", "in_channels: input should be a valid integer, got '8'"),
    ("in_channels", None, "in_channels: input should be a valid integer, got None"),
    ("in_channels", 2**24 + 1, "in_channels: input should be less than or equal to 16777216"),
    ("out_channels", -1, "out_channels: input should be greater than or equal to 1, got -1"),
    ("out_channels", 8.0, "out_channels: input should be a valid integer, got 8.0"),
    ("hidden_channels", 0, "hidden_channels: input should be greater than or equal to 1, got 0"),
    ("hidden_channels", True, "hidden_channels: input should be a valid integer, got True"),
    ("num_agents", 0, "num_agents: input should be greater than or equal to 1, got 0"),
    ("num_agents", 257, "num_agents: input should be less than or equal to 256, got 257"),
    ("num_agents", [3], "num_agents: input should be a valid integer, got [3]"),
    ("kernel_sizes", 4, "kernel_sizes.0: expected an odd kernel size, got 4"),
    ("kernel_sizes", (3, 2, 3), "kernel_sizes.1: expected an odd kernel size"),
    ("kernel_sizes", 0, "kernel_sizes.0: input should be greater than or equal to 1, got 0"),
    ("kernel_sizes", -3, "kernel_sizes.0: input should be greater than or equal to 1, got -3"),
    ("kernel_sizes", "3", "kernel_sizes.0: input should be a valid integer, got '3'"),
    ("kernel_sizes", 3.0, "kernel_sizes.0: input should be a valid integer, got 3.0"),
    ("kernel_sizes", True, "kernel_sizes.0: input should be a valid integer, got True"),
    ("kernel_sizes", None, "kernel_sizes.0: input should be a valid integer, got None"),
    ("kernel_sizes", (3, 5), "kernel_sizes: expected one value, or one for each of 3 agents, got 2: (3, 5)"),
    ("kernel_sizes", (3, 3, 3, 3), "kernel_sizes: expected one value, or one for each of 3 agents, got 4"),
    ("kernel_sizes", (), "kernel_sizes: expected at least one value"),
    ("kernel_sizes", ((3, 3),) * 3, "kernel_sizes.0: input should be a valid integer, got (3, 3)"),
    ("scales", 0, "scales.0: input should be greater than or equal to 1, got 0"),
    ("scales", (1, 2), "scales: expected one value, or one for each of 3 agents, got 2: (1, 2)"),
    ("scales", 0.5, "scales.0: input should be a valid integer, got 0.5"),
    ("pool", (1, 2, 2), "pool: expected one value, or one for each of 2 convolutions, got 3: (1, 2, 2)"),
    ("pool", (2, 0), "pool.1: input should be greater than or equal to 1, got 0"),
    ("pool", "2", "pool.0: input should be a valid integer, got '2'"),
    ("pool", False, "pool.0: input should be a valid integer, got False"),
    ("fusion", "max", "fusion: input should be 'softmax', 'mean' or 'dynamic', got 'max'"),
    ("fusion", None, "fusion: input should be 'softmax', 'mean' or 'dynamic', got None"),
    ("reduce", 1, "reduce: input should be a valid boolean, got 1"),
    ("depthwise", "yes", "depthwise: input should be a valid boolean, got 'yes'"),
    ("act_layer", "swish", "act_layer: input should be 'relu', 'relu6'"),
    ("act_layer", "softmax", f"act_layer: input should be {ELEMENTWISE}, got 'softmax'"),
    ("act_layer", len, "act_layer: input should be 'relu', 'relu6'"),
    ("norm_layer", "layer_norm", "norm_layer: input should be 'batch_norm' or 'identity', got 'layer_norm'"),
]
CALLS = [
    (lambda: spec.maam(), "maam: in_channels: required, but not given"),
    (lambda: spec.maam(8, kernel_size=3), "maam: kernel_size: no such argument"),
    (lambda: spec.agent_block(8), "agent_block: out_channels: required, but not given"),
    (lambda: spec.agent_block(8, 8, kernel_size=2), "agent_block: kernel_size: expected an odd kernel size"),
    (lambda: spec.agent_block(8, 8, scale=0), "agent_block: scale: input should be greater"),
    (lambda: spec.reduce_layer(), "reduce_layer: channels: required, but not given"),
    (lambda: spec.reduce_layer(8, norm_layer="bn"), "reduce_layer: norm_layer: input should be 'batch_norm'"),
    (lambda: spec.maam_stem(3, ()), "maam_stem: channels: expected at least one value"),
    (lambda: spec.maam_stem(3, (8,), 0), "maam_stem: out_channels: input should be greater than or equal to 1"),
    (lambda: spec.maam_stem(0, (8,)), "maam_stem: in_channels: input should be greater than or equal to 1"),
    *(
        (lambda size=size: spec.patch_widths(size, 16), "patch_size: expected a power of two of at least 4, got")
        for size in (2, 14, (16, 8), 4.0)
    ),
]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda a=a, v=v: spec.maam(**{"in_channels": 8, a: v}), message) for a, v, message in VALUES),
        *CALLS,
    ],
)
def test_invalid_arguments(call, message):
    found = error_of(SpecError, call)
    assert found.startswith((message, f"maam: {message}"))
    assert len(found) < 300


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, (8,)) for name in ("cbam", "maam", "maf", "mafb", "mafc", "reduce_layer", "se")),
        *((name, (8, 8)) for name in ("agent_block", "maam_stem")),
        *((name, ()) for name in ("maam_classifier", "maam_imagenet")),
    ],
)
def test_softmax_is_not_elementwise(name, arguments):
    assert "softmax" not in get_args(ElementwiseName)
    with pytest.raises(SpecError, match=r"act_layer: input should be 'relu', .* or 'identity', got 'softmax'"):
        getattr(spec, name)(*arguments, act_layer="softmax")
