"""Names of layers: what can be part of a canonical parameter name in every framework."""

import pytest

from maam.errors import SpecError
from maam.spec import Activation, Identity, Linear, Parallel, Sequential

RESERVED = ["alpha", "weight", "bias", "running_mean", "running_var", "spec", "training", "cls_name", "module"]


@pytest.mark.parametrize("name", ["0", "12", "conv1", "Conv", "a_b", "layer_", "weighting", "x" * 100])
def test_names(name):
    spec = Sequential(children={name: Linear(in_features=1, out_features=1)})
    assert [parameter.name for parameter in spec.parameters()] == [f"{name}.weight", f"{name}.bias"]
    assert spec.at(name) == spec.nodes[name]


@pytest.mark.parametrize("name", ["", "_a", "a.b", "a-b", "a b", "a\n", "é", "a/b", 0, None, b"a"])
def test_malformed_names(name):
    with pytest.raises(SpecError, match=r"layer name .*: expected letters, digits and underscores"):
        Sequential(children={name: Identity()})


@pytest.mark.parametrize("name", [*RESERVED, "for", "class", "None"])
def test_reserved_names(name):
    with pytest.raises(SpecError, match=f"layer name '{name}' is reserved; choose another"):
        Parallel(children={name: Identity()})


@pytest.mark.parametrize("children", [None, [], "ab", 3, [("a", Identity())], {Identity()}])
def test_children_are_an_object(children):
    with pytest.raises(SpecError, match="sequential: children: expected an object of named layers, got"):
        Sequential(children=children)


@pytest.mark.parametrize("child", [None, Identity, 3, "identity", [Identity()]])
def test_children_are_layers(child):
    with pytest.raises(SpecError, match=r"children: act > expected a layer \(an object with a 'kind'\), got"):
        Sequential(children={"act": child})


def test_weighting_is_a_layer_or_its_document():
    branches = {"a": Identity()}
    given = Parallel(children=branches, merge="dynamic", weighting={"kind": "activation", "function": "softmax"})
    assert given.weighting == Activation(function="softmax")
    with pytest.raises(SpecError, match="parallel: weighting: expected a layer"):
        Parallel(children=branches, merge="dynamic", weighting=3)
