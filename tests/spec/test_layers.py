"""The MAAM layer and stem: the effect of each argument."""

import pytest

from maam import spec
from maam.spec import maam, maam_stem
from tests.spec.nodes import chain

BRANCH = ["conv1", "bn1", "act1", "conv2", "bn2", "act2"]


def conv(path, node):
    node = node.at(path)
    return node.in_channels, node.out_channels, node.kernel_size, node.padding, node.groups, node.bias


def names(node):
    return [parameter.name for parameter in node.parameters()]


def test_the_default_layer_keeps_the_shape():
    node = maam(8)
    assert node.output_shape((8, 5, 9)) == (8, 5, 9)
    assert list(node.nodes) == ["agents", "reduce"]
    assert list(node.at("agents").nodes) == ["0", "1", "2"]
    assert list(node.at("agents.1").nodes) == BRANCH
    found = [conv(path, node) for path in ("agents.0.conv1", "agents.0.conv2", "reduce.conv")]
    assert found == [(8, 4, 3, 1, 1, False), (4, 8, 3, 1, 1, False), (8, 8, 1, 0, 1, False)]
    assert node.num_parameters == 3 * (9 * (8 * 4 + 4 * 8) + 2 * (4 + 8)) + 3 + (64 + 16)


def test_parts():
    node = maam(3, 6, pool=2, kernel_sizes=5, scales=2)
    assert node.at("agents.0") == spec.agent_block(3, 6, kernel_size=5, scale=2, pool=2)
    assert node.at("reduce") == spec.reduce_layer(6)
    assert spec.reduce_layer(3, 6).output_shape((3, 4, 4)) == (6, 4, 4)
    assert maam(4, 6, reduce=False) == chain(agents=maam(4, 6).at("agents"))


def test_channels_and_agents():
    node = maam(3, 6, hidden_channels=5)
    assert [conv(f"agents.2.conv{i}", node)[:2] for i in (1, 2)] == [(3, 5), (5, 6)]
    assert node.at("agents.1.bn1").num_features == 5
    assert conv("reduce.conv", node)[:2] == (6, 6)
    assert node.output_shape((3, 4, 4)) == (6, 4, 4)
    assert maam(3, 6) == maam(3, out_channels=6) != maam(3)
    for out, hidden in [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (128, 64)]:  # by default, half of the output
        assert all(layer.at("agents.0.conv1").out_channels == hidden for layer in (maam(5, out), maam(out)))
    for count in (1, 2, 5):
        agents = maam(4, num_agents=count).at("agents")
        assert list(agents.nodes) == [str(index) for index in range(count)]
        assert agents.own_parameters()[0].shape == (count,)


