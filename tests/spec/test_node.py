"""Nodes: the tree, shapes, counts, copies, equality, and the names of children."""

import copy
import pickle

import numpy as np
import pytest

from maam.errors import MaamError, ShapeError, SpecError
from maam.spec import (
    Activation,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    Node,
    Parallel,
    Residual,
    Sequential,
    list_presets,
    maam,
    preset,
)

CONV = Conv2d(in_channels=3, out_channels=4, kernel_size=3)


def chain(**children):
    return Sequential(children=children)


@pytest.fixture
def tree():
    """Return a chain of branches with dynamic weights and a batch norm."""
    weighting = chain(pool=GlobalPool(), flatten=Flatten(), fc=Linear(in_features=3, out_features=2))
    branches = {"b": CONV, "a": chain(conv=CONV, act=Activation(function="relu"))}
    return chain(fuse=Parallel(children=branches, merge="dynamic", weighting=weighting), bn=BatchNorm2d(num_features=4))


def test_walk_yields_children_first_in_order_of_execution(tree):
    paths = [path for path, _ in tree.walk()]
    inner = ["b", "a.conv", "a.act", "a", "weighting.pool", "weighting.flatten", "weighting.fc", "weighting"]
    assert paths == [*(f"fuse.{path}" for path in inner), "fuse", "bn", ""]
    assert dict(tree.walk())["fuse.a.conv"] is tree.at("fuse.a.conv")
    assert [path for path, _ in tree.at("fuse.a").walk("x.y")] == ["x.y.conv", "x.y.act", "x.y"]


def test_at(tree):
    assert tree.at("") is tree
    assert tree.at("fuse.weighting.fc") == Linear(in_features=3, out_features=2)
    with pytest.raises(SpecError) as error:
        tree.at("fuse.a.conv2")
    assert str(error.value) == "no layer 'fuse.a.conv2' in this spec: 'conv2' is not one of ['conv', 'act']"
    with pytest.raises(SpecError, match=r"'weight' is not one of \[\]"):
        tree.at("fuse.b.weight")


def test_depth(tree):
    assert (CONV.depth, tree.at("fuse").depth, tree.depth) == (1, 3, 4)


def test_summary_has_the_shapes_of_every_node(tree):
    shapes = {path: (before, after) for path, _, before, after in tree.summary((3, 5, 7))}
    assert list(shapes) == [path for path, _ in tree.walk()]
    assert shapes["fuse.b"] == shapes["fuse.a.conv"] == ((3, 5, 7), (4, 3, 5))
    assert shapes["fuse.weighting.fc"] == ((3,), (2,))
    assert shapes["fuse.weighting"] == ((3, 5, 7), (2,))
    assert shapes["bn"] == ((4, 3, 5), (4, 3, 5))
    assert shapes[""] == ((3, 5, 7), (4, 3, 5))


def test_parameters_and_counts(tree):
    names = [parameter.name for parameter in tree.parameters()]
    conv, norm = ["weight", "bias"], ["weight", "bias", "running_mean", "running_var"]
    expected = [f"fuse.{path}.{name}" for path in ("b", "a.conv", "weighting.fc") for name in conv]
    assert names == [*expected, *(f"bn.{name}" for name in norm)]
    assert tree.num_parameters == 2 * (3 * 4 * 9 + 4) + (3 * 2 + 2) + 2 * 4
    assert tree.macs((3, 5, 7)) == 2 * (3 * 4 * 9 * 15) + 3 * 2


