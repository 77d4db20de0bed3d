"""Fusion in the reference: the same outputs to 1e-12, and nothing left to fuse."""

import numpy as np
import pytest

from maam import DeploymentError, WeightsError, spec
from maam.fusion import fuse, is_fusible
from maam.reference import ReferenceModel
from tests.errors import error_of
from tests.fusion.helpers import LAYERS, PRESETS, images, scrambled, small

BN = spec.BatchNorm2d(num_features=4)
RELU = spec.Activation(function="relu")
POOL, AVG, GLOBAL = spec.MaxPool2d(kernel_size=2), spec.AvgPool2d(kernel_size=2), spec.GlobalPool()
FLATTEN = spec.Flatten()


def kinds(node):
    return [inner.kind for _, inner in node.walk()]


def conv(inputs=4, outputs=4, size=3, **options):
    return spec.Conv2d(in_channels=inputs, out_channels=outputs, kernel_size=size, **{"padding": size // 2, **options})


def chain(*nodes):
    return spec.Sequential(children={str(index): node for index, node in enumerate(nodes)})


def check(node, shape=(4, 8, 8), **changed):
    arrays = scrambled(node) | changed
    fused, found = fuse(node, arrays)
    x = images(shape, dtype=np.float64)
    expected = ReferenceModel(node, arrays)(x)
    np.testing.assert_allclose(ReferenceModel(fused, found)(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert expected.any()
    assert not is_fusible(fused)
    assert {array.dtype for array in found.values()} <= {np.dtype(np.float64)}
    assert fused.output_shape(shape) == node.output_shape(shape)
    assert spec.input_rule(fused).accepts((1, *shape))
    return fused


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name):
    network = small(name)
    fused = check(network, network.input_shape)
    assert "batch_norm2d" not in kinds(fused)
    assert fused.name == network.name


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_activation(layer):
    fused = check(layer)
    homogeneous = layer.at("agents.0.act1").function in ("relu", "leaky_relu", "identity")
    expected = "dynamic" if layer.at("agents").merge == "dynamic" else ("sum" if homogeneous else "weighted")
    assert fused.at("agents").merge == expected
    assert "batch_norm2d" not in kinds(fused)
    assert expected != "weighted" or sum(fused.at("agents").weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("node", "left"),
    [
        (chain(conv(bias=True), BN, RELU), ["conv2d", "activation"]),
        (chain(conv(groups=4, bias=False), BN), ["conv2d"]),
        (chain(conv(groups=2, stride=2, dilation=2, padding=2), BN, BN), ["conv2d"]),
        (chain(chain(conv()), BN), ["conv2d", "sequential"]),
        (chain(conv(), spec.Dropout(p=0.5), spec.Identity(), BN), ["conv2d"]),
        (chain(conv(), AVG, BN), ["conv2d", "avg_pool2d"]),
        (chain(conv(), GLOBAL, BN, RELU), ["conv2d", "global_pool", "activation"]),
        (chain(conv(), POOL, BN), ["conv2d", "max_pool2d"]),
        (chain(spec.Resize(children={"c": conv()}), BN), ["conv2d", "resize"]),
        (chain(BN, conv(padding=0)), ["conv2d"]),
        (chain(BN, conv(padding=0, groups=2, outputs=6)), ["conv2d"]),
        (chain(BN, conv(size=1, bias=False)), ["conv2d"]),
        (chain(BN, AVG, chain(conv(padding=0))), ["avg_pool2d", "conv2d", "sequential"]),
        (chain(BN, FLATTEN, spec.Linear(in_features=256, out_features=3)), ["flatten", "linear"]),
        (chain(BN, conv()), ["conv2d", "conv2d"]),  # padded: a per-channel affine
        (chain(RELU, BN, RELU), ["activation", "conv2d", "activation"]),
        (chain(spec.Residual(children={"c": conv()}), BN), ["conv2d", "residual", "conv2d"]),
        (BN, []),
    ],
)
def test_batch_norm_is_fused_into_its_neighbours(node, left):
    assert kinds(check(node))[:-1] == left


def test_a_linear_layer_and_other_options_of_the_layer():
    node = chain(FLATTEN, spec.Linear(in_features=64, out_features=4, bias=False), spec.Unflatten(), BN)
    assert kinds(check(node, (4, 4, 4)))[:-1] == ["flatten", "linear", "unflatten"]
    for options in ({"depthwise": True}, {"norm_layer": "identity"}, {"fusion": "mean"}):
        assert "batch_norm2d" not in kinds(check(spec.maam(4, **options)))


def test_a_negative_scale_does_not_pass_max_pooling():
    fused = check(chain(conv(), POOL, BN), **{"2.weight": np.array([-1.0, 1, 1, 1])})
    assert kinds(fused)[:-1] == ["conv2d", "max_pool2d", "conv2d"]


def branches(merge, *nodes, **options):
    return spec.Parallel(children={f"b{index}": node for index, node in enumerate(nodes)}, merge=merge, **options)


@pytest.mark.parametrize(
    ("inner", "merge"),
    [
        (chain(conv(), RELU, POOL, AVG), "sum"),
        (chain(conv(), spec.Activation(function="leaky_relu"), spec.GlobalPool(function="std")), "sum"),
        (chain(conv(), GLOBAL, FLATTEN, spec.Unflatten()), "sum"),
        (branches("concat", conv(), chain(conv(), RELU)), "sum"),
        (branches("weighted", conv(), RELU, weights=(2.0, -1.0)), "sum"),
        (chain(branches("softmax", conv(), RELU)), "sum"),  # itself weighted, so that it takes a factor
        (chain(conv(), spec.Activation(function="silu")), "weighted"),
        (chain(conv(), spec.Activation(function="relu6")), "weighted"),
        (RELU, "weighted"),
        (spec.Residual(children={"c": conv()}), "weighted"),
    ],
)
def test_branch_weights(inner, merge):
    assert check(branches("softmax", inner, inner)).merge == merge


def test_each_branch_has_its_own_weight():
    fused = check(branches("softmax", conv(), chain(conv(), spec.Activation(function="elu")), RELU))
    assert fused.weights[0] == 1
    assert all(0 < weight < 1 for weight in fused.weights[1:])
    fused = check(chain(branches("weighted", conv(), conv(), weights=(-2.0, 3.0)), BN))
    assert fused.at("0").weights == (-2.0, 1.0)  # a negative constant cannot be fused


def test_nothing_to_fuse():
    for node in (spec.preset("cnn"), spec.maam(4, norm_layer="identity", fusion="mean"), RELU):
        message = error_of(DeploymentError, fuse, node, scrambled(node))
        assert "nothing to fuse: no batch norm and no learned branch weights; the model" in message
    node = spec.preset("maam_digits")  # fused twice
    with pytest.raises(DeploymentError, match=r"maam_digits: nothing to fuse.*is already fused"):
        fuse(*fuse(node, scrambled(node)))


def test_the_given_arrays_must_fit_and_are_not_changed():
    node = spec.maam(4)
    arrays = scrambled(node)
    fuse(node, arrays)
    np.testing.assert_equal(arrays, scrambled(node))
    del arrays["agents.alpha"]
    assert error_of(WeightsError, fuse, node, arrays) == "weights: does not fit the model; missing: agents.alpha"


@pytest.mark.parametrize(
    ("given", "found"),
    [(object(), "an object of type object"), ("maam_digits", "an object of type str"), (BN, "a spec ")],
)
def test_it_takes_a_spec_and_weights(given, found):
    message = error_of(DeploymentError, fuse, given)
    assert message.startswith(f"fuse: expected a spec and its weights, got {found}")
    assert "reparameterize() of a model" in message
