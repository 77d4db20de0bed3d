"""Specs as JSON: what comes back equals what was written."""

import json

import pytest

from maam.errors import SpecError
from maam.spec import (
    Activation,
    AvgPool2d,
    Conv2d,
    Identity,
    Model,
    Sequential,
    list_presets,
    maam,
    node,
    parse_document,
    parse_json,
    preset,
)


@pytest.mark.parametrize("name", list_presets())
def test_presets_come_back(name):
    model = preset(name)
    for text in (model.to_json(), model.to_json(indent=2), model.to_json().encode()):
        assert parse_json(text) == model
        assert hash(parse_json(text)) == hash(model)
    assert parse_document(model.to_document()) == model


@pytest.mark.parametrize("fusion", ["softmax", "mean", "dynamic"])
@pytest.mark.parametrize("scales", [1, (1, 2, 3)])
def test_layers_come_back(fusion, scales):
    spec = maam(4, fusion=fusion, scales=scales, depthwise=True, norm_layer="identity")
    assert parse_json(spec.to_json()) == spec


def test_every_field_is_written():
    assert Conv2d(in_channels=3, out_channels=4, kernel_size=1).to_document() == {
        "kind": "conv2d",
        "in_channels": 3,
        "out_channels": 4,
        "kernel_size": 1,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "bias": True,
        "init": "fan_in_uniform",
    }
    assert json.loads(AvgPool2d(kernel_size=2).to_json()) == {"kind": "avg_pool2d", "kernel_size": 2, "stride": None}


def test_the_order_of_children_is_kept_and_counts():
    relu, tanh = Activation(function="relu"), Activation(function="tanh")
    forward = Sequential(children={"z": relu, "a": tanh})
    backward = Sequential(children={"a": tanh, "z": relu})
    assert list(parse_json(forward.to_json()).nodes) == ["z", "a"]
    assert forward != backward
    assert parse_json(forward.to_json()) != backward


def test_the_order_of_fields_does_not_count():
    text = preset("maam_digits").to_json()
    assert parse_json(_reversed_fields(text)) == preset("maam_digits")


def _reversed_fields(text):
    def backward(pairs):
        is_node = any(name == "kind" for name, _ in pairs)
        return dict(reversed(pairs)) if is_node else dict(pairs)

    return json.dumps(json.loads(text, object_pairs_hook=backward))


def test_floats_come_back_bit_for_bit():
    for slope in (0.1 + 0.2, 5e-324, 1e308, -0.0, 1 / 3):
        node = Activation(function="leaky_relu", negative_slope=slope)
        assert repr(parse_json(node.to_json()).negative_slope) == repr(slope)


def test_names_of_models_may_hold_any_text():
    model = Model(name='Ünïcode "quoted"\n', input_shape=(1, 1, 1), children={})
    assert parse_json(model.to_json()).name == model.name


def test_a_node_is_a_document_of_itself():
    node = Identity()
    assert parse_document(node) is node
    assert Sequential(children={"a": node, "b": {"kind": "identity"}}).at("b") == node


def test_texts_without_end_are_refused_by_their_length(monkeypatch):
    monkeypatch.setattr(node, "MAX_LENGTH", 10)
    with pytest.raises(SpecError, match="spec: expected at most 10 characters of JSON, got 19"):
        parse_json('{"kind":"identity"}')