ASK = {
    "output_shape": lambda node, shape: node.output_shape(shape),
    "macs": lambda node, shape: node.macs(shape),
    "summary": lambda node, shape: list(node.summary(shape)),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_shape_errors_have_the_complete_path(ask):
    with pytest.raises(ShapeError) as error:
        ask(preset("maam_digits"), (3, 8, 8))
    assert str(error.value) == "agents.0.conv1: expected 1 channels, got 3"
    assert (error.value.path, error.value.reason) == ("agents.0.conv1", "expected 1 channels, got 3")
    assert isinstance(error.value, MaamError)
    assert pickle.loads(pickle.dumps(error.value)).path == "agents.0.conv1"


@pytest.mark.parametrize("name", list_presets())
def test_copies_and_pickles_are_equal(name):
    spec = preset(name)
    for other in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec)), spec.model_copy(deep=True)):
        assert other == spec
        assert hash(other) == hash(spec)
        assert type(other) is type(spec)


def test_copies_of_children_are_equal_and_frozen():
    children = maam(4).children
    for other in (copy.copy(children), copy.deepcopy(children), pickle.loads(pickle.dumps(children))):
        assert other == children
        assert hash(other) == hash(children)
        with pytest.raises(TypeError, match="a spec cannot be changed"):
            other["x"] = Identity()


def test_equality_is_of_kind_and_fields():
    assert Conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=1) == CONV
    assert CONV.replace(stride=2) != CONV
    assert chain(a=CONV) != Residual(children={"a": CONV})
    assert chain(a=CONV) != chain(b=CONV)
    assert CONV.to_document() != CONV
    assert len({CONV, CONV.replace(), CONV.replace(bias=False)}) == 2
    assert {maam(4): 1}[maam(4)] == 1


@pytest.mark.parametrize(
    "change", [lambda s: setattr(s, "stride", 2), lambda s: delattr(s, "stride"), lambda s: setattr(s, "new", 1)]
)
def test_fields_are_frozen(change):
    node = CONV.replace(stride=3)
    with pytest.raises(ValueError, match="frozen"):
        change(node)
    assert node == CONV.replace(stride=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(a=CONV),
        lambda c: c.pop("agents"),
        lambda c: c.popitem(),
        lambda c: c.clear(),
        lambda c: c.setdefault("x", CONV),
        lambda c: c.__setitem__("agents", CONV),
        lambda c: c.__delitem__("agents"),
        lambda c: c.__ior__({"x": CONV}),
    ],
)
def test_children_are_frozen(change):
    spec = maam(4)
    with pytest.raises(TypeError, match=r"a spec cannot be changed; use replace\(\) to make another one"):
        change(spec.children)
    assert spec == maam(4)


def test_a_spec_copies_its_children():
    children = {"a": CONV}
    spec = chain(**children)
    given = Sequential(children=children)
    children["b"] = CONV
    assert given == spec


def test_replace_validates():
    assert CONV.replace(kernel_size=5).kernel_size == 5
    assert CONV.model_copy(update={"kernel_size": 5}) == CONV.replace(kernel_size=5)
    assert CONV.kernel_size == 3
    with pytest.raises(SpecError, match="conv2d: kernel_size: input should be greater"):
        CONV.replace(kernel_size=0)
    with pytest.raises(SpecError, match="conv2d: groups: 2 must divide"):
        CONV.model_copy(update={"groups": 2})


def test_fields_are_given_by_name():
    with pytest.raises(TypeError, match=r"^conv2d: expected keyword arguments: in_channels="):
        Conv2d(3, 4, 3)


def test_values_in_messages_are_shortened():
    with pytest.raises(SpecError) as error:
        CONV.replace(stride=np.zeros((9, 9)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 150


def test_kinds_are_the_primitives():
    assert Node.kinds["conv2d"] is Conv2d
    assert all(kind == cls.kind for kind, cls in Node.kinds.items())


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


def test_weighting_accepts_a_layer_or_its_document():
    branches = {"a": Identity()}
    given = Parallel(children=branches, merge="dynamic", weighting={"kind": "activation", "function": "softmax"})
    assert given.weighting == Activation(function="softmax")
    with pytest.raises(SpecError, match="parallel: weighting: expected a layer"):
        Parallel(children=branches, merge="dynamic", weighting=3)
