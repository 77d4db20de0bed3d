"""The MobileNets: counts, options, aliases, and what cannot be."""

import inspect

import pytest

from maam.errors import SpecError
from maam.spec import BatchNorm2d, Residual, list_presets, mobilenet, preset, preset_options
from maam.spec.containers import Scale

COUNTS = {"mafc_v1": 4959222, "mafc_v2": 3551887, "mafc_v3": 3991264, "mafc_v3_small": 2151673}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_counts(name, count):
    assert preset(name).num_parameters == count


@pytest.mark.parametrize(("alias", "name"), [("MAFCV1", "mafc_v1"), ("MAFCV2", "mafc_v2"), ("MAFCV3", "mafc_v3")])
def test_aliases(alias, name):
    assert preset(alias, num_classes=7) == preset(name, num_classes=7)
    assert alias not in list_presets()


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v3_small"])
@pytest.mark.parametrize("attention", ["se", "cbam", "maf", "mafc", "mafb"])
def test_attention_adds_gates_and_nothing_else(name, attention):
    plain, attended = preset(name), preset(name, attention=attention)
    gates = [path for path, node in attended.walk() if isinstance(node, Scale)]
    assert gates
    kept = {p.name for p in plain.parameters()}
    assert kept < {p.name for p in attended.parameters()}
    assert attended.output_shape((3, 96, 96)) == (1000,)


def test_mafb_stands_between_stages():
    spec = preset("mobilenet_v2", attention="mafb")
    ends = [path for path, node in spec.walk() if path.endswith("attention") and isinstance(node, Residual)]
    assert ends == [f"backbone.stage{index}.attention" for index in (1, 2, 3, 4)]


def test_v3_attends_where_the_authors_do():
    paths = [path for path, _ in preset("mafc_v3").walk() if path.endswith("cbamm")]
    assert paths == [
        *(f"backbone.stage3.unit{i}.cbamm" for i in (1, 2, 3)),
        *(f"backbone.stage4.unit{i}.cbamm" for i in (5, 6)),
        *(f"backbone.stage5.unit{i}.cbamm" for i in (1, 2, 3)),
    ]


def test_options():
    spec = preset("mafc_v2", num_classes=10, in_channels=1, cifar=True, width_multiplier=0.5)
    assert spec.input_shape == (1, 32, 32)
    assert spec.num_classes == 10
    assert spec.stages()["backbone"] == (1280, 1, 1)
    assert preset("mafc_v2", width_multiplier=1.5).stages()["backbone"] == (1920, 1, 1)


@pytest.mark.parametrize(("name", "attention"), [("mobilenet_v1", None), ("mafc_v3", "mafc")])
def test_presets_have_the_options_of_the_network(name, attention):
    arguments = inspect.signature(mobilenet).parameters.values()
    defaults = {one.name: one.default for one in arguments if one.name not in ("version", "name")}
    assert preset_options(name) == {**defaults, "attention": attention}
    assert preset(name).name == name


def test_image_is_normalised_first():
    spec = preset("mobilenet_v1")
    assert spec.at("backbone.data_bn") == BatchNorm2d(num_features=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_multiplier": 0.02}, "width_multiplier: 0.02 leaves no channel of 32; use at least 0.0313"),
        ({"width_multiplier": 0}, "width_multiplier: input should be greater than 0"),
        ({"attention": "eca"}, "attention: input should be 'se', 'cbam', 'maf', 'mafc' or 'mafb'"),
        ({"num_classes": 0}, "num_classes: input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(SpecError) as caught:
        preset("mafc_v1", **options)
    assert message in str(caught.value)
