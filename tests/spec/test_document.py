"""Specs as JSON: round trips, and errors for invalid documents."""

import copy
import json
import pickle

import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec import node, parse_document, parse_json
from tests.errors import error_of
from tests.spec import mutations, nodes
from tests.spec.nodes import chain

SPECS = [
    *map(spec.preset, spec.list_presets()),
    *(spec.maam(4, fusion=fusion, scales=(1, 2, 3), depthwise=True) for fusion in ("softmax", "mean", "dynamic")),
    spec.Model(name='Ünïcode "quoted"\n', input_shape=(1, 1, 1), children={}),
]


def copies(value):
    return copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("node", SPECS)
def test_specs_survive_round_trips_copies_and_pickles(node):
    read = [*map(parse_json, (node.to_json(), node.to_json(indent=2), node.to_json().encode()))]
    others = (*read, parse_document(node.to_document()), *copies(node), node.model_copy(deep=True))
    assert all((type(other), other, hash(other)) == (type(node), node, hash(node)) for other in others)
    for children in copies(node.children):
        assert (children, hash(children)) == (node.children, hash(node.children))
        with pytest.raises(TypeError, match="a spec cannot be changed"):
            children["x"] = spec.Identity()


def test_fields_and_defaults():
    given = {"kind": "conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1}
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True, "init": "fan_in_uniform"}
    assert parse_document(given).to_document() == {**given, **defaults}
    pool = spec.AvgPool2d(kernel_size=2)
    assert json.loads(pool.to_json()) == {"kind": "avg_pool2d", "kernel_size": 2, "stride": None, "padding": 0}


def test_the_order_of_children_is_kept_and_that_of_fields_is_free():
    assert list(parse_json(chain(z=nodes.IDENTITY, a=nodes.FLATTEN).to_json()).nodes) == ["z", "a"]

    def backward(pairs):
        is_node = any(name == "kind" for name, _ in pairs)
        return dict(reversed(pairs)) if is_node else dict(pairs)

    model = spec.preset("maam_digits")
    assert parse_json(json.dumps(json.loads(model.to_json(), object_pairs_hook=backward))) == model


def test_floats_are_kept_bit_for_bit():
    for slope in (0.1 + 0.2, 5e-324, 1e308, -0.0, 1 / 3):
        activation = spec.Activation(function="leaky_relu", negative_slope=slope)
        assert repr(parse_json(activation.to_json()).negative_slope) == repr(slope)


def test_nodes_are_accepted_as_documents_and_very_long_texts_refused(monkeypatch):
    assert parse_document(nodes.IDENTITY) is nodes.IDENTITY
    assert chain(a=nodes.IDENTITY, b={"kind": "identity"}).at("b") == nodes.IDENTITY
    monkeypatch.setattr(node, "MAX_LENGTH", 10)
    message = "spec: expected at most 10 characters of JSON, got 19"
    assert message in error_of(SpecError, parse_json, '{"kind":"identity"}')


IDENTITY = {"kind": "identity"}
CONV = {"kind": "conv2d", "in_channels": 4, "out_channels": 6, "kernel_size": 3}
NORM = {"kind": "batch_norm2d", "num_features": 3}
LEAKY = {"kind": "activation", "function": "relu"}


def sequential(**children):
    return {"kind": "sequential", "children": children}


def parallel(**fields):
    return {"kind": "parallel", "children": {"a": IDENTITY, "b": IDENTITY}, **fields}


def model(**fields):
    return {"kind": "model", "name": "m", "input_shape": [4, 8, 8], "children": {"conv": CONV}, **fields}


def nested(depth):
    return '{"kind":"sequential","children":{"a":' * depth + json.dumps(IDENTITY) + "}}" * depth


