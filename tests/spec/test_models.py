"""The networks: canonical names, options, stages, cuts, ablations and attention; test_presets.py has their errors."""

import inspect

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.errors import PresetError, SpecError
from maam.reference import ReferenceModel
from maam.spec import maam_classifier, maam_imagenet, preset, preset_options
from tests.errors import error_of
from tests.spec.nodes import linear, model, norm


def with_bias(**shapes):
    pairs = [((f"{name}.weight", shape), (f"{name}.bias", shape[:1])) for name, shape in shapes.items()]
    return dict(row for pair in pairs for row in pair)


def names(network):
    return [parameter.name for parameter in network.parameters()]


RNN = {"weight_ih_l0": (128, 96), "weight_hh_l0": (128, 128), "bias_ih_l0": (128,), "bias_hh_l0": (128,)}
RNN = {f"rnn.{name}": shape for name, shape in RNN.items()}
CONVS = {"conv1": (32, 3, 3, 3), "conv2": (64, 32, 3, 3)}
PLAIN = [
    (preset("cnn"), with_bias(**CONVS, fc1=(128, 4096), fc2=(10, 128))),
    (spec.cnn(4, image_size=31), with_bias(**CONVS, fc1=(128, 64 * 7 * 7), fc2=(4, 128))),
    (spec.mlp(100, 1, image_size=28), with_bias(fc1=(512, 784), fc2=(256, 512), fc3=(100, 256))),
    (preset("rnn"), RNN | with_bias(fc=(10, 128))),
]


@pytest.mark.parametrize(("network", "expected"), PLAIN)
def test_parameters_of_plain_networks(network, expected):
    assert {parameter.name: parameter.shape for parameter in network.parameters()} == expected


def test_canonical_names_in_running_order_and_initial_distributions():
    network = preset("maam_cifar10")
    conv = ["conv{i}.weight", "bn{i}.weight", "bn{i}.bias", "bn{i}.running_mean", "bn{i}.running_var"]
    agents = [f"agents.{index}.{name.format(i=i)}" for index in range(3) for i in (1, 2) for name in conv]
    reduce = [f"reduce.{name.format(i='')}" for name in conv]
    head = [f"classifier.{fc}.{name}" for fc in ("fc1", "fc2") for name in ("weight", "bias")]
    assert names(network) == [*agents, "agents.alpha", *reduce, *head]
    inits = {path: node.init for path, node in network.walk() if isinstance(node, (spec.Conv2d, spec.Linear))}
    assert inits.pop("classifier.fc1") == "kaiming_uniform"
    assert inits.pop("classifier.fc2") == "fan_in_uniform"
    assert set(inits.values()) == {"kaiming_normal"}


CNN = {"conv1": (32, 8, 8), "act1": (32, 8, 8), "pool1": (32, 4, 4), "conv2": (64, 4, 4), "act2": (64, 4, 4)}
CNN |= {"pool2": (64, 2, 2), "flatten": (256,), "fc1": (128,), "act3": (128,), "fc2": (10,)}
NET = {"stem": (24, 31, 31), "stage1": (60, 15, 15), "stage2": (240, 7, 7), "stage3": (300, 3, 3), "classifier": (10,)}
IMAGENET = {"stem": (32, 112, 112), "stage1": (64, 56, 56), "stage2": (128, 28, 28), "stage3": (256, 14, 14)}
IMAGENET |= {"stage4": (512, 7, 7), "classifier": (1000,)}
STAGES = [
    (preset("cnn", image_size=8), CNN),
    (preset("maam_cifar10"), {"agents": (128, 16, 16), "reduce": (128, 16, 16), "classifier": (10,)}),
    (preset("maam_cifar10_2m3"), {"agents": (128, 8, 8), "reduce": (128, 8, 8), "classifier": (10,)}),
    (preset("maam_digits"), {"agents": (32, 4, 4), "reduce": (32, 4, 4), "classifier": (10,)}),
    (preset("maam_net_m"), NET),
    (preset("maam_imagenet"), IMAGENET),
    (model((2, 3, 4)), {}),
]


@pytest.mark.parametrize(("network", "expected"), STAGES)
def test_stages_are_the_direct_children_in_order(network, expected):
    assert list(network.stages().items()) == list(expected.items())
    assert network.num_classes == [network.input_shape, *expected.values()][-1][0]


