"""Composites: the values of their arguments, signatures, docstrings and errors."""

import inspect
import operator
import re
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec.composites import plain_signature
from maam.spec.fields import Size
from maam.spec.heads import with_num_classes
from maam.spec.primitives import ElementwiseName
from tests.errors import error_of
from tests.spec.nodes import FLATTEN, POOL, chain, conv, linear, norm, squeeze

COMPOSITES = [name for name in spec.__all__ if hasattr(getattr(spec, name), "__wrapped__")]
assert {"maam", "mafc", "mobilenet"} <= set(COMPOSITES)


def countable(value):
    """Return an integer in the way of a tensor of a framework."""
    return type("Countable", (), {"__index__": lambda self: value})()


@pytest.mark.parametrize("make", [np.int64, np.int32, np.uint8, np.array, countable])
def test_integers(make):
    given = make(4)
    node = conv(given, given, padding=given)
    assert node == conv(4, 4, padding=4)
    assert {type(node.in_channels), type(node.padding)} == {int}
    assert spec.parse_json(node.to_json()) == node
    layer = spec.maam(given, num_agents=given, pool=(given, 1), kernel_sizes=make(5))
    assert layer.to_json() == spec.maam(4, num_agents=4, pool=(4, 1), kernel_sizes=5).to_json()
    assert spec.Model(name="m", input_shape=(given, 8, 8), children={"conv": node}).to_json()
    digits, four = spec.preset("maam_digits"), spec.preset("maam_digits", num_classes=4)
    assert spec.preset("maam_digits", num_classes=given) == with_num_classes(digits, given) == four
    assert spec.patch_widths(make(16), make(64)) == spec.patch_widths(16, 64)


def test_values_that_are_not_integers():
    message = "input should be a valid integer, got "
    for value in (np.True_, np.array(True), np.float64(4), np.array([4, 4]), np.str_("4"), True, 3.0, "3", None):
        assert f"in_channels: {message}" in error_of(SpecError, conv, value)
        for name in ("in_channels", "num_agents", "kernel_sizes", "scales", "pool"):
            found = error_of(SpecError, spec.maam, **{"in_channels": 8, name: value})
            assert re.match(rf"maam: {name}(\.0)?: {message}", found), value


def test_a_bool_tensor_is_not_an_integer():
    tensor = pytest.importorskip("torch").tensor
    assert operator.index(tensor(True)) == 1
    message = error_of(SpecError, spec.maam, 4, num_agents=tensor(True))
    assert "num_agents: input should be a valid integer, got tensor(True)" in message
    assert spec.maam(4, num_agents=tensor(2)) == spec.maam(4, num_agents=2)


@pytest.mark.parametrize("make", [np.float32, np.float64, np.float16])
def test_numbers(make):
    node = norm(4, momentum=make(0.25), eps=make(0.5))
    assert node == norm(4, momentum=0.25, eps=0.5)
    assert {type(node.momentum), type(node.eps)} == {float}
    assert spec.parse_json(node.to_json()) == node
    assert spec.mobilenet("v1", width_multiplier=make(0.5)) == spec.mobilenet("v1", width_multiplier=0.5)
    assert spec.maf(8, rd_ratio=make(0.25)) == spec.maf(8, rd_ratio=0.25)


def test_values_that_are_not_numbers():
    message = "input should be a valid number, got "
    for value in ("0.5", True, np.True_, None, [0.5]):
        assert f"width_multiplier: {message}" in error_of(SpecError, spec.preset, "mafc_v2", width_multiplier=value)
        assert f"momentum: {message}" in error_of(SpecError, norm, momentum=value)


def test_a_composite_is_an_ordinary_spec():
    node = squeeze(8, gate_layer="hard_sigmoid")
    assert (node.at("reduce").out_channels, node.at("gate").function) == (2, "hard_sigmoid")
    assert node.num_parameters == 8 * 2 + 2 + 2 * 8 + 8
    assert node.macs((8, 5, 7)) == 32
    assert tuple(spec.input_rule(node)) == (4, 8, 1, None)
    assert [p.name for p in squeeze(8, bias=False).parameters()] == ["reduce.weight", "expand.weight"]
    whole = chain(se=node, pool=POOL, flatten=FLATTEN, fc=linear(8))
    assert whole.output_shape((8, 5, 7)) == (2,)
    assert spec.parse_json(whole.to_json()) == whole


