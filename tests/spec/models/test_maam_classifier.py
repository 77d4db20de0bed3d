"""The MAAM classifier: stages, canonical names, the classifier's own options, the ablations."""

import pytest

from maam.errors import PresetError, SpecError
from maam.spec import Conv2d, Dropout, Linear, MaxPool2d, maam_classifier, preset, preset_options

CONV = ["conv{i}.weight", "bn{i}.weight", "bn{i}.bias", "bn{i}.running_mean", "bn{i}.running_var"]
AGENT = [name.format(i=i) for i in (1, 2) for name in CONV]
REDUCE = [f"reduce.{name.format(i='')}" for name in CONV]
CLASSIFIER = [f"classifier.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]


def names(model):
    return [parameter.name for parameter in model.parameters()]


def test_canonical_names_in_running_order():
    agents = [f"agents.{index}.{name}" for index in range(3) for name in AGENT]
    assert names(preset("maam_cifar10")) == [*agents, "agents.alpha", *REDUCE, *CLASSIFIER]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maam_cifar10", {"agents": (128, 16, 16), "reduce": (128, 16, 16), "classifier": (10,)}),
        ("maam_cifar10_2m3", {"agents": (128, 8, 8), "reduce": (128, 8, 8), "classifier": (10,)}),
        ("maam_digits", {"agents": (32, 4, 4), "reduce": (32, 4, 4), "classifier": (10,)}),
    ],
)
def test_stages(name, expected):
    stages = preset(name).stages()
    assert stages == expected
    assert list(stages) == list(expected)


def test_shapes_within_a_branch():
    shapes = {path: out for path, _, _, out in preset("maam_cifar10_2m3").summary((3, 32, 32))}
    assert shapes["agents.0.conv1"] == (64, 32, 32)
    assert shapes["agents.0.pool1"] == (64, 16, 16)
    assert shapes["agents.2.conv2"] == (128, 16, 16)
    assert shapes["agents.2.pool2"] == (128, 8, 8)
    assert shapes["classifier.flatten"] == (8192,)
    assert shapes["classifier.fc1"] == (256,)


def test_convolutions_are_he_normal_and_the_classifier_ends_as_pytorch_does():
    model = preset("maam_cifar10")
    inits = {path: node.init for path, node in model.walk() if isinstance(node, (Conv2d, Linear))}
    assert inits.pop("classifier.fc1") == "kaiming_uniform"
    assert inits.pop("classifier.fc2") == "fan_in_uniform"
    assert set(inits.values()) == {"kaiming_normal"}


def test_t_cnn_is_one_branch_without_fusion_and_reduce_layer():
    model = preset("t_cnn", base="maam_cifar10")
    assert list(model.stages()) == ["agent", "classifier"]
    assert names(model) == [*(f"agent.{name}" for name in AGENT), *CLASSIFIER]
    assert model.children["agent"] == preset("maam_cifar10").at("agents.0")


def test_without_agent_attention_pools_the_image_to_the_size_of_f():
    model = preset("without_agent_attention")
    assert model.children["pool"] == MaxPool2d(kernel_size=4)
    assert preset("without_agent_attention", base="maam_cifar10").children["pool"] == MaxPool2d(kernel_size=2)
    assert model.stages()["reduce"] == preset("maam_cifar10_2m3").stages()["reduce"]
    assert names(model) == [*REDUCE, *CLASSIFIER]


@pytest.mark.parametrize("base", ["maam_cifar10", "maam_cifar10_2m3"])
def test_without_fusion_differs_from_its_base_by_alpha_alone(base):
    full, model = preset(base), preset("without_fusion", base=base)
    assert [name for name in names(full) if name not in names(model)] == ["agents.alpha"]
    assert model.at("agents").weights == (1 / 3, 1 / 3, 1 / 3)
    assert model.children["agents"].children == full.children["agents"].children


@pytest.mark.parametrize("base", ["maam_cifar10", "maam_cifar10_2m3"])
def test_without_reduce_differs_from_its_base_by_the_reduce_layer_alone(base):
    full, model = preset(base), preset("without_reduce", base=base)
    assert [name for name in names(full) if name not in names(model)] == REDUCE
    assert list(model.children) == ["agents", "classifier"]