WEIGHTS = "parallel: weights: required with merge 'weighted', and not allowed with others"
WEIGHTING = "parallel: weighting: required with merge 'dynamic', and not allowed with others"
INTEGER, NUMBER = "input should be a valid integer, got", "input should be a valid number"
DOCUMENTS = [
    # not a layer
    (None, "expected a layer (an object with a 'kind'), got NoneType"),
    ([CONV], "expected a layer (an object with a 'kind'), got list"),
    ({}, "kind: required, but not given"),
    ({"kind": "conv3d"}, "unknown kind 'conv3d'; known kinds: activation, adaptive_avg_pool2d"),
    *(({"kind": kind}, f"unknown kind {str(kind)!r}") for kind in (None, ["conv2d"], "Conv2d")),
    ({**IDENTITY, 3: 4}, "identity: field names must be strings"),
    # unknown, missing and contradicting fields
    ({**CONV, "strides": 2}, "conv2d: strides: no such field"),
    ({**IDENTITY, "self": 2}, "identity: self: no such field"),
    ({**IDENTITY, "a\nb": 2}, r"identity: 'a\nb': no such field"),
    ({"kind": "linear", "in_features": 3}, "linear: out_features: required, but not given"),
    ({"kind": "conv2d", "kernel_size": 3}, "in_channels: required, but not given; out_channels: required"),
    ({**CONV, "groups": 4}, "conv2d: groups: 4 must divide in_channels 4 and out_channels 6"),
    ({"kind": "group_norm", "num_groups": 3, "num_channels": 8}, "num_groups: 3 must divide num_channels 8"),
    (parallel(merge="weighted"), WEIGHTS),
    (parallel(weights=[1, 2]), WEIGHTS),
    (parallel(merge="weighted", weights=[1]), "weights: expected one for each of 2 branches, got 1"),
    (parallel(merge="dynamic"), WEIGHTING),
    (parallel(weighting=IDENTITY), WEIGHTING),
    (parallel(children={}), "parallel: children: expected at least one branch"),
    (parallel(children={"weighting": IDENTITY}), "children: the name 'weighting' is reserved"),
    (model(input_shape=[3, 8, 8]), "input_shape (3, 8, 8) does not fit the layers: conv: expected 4 channels, got 3"),
    # wrong types and ranges
    ({**CONV, "in_channels": 0}, "in_channels: input should be greater than or equal to 1, got 0"),
    ({**CONV, "padding": -1}, "padding: input should be greater than or equal to 0, got -1"),
    *(({**CONV, "stride": value}, f"stride: {INTEGER} {value!r}") for value in (3.0, "3", True, None, [3, 3])),
    ({**CONV, "stride": 2**24 + 1}, "stride: input should be less than or equal to 16777216, got 16777217"),
    ({**CONV, "stride": 10**5000}, "stride: input should be less than or equal to 16777216, got a huge int"),
    *(({**CONV, "bias": value}, f"bias: input should be a valid boolean, got {value!r}") for value in (1, "true")),
    ({**CONV, "init": "he"}, "init: input should be 'fan_in_uniform', 'kaiming_uniform'"),
    ({"kind": "activation", "function": "relu7"}, "activation: function: input should be 'relu', 'relu6'"),
    *(({**LEAKY, "negative_slope": value}, f"negative_slope: {NUMBER}") for value in (True, "0")),
    ({**LEAKY, "negative_slope": 10**400}, "negative_slope: input should be a"),
    (parallel(merge="weighted", weights=[1, float("inf")]), "weights.1: input should be a finite number, got inf"),
    ({**NORM, "eps": 0}, "eps: input should be greater than 0, got 0"),
    ({**NORM, "momentum": 1.5}, "momentum: input should be less than or equal to 1"),
    ({"kind": "dropout", "p": 1.0}, "dropout: p: input should be less than 1, got 1.0"),
    ({"kind": "dropout", "p": -1e-300}, "dropout: p: input should be greater than or equal to 0"),
    ({"kind": "global_pool", "function": "median"}, "input should be 'avg', 'max', 'std', 'sum' or 'var', got 'med"),
    (parallel(merge="max"), "parallel: merge: input should be 'sum', 'concat'"),
    (parallel(merge="weighted", weights=[1, "a"]), f"weights.1: {NUMBER}, got 'a'"),
    (parallel(merge="weighted", weights=3), "weights: expected a list or a tuple, got 3"),
    (model(input_shape=[4, 8]), "input_shape.2: required, but not given"),
    (model(input_shape=[4, 0, 8]), "input_shape.1: input should be greater than or equal to 1, got 0"),
    *((model(input_shape=shape), f"expected a list or a tuple, got {shape!r}") for shape in ({4, 8}, "488")),
    (model(name=None), "model: name: input should be a valid string, got None"),
    (model(name="n" * 201), "model: name: string should have at most 200 characters, got 'nnn"),
    # children and their names (test_node.py has more)
    ({"kind": "sequential"}, "sequential: children: required, but not given"),
    (sequential(a={**CONV, "bias": 3}), "children: a > conv2d: bias: input should be a valid boolean"),
    (sequential(a=sequential(b={"kind": "what"})), "children: a > sequential: children: b > unknown kind 'what'"),
    (parallel(merge="dynamic", weighting={"kind": "linear"}), "weighting: linear: in_features: required"),
    (parallel(merge="dynamic", weighting=3), "parallel: weighting: expected a layer"),
    (sequential(**{"a\nb" * 99: {"kind": "what"}}), r"layer name 'a\nba\nb"),
    (sequential(**{"\ud800": IDENTITY}), r"layer name '\ud800'"),
]
TEXTS = [
    ("", "not a JSON document: Expecting value: line 1 column 1"),
    ('{"kind": "identity"', "not a JSON document: Expecting ',' delimiter"),
    ('{"kind": "identity"} x', "not a JSON document: Extra data"),
    (b'{"kind": "identity\xff"}', "not a JSON document: 'utf-8' codec can't decode byte 0xff"),
    ('{"kind": "identity", "kind": "identity"}', "the name 'kind' occurs twice in one object"),
    ('{"kind": "sequential", "children": {"a": {}, "b": {}, "a": {}}}', "the name 'a' occurs twice in one object"),
    ('{"kind": "dropout", "p": NaN}', "dropout: p: input should be a finite number, got nan"),
    ('{"kind": "dropout", "p": -Infinity}', "dropout: p: input should be a finite number, got -inf"),
    ('{"kind": "batch_norm2d", "num_features": 1, "eps": 1e999}', "eps: input should be a finite number, got inf"),
    ('{"kind": "rnn", "input_size": NaN, "hidden_size": 1}', f"rnn: input_size: {INTEGER} nan"),
    ('{"kind": "dropout", "p": 1' + "0" * 5000 + "}", "not a JSON document: Exceeds the limit (4300"),
    *((text, "nested too deeply") for text in (*map(nested, (64, 150, 400, 20_000)), "[" * 100_000)),
]
INVALID = [(parse_document, *row) for row in DOCUMENTS] + [(parse_json, *row) for row in TEXTS]