def test_signatures():
    assert squeeze.__name__ == "squeeze"
    assert squeeze.__doc__.startswith("Return squeeze and excitation")
    assert list(inspect.signature(squeeze).parameters) == ["channels", "reduction", "gate_layer", "bias"]
    assert squeeze(8, 2) == squeeze(channels=8, reduction=2) == squeeze(8, reduction=2)
    assert squeeze(8, 2) != squeeze(8)
    found = plain_signature(spec.maam).parameters
    assert (found["in_channels"].annotation, found["out_channels"].annotation) == (int, int | None)
    assert found["kernel_sizes"].annotation == int | Sequence[int]
    assert found["fusion"].annotation == Literal["softmax", "mean", "dynamic"]


LEAST = "input should be greater than or equal to 1, got"
VALUES = [
    ("in_channels", 0, f"in_channels: {LEAST} 0"),
    ("in_channels", 2**24 + 1, "in_channels: input should be less than or equal to 16777216"),
    ("out_channels", -1, f"out_channels: {LEAST} -1"),
    ("out_channels", 8.0, "out_channels: input should be a valid integer, got 8.0"),
    ("hidden_channels", 0, f"hidden_channels: {LEAST} 0"),
    ("hidden_channels", True, "hidden_channels: input should be a valid integer, got True"),
    ("num_agents", 0, f"num_agents: {LEAST} 0"),
    ("num_agents", 257, "num_agents: input should be less than or equal to 256, got 257"),
    ("kernel_sizes", 4, "kernel_sizes.0: expected an odd kernel size, got 4"),
    ("kernel_sizes", (3, 2, 3), "kernel_sizes.1: expected an odd kernel size"),
    ("kernel_sizes", -3, f"kernel_sizes.0: {LEAST} -3"),
    ("kernel_sizes", (3, 5), "kernel_sizes: expected one value, or one for each of 3 agents, got 2: (3, 5)"),
    ("kernel_sizes", (), "kernel_sizes: expected at least one value"),
    ("kernel_sizes", ((3, 3),) * 3, "kernel_sizes.0: input should be a valid integer, got (3, 3)"),
    ("scales", 0, f"scales.0: {LEAST} 0"),
    ("scales", (1, 2), "scales: expected one value, or one for each of 3 agents, got 2: (1, 2)"),
    ("pool", (1, 2, 2), "pool: expected one value, or one for each of 2 convolutions, got 3: (1, 2, 2)"),
    ("pool", (2, 0), f"pool.1: {LEAST} 0"),
    ("fusion", "max", "fusion: input should be 'softmax', 'mean' or 'dynamic', got 'max'"),
    ("reduce", 1, "reduce: input should be a valid boolean, got 1"),
    ("depthwise", "yes", "depthwise: input should be a valid boolean, got 'yes'"),
    ("act_layer", len, "act_layer: input should be 'relu', 'relu6'"),
    ("norm_layer", "layer_norm", "norm_layer: input should be 'batch_norm' or 'identity', got 'layer_norm'"),
]
COUNT, POWER = "expected an integer of at least 1, got", "expected a power of two of at least 4, got"
SQUEEZE = [
    ((), {}, "channels: required, but not given"),
    ((8, 2, "sigmoid"), {}, "expected at most 2 positional arguments, got 3"),
    ((8,), {"channels": 8}, "channels: given by position and by name; pass it once"),
    ((8,), {"ratio": 4}, "ratio: no such argument"),
    ((8,), {"self": 4}, "self: no such argument"),
    ((8,), {"bias": 1}, "bias: input should be a valid boolean, got 1"),
    ((8,), {"gate_layer": "relu"}, "gate_layer: input should be 'sigmoid' or 'hard_sigmoid', got 'relu'"),
    ((0,), {"bias": None}, f"channels: {LEAST} 0; bias: input should be a valid boolean"),
]
GATES = [
    ({"pool_types": ("avg", "avg")}, "pool_types: expected each statistic at most once, got avg, avg"),
    ({"pool_types": ()}, "pool_types: expected at least one of avg, std, max"),
    ({"pool_types": {"std"}}, "pool_types: expected a list or a tuple, got {'std'}"),
    ({"pool_types": 5}, "pool_types: expected a list or a tuple, got 5"),
    ({"pool_types": "median"}, "pool_types.0: input should be 'avg', 'std' or 'max', got 'median'"),
    ({"pool_types": ("avg", "median")}, "pool_types.1: input should be 'avg', 'std' or 'max', got 'median'"),
    ({"rd_ratio": 0.0}, "rd_ratio: input should be greater than 0"),
    ({"rd_ratio": 2.0}, "rd_ratio: input should be less than or equal to 1"),
    ({"rd_channels": 0}, "rd_channels: input should be greater than or equal to 1"),
    ({"gate_layer": "relu"}, "gate_layer: input should be 'sigmoid', 'hard_sigmoid' or 'tanh'"),
]
ELEMENTWISE = "input should be " + " or ".join(", ".join(map(repr, get_args(ElementwiseName))).rsplit(", ", 1))
WITH_ACTIVATION = [
    *((name, (8,)) for name in ("cbam", "maam", "maf", "mafb", "mafc", "reduce_layer", "se")),
    *((name, (8, 8)) for name in ("agent_block", "maam_stem")),
    *((name, ()) for name in ("maam_classifier", "maam_imagenet")),
]
CALLS = [
    (partial(spec.agent_block, 8, 8, kernel_size=2), "agent_block: kernel_size: expected an odd kernel size"),
    (partial(spec.agent_block, 8, 8, scale=0), f"agent_block: scale: {LEAST} 0"),
    (partial(spec.reduce_layer, 8, norm_layer="bn"), "reduce_layer: norm_layer: input should be 'batch_norm'"),
    (partial(spec.maam_classifier, ablation="t-cnn"), "maam_classifier: ablation: input should be 'none', 't_cnn'"),
    (partial(spec.maam_classifier, name=3), "maam_classifier: name: input should be a valid string, got 3"),
    (partial(spec.maam_stem, 3, ()), "maam_stem: channels: expected at least one value"),
    (partial(spec.maam_stem, 3, (8,), 0), f"maam_stem: out_channels: {LEAST} 0"),
    (partial(spec.maam_stem, 0, (8,)), f"maam_stem: in_channels: {LEAST} 0"),
    *((partial(spec.patch_widths, size, 16), f"patch_size: {POWER}") for size in (2, 14, (16, 8), 4.0)),
    *((partial(spec.patch_widths, 16, channels), f"out_channels: {COUNT}") for channels in ("64", 64.5, -1, 0)),
    *((partial(squeeze, *args, **options), f"squeeze: {message}") for args, options, message in SQUEEZE),
    *(
        (partial(gate, 16, **options), f"{gate.__name__}: {message}")
        for gate in (spec.maf, spec.mafc, spec.mafb)
        for options, message in GATES
    ),
    *(
        (partial(getattr(spec, name), *args, act_layer="softmax"), f"{name}: act_layer: {ELEMENTWISE}, got 'softmax'")
        for name, args in WITH_ACTIVATION
    ),
    *((partial(spec.maam, **{"in_channels": 8, name: value}), f"maam: {message}") for name, value, message in VALUES),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_invalid_arguments(call, message):
    with pytest.raises(SpecError) as error:
        call()
    found = str(error.value)
    assert found.startswith((message, message.removeprefix("maam: ")))
    assert found.isprintable()
    assert len(found) < 300
    assert error.value.__cause__ is None  # without the error of pydantic


def test_errors_within_the_body_become_spec_errors():
    @spec.composite
    def broken(channels: Size = 0) -> spec.Sequential:
        if channels == 1:
            raise ValueError("not one")
        return chain(x=conv(conv(1, 1).output_shape((channels, 9, 9))[0], 0))

    for channels, message in [(1, "not one"), (2, "expected 1 channels, got 2"), (0, f"channels: {LEAST} 0")]:
        assert error_of(SpecError, broken, channels) == f"broken: {message}"
    assert error_of(SpecError, broken) == f"broken: channels: {LEAST} 0"  # the default is checked too


@pytest.mark.parametrize("name", COMPOSITES)
def test_signatures_and_docstrings_name_all_arguments_and_errors(name):
    function = getattr(spec, name)
    signature = plain_signature(function)
    assert not any(word in str(signature) for word in ("Annotated", "ForwardRef"))
    assert issubclass(signature.return_annotation, spec.Node)
    arguments, errors = inspect.getdoc(function).split("\nArgs:\n")[1].split("\nRaises:\n")
    names = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    assert names == list(signature.parameters)
    assert errors.startswith("    SpecError: ")
    texts = dict(zip(names, re.split(r"^    \w+: ", arguments, flags=re.MULTILINE)[1:], strict=True))
    for argument in signature.parameters.values():
        if argument.default not in (None, argument.empty):
            assert "Default:" in texts[argument.name], argument.name
    assert "as in `" not in arguments
