"""Fusion in the reference, where outputs stay the same to 1e-12, in files, and in every backend."""

from typing import get_args

import ml_dtypes
import numpy as np
import pytest

from maam import DeploymentError, WeightsError, spec
from maam.backend.registry import make_runners
from maam.deploy.fusing import agreements, fuse_file
from maam.fusion import fuse, is_fusible
from maam.reference import ReferenceModel
from maam.spec.primitives import ElementwiseName
from maam.tolerance import LAYER, LOGITS, difference
from maam.weights import read_weights, write_weights
from tests.errors import error_of
from tests.parity.models import SMALL, scrambled
from tests.spec.nodes import FLATTEN, POOL, RELU, act, chain, conv, linear, norm, residual

PRESETS = [name for name in spec.list_presets() if name not in ("cnn", "mlp", "rnn")]
BRANCHES = {"kernel_sizes": (3, 1, 3), "scales": (1, 1, 2), "pool": (1, 2)}
LAYERS = {
    f"{act}-{fusion}": spec.maam(4, 6, act_layer=act, fusion=fusion, **BRANCHES)
    for act, fusion in [*((a, "softmax") for a in get_args(ElementwiseName)), ("relu", "dynamic"), ("gelu", "dynamic")]
}
"""The layer with each activation and different branches, with constant and dynamic weights."""
NORM, MAX, AVG = norm(4), spec.MaxPool2d(kernel_size=2), spec.AvgPool2d(kernel_size=2)
NARROW = {"channels": 8, "hidden_channels": 4, "hidden_features": 16, "cifar": True, "width_multiplier": 0.1}
SILU, CHANNELS = act("silu"), act("softmax")


def small(name):
    if name == "maam_imagenet":
        return spec.preset(name, channels=(8, 8, 16, 16), image_size=32)
    return spec.preset(name, **{key: NARROW[key] for key in NARROW.keys() & spec.preset_options(name)})


def images(shape, count=3, dtype=np.float32):
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(dtype)


def kinds(node):
    return [inner.kind for _, inner in node.walk()]


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
        (chain(conv(bias=True), NORM, RELU), ["conv2d", "activation"]),
        (chain(conv(groups=4, bias=False), NORM), ["conv2d"]),
        (chain(conv(groups=2, stride=2, dilation=2, padding=2), NORM, NORM), ["conv2d"]),
        (chain(chain(conv()), NORM), ["conv2d", "sequential"]),
        (chain(conv(), spec.Dropout(p=0.5), spec.Identity(), NORM), ["conv2d"]),
        (chain(conv(), AVG, NORM), ["conv2d", "avg_pool2d"]),
        (chain(conv(), POOL, NORM, RELU), ["conv2d", "global_pool", "activation"]),
        (chain(conv(), MAX, NORM), ["conv2d", "max_pool2d"]),
        (chain(spec.Resize(children={"c": conv()}), NORM), ["conv2d", "resize"]),
        (chain(NORM, conv(padding=0)), ["conv2d"]),
        (chain(NORM, conv(4, 6, padding=0, groups=2)), ["conv2d"]),
        (chain(NORM, conv(kernel_size=1, bias=False)), ["conv2d"]),
        (chain(NORM, AVG, chain(conv(padding=0))), ["avg_pool2d", "conv2d", "sequential"]),
        (chain(NORM, FLATTEN, linear(256, 3)), ["flatten", "linear"]),
        (chain(NORM, conv()), ["conv2d", "conv2d"]),  # padded: a per-channel affine
        (chain(RELU, NORM, RELU), ["activation", "conv2d", "activation"]),
        (chain(residual(c=conv()), NORM), ["conv2d", "residual", "conv2d"]),
        (NORM, []),
    ],
)
def test_batch_norm_is_fused_into_its_neighbors(node, left):
    assert kinds(check(node))[:-1] == left


def test_a_linear_layer_and_other_options_of_the_layer():
    node = chain(FLATTEN, linear(64, 4, bias=False), spec.Unflatten(), NORM)
    assert kinds(check(node, (4, 4, 4)))[:-1] == ["flatten", "linear", "unflatten"]
    for options in ({"depthwise": True}, {"norm_layer": "identity"}, {"fusion": "mean"}):
        assert "batch_norm2d" not in kinds(check(spec.maam(4, **options)))


def test_a_negative_scale_does_not_pass_max_pooling():
    fused = check(chain(conv(), MAX, NORM), **{"2.weight": np.array([-1.0, 1, 1, 1])})
    assert kinds(fused)[:-1] == ["conv2d", "max_pool2d", "conv2d"]


def branches(merge, *nodes, **options):
    return spec.Parallel(children={f"b{index}": node for index, node in enumerate(nodes)}, merge=merge, **options)


