"""Presets: the registry, parameter counts, options, and errors for wrong names and options."""

import functools

import pytest

from maam import spec
from maam.errors import PresetError, SpecError
from maam.spec import list_presets, preset, preset_options, register_preset
from tests.errors import error_of
from tests.spec.nodes import FLATTEN, linear, model

BASES = ["maam_cifar10", "maam_cifar10_2m3", "maam_digits"]
NETS = [f"maam_net_{size}{end}" for size in "lms" for end in ("", "_control")]
MAAM = [*BASES, "maam_imagenet", *NETS]
MAFC = ["mafc_v1", "mafc_v2", "mafc_v3", "mafc_v3_small"]
MOBILENETS = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v3_small"]
WITHOUT = ["without_agent_attention", "without_fusion", "without_reduce"]
NAMES = ["cnn", *MAAM, *MAFC, "mlp", *MOBILENETS, "rnn", "t_cnn", *WITHOUT]

# Calculated by hand: a branch has 9 (i h + h o) weights and 2 (h + o) of batch norm, the head f d + d + 10 d + 10.
COUNTS = [
    ("maam_cifar10", {}, 8_635_597, 244_386_304),
    ("maam_cifar10_2m3", {}, 2_344_141, 65_079_808),
    ("maam_digits", {}, 49_117, 962_176),
    ("t_cnn", {}, 2_175_818, 22_743_552),
    ("t_cnn", {"base": "maam_cifar10"}, 8_467_274, 85_658_112),
    ("t_cnn", {"base": "maam_digits"}, 38_330, 337_536),
    ("without_agent_attention", {}, 2_100_618, 2_124_288),
    ("without_agent_attention", {"base": "maam_cifar10"}, 8_392_074, 8_489_472),
    ("without_fusion", {}, 2_344_138, 65_079_808),
    ("without_fusion", {"base": "maam_cifar10"}, 8_635_594, 244_386_304),
    ("without_reduce", {}, 2_327_501, 64_031_232),
    ("without_reduce", {"base": "maam_cifar10"}, 8_618_957, 240_192_000),
    ("maam_net_m", {}, 2_159_481, 113_627_928),
    ("maam_net_m_control", {}, 2_157_072, 113_627_928),
    ("cnn", {}, 545_098, 6_128_896),
    ("mlp", {}, 1_707_274, 1_706_496),
    ("rnn", {}, 30_218, 918_784),
]


@pytest.mark.parametrize(("name", "options", "parameters", "macs"), COUNTS)
def test_counts(name, options, parameters, macs):
    expected = (name, parameters, macs, (10,))
    found = preset(name, **options)
    shape = found.input_shape
    assert (found.name, found.num_parameters, found.macs(shape), found.output_shape(shape)) == expected


def test_aliases_and_published_counts():
    published = {"mafc_v1": 4959222, "mafc_v2": 3551887, "mafc_v3": 3991264, "mafc_v3_small": 2151673}
    assert {name: preset(name).num_parameters for name in published} == published
    for alias, name in {"MAFCV1": "mafc_v1", "MAFCV2": "mafc_v2", "MAFCV3": "mafc_v3"}.items():
        assert alias not in list_presets()
        assert preset(alias, num_classes=7) == preset(name, num_classes=7)


def test_listing_by_wildcard():
    listed = {"*": NAMES, "maam_*": MAAM, "without_?*": WITHOUT, "[cm]*n": ["cnn"], "nothing*": []}
    assert {pattern: list_presets(pattern) for pattern in listed} == listed
    bases = {name: preset_options(name)["base"] for name in NAMES if "base" in preset_options(name)}
    assert bases == dict.fromkeys(["t_cnn", *WITHOUT], "maam_cifar10_2m3")


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_overrides(name):
    options = preset_options(name)
    assert {"num_classes", "in_channels", "image_size"} <= set(options)
    assert preset(name, **options) == preset(name)
    found, shape = preset(name, num_classes=7, in_channels=2, image_size=36), (2, 36, 36)
    assert (found.input_shape, found.num_classes, found.output_shape(shape)) == (shape, 7, (7,))


