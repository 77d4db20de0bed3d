"""Nodes: the tree, shapes, counts, copies, equality, and the names of children."""

import pickle

import numpy as np
import pytest

from maam import spec
from maam.errors import MaamError, ShapeError, SpecError
from maam.spec import maam, preset
from tests.errors import error_of
from tests.spec.nodes import FLATTEN, IDENTITY, POOL, RELU, chain, conv, linear, norm, residual

CONV = conv(3, padding=0)
WEIGHTING = chain(pool=POOL, flatten=FLATTEN, fc=linear(3))
BRANCHES = {"b": CONV, "a": chain(conv=CONV, act=RELU)}
TREE = chain(fuse=spec.Parallel(children=BRANCHES, merge="dynamic", weighting=WEIGHTING), bn=norm(4))


def test_walk_yields_children_first_and_at_finds_them():
    inner = ["b", "a.conv", "a.act", "a", "weighting.pool", "weighting.flatten", "weighting.fc", "weighting"]
    assert [path for path, _ in TREE.walk()] == [*(f"fuse.{path}" for path in inner), "fuse", "bn", ""]
    assert dict(TREE.walk())["fuse.a.conv"] is TREE.at("fuse.a.conv")
    assert [path for path, _ in TREE.at("fuse.a").walk("x.y")] == ["x.y.conv", "x.y.act", "x.y"]
    assert TREE.at("") is TREE
    assert TREE.at("fuse.weighting.fc") == linear(3)
    message = "no layer 'fuse.a.conv2' in this spec: 'conv2' is not one of ['conv', 'act']"
    assert error_of(SpecError, TREE.at, "fuse.a.conv2") == message
    assert error_of(SpecError, TREE.at, "fuse.b.weight").endswith("'weight' is not one of []")
    assert (CONV.depth, TREE.at("fuse").depth, TREE.depth) == (1, 3, 4)


def test_shapes_parameters_and_counts():
    image, maps = (3, 5, 7), (4, 3, 5)
    shapes = {path: (before, after) for path, _, before, after in TREE.summary(image)}
    expected = {"fuse.b": (image, maps), "fuse.a.conv": (image, maps), "bn": (maps, maps), "": (image, maps)}
    expected |= {"fuse.weighting.fc": ((3,), (2,)), "fuse.weighting": (image, (2,))}
    assert shapes | expected == shapes
    assert list(shapes) == [path for path, _ in TREE.walk()]
    names = [f"fuse.{path}.{name}" for path in ("b", "a.conv", "weighting.fc") for name in ("weight", "bias")]
    names += [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    assert [parameter.name for parameter in TREE.parameters()] == names
    assert TREE.num_parameters == 2 * (3 * 4 * 9 + 4) + (3 * 2 + 2) + 2 * 4
    assert TREE.macs(image) == 2 * (3 * 4 * 9 * 15) + 3 * 2


@pytest.mark.parametrize("method", ["output_shape", "macs", "summary"])
def test_shape_errors_have_the_complete_path(method):
    with pytest.raises(ShapeError) as error:
        list(getattr(preset("maam_digits"), method)((3, 8, 8)))
    assert str(error.value) == "agents.0.conv1: expected 1 channels, got 3"
    assert (error.value.path, error.value.reason) == ("agents.0.conv1", "expected 1 channels, got 3")
    assert isinstance(error.value, MaamError)
    assert pickle.loads(pickle.dumps(error.value)).path == "agents.0.conv1"


def test_equality_is_of_kind_and_fields():
    assert spec.Conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=1) == CONV
    assert CONV.replace(stride=2) != CONV
    assert chain(a=CONV) != residual(a=CONV)
    assert chain(a=CONV) != chain(b=CONV)
    assert chain(a=CONV, b=IDENTITY) != chain(b=IDENTITY, a=CONV)
    assert CONV.to_document() != CONV
    assert len({CONV, CONV.replace(), CONV.replace(bias=False)}) == 2
    children = {"a": CONV}
    given = spec.Sequential(children=children)
    children["b"] = CONV
    assert given == chain(a=CONV)  # a spec copies its children
    assert spec.Node.kinds["conv2d"] is spec.Conv2d
    assert all(kind == cls.kind for kind, cls in spec.Node.kinds.items())