@pytest.mark.parametrize(
    ("inner", "merge"),
    [
        (chain(conv(), RELU, MAX, AVG), "sum"),
        (chain(conv(), act("leaky_relu"), spec.GlobalPool(function="std")), "sum"),
        (chain(conv(), POOL, FLATTEN, spec.Unflatten()), "sum"),
        (branches("concat", conv(), chain(conv(), RELU)), "sum"),
        (branches("weighted", conv(), RELU, weights=(2.0, -1.0)), "sum"),
        (chain(branches("softmax", conv(), RELU)), "sum"),  # itself weighted, so that it takes a factor
        (chain(conv(), act("silu")), "weighted"),
        (chain(conv(), act("relu6")), "weighted"),
        (RELU, "weighted"),
        (residual(c=conv()), "weighted"),
    ],
)
def test_branch_weights(inner, merge):
    assert check(branches("softmax", inner, chain(inner))).merge == merge  # they do not begin alike


def test_each_branch_has_its_own_weight():
    fused = check(branches("softmax", conv(), chain(conv(), act("elu")), RELU))
    assert fused.weights[0] == 1
    assert all(0 < weight < 1 for weight in fused.weights[1:])
    fused = check(chain(branches("weighted", conv(), conv(), weights=(-2.0, 3.0)), NORM))
    assert fused.at("0").weights == (-2.0, 1.0)  # a negative constant cannot be fused


def sum_of(*nodes):
    return branches("sum", *nodes)


@pytest.mark.parametrize(
    ("node", "formula", "joined"),
    [
        (
            sum_of(chain(conv(4, 2), norm(2), RELU, MAX, conv(2)), chain(conv(4, 3), RELU, MAX, conv(3), NORM)),
            "branch0(maps[0:2]) + branch1(maps[2:5])",
            ["conv2d", "activation", "max_pool2d"],
        ),
        (sum_of(chain(conv(), RELU, NORM), chain(conv(), SILU)), "branch0(maps[0:4]) + branch1(maps[4:8])", ["conv2d"]),
        (sum_of(chain(conv(), AVG, NORM), chain(conv(), AVG)), "maps[0:4] + maps[4:8]", ["conv2d", "avg_pool2d"]),
        (sum_of(chain(conv(), NORM), chain(conv(), RELU)), "maps[0:4] + branch1(maps[4:8])", ["conv2d"]),
        (
            branches("weighted", chain(conv(), SILU, NORM, SILU), chain(conv(), SILU, SILU), weights=(0.5, 0.5)),
            "0.5 * (branch0(maps[0:4]) + branch1(maps[4:8]))",
            ["conv2d", "activation"],
        ),
        (
            branches("weighted", chain(conv(), NORM, SILU), chain(conv(), SILU), weights=(0.5, -2.0)),
            "0.5 * maps[0:4] + -2.0 * maps[4:8]",
            ["conv2d", "activation"],
        ),
        (
            sum_of(chain(conv(), CHANNELS, NORM), chain(conv(), CHANNELS, NORM)),
            "branch0(maps[0:4]) + branch1(maps[4:8])",
            ["conv2d"],
        ),
    ],
)
def test_branches_that_begin_alike_share_a_layer(node, formula, joined):
    fused = check(node)
    assert fused.formula == f"maps = head(x); {formula}"
    assert kinds(fused.children["head"])[:-1] == joined
    assert fuse(node, scrambled(node), join=False)[0].nodes.keys() == node.nodes.keys()


@pytest.mark.parametrize(
    "node",
    [
        sum_of(chain(conv(), NORM), chain(conv(kernel_size=1))),
        sum_of(chain(conv(), NORM), chain(conv(dilation=2, padding=2))),
        sum_of(chain(conv(groups=2), NORM), chain(conv(groups=2))),
        sum_of(chain(conv(), NORM), chain(conv(bias=False))),
        sum_of(chain(conv(), NORM), conv()),
        sum_of(chain(conv(), NORM), chain(chain(conv()))),
        sum_of(chain(conv(), NORM), chain(RELU, conv())),
        sum_of(chain(conv(), NORM)),
        sum_of(*(chain(conv(), NORM) for _ in range(33))),
        sum_of(chain(conv(out_channels=64), norm(64)), chain(conv(out_channels=64))),
        branches("concat", chain(conv(), NORM), chain(conv(), NORM)),
    ],
)
def test_branches_that_begin_differently_stay(node):
    assert check(node).children.keys() == node.children.keys()


def test_nothing_to_fuse():
    for node in (spec.preset("cnn"), spec.maam(4, norm_layer="identity", fusion="mean"), RELU):
        message = error_of(DeploymentError, fuse, node, scrambled(node))
        assert "nothing to fuse: no batch norm and no learned branch weights; the model" in message
    message = error_of(DeploymentError, fuse, *fuse(SMALL, scrambled(SMALL)))
    assert "maam_digits: nothing to fuse" in message
    assert "is already fused" in message


def test_the_given_arrays_must_fit_and_are_not_changed():
    node = spec.maam(4)
    arrays = scrambled(node)
    fuse(node, arrays)
    np.testing.assert_equal(arrays, scrambled(node))
    del arrays["agents.alpha"]
    assert error_of(WeightsError, fuse, node, arrays) == "weights: does not fit the model; missing: agents.alpha"


