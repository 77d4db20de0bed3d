"""Wrong names and options of `create_model` in timm, torchvision and MindCV: errors of maam in the same words."""

import importlib
from pathlib import Path

import pytest

from maam.errors import OptionError, PresetError, SpecError, WeightsError

NETWORKS = {"timm": "resnet10t", "torchvision": "resnet18", "mindcv": "resnet18"}
CANNOT = "cannot build the model with"
NO_BUILD = f"'resnet10t': timm {CANNOT} .*; correct or omit the option"
INTEGER = "expected an integer of at least"
IN_ALL = [
    (OptionError, {"foo": 1}, "has no option 'foo' in {library}, got 1; omit it, or pass an argument of the model's"),
    (OptionError, {"attention": "eca", "foo": 1}, "has no option 'foo' in {library}, got 1; "),
    (OptionError, {"num_clases": 3}, r"has no option 'num_clases' in {library}, got 3; did you mean 'num_classes'\?"),
    (SpecError, {"num_classes": "x"}, f"num_classes: {INTEGER} [01], got 'x'"),
    (SpecError, {"num_classes": 2.5, "attention": "eca"}, f"num_classes: {INTEGER}"),
    (SpecError, {"num_classes": -1}, f"num_classes: {INTEGER} [01], got -1"),
    (SpecError, {"where": "zzz"}, "where: this has no effect without attention, got where='zzz'; pass attention=N"),
    (SpecError, {"where": "conv1", "attention": None}, "where: this has no effect without attention"),
    (SpecError, {"identity_init": True}, "identity_init: this has no effect without attention"),
    (SpecError, {"every_block": True}, "every_block: this has no effect without attention"),
]
WEIGHTS = "weights: expected one of 'IMAGENET1K_V1', 'DEFAULT' or None for 'resnet18', "
CASES = [
    *((library, *row) for row in IN_ALL for library in NETWORKS),
    ("torchvision", WeightsError, {"weights": "foo"}, WEIGHTS),
    ("torchvision", WeightsError, {"weights": True}, f"{WEIGHTS}got True"),
    ("torchvision", OptionError, {"weights": "DEFAULT", "num_classes": 3}, f"torchvision {CANNOT} weights='DEF"),
    ("torchvision", OptionError, {"norm_layer": 3}, "with norm_layer=3: TypeError: .*; correct or omit the option"),
    ("mindcv", SpecError, {"in_channels": "x"}, f"in_channels: {INTEGER} 1, got 'x'"),
    ("timm", SpecError, {"in_chans": "x"}, f"in_chans: {INTEGER} 1, got 'x'"),
    ("timm", OptionError, {"global_pool": "zzz"}, NO_BUILD),
    ("timm", OptionError, {"features_only": True, "out_indices": (9,)}, NO_BUILD),
    ("timm", OptionError, {"act_layer": "zzz"}, NO_BUILD),
    ("timm", OptionError, {"pretrained_cfg": 5}, NO_BUILD),
    ("timm", OptionError, {"pretrained_cfg_overlay": 5, "pretrained": True}, NO_BUILD),
]


def refused(library, name, error, message, options):
    pytest.importorskip("mindspore" if library == "mindcv" else "torch")
    pytest.importorskip(library)
    with pytest.raises(error, match=message):
        importlib.import_module(f"maam.{library}").create_model(name, **options)


@pytest.mark.parametrize(("library", "error", "options", "message"), CASES)
def test_options(library, error, options, message):
    title = "MindCV" if library == "mindcv" else library
    refused(library, NETWORKS[library], error, message.format(library=title), options)


CONFIGS = {"no_json": "{", "no_name": "[]", "unknown": '{"architecture": "resnet81"}'}
CONFIGS |= dict.fromkeys(("no_weights", "broken"), '{"architecture": "resnet10t", "num_classes": 3}')
SOURCES = [
    ("local-dir:none", WeightsError, "local-dir:none: there is no file none/config.json; expected a folder that"),
    ("local-dir:no_json", WeightsError, "no_json/config.json is not JSON: .*; expected a folder that timm.models"),
    ("local-dir:no_name", WeightsError, "no_name/config.json has no field 'architecture'; expected a folder that"),
    ("local-dir:unknown", PresetError, "no model 'resnet81'; did you mean 'resnet"),
    ("local-dir:no_weights", WeightsError, "local-dir:no_weights: the pretrained weights cannot be read: "),
    ("local-dir:broken", WeightsError, "local-dir:broken: the pretrained weights cannot be read: SafetensorError"),
    ("local-dir:", PresetError, "no model 'local-dir:': "),
    ("zip:resnet10t", PresetError, "no model 'zip:resnet10t': "),
    ("resnet10t.none", PresetError, "'resnet10t.none': Invalid pretrained tag"),
]


@pytest.mark.slow_in("attention", "num_classes")
@pytest.mark.parametrize("more", [{}, {"attention": "eca"}, {"num_classes": 2}], ids=str)
@pytest.mark.parametrize(("name", "error", "message"), SOURCES)
def test_sources_of_timm(name, error, message, more):
    for folder, config in CONFIGS.items():
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(config)
    Path("broken", "model.safetensors").write_bytes(b"broken")
    refused("timm", name, error, message, {"pretrained": True, **more})