UNKNOWN = [
    ("maam_cifar", {}, "no preset 'maam_cifar'; did you mean 'maam_cifar10' or 'maam_cifar10_2m3' or "),
    ("resnet50", {}, "no preset 'resnet50'; `maam list` shows all presets"),
    (None, {}, "no preset 'None'"),
    (["cnn"], {}, "did you mean 'cnn'"),
    ("x" * 1000, {}, f"no preset '{'x' * 60}'; `maam list`"),
    ("cnn", {"classes": 3}, "preset 'cnn' has no option 'classes'; its options: num_classes, in_channels"),
    ("cnn", {"num_clases": 3}, "preset 'cnn' has no option 'num_clases'; did you mean 'num_classes'?"),
    ("maam_cifar10", {"base": "maam_digits"}, "preset 'maam_cifar10' has no option 'base'"),
    ("maam_cifar10", {"ablation": "t_cnn"}, "no option 'ablation'"),
    ("maam_digits", {"name": "other"}, "preset 'maam_digits' has no option 'name'"),
    *(("t_cnn", {"base": base}, f"base: expected one of {', '.join(BASES)}, got") for base in ("cnn", "", None, [])),
]
LEAST = "input should be greater than or equal to 1"
INVALID = [
    ("cnn", {"num_classes": 0}, f"cnn: num_classes: {LEAST}, got 0"),
    ("mlp", {"in_channels": "3"}, "mlp: in_channels: input should be a valid integer, got '3'"),
    ("rnn", {"image_size": 8.0}, "rnn: image_size: input should be a valid integer, got 8.0"),
    ("cnn", {"image_size": 3}, "pool2: a map of 1x1 is too small for a window of 2x2"),
    ("mlp", {"image_size": 2**20}, "linear: in_features: input should be less than or equal to 16777216"),
    ("maam_cifar10", {"image_size": 1}, "agents.0.pool2: a map of 1x1 is too small"),
    ("maam_digits", {"dropout": 1.0}, "dropout: input should be less than 1, got 1.0"),
    ("maam_digits", {"hidden_features": 0}, f"maam_classifier: hidden_features: {LEAST}"),
    ("maam_imagenet", {"channels": (64, 0)}, f"channels.1: {LEAST}"),
    ("maam_imagenet", {"image_size": 30}, "stage4.agents.0.pool2: a map of 1x1 is too small"),
    ("maam_net_s", {"attention": "mafx"}, "attention: "),
    ("maam_net_s", {"channels": (2, 2, 2)}, "channels: expected at least 3, one for each branch, got 2"),
    ("maam_net_s", {"num_agents": 1, "kernel_sizes": (3, 5)}, "kernel_sizes: expected one value for one branch"),
    ("maam_net_s", {"num_agents": 1, "scales": (1, 2)}, "scales: expected one value for one branch, got (1, 2)"),
    ("mafc_v1", {"width_multiplier": 0.02}, "width_multiplier: 0.02 leaves no channel of 32; use at least 0.0313"),
    *((name, {"width_multiplier": 0.01}, "width_multiplier: 0.01 leaves no channel of ") for name in MAFC),
    ("mafc_v1", {"width_multiplier": 0}, "width_multiplier: input should be greater than 0"),
    ("mafc_v1", {"attention": "maam"}, "attention: input should be 'se', 'maf', 'ese', 'eca', 'gc', "),
    ("mafc_v1", {"num_classes": 0}, f"num_classes: {LEAST}"),
    ("t_cnn", {"kernel_sizes": (3, 5)}, "kernel_sizes: expected one value, or one for each of 3 agents, got 2"),
    ("t_cnn", {"scales": ()}, "scales: expected at least one value"),
    ("without_agent_attention", {"pool": (1, 2, 2)}, "pool: expected one value, or one for each of 2 convolutions"),
]


@pytest.mark.parametrize("row", UNKNOWN + INVALID)
def test_errors_for_names_and_options(row):
    name, options, message = row
    assert message in error_of(PresetError if row in UNKNOWN else SpecError, preset, name, **options)


@spec.composite
def tiny(num_classes: int = 2) -> spec.Model:
    return model((1, 1, 1), flatten=FLATTEN, fc=linear(1, num_classes))


def test_registering(monkeypatch):
    monkeypatch.setattr("maam.spec.presets._FACTORIES", {})
    assert register_preset(tiny) is tiny
    assert list_presets() == ["tiny"]
    assert preset("tiny", num_classes=5).num_classes == 5
    message = error_of(PresetError, register_preset, tiny)
    assert "the preset 'tiny' already exists; use another name or overwrite=True" in message
    register_preset(lambda: tiny(7), "tiny", overwrite=True)
    assert preset("tiny") == tiny(7)

    @register_preset(name="named")
    def an_option_may_be_called_name(name: str = "mine") -> spec.Model:
        return tiny().replace(name=name)

    assert preset("named", name="other").name == "other"


@pytest.mark.parametrize("made", [3, None, spec.Identity()])
def test_presets_that_are_not_models(made):
    register_preset(lambda: made, "wrong")
    expected = f"preset 'wrong': expected its function to return a Model, got {type(made).__name__}"
    assert error_of(PresetError, preset, "wrong") == expected


REFUSED = [
    (spec.cnn, 5, "name: expected the name of the preset, a string, got 5"),
    (spec.cnn, "", "name: expected the name of the preset, a string, got ''"),
    (functools.partial(spec.cnn), None, "got None, and the function has no name"),
    (dict, None, "<class 'dict'>: its signature cannot be inspected; wrap it in a function"),
    (spec.cnn, "MAFCV2", "'MAFCV2' is an alias of the preset 'mafc_v2'; use another name"),
    (tiny(), "tiny", "to register an existing spec use register_preset(lambda: spec, name)"),
    (lambda num_classes: tiny(), "tiny", "num_classes: expected a default value"),
    (lambda **options: tiny(), "tiny", "expected only named arguments with defaults"),
]


@pytest.mark.parametrize(("factory", "name", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_factories_and_names_that_cannot_be_registered(factory, name, message):
    assert message in error_of(PresetError, register_preset, factory, name)
    assert list_presets() == NAMES