def test_it_takes_a_spec_and_weights():
    for given, found in ((object(), "an object of type object"), ("cnn", "an object of type str"), (NORM, "a spec ")):
        message = error_of(DeploymentError, fuse, given)
        assert message.startswith(f"fuse: expected a spec and its weights, got {found}")
        assert "reparameterize() of a model" in message


@pytest.mark.parametrize(
    ("dtype", "error"), [(np.float64, 1e-14), (np.float32, 1e-6), (np.float16, 1e-2), (ml_dtypes.bfloat16, 1e-1)]
)
def test_dtypes_are_kept(dtype, error, tmp_path):
    arrays = {name: array.astype(dtype) for name, array in scrambled(SMALL).items()}
    write_weights(tmp_path / "in.safetensors", SMALL, arrays)
    written = fuse_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    node, found = read_weights(tmp_path / "out.safetensors")
    assert node == written
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    x = images(SMALL.input_shape)
    np.testing.assert_allclose(ReferenceModel(node, found)(x), ReferenceModel(SMALL, arrays)(x), rtol=error, atol=error)


def test_refusals(tmp_path):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    assert error_of(WeightsError, fuse_file, source, target).endswith("no such file")
    arrays = scrambled(SMALL)
    write_weights(source, SMALL, arrays | {"agents.alpha": arrays["agents.alpha"].astype(np.float64)})
    message = error_of(WeightsError, fuse_file, source, target)
    assert "expected arrays of one dtype, got float32, float64; convert the file with" in message
    write_weights(source, SMALL, arrays)
    fuse_file(source, target)
    before = target.read_bytes()
    for src, dst, overwrite, message in (
        (source, tmp_path / "none" / "out.safetensors", False, "none does not exist; create it first"),
        (source, tmp_path, False, "expected a file, got a folder"),
        (source, target, False, "out.safetensors: the file exists; use another name, or overwrite=True"),
        (target, target, True, "nothing to fuse"),
    ):
        assert message in error_of(DeploymentError, fuse_file, src, dst, overwrite=overwrite)
    assert target.read_bytes() == before
    fuse_file(source, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


def test_agreements_count_different_predictions():
    pytest.importorskip("torch")
    arrays = scrambled(SMALL)
    other = {**arrays, "classifier.fc2.bias": arrays["classifier.fc2.bias"] + np.eye(10, dtype=np.float32)[3] * 100}
    (plain,), (moved,) = (make_runners(SMALL, given, ["torch"], compiled=False)[0] for given in (arrays, other))
    x = images(SMALL.input_shape, 7)
    ok, bad = agreements([(plain, plain), (plain, moved)], x, batch_size=3)
    assert (ok.runner, ok.images, ok.different, ok.absolute) == ("torch", 7, 0, 0)
    assert bad.different == int((plain.forward(x).argmax(1) != 3).sum()) > 0
    assert bad.absolute == pytest.approx(100, rel=1e-4)
    with pytest.raises(DeploymentError, match="at least one"):
        next(agreements([(plain, plain)], x[:0]))


slow = pytest.mark.slow
MODES = ("torch", "mindspore graph", "mindspore pynative")
COMPILED = ("hard_swish-softmax", "gelu-dynamic", "maam_cifar10", "maam_net_s", "t_cnn", "without_reduce")
"""The layers and presets that every test run computes in MindSpore, too."""
CASES = [
    pytest.param(mode, node, bound, id=f"{mode}-{name}", marks=[slow] * (mode != "torch" and name not in COMPILED))
    for mode in MODES
    for name, node, bound in [
        *((name, small(name), LOGITS) for name in PRESETS),
        *((name, layer, LAYER) for name, layer in LAYERS.items()),
    ]
]


@pytest.mark.parametrize(("mode", "node", "bound"), CASES)
def test_every_preset_and_activation_in_every_mode(mode, node, bound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    framework = mode.split()[0]
    pytest.importorskip(framework)
    arrays, x = scrambled(node), images(getattr(node, "input_shape", (4, 8, 8)))
    runners, _ = make_runners(*fuse(node, arrays), [framework], compiled=False)
    runner = next(runner for runner in runners if runner.name == mode)
    assert difference(runner.forward(x), ReferenceModel(node, arrays)(x), bound).used <= 1


@pytest.mark.slow_in("maam_cifar10_2m3", "without", "mindspore")
@pytest.mark.parametrize("name", ["maam_cifar10_2m3", "t_cnn", "without_fusion", "without_reduce"])
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_the_largest_logit_of_real_images(name, framework):
    pytest.importorskip(framework)
    with np.load("tests/data/cifar10_sample.npz") as content:
        x = content["images"].astype(np.float32) / 255
    node = spec.preset(name, channels=32)
    arrays = scrambled(node)
    plain = make_runners(node, arrays, [framework], compiled=False)[0]
    fused = make_runners(*fuse(node, arrays), [framework], compiled=False)[0]
    found = list(agreements(list(zip(plain, fused, strict=True)), x))
    assert len(found) == {"torch": 1, "mindspore": 2}[framework]
    assert all(one.images == len(x) and one.different == 0 for one in found)