@pytest.mark.parametrize(("parse", "given", "fragment"), INVALID, ids=[fragment[:50] for _, _, fragment in INVALID])
def test_invalid_documents_and_texts(parse, given, fragment):
    with pytest.raises(SpecError) as error:
        parse(given)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert parse is parse_json or error.value.__cause__ is None  # without the error of pydantic


def test_the_largest_depth_works():
    deep = parse_json(nested(63))
    again = parse_json(deep.to_json())
    assert (deep.depth, again, hash(again)) == (64, deep, hash(deep))
    assert deep.output_shape((1, 2, 2)) == (1, 2, 2)
    assert len(list(deep.summary((1, 2, 2)))) == len(list(deep.walk())) == 64
    assert repr(deep)


def test_many_wrong_fields():
    message = error_of(SpecError, parse_document, {**IDENTITY, **{f"field{index}": index for index in range(500)}})
    assert message.startswith("identity: field0: no such field")
    assert message.endswith("field499: no such field")
    assert len(message) < 600


def says(written, given):
    """Return whether `written` has all fields and values of `given`."""
    if isinstance(given, dict):
        return all(name in written and says(written[name], value) for name, value in given.items())
    if isinstance(given, list):
        return len(written) == len(given) and all(map(says, written, given))
    if isinstance(written, float):  # JSON does not distinguish 1 and 1.0; long integers are rounded
        return written == float(given) and not isinstance(given, bool)
    return written == given and isinstance(written, bool) == isinstance(given, bool)


@pytest.mark.parametrize("seed", range(3))
def test_mutants_parse_or_are_refused_in_one_line(seed):
    assert all(parse_json(text).to_json() == text for text in mutations.bases())  # valid before the mutation
    refused = []
    for name, text in mutations.mutants(220, seed):
        try:
            found = parse_json(text)
        except SpecError as error:
            refused.append(name)
            message = str(error)
            assert "\n" not in message, (name, text)
            assert 10 < len(message) < 600, (name, text, message)
        else:
            assert parse_json(found.to_json()) == found, (name, text)
            assert says(found.to_document(), json.loads(text)), (name, text)
    assert len(refused) >= 100
    assert set(refused) == {mutate.__name__ for mutate in mutations.MUTATIONS}