def test_ablations_take_the_options_of_the_classifier():
    assert preset("without_fusion", num_agents=2).at("agents").weights == (0.5, 0.5)
    assert preset("t_cnn", kernel_sizes=(5, 3, 3)).at("agent.conv1").kernel_size == 5
    assert preset("t_cnn", scales=2).at("agent").kind == "resize"
    assert preset("without_reduce", channels=16).stages()["agents"] == (16, 8, 8)


UNHEEDED = [
    ("t_cnn", {"num_agents": 9, "fusion": "dynamic", "reduce": False}),
    (
        "without_agent_attention",
        {
            "hidden_channels": 9,
            "num_agents": 9,
            "kernel_sizes": 5,
            "scales": 2,
            "fusion": "dynamic",
            "reduce": False,
            "depthwise": True,
        },
    ),
    ("without_fusion", {"fusion": "dynamic"}),
    ("without_reduce", {"reduce": True}),
]


@pytest.mark.parametrize(("name", "options"), UNHEEDED)
def test_ablations_refuse_options_without_effect(name, options):
    for option, value in options.items():
        with pytest.raises(PresetError, match=f"preset '{name}' has no option '{option}'; its options: base, num_cl"):
            preset(name, **{option: value})


OTHERS = {
    "image_size": 16,
    "channels": 8,
    "hidden_channels": 9,
    "num_agents": 2,
    "kernel_sizes": 5,
    "scales": 2,
    "pool": (4, 2),
    "fusion": "dynamic",
    "reduce": False,
    "depthwise": True,
    "act_layer": "silu",
    "norm_layer": "identity",
    "hidden_features": 7,
    "dropout": 0.5,
    "num_classes": 3,
    "in_channels": 1,
    "base": "maam_digits",
}


@pytest.mark.parametrize("name", [*(name for name, _ in UNHEEDED), "maam_cifar10"])
def test_every_option_has_an_effect(name):
    plain = preset(name)
    for option in preset_options(name):
        assert preset(name, **{option: OTHERS[option]}).children != plain.children, option


def test_options_of_the_classifier():
    model = maam_classifier(5, 1, image_size=8, channels=4, hidden_features=6, dropout=0.25, act_layer="tanh", name="x")
    assert model.name == "x"
    assert model.at("classifier.fc1") == Linear(in_features=64, out_features=6, init="kaiming_uniform")
    assert model.at("classifier.dropout") == Dropout(p=0.25)
    assert model.at("classifier.act").function == "tanh"
    assert model.at("classifier.fc2").out_features == 5
    assert list(model.at("classifier").nodes) == ["flatten", "fc1", "act", "dropout", "fc2"]
    assert "dropout" not in maam_classifier(image_size=8).at("classifier").nodes


@pytest.mark.parametrize(
    ("option", "value", "path", "field", "expected"),
    [
        ("hidden_channels", 5, "agents.1.conv1", "out_channels", 5),
        ("kernel_sizes", (3, 5, 7), "agents.2.conv2", "kernel_size", 7),
        ("scales", (1, 2, 1), "agents.1", "kind", "resize"),
        ("fusion", "dynamic", "agents", "merge", "dynamic"),
        ("depthwise", True, "agents.0.conv2.depthwise", "groups", 64),
        ("act_layer", "silu", "agents.0.act1", "function", "silu"),
        ("norm_layer", "identity", "reduce.conv", "bias", True),
        ("pool", (2, 1), "agents.0.pool1", "kernel_size", 2),
    ],
)
def test_options_reach_the_layer(option, value, path, field, expected):
    assert getattr(preset("maam_cifar10", **{option: value}).at(path), field) == expected


def test_number_of_agents():
    assert list(preset("maam_cifar10", num_agents=5).at("agents").nodes) == list("01234")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablation": "t-cnn"}, "ablation: input should be 'none', 't_cnn'"),
        ({"name": 3}, "name: input should be a valid string, got 3"),
        ({"hidden_features": 0}, "hidden_features: input should be greater than or equal to 1"),
        ({"dropout": "0.1"}, "dropout: input should be a valid number, got '0.1'"),
        ({"dropout": float("nan")}, "dropout: input should be a finite number, got nan"),
        ({"width": 3}, "width: no such argument"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(SpecError) as error:
        maam_classifier(**options)
    assert str(error.value).startswith(f"maam_classifier: {message}")