def test_kernel_sizes_and_scales():
    node = maam(4, kernel_sizes=(1, 3, 7))
    for index, kernel_size in enumerate((1, 3, 7)):
        for name in ("conv1", "conv2"):
            assert conv(f"agents.{index}.{name}", node)[2:4] == (kernel_size, kernel_size // 2)
    assert node.output_shape((4, 5, 5)) == (4, 5, 5)
    assert maam(4, kernel_sizes=5) == maam(4, kernel_sizes=[5, 5, 5]) != maam(4)
    node = maam(4, scales=(1, 2, 4))
    assert [node.at(f"agents.{i}").kind for i in range(3)] == ["sequential", "resize", "resize"]
    assert node.at("agents.2.scale") == spec.AvgPool2d(kernel_size=4)
    shapes = {path: out for path, _, _, out in node.summary((4, 9, 11))}
    assert shapes["agents.2.scale"] == (4, 2, 2)
    assert shapes["agents.2"] == shapes["agents.0"] == (4, 9, 11)
    assert names(node) == names(maam(4))
    assert maam(4, scales=2) == maam(4, scales=(2, 2, 2)) != maam(4)


POOLS = [(1, {}, 16), (2, {"pool2": 2}, 8), ((1, 2), {"pool2": 2}, 8), ((2, 1), {"pool1": 2}, 8)]
POOLS += [((2, 3), {"pool1": 2, "pool2": 3}, 2)]


@pytest.mark.parametrize(("pool", "pools", "size"), POOLS)
def test_pool_is_after_the_last_convolution_or_after_each(pool, pools, size):
    node = maam(4, pool=pool, scales=(1, 1, 2))
    order = [name for name in (*BRANCH[:3], "pool1", *BRANCH[3:], "pool2") if name in {*BRANCH, *pools}]
    for index in range(3):
        children = node.at(f"agents.{index}").nodes
        assert {name: n.kernel_size for name, n in children.items() if isinstance(n, spec.MaxPool2d)} == pools
        assert [name for name in children if name != "scale"] == order
    assert node.output_shape((4, 16, 16)) == (4, size, size)


def test_fusion():
    assert maam(4, fusion="softmax") == maam(4)
    assert maam(4).at("agents").merge == "softmax"
    assert "agents.alpha" in names(maam(4))
    mean = maam(4, num_agents=4, fusion="mean")
    assert (mean.at("agents").merge, mean.at("agents").weights) == ("weighted", (0.25,) * 4)
    assert "agents.alpha" not in names(mean)
    node = maam(5, 6, num_agents=2, fusion="dynamic")  # maps the pooled input to one weight a branch
    weighting = node.at("agents.weighting")
    assert [inner.kind for inner in weighting.nodes.values()] == ["global_pool", "flatten", "linear", "activation"]
    assert weighting.output_shape((5, 8, 8)) == (2,)
    fc = ["agents.weighting.fc.weight", "agents.weighting.fc.bias"]
    assert [name for name in names(node) if "weighting" in name] == fc
    assert node.num_parameters - maam(5, 6, num_agents=2).num_parameters == 5 * 2 + 2 - 2


def test_depthwise_is_a_depthwise_convolution_and_a_1x1():
    node = maam(4, 6, hidden_channels=5, kernel_sizes=5, depthwise=True)
    found = [conv(f"agents.0.{path}", node) for path in ("conv1.depthwise", "conv1.pointwise", "conv2.depthwise")]
    assert found == [(4, 4, 5, 2, 4, False), (4, 5, 1, 0, 1, False), (5, 5, 5, 2, 5, False)]
    assert list(node.at("agents.0").nodes) == BRANCH
    assert node.output_shape((4, 7, 7)) == (6, 7, 7)
    biased = maam(4, depthwise=True, norm_layer="identity")
    assert (conv("agents.0.conv1.depthwise", biased)[5], conv("agents.0.conv1.pointwise", biased)[5]) == (False, True)


def test_act_layer_and_norm_layer():
    node = maam(4, act_layer="hard_swish", fusion="dynamic")
    functions = {path: n.function for path, n in node.walk() if isinstance(n, spec.Activation)}
    assert functions.pop("agents.weighting.softmax") == "softmax"
    assert list(functions.values()) == ["hard_swish"] * (3 * 2 + 1)
    plain = maam(4, norm_layer="identity")
    assert not any(isinstance(inner, spec.BatchNorm2d) for _, inner in plain.walk())
    assert all(inner.bias for _, inner in plain.walk() if isinstance(inner, spec.Conv2d))
    assert list(plain.at("reduce").nodes) == ["conv", "act"]


def test_the_stem_is_the_body_of_the_network():
    options = {"fusion": "dynamic", "reduce": False, "depthwise": False, "act_layer": "silu", "norm_layer": "identity"}
    for given in ({}, options):
        model = spec.maam_imagenet(in_channels=1, channels=(8, 16), image_size=64, **given)
        assert dict(maam_stem(1, (8, 16), **given).children) == dict(list(model.children.items())[:-1])
    assert maam_stem(3, (8, 16, 32)).output_shape((3, 64, 96)) == (32, 4, 6)
    assert maam_stem(3, 8).output_shape((3, 9, 9)) == (8, 2, 2)
    node = maam_stem(3, (8, 16), 24)
    assert node.output_shape((3, 32, 32)) == (24, 4, 4)
    assert list(node.children) == ["stem", "stage1", "stage2", "proj"]
    assert node.at("proj").num_parameters == 17 * 24
    for size, out_channels, widths in [(4, 16, (16,)), (16, 768, (192, 384, 768)), (16, 16, (8, 8, 16))]:
        assert spec.patch_widths(size, out_channels) == widths  # for patches
        assert maam_stem(3, widths, 5).output_shape((3, 3 * size, 3 * size)) == (5, 3, 3)
