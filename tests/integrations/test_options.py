"""Wrong options of `create_model` in timm, torchvision and MindCV: errors of maam in the same words."""

import importlib
from pathlib import Path

import pytest

from maam.errors import OptionError, PresetError, SpecError, WeightsError

NETWORKS = {"timm": "resnet10t", "torchvision": "resnet18", "mindcv": "resnet18"}
CHANNELS = {"timm": "in_chans", "mindcv": "in_channels"}


@pytest.fixture(params=NETWORKS)
def library(request):
    pytest.importorskip("mindspore" if request.param == "mindcv" else "torch")
    pytest.importorskip(request.param)
    return request.param


def create(library, *, name=None, **options):
    return importlib.import_module(f"maam.{library}").create_model(name or NETWORKS[library], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"foo": 1},
            OptionError,
            "has no option 'foo' in {library}, got 1; omit it, or pass an argument of the model's",
        ),
        ({"attention": "eca", "foo": 1}, OptionError, "has no option 'foo' in {library}, got 1; "),
        ({"num_clases": 3}, OptionError, "has no option 'num_clases' in {library}, got 3; did you mean 'num_classes'?"),
        ({"num_classes": "x"}, SpecError, "num_classes: expected an integer of at least [01], got 'x'"),
        ({"num_classes": 2.5, "attention": "eca"}, SpecError, "num_classes: expected an integer of at least"),
        ({"num_classes": -1}, SpecError, "num_classes: expected an integer of at least [01], got -1"),
        ({"where": "zzz"}, SpecError, "where: this has no effect without attention, got where='zzz'; pass attention=N"),
        ({"where": "conv1", "attention": None}, SpecError, "where: this has no effect without attention"),
        ({"identity_init": True}, SpecError, "identity_init: this has no effect without attention"),
        ({"every_block": True}, SpecError, "every_block: this has no effect without attention"),
    ],
)
def test_in_all_libraries(library, options, error, message):
    expected = message.format(library={"mindcv": "MindCV"}.get(library, library)).replace("?", r"\?")
    with pytest.raises(error, match=expected):
        create(library, **options)


def test_channels(library):
    if library == "torchvision":
        pytest.skip("torchvision has no such option")
    name = CHANNELS[library]
    with pytest.raises(SpecError, match=f"{name}: expected an integer of at least 1, got 'x'"):
        create(library, **{name: "x"})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"weights": "foo"},
            WeightsError,
            "weights: expected one of 'IMAGENET1K_V1', 'DEFAULT' or None for 'resnet18', ",
        ),
        ({"weights": True}, WeightsError, "weights: expected one of .*, got True"),
        ({"weights": "DEFAULT", "num_classes": 3}, OptionError, "torchvision cannot build the model with weights='DEF"),
        ({"norm_layer": 3}, OptionError, "with norm_layer=3: TypeError: .*; correct or omit the option"),
    ],
)
def test_torchvision(options, error, message):
    pytest.importorskip("torchvision")
    with pytest.raises(error, match=message):
        create("torchvision", **options)


CONFIGS = {"no_json": "{", "no_name": "[]", "unknown": '{"architecture": "resnet81"}'}
CONFIGS |= dict.fromkeys(("no_weights", "broken"), '{"architecture": "resnet10t", "num_classes": 3}')


@pytest.mark.parametrize(
    "more", [{}, *(pytest.param(more, marks=pytest.mark.slow) for more in ({"attention": "eca"}, {"num_classes": 2}))]
)
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("local-dir:none", WeightsError, "local-dir:none: there is no file none/config.json; expected a folder that"),
        ("local-dir:no_json", WeightsError, "no_json/config.json is not JSON: .*; expected a folder that timm.models"),
        ("local-dir:no_name", WeightsError, "no_name/config.json has no field 'architecture'; expected a folder that"),
        ("local-dir:unknown", PresetError, "no model 'resnet81'; did you mean 'resnet"),
        ("local-dir:no_weights", WeightsError, "local-dir:no_weights: the pretrained weights cannot be read: "),
        ("local-dir:broken", WeightsError, "local-dir:broken: the pretrained weights cannot be read: SafetensorError"),
        ("local-dir:", PresetError, "no model 'local-dir:': "),
        ("zip:resnet10t", PresetError, "no model 'zip:resnet10t': "),
        ("resnet10t.none", PresetError, "'resnet10t.none': Invalid pretrained tag"),
    ],
)
def test_sources_of_timm(name, error, message, more, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    for folder, config in CONFIGS.items():
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(config)
    Path("broken", "model.safetensors").write_bytes(b"broken")
    with pytest.raises(error, match=message):
        create("timm", name=name, pretrained=True, **more)


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "zzz"},
        {"features_only": True, "out_indices": (9,)},
        {"act_layer": "zzz"},
        {"pretrained_cfg": 5},
        {"pretrained_cfg_overlay": 5, "pretrained": True},
    ],
)
def test_options_of_timm(options):
    pytest.importorskip("timm")
    with pytest.raises(
        OptionError, match=r"'resnet10t': timm cannot build the model with .*; correct or omit the option"
    ):
        create("timm", **options)