CHANGES = [("update", {"a": CONV}), ("pop", "agents"), ("popitem",), ("clear",), ("setdefault", "x", CONV)]
CHANGES += [("__setitem__", "agents", CONV), ("__delitem__", "agents"), ("__ior__", {"x": CONV})]


def test_fields_and_children_are_frozen():
    node = maam(4)
    for function, *args in ((setattr, "children", {}), (delattr, "children"), (setattr, "new", 1)):
        with pytest.raises(ValueError, match="frozen"):
            function(node, *args)
    for method, *args in CHANGES:
        with pytest.raises(TypeError, match=r"a spec cannot be changed; use replace\(\) to make another one"):
            getattr(node.children, method)(*args)
        assert node == maam(4), method


def test_fields_are_validated_and_given_by_name():
    assert CONV.replace(kernel_size=5).kernel_size == 5
    assert CONV.model_copy(update={"kernel_size": 5}) == CONV.replace(kernel_size=5)
    assert CONV.kernel_size == 3
    assert "conv2d: kernel_size: input should be greater" in error_of(SpecError, CONV.replace, kernel_size=0)
    assert "conv2d: groups: 2 must divide" in error_of(SpecError, CONV.model_copy, update={"groups": 2})
    message = error_of(TypeError, spec.Conv2d, 3, 4, 3)
    assert message.startswith("conv2d: expected keyword arguments: in_channels=, out_channels=")
    assert error_of(ValueError, CONV.replace, kernel=1) == "conv2d: kernel: no such field"
    assert len(error_of(SpecError, CONV.replace, stride=np.zeros((9, 9)))) < 150


@pytest.mark.parametrize("name", ["0", "12", "conv1", "Conv", "a_b", "layer_", "weighting", "x" * 100])
def test_names(name):
    node = chain(**{name: linear(1)})
    assert [parameter.name for parameter in node.parameters()] == [f"{name}.weight", f"{name}.bias"]
    assert node.at(name) == node.nodes[name]


RESERVED = ["alpha", "weight", "bias", "running_mean", "running_var", "spec", "training", "cls_name", "module"]
INVALID_NAMES = ["", "_a", "a.b", "a-b", "a b", "a\n", "é", "a/b", 0, None, b"a"]
NO_OBJECT = "children: expected an object that maps names to layers, got"
NO_LAYER = r"children: act > expected a layer \(an object with a 'kind'\), got"
CHILDREN = [
    *(({name: IDENTITY}, "layer name .*: expected letters, digits and underscores") for name in INVALID_NAMES),
    *(({name: IDENTITY}, f"layer name '{name}' is reserved") for name in (*RESERVED, "for", "class", "None")),
    *((children, NO_OBJECT) for children in (None, [], "ab", 3, [("a", IDENTITY)], {IDENTITY})),
    *(({"act": child}, NO_LAYER) for child in (None, spec.Identity, 3, "identity", [IDENTITY])),
]


@pytest.mark.parametrize(("children", "message"), CHILDREN)
@pytest.mark.parametrize("container", [spec.Sequential, spec.Parallel])
def test_invalid_children(container, children, message):
    with pytest.raises(SpecError, match=message):
        container(children=children)


def test_weighting_accepts_a_layer_or_its_document():
    branches = {"a": IDENTITY}
    given = spec.Parallel(children=branches, merge="dynamic", weighting={"kind": "activation", "function": "softmax"})
    assert given.weighting == spec.Activation(function="softmax")
    with pytest.raises(SpecError, match="parallel: weighting: expected a layer"):
        spec.Parallel(children=branches, merge="dynamic", weighting=3)
