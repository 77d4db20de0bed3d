"""The MAAM layer and stem: what each argument changes."""

import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    MaxPool2d,
    Parallel,
    Sequential,
    agent_block,
    maam,
    reduce_layer,
)


def conv(path, spec):
    node = spec.at(path)
    return node.in_channels, node.out_channels, node.kernel_size, node.padding, node.groups, node.bias


def names(spec):
    return [parameter.name for parameter in spec.parameters()]


def test_the_default_layer_keeps_the_shape():
    spec = maam(8)
    assert spec.output_shape((8, 5, 9)) == (8, 5, 9)
    assert list(spec.nodes) == ["agents", "reduce"]
    assert list(spec.at("agents").nodes) == ["0", "1", "2"]
    assert list(spec.at("agents.1").nodes) == ["conv1", "bn1", "act1", "conv2", "bn2", "act2"]
    assert conv("agents.0.conv1", spec) == (8, 4, 3, 1, 1, False)
    assert conv("agents.0.conv2", spec) == (4, 8, 3, 1, 1, False)
    assert conv("reduce.conv", spec) == (8, 8, 1, 0, 1, False)
    assert spec.num_parameters == 3 * (9 * (8 * 4 + 4 * 8) + 2 * (4 + 8)) + 3 + (64 + 16)


@pytest.mark.parametrize(("out", "hidden"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (128, 64)])
def test_hidden_channels_default_to_half_of_the_output(out, hidden):
    assert maam(5, out).at("agents.0.conv1").out_channels == hidden
    assert maam(out).at("agents.0.conv1").out_channels == hidden


def test_channels():
    spec = maam(3, 6, hidden_channels=5)
    assert [conv(f"agents.2.conv{i}", spec)[:2] for i in (1, 2)] == [(3, 5), (5, 6)]
    assert spec.at("agents.1.bn1").num_features == 5
    assert conv("reduce.conv", spec)[:2] == (6, 6)
    assert spec.output_shape((3, 4, 4)) == (6, 4, 4)
    assert maam(3, 6) == maam(3, out_channels=6) != maam(3)


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_number_of_agents(agents):
    spec = maam(4, num_agents=agents)
    assert list(spec.at("agents").nodes) == [str(index) for index in range(agents)]
    assert spec.at("agents").own_parameters()[0].shape == (agents,)


