"""Nodes: the tree, shapes, counts, equality, the names of children, parameters and their initial weights."""

import math
import pickle
import zlib

import numpy as np
import pytest

from maam import spec
from maam.errors import MaamError, ShapeError, SpecError
from maam.spec import Init, Parameter, Role, draw, maam, preset
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


GROUPED, LINEAR, NORM = conv(6, 8, groups=2), linear(50, 150), norm(5)
RNN = spec.RNN(input_size=9, hidden_size=16)
DIGITS = preset("maam_digits").parameters()


def table(node):
    return {parameter.name: parameter for parameter in node.parameters()}


def test_rows_and_roles():
    rows = table(chain(bn=NORM, a=spec.Parallel(children={"c": spec.maam(1)}, merge="softmax")))
    variance = Parameter("bn.running_var", (5,), Role.RUNNING_VAR, Init("constant", 1.0))
    alpha = Parameter("a.alpha", (1,), Role.FUSION, Init("constant", 0.0))
    assert (rows["bn.running_var"], rows["a.alpha"]) == (variance, alpha)
    assert rows["a.c.agents.alpha"].shape == (3,)
    assert not rows["bn.running_mean"].trainable
    assert rows["a.c.agents.0.conv1.weight"].size == 9
    nodes = (spec.maam(4), preset("rnn"), spec.gct(4))
    assert {p.role for node in nodes for p in node.parameters()} == set(Role)
    assert {role for role in Role if not role.trainable} == {Role.RUNNING_MEAN, Role.RUNNING_VAR}
    assert Role("norm_weight") is Role.NORM_WEIGHT


FAN_IN, FAN_SUM = 27, 27 + 36
UNIFORM = ("uniform", 1 / math.sqrt(FAN_IN))
INITS = [
    (GROUPED, "weight", UNIFORM),
    (GROUPED, "bias", UNIFORM),
    (GROUPED.replace(init="kaiming_uniform"), "weight", ("uniform", math.sqrt(6 / FAN_IN))),
    (GROUPED.replace(init="kaiming_normal"), "weight", ("normal", math.sqrt(2 / FAN_IN))),
    (GROUPED.replace(init="kaiming_normal"), "bias", UNIFORM),
    (GROUPED.replace(init="xavier_uniform"), "weight", ("uniform", math.sqrt(6 / FAN_SUM))),
    (GROUPED.replace(init="xavier_normal"), "weight", ("normal", math.sqrt(2 / FAN_SUM))),
    (LINEAR, "weight", ("uniform", 1 / math.sqrt(50))),
    (LINEAR, "bias", ("uniform", 1 / math.sqrt(50))),
    (LINEAR.replace(init="xavier_uniform"), "weight", ("uniform", math.sqrt(6 / 200))),
    (RNN, "weight_ih_l0", ("uniform", 0.25)),
    (RNN, "bias_hh_l0", ("uniform", 0.25)),
    (NORM, "weight", ("constant", 1.0)),
    (NORM, "running_mean", ("constant", 0.0)),
]


@pytest.mark.parametrize(("node", "name", "init"), INITS)
def test_initial_distributions(node, name, init):
    assert table(node)[name].init == pytest.approx(init)


def test_draws_are_in_float64_from_seed_and_name_alone_then_rounded():
    arrays = draw(DIGITS, 7)
    assert [(name, a.shape, a.dtype) for name, a in arrays.items()] == [(p.name, p.shape, np.float32) for p in DIGITS]
    generators = {name: np.random.default_rng([7, zlib.crc32(name.encode())]) for name in arrays}
    exact = generators["agents.0.conv1.weight"].normal(0.0, math.sqrt(2 / 9), (16, 1, 3, 3))
    np.testing.assert_array_equal(arrays["agents.0.conv1.weight"], exact.astype(np.float32))
    exact = generators["classifier.fc2.bias"].uniform(-1 / 8, 1 / 8, 10)
    np.testing.assert_array_equal(arrays["classifier.fc2.bias"], exact.astype(np.float32))
    constants = {"agents.alpha": 0, "reduce.bn.running_mean": 0, "reduce.bn.running_var": 1, "reduce.bn.weight": 1}
    assert all(np.all(arrays[name] == value) for name, value in constants.items())
    first, again, other = draw(DIGITS, 3), draw(reversed(DIGITS), 3), draw(DIGITS, 4)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert np.ptp(array) == 0 or not np.array_equal(array, other[name])
    full, mean = (draw(preset(name).parameters(), 1) for name in ("maam_cifar10_2m3", "without_fusion"))
    assert set(full) - set(mean) == {"agents.alpha"}
    for name, array in mean.items():
        np.testing.assert_array_equal(array, full[name])
    assert not np.array_equal(full["agents.0.conv1.weight"], full["agents.1.conv1.weight"])


def test_seeds():
    for seed in (0, 1, 2**32, 2**63 - 1, np.int64(5), np.uint8(5)):
        first, again = (draw(LINEAR.parameters(), value)["weight"] for value in (seed, int(seed)))
        np.testing.assert_array_equal(first, again)
    for seed in (-1, 2**63, 1.0, "1", None, True, np.float32(1), [1]):
        with pytest.raises(SpecError, match=r"seed: expected an integer in \[0, 2\*\*63\), got"):
            draw(LINEAR.parameters(), seed)