CUTS = [
    ("maam_cifar10", "reduce", (128, 16, 16), "reduce.act"),
    ("mafc_v2", "backbone", (1280, 1, 1), "backbone.final_pool"),
    ("mafc_v2", "backbone.stage3", (32, 4, 4), "backbone.stage3.unit3"),
    ("mafc_v2", "backbone.stage3.unit2", (32, 4, 4), "backbone.stage3.unit2.cbamm"),
    ("mafc_v2", "backbone.stage3.unit1.conv1", (144, 8, 8), "backbone.stage3.unit1.conv1.act"),
    ("mafc_v2", "backbone.data_bn", (3, 32, 32), "backbone.data_bn"),
]


@pytest.mark.parametrize(("name", "path", "shape", "last"), CUTS)
def test_until_cuts_and_keeps_names(name, path, shape, last):
    network = preset(name, image_size=32)
    trunk = network.until(path)
    assert (trunk.output_shape((3, 32, 32)), trunk.num_classes) == (shape, shape[0])
    assert trunk.at(path) == network.at(path)
    kept = [inner for inner, _ in trunk.walk()]
    assert kept[: kept.index(last) + 1] == [inner for inner, _ in network.walk()][: kept.index(last) + 1]
    assert all(last.startswith(inner) for inner in kept[kept.index(last) + 1 :])  # only the containers around it
    assert list(trunk.parameters()) == list(network.parameters())[: len(trunk.parameters())]
    assert (trunk.name, trunk.input_shape) == (network.name, network.input_shape)


def test_until_the_last_layer_and_the_input_without_a_classifier():
    network, small = preset("maam_cifar10"), preset("mafc_v3_small")
    assert list(network.until("reduce").stages()) == ["agents", "reduce"]
    assert network.until("classifier") == network
    assert small.until("backbone.final_conv2") == small.until("backbone")
    assert spec.input_rule(network.until("reduce")).accepts((1, 3, 48, 40))


IN_BACKBONE = [f"backbone.{name}" for name in ("data_bn", "init_conv", *(f"stage{i}" for i in range(1, 6)))]
UNITS = ", ".join(f"backbone.stage3.unit{i}" for i in (1, 2, 3))
UNKNOWN = [
    *(("maam_cifar10", path, "its stages: agents, reduce, classifier") for path in ("", "conv", "agents.0", None)),
    ("mafc_v2", "stage3", f"its stages: backbone, classifier; in these: {', '.join(IN_BACKBONE)}, backbone.final"),
    ("mafc_v2", "backbone.stage9", f"the stages in 'backbone': {', '.join(IN_BACKBONE)}, backbone.final"),
    ("mafc_v2", "backbone.", f"the stages in 'backbone': {IN_BACKBONE[0]}"),
    ("mafc_v2", "backbone.stage3.unit2.conv1", f"the stages in 'backbone.stage3': {UNITS}"),  # in a residual
    ("mafc_v2", "classifier.conv.weight", "the stages in 'classifier': classifier.conv, classifier.flatten"),
    ("mafc_v2", 3, "its stages: backbone, classifier; in these: "),
]


@pytest.mark.parametrize(("name", "path", "message"), UNKNOWN)
def test_until_an_unknown_path(name, path, message):
    assert error_of(SpecError, preset(name).until, path).startswith(f"no stage {path!r} in {name!r}; {message}")


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
@pytest.mark.parametrize(("name", "path"), [("mafc_v2", "backbone.stage3"), ("mobilenet_v1", "backbone.stage2.unit1")])
def test_a_cut_model_computes_the_feature_maps_of_the_whole_one(framework, name, path):
    pytest.importorskip(framework)
    network = preset(name, width_multiplier=0.25, cifar=True)
    trunk, arrays = network.until(path), spec.draw(network.parameters(), 0)
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    maps, reference = {}, ReferenceModel(network, arrays)
    reference.observer = lambda at, _, output: maps.update({at: output})
    reference(images)
    runners, missing = make_runners(trunk, {name: arrays[name] for name in names(trunk)}, [framework], compiled=False)
    assert runners
    assert not missing
    for runner in runners:
        np.testing.assert_allclose(runner.forward(images), maps[path], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("base", "pool"), [("maam_cifar10", 2), ("maam_cifar10_2m3", 4)])