def test_kernel_sizes():
    spec = maam(4, kernel_sizes=(1, 3, 7))
    for index, kernel_size in enumerate((1, 3, 7)):
        for name in ("conv1", "conv2"):
            assert conv(f"agents.{index}.{name}", spec)[2:4] == (kernel_size, kernel_size // 2)
    assert spec.output_shape((4, 5, 5)) == (4, 5, 5)
    assert maam(4, kernel_sizes=5) == maam(4, kernel_sizes=[5, 5, 5]) != maam(4)


def test_scales():
    spec = maam(4, scales=(1, 2, 4))
    assert [spec.at(f"agents.{i}").kind for i in range(3)] == ["sequential", "resize", "resize"]
    assert spec.at("agents.2.scale") == AvgPool2d(kernel_size=4)
    shapes = {path: out for path, _, _, out in spec.summary((4, 9, 11))}
    assert shapes["agents.2.scale"] == (4, 2, 2)
    assert shapes["agents.2"] == shapes["agents.0"] == (4, 9, 11)
    assert names(spec) == names(maam(4))
    assert maam(4, scales=2) == maam(4, scales=(2, 2, 2)) != maam(4)


@pytest.mark.parametrize(
    ("pool", "pools", "size"),
    [
        (1, {}, 16),
        (2, {"pool2": 2}, 8),
        ((1, 2), {"pool2": 2}, 8),
        ((2, 1), {"pool1": 2}, 8),
        ((2, 3), {"pool1": 2, "pool2": 3}, 2),
    ],
)
def test_pool_is_after_the_last_convolution_or_after_each(pool, pools, size):
    spec = maam(4, pool=pool, scales=(1, 1, 2))
    for index in range(3):
        found = {
            name: node.kernel_size for name, node in spec.at(f"agents.{index}").nodes.items() if type(node) is MaxPool2d
        }
        assert found == pools
    assert spec.output_shape((4, 16, 16)) == (4, size, size)


def test_pools_follow_their_activation():
    nodes = list(maam(4, pool=(2, 2)).at("agents.0").nodes)
    assert nodes == ["conv1", "bn1", "act1", "pool1", "conv2", "bn2", "act2", "pool2"]


def test_softmax_fusion_has_one_alpha_a_branch():
    spec = maam(4, fusion="softmax")
    assert spec == maam(4)
    assert spec.at("agents").merge == "softmax"
    assert "agents.alpha" in names(spec)


def test_mean_fusion_has_constant_weights():
    spec = maam(4, num_agents=4, fusion="mean")
    assert (spec.at("agents").merge, spec.at("agents").weights) == ("weighted", (0.25,) * 4)
    assert "agents.alpha" not in names(spec)


def test_dynamic_fusion_maps_the_pooled_input_to_one_weight_a_branch():
    spec = maam(5, 6, num_agents=2, fusion="dynamic")
    weighting = spec.at("agents.weighting")
    assert [node.kind for node in weighting.nodes.values()] == ["global_pool", "flatten", "linear", "activation"]
    assert weighting.at("softmax") == Activation(function="softmax")
    assert weighting.output_shape((5, 8, 8)) == (2,)
    assert [name for name in names(spec) if "weighting" in name] == [
        f"agents.weighting.fc.{n}" for n in ("weight", "bias")
    ]
    assert spec.num_parameters - maam(5, 6, num_agents=2).num_parameters == 5 * 2 + 2 - 2


def test_without_reduce_the_fused_map_is_the_output():
    spec = maam(4, 6, reduce=False)
    assert list(spec.nodes) == ["agents"]
    assert spec.output_shape((4, 8, 8)) == (6, 8, 8)
    assert not any(name.startswith("reduce") for name in names(spec))


def test_depthwise_is_a_depthwise_convolution_and_a_1x1():
    spec = maam(4, 6, hidden_channels=5, kernel_sizes=5, depthwise=True)
    assert conv("agents.0.conv1.depthwise", spec) == (4, 4, 5, 2, 4, False)
    assert conv("agents.0.conv1.pointwise", spec) == (4, 5, 1, 0, 1, False)
    assert conv("agents.0.conv2.depthwise", spec) == (5, 5, 5, 2, 5, False)
    assert list(spec.at("agents.0").nodes) == ["conv1", "bn1", "act1", "conv2", "bn2", "act2"]
    assert spec.output_shape((4, 7, 7)) == (6, 7, 7)
    biased = maam(4, depthwise=True, norm_layer="identity")
    assert (conv("agents.0.conv1.depthwise", biased)[5], conv("agents.0.conv1.pointwise", biased)[5]) == (False, True)


def test_act_layer():
    spec = maam(4, act_layer="hard_swish")
    functions = {path: node.function for path, node in spec.walk() if isinstance(node, Activation)}
    assert set(functions.values()) == {"hard_swish"}
    assert len(functions) == 3 * 2 + 1
    dynamic = maam(4, act_layer="tanh", fusion="dynamic")
    assert dynamic.at("agents.weighting.softmax").function == "softmax"


def test_norm_layer_identity_takes_batch_norm_away_and_gives_biases():
    spec = maam(4, norm_layer="identity")
    assert not any(isinstance(node, BatchNorm2d) for _, node in spec.walk())
    assert all(node.bias for _, node in spec.walk() if isinstance(node, Conv2d))
    assert list(spec.at("reduce").nodes) == ["conv", "act"]


def test_parts():
    spec = maam(3, 6, pool=2, kernel_sizes=5, scales=2)
    assert spec.at("agents.0") == agent_block(3, 6, kernel_size=5, scale=2, pool=2)
    assert spec.at("reduce") == reduce_layer(6)
    assert reduce_layer(3, 6).output_shape((3, 4, 4)) == (6, 4, 4)
    assert isinstance(spec, Sequential)
    assert isinstance(spec.at("agents"), Parallel)


def test_it_is_the_body_of_the_network():
    options = {"fusion": "dynamic", "reduce": False, "depthwise": False, "act_layer": "silu", "norm_layer": "identity"}
    for given in ({}, options):
        model = spec.maam_imagenet(in_channels=1, channels=(8, 16), image_size=64, **given)
        assert dict(spec.maam_stem(1, (8, 16), **given).children) == dict(list(model.children.items())[:-1])


def test_shapes():
    assert spec.maam_stem(3, (8, 16, 32)).output_shape((3, 64, 96)) == (32, 4, 6)
    assert spec.maam_stem(3, 8).output_shape((3, 9, 9)) == (8, 2, 2)


def test_a_projection():
    node = spec.maam_stem(3, (8, 16), 24)
    assert node.output_shape((3, 32, 32)) == (24, 4, 4)
    assert list(node.children) == ["stem", "stage1", "stage2", "proj"]
    assert node.at("proj").num_parameters == 17 * 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, ()), "channels: expected at least one value"),
        ((3, (8,), 0), "out_channels: input should be greater than or equal to 1"),
        ((0, (8,)), "in_channels: input should be greater than or equal to 1"),
    ],
)
def test_invalid_arguments_of_the_stem(arguments, message):
    with pytest.raises(SpecError) as caught:
        spec.maam_stem(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("patch_size", "out_channels", "widths"), [(4, 16, (16,)), (16, 768, (192, 384, 768)), (16, 16, (8, 8, 16))]
)
def test_widths_for_patches(patch_size, out_channels, widths):
    assert spec.patch_widths(patch_size, out_channels) == widths
    side = 3 * patch_size
    assert spec.maam_stem(3, widths, 5).output_shape((3, side, side)) == (5, 3, 3)


@pytest.mark.parametrize("patch_size", [2, 14, (16, 8), 4.0])
def test_invalid_patch_sizes(patch_size):
    with pytest.raises(SpecError, match="patch_size: expected a power of two of at least 4, got"):
        spec.patch_widths(patch_size, 16)
