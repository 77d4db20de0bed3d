"""Pruning: the branches and channels that it removes, what it keeps, and the errors."""

import numpy as np
import pytest

from maam import DeploymentError, WeightsError, spec
from maam.deploy import prune, prune_file
from maam.reference import ReferenceModel
from maam.spec import Activation, BatchNorm2d, Conv2d, Flatten, GlobalPool, Linear, MaxPool2d, Residual, Sequential
from maam.weights import read_weights, write_weights
from tests.errors import error_of
from tests.parity.models import SMALL as NODE
from tests.parity.models import scrambled

ARRAYS = scrambled(NODE)
MAPS = (3, 8, 8)
RELU, NORM = Activation(function="relu"), BatchNorm2d(num_features=8)
NEEDED = "prune: expected a spec and its weights, got"
ADVICE = r"to prune a .* use maam\.deploy\.prune_file"
SHARE = r"expected a number in \[0, 1\), got"


def conv(inputs, outputs, size=3, **options):
    return Conv2d(in_channels=inputs, out_channels=outputs, kernel_size=size, padding=size // 2, **options)


FIRST = (conv(3, 8), NORM)


def chain(*nodes):
    return Sequential(children={str(index): node for index, node in enumerate(nodes)})


def branches(merge):
    """Return two branches of a convolution and a batch norm each."""
    return spec.Parallel(children={name: chain(*FIRST) for name in "ab"}, merge=merge)


def check_shapes(node, arrays):
    assert {p.name: p.shape for p in node.parameters()} == {name: array.shape for name, array in arrays.items()}


def assert_same_outputs(one, other, x, tolerance):
    np.testing.assert_allclose(ReferenceModel(*one)(x), ReferenceModel(*other)(x), rtol=tolerance, atol=tolerance)


def test_branches_of_small_weight():
    arrays = {**ARRAYS, "agents.alpha": np.array([1.0, -9.0, 1.5], np.float32)}
    pruned, kept = prune(NODE, arrays, min_weight=0.01)
    assert list(pruned.at("agents").children) == ["0", "2"]
    np.testing.assert_array_equal(kept["agents.alpha"], [1.0, 1.5])
    assert set(kept) == {name for name in arrays if not name.startswith("agents.1.")}
    assert_same_outputs((pruned, kept), (NODE, arrays), np.random.default_rng(0).random((3, 1, 8, 8)), 1e-3)

    pruned, _ = prune(NODE, {**ARRAYS, "agents.alpha": np.array([0.0, 0.1, 0.0])}, min_weight=0.9)
    assert list(pruned.at("agents").children) == ["1"]  # the branch of the largest weight is always kept


LINEAR = Linear(in_features=512, out_features=5)
CHAINS = {
    "chain": (chain(*FIRST, RELU, conv(8, 4)), "1"),
    "nested": (chain(chain(*FIRST), RELU, chain(conv(8, 4))), "0.1"),
    "pooled": (chain(conv(3, 8, bias=False), NORM, MaxPool2d(kernel_size=2), conv(8, 4, 1)), "1"),
    "flattened": (chain(*FIRST, RELU, Flatten(), LINEAR), "1"),
    "global": (chain(*FIRST, GlobalPool(), Flatten(), Linear(in_features=8, out_features=2)), "1"),
    "residual": (Residual(children={"a": conv(3, 8), "b": NORM, "c": conv(8, 3)}), "b"),
    "units": (chain(*FIRST, Residual(children={"a": conv(8, 8), "b": NORM}), RELU, conv(8, 4)), "1 2.b"),
    "se": (chain(*FIRST, RELU, spec.se(8), conv(8, 4)), "1"),
    "cbam": (chain(*FIRST, conv(8, 8, 3, groups=8), NORM, spec.cbam(8, spatial=False), conv(8, 4)), "1 3"),
    "sum": (chain(branches("sum"), conv(8, 4)), "0.a.1 0.b.1"),
    "softmax": (chain(branches("softmax"), Flatten(), LINEAR), "0.a.1 0.b.1"),
    "concat": (chain(branches("concat"), RELU, conv(16, 4)), "0.a.1 0.b.1"),
}
"""Networks, and the paths of the batch norms whose channels can go."""


@pytest.mark.parametrize(("node", "norm"), CHAINS.values(), ids=CHAINS)
def test_removed_channels_that_were_zero_change_no_output(node, norm):
    arrays, zero = scrambled(node), [1, 4, 5]
    for path in norm.split():
        arrays[f"{path}.weight"][zero] = arrays[f"{path}.bias"][zero] = 0
    pruned, kept = prune(node, arrays, channels=3 / 8)
    for path in norm.split():
        np.testing.assert_array_equal(kept[f"{path}.weight"], np.delete(arrays[f"{path}.weight"], zero))
    assert_same_outputs((pruned, kept), (node, arrays), np.random.default_rng(0).normal(size=(2, *MAPS)), 1e-6)
    assert pruned.num_parameters < node.num_parameters
    check_shapes(pruned, kept)


def test_depthwise_convolutions_between_follow():
    node = spec.maam(3, 8, depthwise=True, hidden_channels=6)
    pruned, _ = prune(node, scrambled(node), channels=0.5)
    depthwise = pruned.at("agents.1.conv2.depthwise")
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (3, 3, 3)
    assert pruned.at("agents.1.conv1.pointwise").out_channels == 3
    assert pruned.output_shape(MAPS) == node.output_shape(MAPS)


@pytest.mark.parametrize("name", [n for n in spec.list_presets("m*") if n not in ("mlp", "maam_imagenet")])
def test_presets(name):
    options = {"cifar": True, "width_multiplier": 0.2, "channels": (12, 24, 24) if "net" in name else 8}
    options |= {"hidden_channels": 4, "hidden_features": 16}
    node = spec.preset(name, **{key: options[key] for key in options.keys() & spec.preset_options(name).keys()})
    pruned, kept = prune(node, scrambled(node), channels=0.3)
    assert pruned.macs(node.input_shape) < node.macs(node.input_shape)
    assert pruned.output_shape(node.input_shape) == node.output_shape(node.input_shape)
    check_shapes(pruned, kept)
    assert [path for path, _ in pruned.walk()] == [path for path, _ in node.walk()]


def test_rounding_of_shares():
    """Each layer keeps a channel; 0.29 * 100 is less than 29 in binary; a number can be one of NumPy."""
    pruned, _ = prune(NODE, ARRAYS, channels=0.99)
    paths = ("agents.0.conv1", "reduce.conv", "agents.0.conv2")  # the last one: the same channel in all branches
    assert [pruned.at(path).out_channels for path in paths] == [1, 1, 1]
    node = chain(conv(2, 100), BatchNorm2d(num_features=100), conv(100, 2, 1))
    assert prune(node, scrambled(node), channels=0.29)[0].at("0").out_channels == 71
    assert prune(NODE, ARRAYS, channels=np.float32(0.5))[0] == prune(NODE, ARRAYS, channels=0.5)[0]


BLOCK = Residual(children={"a": conv(3, 3), "b": BatchNorm2d(num_features=3)})
OUTPUTS = chain(BLOCK, *FIRST, Activation(function="softmax"))
"""All channels belong to the input, the output or a softmax."""


def equal(node, count=3, dtype=float):
    """Return a spec, and weights with equal branches."""
    return node, scrambled(node) | {"agents.alpha": np.zeros(count, dtype)}


FEW = "no layer with a batch norm has enough channels; pass larger values, and a model t"
MANY = {count: spec.maam(2, num_agents=count, hidden_channels=2) for count in (5, 25)}
SMALLEST = [(count, equal(node, count, dtype)) for count, node in MANY.items() for dtype in (np.float16, np.float32)]
"""Networks whose branches have exactly the smallest weight, 1 / count."""
REFUSED = [
    (equal(NODE), {"channels": 1.0}, rf"^channels: {SHARE} 1\.0$"),
    (equal(NODE), {"min_weight": -0.1}, rf"^min_weight: {SHARE} -0\.1$"),
    (equal(NODE), {"channels": True}, f"^channels: {SHARE} True$"),
    (equal(NODE), {}, r"^nothing to prune with min_weight=0\.0 and channels=0\.0: no branch has a smaller weight"),
    (equal(NODE), {"min_weight": 0.1}, "nothing to prune"),
    (equal(NODE), {"channels": 0.01}, FEW),
    *(((node, scrambled(node)), {"channels": 0.5}, "nothing to prune") for node in (spec.preset("cnn"), OUTPUTS)),
    *((given, {"min_weight": 1 / count}, "nothing to prune") for count, given in SMALLEST),
    ((NODE,), {"channels": 0.5}, rf"^{NEEDED} a spec alone; {ADVICE}$"),
    (("x.safetensors",), {"channels": 0.5}, rf"^{NEEDED} an object of type str; {ADVICE}$"),
]


@pytest.mark.parametrize(("given", "options", "message"), REFUSED)
def test_refused(given, options, message):
    """Wrong shares, networks without free channels, branches of exactly the smallest weight, and no weights."""
    with pytest.raises(DeploymentError, match=message):
        prune(*given, **options)


def test_a_flattened_channel_is_several_channels_of_the_next_map():
    norm, wide = BatchNorm2d(num_features=4), BatchNorm2d(num_features=16)
    reshaped = (Flatten(), spec.Unflatten())
    node = chain(conv(2, 4), norm, *reshaped, wide, conv(16, 3, 1), BatchNorm2d(num_features=3), conv(3, 2, 1))
    pruned, kept = prune(node, scrambled(node), channels=0.5)
    assert [pruned.at(path).in_channels_expected for path in ("1", "4", "5", "7")] == [2, 8, 8, 2]
    assert ReferenceModel(pruned, kept)(np.zeros((1, 2, 2, 2))).shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("name", "least", "text"),
    [
        ("mobilenet_v1", 0.58, "748 of 1,506 channels removed (50 %); 10 are fixed by inputs and outputs"),
        ("mafc_v2", 0.63, ", 24 have no batch norm"),
        ("maam_digits", 0.55, "88 of 250 channels removed (35 %); 10 are fixed by inputs and outputs, 64 have no b"),
    ],
)
def test_files_with_half_of_the_channels(tmp_path, name, least, text):
    """Channels go through gates and across units."""
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    small = {"cifar": True, "width_multiplier": 0.25} if name != "maam_digits" else {}
    node = spec.preset(name, num_classes=10, **small)
    with pytest.raises(WeightsError, match="is the suffix of another format"):
        prune_file(source, tmp_path / "out.pth", channels=0.5)
    write_weights(source, node, spec.draw(node.parameters(), 0))
    found = prune_file(source, target, channels=0.5)
    pruned, kept = read_weights(target)
    assert pruned == found.spec
    assert pruned.output_shape(node.input_shape) == (10,)
    assert found.parameters == (node.num_parameters, pruned.num_parameters)
    assert found.macs == (node.macs(node.input_shape), pruned.macs(node.input_shape))
    assert found.parameters[1] < (1 - least) * found.parameters[0]
    assert text in str(found.channels)
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}
    assert "exists" in error_of(DeploymentError, prune_file, source, target, channels=0.5)