def test_ablations_differ_from_their_base_only_by_that(base, pool):
    agent, head = preset(base).at("agents.0"), preset(base).at("classifier")
    pooled = {"pool": spec.MaxPool2d(kernel_size=pool), "reduce": spec.reduce_layer(3, 128), "classifier": head}
    assert preset("t_cnn", base=base).children == {"agent": agent, "classifier": head}
    assert preset("without_agent_attention", base=base).children == pooled
    assert preset("without_fusion", base=base).children == preset(base, fusion="mean").children
    assert preset("without_reduce", base=base).children == preset(base, reduce=False).children


def test_ablations_take_the_options_of_their_base():
    assert preset("without_fusion", num_agents=2).at("agents").weights == (0.5, 0.5)
    assert preset("t_cnn", kernel_sizes=(5, 3, 3)).at("agent.conv1").kernel_size == 5
    assert preset("t_cnn", scales=2).at("agent").kind == "resize"
    assert preset("without_reduce", channels=16).stages()["agents"] == (16, 8, 8)


ATTENTION = ("hidden_channels", "num_agents", "kernel_sizes", "scales", "fusion", "reduce", "depthwise")
NO_EFFECT = {
    "t_cnn": ("num_agents", "fusion", "reduce"),
    "without_agent_attention": ATTENTION,
    "without_fusion": ("fusion",),
    "without_reduce": ("reduce",),
    "maam_cifar10": (),
}
LAYER = {"hidden_channels": 9, "num_agents": 2, "kernel_sizes": 5, "scales": 2, "pool": (4, 2), "fusion": "dynamic"}
LAYER |= {"reduce": False, "depthwise": True, "act_layer": "silu", "norm_layer": "identity"}
OTHERS = {"image_size": 16, "channels": 8, "hidden_features": 7, "dropout": 0.5, "num_classes": 3, "in_channels": 1}
OTHERS |= {"base": "maam_digits", **LAYER}


@pytest.mark.parametrize("name", NO_EFFECT)
def test_every_option_has_an_effect_or_is_refused(name):
    plain = preset(name)
    for option in preset_options(name):
        assert preset(name, **{option: OTHERS[option]}).children != plain.children, option
    for option in NO_EFFECT[name]:
        message = error_of(PresetError, preset, name, **{option: OTHERS[option]})
        assert f"preset '{name}' has no option '{option}'; its options: base, num_cl" in message


@pytest.mark.parametrize("reduce", [False, True])
def test_options_of_the_classifier(reduce):
    own = {"hidden_features": 6, "dropout": 0.25, "act_layer": "tanh", "name": "x"}
    network = maam_classifier(5, 1, image_size=16, channels=4, **{**LAYER, "reduce": reduce, **own})
    assert network.name == "x"
    children = dict(network.children)
    head = children.pop("classifier")
    assert children == dict(spec.maam(1, 4, **{**LAYER, "reduce": reduce, "act_layer": "tanh"}).children)
    assert head.at("fc1") == linear(16, 6, init="kaiming_uniform")
    assert head.at("dropout") == spec.Dropout(p=0.25)
    assert head.at("act").function == "tanh"
    assert head.at("fc2").out_features == 5
    assert list(head.nodes) == ["flatten", "fc1", "act", "dropout", "fc2"]
    assert "dropout" not in maam_classifier(image_size=8).at("classifier").nodes


def branch(inputs, hidden, outputs):
    """Return the number of parameters of depthwise and pointwise weights and two batch norms."""
    return 9 * (inputs + hidden) + inputs * hidden + hidden * outputs + 2 * (hidden + outputs)


