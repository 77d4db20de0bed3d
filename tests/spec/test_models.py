"""The networks: canonical names, options, ablations and attention; test_presets.py has their errors."""

import inspect

import pytest

from maam import spec
from maam.errors import PresetError
from maam.spec import maam_classifier, maam_imagenet, preset, preset_options


def with_bias(**shapes):
    pairs = [((f"{name}.weight", shape), (f"{name}.bias", shape[:1])) for name, shape in shapes.items()]
    return dict(row for pair in pairs for row in pair)


RNN = {"weight_ih_l0": (128, 96), "weight_hh_l0": (128, 128), "bias_ih_l0": (128,), "bias_hh_l0": (128,)}
RNN = {f"rnn.{name}": shape for name, shape in RNN.items()}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (preset("cnn"), with_bias(conv1=(32, 3, 3, 3), conv2=(64, 32, 3, 3), fc1=(128, 4096), fc2=(10, 128))),
        (spec.mlp(100, 1, image_size=28), with_bias(fc1=(512, 784), fc2=(256, 512), fc3=(100, 256))),
        (preset("rnn"), RNN | with_bias(fc=(10, 128))),
    ],
)
def test_parameters_of_plain_networks(model, expected):
    assert {parameter.name: parameter.shape for parameter in model.parameters()} == expected


def test_sizes_of_plain_networks():
    odd = spec.cnn(4, image_size=31)
    assert odd == preset("cnn", num_classes=4, image_size=31)
    assert odd.stages()["pool2"] == (64, 7, 7)
    assert odd.at("fc1").in_features == 64 * 49


CONV = ["conv{i}.weight", "bn{i}.weight", "bn{i}.bias", "bn{i}.running_mean", "bn{i}.running_var"]
AGENT = [name.format(i=i) for i in (1, 2) for name in CONV]
REDUCE = [f"reduce.{name.format(i='')}" for name in CONV]
CLASSIFIER = [f"classifier.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]


def names(model):
    return [parameter.name for parameter in model.parameters()]


def test_canonical_names_in_running_order():
    agents = [f"agents.{index}.{name}" for index in range(3) for name in AGENT]
    assert names(preset("maam_cifar10")) == [*agents, "agents.alpha", *REDUCE, *CLASSIFIER]


def test_initial_distributions():
    layers = preset("maam_cifar10").walk()
    inits = {path: node.init for path, node in layers if isinstance(node, (spec.Conv2d, spec.Linear))}
    assert inits.pop("classifier.fc1") == "kaiming_uniform"
    assert inits.pop("classifier.fc2") == "fan_in_uniform"
    assert set(inits.values()) == {"kaiming_normal"}


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
}
LAYER = {"hidden_channels": 9, "num_agents": 2, "kernel_sizes": 5, "scales": 2, "pool": (4, 2), "fusion": "dynamic"}
LAYER |= {"reduce": False, "depthwise": True, "act_layer": "silu", "norm_layer": "identity"}
OTHERS = {"image_size": 16, "channels": 8, "hidden_features": 7, "dropout": 0.5, "num_classes": 3, "in_channels": 1}
OTHERS |= {"base": "maam_digits", **LAYER}


@pytest.mark.parametrize("name", [*NO_EFFECT, "maam_cifar10"])
def test_every_option_has_an_effect_or_is_refused(name):
    plain = preset(name)
    for option in preset_options(name):
        assert preset(name, **{option: OTHERS[option]}).children != plain.children, option
    for option in NO_EFFECT.get(name, ()):
        with pytest.raises(PresetError, match=f"preset '{name}' has no option '{option}'; its options: base, num_cl"):
            preset(name, **{option: OTHERS[option]})


@pytest.mark.parametrize("reduce", [False, True])
def test_options_of_the_classifier(reduce):
    own = {"hidden_features": 6, "dropout": 0.25, "act_layer": "tanh", "name": "x"}
    model = maam_classifier(5, 1, image_size=16, channels=4, **{**LAYER, "reduce": reduce, **own})
    assert model.name == "x"
    children = dict(model.children)
    head = children.pop("classifier")
    assert children == dict(spec.maam(1, 4, **{**LAYER, "reduce": reduce, "act_layer": "tanh"}).children)
    assert head.at("fc1") == spec.Linear(in_features=16, out_features=6, init="kaiming_uniform")
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
    model = preset("maam_imagenet")
    assert model.num_parameters == expected_parameters((64, 128, 256, 512), 1000) == 1_681_940
    assert model.macs(model.input_shape) == 565_794_816
    small = preset("maam_imagenet", channels=(16, 32), num_classes=10)
    assert small.num_parameters == expected_parameters((16, 32), 10)
    model = maam_imagenet(5, 1, image_size=64, channels=8, fusion="dynamic", reduce=False, dropout=0.5)
    assert model.output_shape((1, 64, 64)) == (5,)
    assert model.at("stage1.agents").merge == "dynamic"
    assert model.at("classifier.dropout").p == 0.5
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
    nodes = preset("mobilenet_v2", attention="mafb").walk()
    ends = [path for path, node in nodes if path.endswith("attention") and isinstance(node, spec.Residual)]
    assert ends == [f"backbone.stage{index}.attention" for index in (1, 2, 3, 4)]
    units = ["stage3.unit1", "stage3.unit2", "stage3.unit3", "stage4.unit5", "stage4.unit6"]
    units += ["stage5.unit1", "stage5.unit2", "stage5.unit3"]  # as in the authors' code
    ends = [path for path, _ in preset("mafc_v3").walk() if path.endswith("cbamm")]
    assert ends == [f"backbone.{unit}.cbamm" for unit in units]


def test_options_of_mobilenet():
    model = preset("mafc_v2", num_classes=10, in_channels=1, cifar=True, width_multiplier=0.5)
    assert model.input_shape == (1, 32, 32)
    assert model.num_classes == 10
    assert model.stages()["backbone"] == (1280, 1, 1)
    assert preset("mafc_v2", width_multiplier=1.5).stages()["backbone"] == (1920, 1, 1)
    assert preset("mobilenet_v1").at("backbone.data_bn") == spec.BatchNorm2d(num_features=3)  # normalizes the image


@pytest.mark.parametrize(("name", "attention"), [("mobilenet_v1", None), ("mafc_v3", "mafc")])
def test_presets_have_the_options_of_the_network(name, attention):
    arguments = inspect.signature(spec.mobilenet).parameters.values()
    defaults = {one.name: one.default for one in arguments if one.name not in ("version", "name")}
    assert preset_options(name) == {**defaults, "attention": attention}
    assert preset(name).name == name
