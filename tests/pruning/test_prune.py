"""Pruning: what goes, what stays, and that nothing else changes."""

import numpy as np
import pytest

from maam import DeploymentError, WeightsError, spec
from maam.deploy import prune, prune_file
from maam.reference import ReferenceModel
from maam.spec import Activation, BatchNorm2d, Conv2d, Flatten, GlobalPool, Linear, MaxPool2d, Residual, Sequential
from maam.weights import read_weights, write_weights

SMALL = {"channels": 8, "hidden_channels": 4, "hidden_features": 16}
NODE = spec.preset("maam_digits", **SMALL)
RELU = Activation(function="relu")


def scrambled(node, seed=5):
    generator = np.random.default_rng(seed)
    arrays = spec.draw(node.parameters(), seed)
    for p in node.parameters():
        if p.role is not spec.Role.WEIGHT:
            low = 0.5 if p.role in (spec.Role.RUNNING_VAR, spec.Role.NORM_WEIGHT) else -0.5
            arrays[p.name] = generator.uniform(low, low + 1, p.shape).astype(np.float32)
    return arrays


def conv(inputs, outputs, size=3, **options):
    return Conv2d(in_channels=inputs, out_channels=outputs, kernel_size=size, padding=size // 2, **options)


def chain(*nodes):
    return Sequential(children={str(index): node for index, node in enumerate(nodes)})


def silenced(arrays, norm, channels):
    """The channels behind a batch norm made 0 for every input, so that losing them changes nothing."""
    for local in ("weight", "bias"):
        arrays[f"{norm}.{local}"][channels] = 0
    return arrays


def test_branches_of_small_weight():
    arrays = {**scrambled(NODE), "agents.alpha": np.array([1.0, -9.0, 1.5], np.float32)}
    pruned, kept = prune(NODE, arrays, min_weight=0.01)
    assert list(pruned.at("agents").children) == ["0", "2"]
    np.testing.assert_array_equal(kept["agents.alpha"], [1.0, 1.5])
    assert set(kept) == {name for name in arrays if not name.startswith("agents.1.")}
    x = np.random.default_rng(0).random((3, 1, 8, 8))
    np.testing.assert_allclose(ReferenceModel(pruned, kept)(x), ReferenceModel(NODE, arrays)(x), rtol=1e-3, atol=1e-3)


def test_the_heaviest_branch_stays():
    pruned, _ = prune(NODE, {**scrambled(NODE), "agents.alpha": np.array([0.0, 0.1, 0.0])}, min_weight=0.9)
    assert list(pruned.at("agents").children) == ["1"]


MAPS = (3, 8, 8)


@pytest.mark.parametrize(
    ("node", "norm", "width"),
    [
        (chain(conv(3, 8), BatchNorm2d(num_features=8), RELU, conv(8, 4)), "1", 8),
        (chain(chain(conv(3, 8), BatchNorm2d(num_features=8)), RELU, chain(conv(8, 4))), "0.1", 8),
        (chain(conv(3, 8, bias=False), BatchNorm2d(num_features=8), MaxPool2d(kernel_size=2), conv(8, 4, 1)), "1", 8),
        (
            chain(conv(3, 8), BatchNorm2d(num_features=8), RELU, Flatten(), Linear(in_features=512, out_features=5)),
            "1",
            8,
        ),
        (
            chain(
                conv(3, 8), BatchNorm2d(num_features=8), GlobalPool(), Flatten(), Linear(in_features=8, out_features=2)
            ),
            "1",
            8,
        ),
        (Residual(children={"a": conv(3, 8), "b": BatchNorm2d(num_features=8), "c": conv(8, 3)}), "b", 8),
    ],
    ids=["chain", "nested", "pooled", "flattened", "global", "residual"],
)
def test_channels_of_no_weight_make_no_difference(node, norm, width):
    arrays = silenced(scrambled(node), norm, [1, 4, 5])
    pruned, kept = prune(node, arrays, channels=3 / width)
    np.testing.assert_array_equal(kept[f"{norm}.weight"], np.delete(arrays[f"{norm}.weight"], [1, 4, 5]))
    x = np.random.default_rng(0).normal(size=(2, *MAPS))
    np.testing.assert_allclose(ReferenceModel(pruned, kept)(x), ReferenceModel(node, arrays)(x), rtol=1e-6, atol=1e-6)
    assert pruned.num_parameters < node.num_parameters
    assert {p.name: p.shape for p in pruned.parameters()} == {name: array.shape for name, array in kept.items()}


def test_depthwise_convolutions_between_follow():
    node = spec.maam(3, 8, depthwise=True, hidden_channels=6)
    pruned, _ = prune(node, scrambled(node), channels=0.5)
    depthwise = pruned.at("agents.1.conv2.depthwise")
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (3, 3, 3)
    assert pruned.at("agents.1.conv1.pointwise").out_channels == 3
    assert pruned.output_shape(MAPS) == node.output_shape(MAPS)


@pytest.mark.parametrize("name", [n for n in spec.list_presets("m*") if n not in ("mlp", "maam_imagenet")])
def test_presets(name):
    narrow = {"cifar": True, "width_multiplier": 0.2} if name.startswith(("mafc", "mobile")) else SMALL
    node = spec.preset(name, **narrow)
    pruned, kept = prune(node, scrambled(node), channels=0.3)
    assert pruned.macs(node.input_shape) < node.macs(node.input_shape)
    assert pruned.output_shape(node.input_shape) == node.output_shape(node.input_shape)
    assert {p.name: p.shape for p in pruned.parameters()} == {key: array.shape for key, array in kept.items()}
    assert [path for path, _ in pruned.walk()] == [path for path, _ in node.walk()]


def test_each_layer_keeps_one_channel():
    pruned, _ = prune(NODE, scrambled(NODE), channels=0.99)
    assert pruned.at("agents.0.conv1").out_channels == 1
    assert pruned.at("reduce.conv").out_channels == 1
    assert pruned.at("agents.0.conv2").out_channels == 8  # all branches give the same channels


@pytest.mark.parametrize(
    ("node", "options", "match"),
    [
        (NODE, {"channels": 1.0}, r"^channels: expected a number in \[0, 1\), got 1\.0$"),
        (NODE, {"min_weight": -0.1}, r"^min_weight: expected a number in \[0, 1\), got -0\.1$"),
        (NODE, {}, r"^nothing to prune with min_weight 0\.0 and channels 0\.0: no branch is that light"),
        (NODE, {"min_weight": 0.1}, "nothing to prune"),
        (NODE, {"channels": 0.01}, "no layer has so many channels that the share is one of them"),
        (NODE, {"channels": True}, r"^channels: expected a number in \[0, 1\), got True$"),
        (spec.preset("cnn"), {"channels": 0.5}, "nothing to prune"),
    ],
)
def test_refusals(node, options, match):
    arrays = {**scrambled(node), **({"agents.alpha": np.zeros(3)} if node is NODE else {})}
    with pytest.raises(DeploymentError, match=match):
        prune(node, arrays, **options)


def test_numbers_of_numpy():
    assert prune(NODE, scrambled(NODE), channels=np.float32(0.5))[0] == prune(NODE, scrambled(NODE), channels=0.5)[0]


@pytest.mark.parametrize(("given", "what"), [(NODE, "a spec alone"), ("x.safetensors", "an object of type str")])
def test_without_weights(given, what):
    with pytest.raises(DeploymentError, match=rf"expected a spec and its weights, got {what}; maam\.pruning\."):
        prune(given, channels=0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("count", [5, 25])
def test_branches_of_the_least_weight_stay(count, dtype):
    node = spec.maam(2, num_agents=count, hidden_channels=2)
    arrays = scrambled(node) | {"agents.alpha": np.zeros(count, dtype)}
    with pytest.raises(DeploymentError, match="nothing to prune"):
        prune(node, arrays, min_weight=1 / count)


def test_a_batch_norm_of_other_channels_ends_the_run():
    """Flattened and unflattened, the channels of a map are others."""
    norm, wide = BatchNorm2d(num_features=4), BatchNorm2d(num_features=16)
    flat = (Flatten(), spec.Unflatten())
    node = chain(conv(2, 4), norm, *flat, wide, conv(16, 3, 1), BatchNorm2d(num_features=3), conv(3, 2, 1))
    pruned, kept = prune(node, scrambled(node), channels=0.5)
    assert pruned.at("0").out_channels == 4
    assert pruned.at("5").out_channels == 2
    assert ReferenceModel(pruned, kept)(np.zeros((1, 2, 2, 2))).shape == (1, 2, 1, 1)


def test_a_name_of_another_format(tmp_path):
    with pytest.raises(WeightsError, match="is the suffix of another format"):
        prune_file(tmp_path / "none.safetensors", tmp_path / "out.pth", channels=0.5)


def test_files(tmp_path):
    write_weights(tmp_path / "in.safetensors", NODE, scrambled(NODE))
    found = prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", channels=0.5)
    node, kept = read_weights(tmp_path / "out.safetensors")
    assert node == found.spec
    assert found.parameters == (NODE.num_parameters, node.num_parameters)
    assert found.macs == (NODE.macs(NODE.input_shape), node.macs(NODE.input_shape))
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}
    with pytest.raises(DeploymentError, match="exists"):
        prune_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", channels=0.5)


def test_a_share_is_taken_as_it_is_written():
    """0.29 * 100 is less than 29 in binary."""
    node = chain(conv(2, 100), BatchNorm2d(num_features=100), conv(100, 2, 1))
    assert prune(node, scrambled(node), channels=0.29)[0].at("0").out_channels == 71