def expected_parameters(widths, classes):
    total = 27 * widths[0] // 2 + widths[0]  # the first convolution, with half the width, and its batch norm
    for inputs, outputs in zip((widths[0] // 2, *widths[:-1]), widths, strict=True):
        total += 3 * branch(inputs, outputs // 2, outputs) + 3 + outputs**2 + 2 * outputs
    return total + (widths[-1] + 1) * classes


def test_counts_and_options_of_maam_imagenet():
    network = preset("maam_imagenet")
    assert network.num_parameters == expected_parameters((64, 128, 256, 512), 1000) == 1_681_940
    assert network.macs(network.input_shape) == 565_794_816
    small = preset("maam_imagenet", channels=(16, 32), num_classes=10)
    assert small.num_parameters == expected_parameters((16, 32), 10)
    other = maam_imagenet(5, 1, image_size=64, channels=8, fusion="dynamic", reduce=False, dropout=0.5)
    assert other.output_shape((1, 64, 64)) == (5,)
    assert (other.at("stage1.agents").merge, other.at("classifier.dropout").p) == ("dynamic", 0.5)
    plain = maam_imagenet(norm_layer="identity", depthwise=False, act_layer="silu")
    assert not any("bn" in name for name in names(plain))
    assert plain.at("stem.conv").bias
    assert maam_imagenet().output_shape((3, 160, 288)) == (1000,)
    assert spec.input_rule(maam_imagenet()).describe() == "(N, 3, H, W) with H, W >= 31"


@pytest.mark.parametrize(("name", "most"), [("maam_net_s", 0.7e6), ("maam_net_m", 2.3e6), ("maam_net_l", 6e6)])
def test_networks_of_stages_and_their_controls(name, most):
    """Any number of branches has the same multiply-accumulates, and the same parameters except for batch norms."""
    net, control = preset(name), preset(f"{name}_control")
    assert control.children == preset(name, num_agents=1).children
    assert control.num_parameters < net.num_parameters < most
    for other in (control, *(preset(name, num_agents=count) for count in (2, 5))):
        assert other.macs(other.input_shape) == net.macs(net.input_shape)
        assert abs(other.num_parameters / net.num_parameters - 1) < 5e-3
        assert other.stages() == net.stages()
    assert list(net.at("stage2.agents.1").children) == ["conv1", "pool1", "bn1", "act1", "conv2", "bn2", "act2"]
    assert net.at("classifier.factor").weights == (1 / 4,)
    assert spec.head(net) == "classifier.fc"
    assert spec.with_num_classes(net, 7).num_classes == preset(name, num_classes=7).num_classes == 7
    larger = preset(name, image_size=224, stem_stride=4)
    assert larger.stages()["stage3"][1:] == (7, 7)
    assert spec.parse_json(larger.to_json()) == larger


@pytest.mark.parametrize("attention", ["eca", "mafc", "bam"])
def test_attention_after_each_stage(attention):
    """The other parameters keep their names and shapes, so that weights without attention load."""
    net, plain = preset("maam_net_s", attention=attention), preset("maam_net_s")
    expected = getattr(spec, attention)
    assert [net.at(f"attention{index}") for index in (1, 2, 3)] == [expected(30), expected(120), expected(180)]
    own = {p.name: p.shape for p in net.parameters()}
    assert {p.name: p.shape for p in plain.parameters()}.items() <= own.items()
    assert all(name.startswith("attention") for name in own.keys() - set(names(plain)))


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v3_small"])
@pytest.mark.parametrize("attention", ["se", "cbam", "maf", "mafc", "mafb"])
def test_attention_adds_gates_and_nothing_else(name, attention):
    plain, attended = preset(name), preset(name, attention=attention)
    assert any(isinstance(node, spec.Scale) for _, node in attended.walk())
    assert set(names(plain)) < set(names(attended))
    assert attended.output_shape((3, 96, 96)) == (1000,)


def test_places_of_attention():
    """tests/published has the names of those in the authors' networks."""
    nodes = preset("mobilenet_v2", attention="mafb").walk()
    ends = [path for path, node in nodes if path.endswith("attention") and isinstance(node, spec.Residual)]
    assert ends == [f"backbone.stage{index}.attention" for index in (1, 2, 3, 4)]


def test_options_of_mobilenet():
    small = preset("mafc_v2", num_classes=10, in_channels=1, cifar=True, width_multiplier=0.5)
    assert (small.input_shape, small.num_classes) == ((1, 32, 32), 10)
    assert small.stages()["backbone"] == (1280, 1, 1)
    assert preset("mafc_v2", width_multiplier=1.5).stages()["backbone"] == (1920, 1, 1)
    assert preset("mobilenet_v1").at("backbone.data_bn") == norm(3)  # normalizes the image


@pytest.mark.parametrize(("name", "attention"), [("mobilenet_v1", None), ("mafc_v3", "mafc")])
def test_presets_have_the_options_of_the_network(name, attention):
    arguments = inspect.signature(spec.mobilenet).parameters.values()
    defaults = {one.name: one.default for one in arguments if one.name not in ("version", "name")}
    assert preset_options(name) == {**defaults, "attention": attention}
    assert preset(name).name == name
