"""The presets in the registries of timm and MindCV, built with the libraries' functions and with `create_model`."""

import copy
from functools import partial

import numpy as np
import pytest

import maam
from maam import spec
from maam.errors import PresetError, SpecError, WeightsError
from maam.training import read_recipe
from maam.weights import list_pretrained
from tests.errors import error_of

WITHOUT_MAPS = ("mlp", "rnn", "without_agent_attention")
SMALL = {"num_classes": 10, "width_multiplier": 0.25, "cifar": True}
DIGITS = {"num_classes": 10, "in_channels": 1}


@pytest.fixture
def added(library, monkeypatch):
    """Register presets for one test; the registry of the library is restored after it."""
    for name, value in list(vars(library.registry).items()):
        if name.startswith("_mod") and isinstance(value, (dict, set)):
            monkeypatch.setattr(library.registry, name, copy.deepcopy(value))
    monkeypatch.setattr(library.presets, "default_cfgs", dict(library.presets.default_cfgs))
    if hasattr(library.presets, "__all__"):
        monkeypatch.setattr(library.presets, "__all__", list(library.presets.__all__))
    return maam.register_preset


@pytest.fixture
def backend(library):
    return maam.torch if library.name == "timm" else maam.mindspore


def arrays_of(model):
    """Return the arrays of a PyTorch module or a MindSpore cell by name."""
    if hasattr(model, "state_dict"):
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return {p.name: p.asnumpy() for p in model.get_parameters()}


def has(library, name):
    """Return whether the library has the preset: the models of timm have at least three feature maps."""
    return library.name != "timm" or name not in WITHOUT_MAPS


def test_names_and_aliases(library):
    native = library.native
    assert native.list_models(module="presets") == [name for name in maam.list_presets() if has(library, name)]
    for pattern in ("maf*", "maam_*"):
        assert native.list_models(pattern) == maam.list_presets(pattern)
    with_weights = set(maam.list_presets()) & set(native.list_models(pretrained=True))
    assert with_weights == (set(list_pretrained()) if library.name == "timm" else set())  # MindCV expects a URL
    assert [native.is_model(name) for name in ("mafc_v2", "MAFCV2", "mafc_v9")] == [True, True, False]
    model = native.create_model("MAFCV2", **SMALL)
    assert model.spec == maam.preset("mafc_v2", **SMALL)
    if library.name == "timm":
        assert model.pretrained_cfg["architecture"] == "mafc_v2"
    plain = library.maam.create_model("MAFCV2", attention=None, **SMALL)
    assert plain.spec == maam.preset("mafc_v2", attention=None, **SMALL)


@pytest.mark.parametrize("name", maam.list_presets())
def test_the_configuration_follows_from_the_spec(library, name):
    if not has(library, name):
        assert not library.native.is_model(name)
        return
    node = maam.preset(name)
    if library.name == "timm":
        cfg = library.native.get_pretrained_cfg(name)
        assert (cfg.architecture, cfg.num_classes, cfg.input_size) == (name, node.num_classes, node.input_shape)
        assert (cfg.classifier, cfg.interpolation) == (spec.head(node), "bilinear")
        assert cfg.fixed_input_size == (spec.input_rule(node).size is not None)
        assert bool(cfg.has_weights) == (name in list_pretrained())
    else:
        cfg = library.registry.get_pretrained_cfg(name)
        assert (cfg["url"], cfg["num_classes"], cfg["input_size"]) == ("", node.num_classes, node.input_shape)
        assert node.at(cfg["classifier"]).kind in ("linear", "conv2d")
        assert cfg["first_conv"] == "" or isinstance(node.at(cfg["first_conv"]), spec.Conv2d)
        assert library.registry.get_pretrained_cfg_value(name, "classifier") == spec.head(node)


def test_arguments_reach_the_preset(library):
    channels = {"in_chans" if library.name == "timm" else "in_channels": 1}
    expected = maam.preset("mafc_v2", in_channels=1, attention="se", **SMALL)
    model = library.native.create_model("mafc_v2", attention="se", drop_rate=None, **channels, **SMALL)
    assert model.spec == expected
    if library.name == "timm":
        sized = library.native.create_model("mafc_v2", img_size=(64, 64), **SMALL)
        assert sized.spec == maam.preset("mafc_v2", image_size=64, **SMALL)
        assert sized.pretrained_cfg["input_size"] == (3, 64, 64)
    else:
        assert model.default_cfg == library.registry.get_pretrained_cfg("mafc_v2")
        assert sum(p.size for p in model.trainable_params()) == expected.num_parameters
    for create in (library.native.create_model, library.maam.create_model):  # training scripts pass rates of 0
        model = create("mafc_v2", drop_path_rate=0.0, drop_rate=0, drop_block_rate=0.0, **SMALL)
        assert model.spec == maam.preset("mafc_v2", **SMALL)


def test_default_channels_and_classes_and_a_seed(library, backend):
    """MindCV passes its defaults to every model, timm passes none; a seed draws the same weights as in `build`."""
    create = library.native.create_model
    defaults, own = ({}, {}) if library.name == "timm" else ({"num_classes": 1000, "in_channels": 3}, DIGITS)
    assert create("maam_digits").spec == maam.preset("maam_digits", **defaults)
    assert library.presets.maam_digits(num_classes=4).spec == create("maam_digits", num_classes=4).spec
    expected = arrays_of(backend.build("maam_digits", seed=3))
    np.testing.assert_equal(arrays_of(create("maam_digits", seed=3, **own)), expected)


class TestOwnPresets:
    def test_registered_on_request(self, library, added):
        def own_digits(num_classes=3, in_channels=1):
            node = maam.preset("maam_digits", num_classes=num_classes, in_channels=in_channels)
            return node.replace(name="own_digits")

        added(own_digits)
        assert not library.native.is_model("own_digits")
        assert library.maam.register_presets("own_*") == ["own_digits"] == library.maam.register_presets("own_*")
        assert library.native.create_model("own_digits", num_classes=4).spec.num_classes == 4
        if library.name == "timm":
            assert library.native.get_pretrained_cfg("own_digits").mean == (0.0,)

    def test_only_new_classifiers_are_registered(self, library, added):
        before = library.registry.model_entrypoint("mafc_v2")
        assert library.maam.register_presets("mafc_*") == maam.list_presets("mafc_*")
        assert library.registry.model_entrypoint("mafc_v2") is before
        added(lambda: maam.preset("maam_digits").until("reduce"), "own_features")
        assert library.maam.register_presets("own_*") == []
        assert not library.native.is_model("own_features")

    def test_a_conflicting_name_registers_nothing(self, library, added):
        for name in ("resnet18", "own_first"):
            added(lambda: maam.preset("maam_digits"), name)
        origin, title = f"{library.name}.models.resnet", "timm" if library.name == "timm" else "MindCV"
        assert error_of(PresetError, library.maam.register_presets, "*") == (
            f"{title} already has a model 'resnet18' from {origin}; register the preset under another name with "
            "maam.register_preset(factory, name)"
        )
        assert not library.native.is_model("own_first")
        assert library.registry.model_entrypoint("resnet18").__module__ == origin


class TestAttention:
    def test_a_name_or_a_layer_class(self, library, backend):
        expected = maam.preset("mobilenet_v3_small", attention="mafc", **SMALL)
        for given in (backend.MAFC, "MAFC"):
            model = library.maam.create_model("mobilenet_v3_small", attention=given, **SMALL)
            assert model.spec == expected
            if hasattr(model, "_model_args"):  # the oldest timm does not store them
                assert model._model_args["attention"] == "mafc"
        assert library.native.create_model("mobilenet_v3_small", attention=backend.MAFC, **SMALL).spec == expected

    def test_none_removes_it_and_the_default_keeps_it(self, library):
        name = "mafc_v3_small"
        assert library.maam.create_model(name, **SMALL).spec == maam.preset(name, **SMALL)
        plain = maam.preset(name, attention=None, **SMALL)
        assert library.maam.create_model(name, attention=None, **SMALL).spec == plain
        assert library.native.create_model(name, attention="none", **SMALL).spec == plain

    def test_other_layers_are_refused(self, library, backend):
        class Other: ...

        def refusal(attention):
            return error_of(SpecError, library.maam.create_model, "mafc_v2", attention=attention, **SMALL)

        given = {"partial": partial(backend.MAFC, rd_ratio=0.5), "function": lambda channels: backend.MAFC(channels)}
        expected = f"attention: expected the name of a layer or a class of {backend.__name__}, got "
        for got, attention in {**given, f"{__name__}.{Other.__qualname__}": Other}.items():
            assert refusal(attention).startswith(f"{expected}{got}; 'mafc_v2' is a preset")
        for attention in ("maam", backend.MAAM):  # which the preset does not have
            assert "mobilenet: attention: input should be 'se', 'maf', 'ese', 'eca', " in refusal(attention)


def test_unknown_models_and_options(library):
    for name, options, message in (
        ("maam_digits", {"attention": None}, "'maam_digits' has no option 'attention'"),
        ("maam_digits", {"attention": "se"}, "'maam_digits' has no option 'attention'"),
        ("mafc_v2", {"every_block": True, "attention": "se"}, "preset, whose spec determines the blocks with atten"),
        ("mafc_v2", {"wdth_multiplier": 0.1}, "'mafc_v2' has no option 'wdth_multiplier'; did you mean 'width_m"),
        ("resnet81", {"attention": "se"}, "no model 'resnet81'; did you mean 'resnet18'"),
        ("zzzzzz", {}, "no model 'zzzzzz'; {library}.list_models() lists all models"),
    ):
        assert message.format(library=library.name) in error_of(PresetError, library.maam.create_model, name, **options)
    for create in (library.native.create_model, library.maam.create_model):
        message = error_of(PresetError, create, "mafc_v2", drop_path_rate=0.1)
        assert "'mafc_v2' has no option 'drop_path_rate'; its options: num_" in message
        message = error_of(WeightsError, create, "mafc_v2", pretrained=True)
        assert message.startswith("mafc_v2: there are no pretrained weights for this preset; omit pre")


class TestTimm:
    @pytest.mark.parametrize("name", [name for name in maam.list_presets() if name not in WITHOUT_MAPS])
    def test_the_same_network_as_from_build(self, name, timm, torch, images):
        small = {"width_multiplier": 0.1, "cifar": True} if "_v" in name else {}
        small = {"channels": (8, 16), "img_size": 32} if name == "maam_imagenet" else small
        model = timm.create_model(name, **small).eval()
        own = maam.torch.build(model.spec).eval()
        assert list(model.state_dict()) == list(own.state_dict())
        own.load_state_dict(model.state_dict())
        x = images(model.spec.input_shape[1], model.spec.input_shape[0])
        assert torch.equal(model(x), own(x))

    @pytest.mark.parametrize("name", maam.list_presets("maf*"))
    def test_images_are_prepared_as_in_the_recipe(self, name, timm):
        images = read_recipe("imagenet_maf").images
        config = timm.data.resolve_model_data_config(timm.create_model(name, width_multiplier=0.1))
        expected = (images.mean, images.std, (3, images.size, images.size), 224 / 256)
        assert tuple(config[key] for key in ("mean", "std", "input_size", "crop_pct")) == expected

    def test_other_presets_use_the_whole_image_in_0_1(self, timm, torch):
        from PIL import Image

        config = timm.data.resolve_model_data_config(timm.create_model("maam_digits"))
        assert (config["mean"], config["std"], config["crop_pct"]) == ((0.0,), (1.0,), 1.0)
        transform = timm.data.create_transform(**{**config, "input_size": (3, 8, 8)})
        pixels = transform(Image.new("RGB", (8, 8), (255, 0, 51)))
        assert torch.allclose(pixels[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))

    def test_sizes_and_first_layers_in_the_configuration(self, timm):
        assert timm.data.resolve_model_data_config(timm.create_model("mafc_v2", **SMALL))["input_size"] == (3, 32, 32)
        assert timm.create_model("maam_cifar10", img_size=16).pretrained_cfg["input_size"] == (3, 16, 16)
        assert timm.get_pretrained_cfg("mafc_v2").first_conv == "backbone.init_conv.conv"
        assert timm.get_pretrained_cfg("maam_cifar10").first_conv == tuple(f"agents.{i}.conv1" for i in range(3))

    def test_device_dtype_and_flags(self, timm, torch, images):
        model = timm.create_model("maam_digits", device="meta", dtype=torch.float64)
        assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float64)}
        for flag in ("exportable", "scriptable", "no_jit"):
            assert timm.create_model("maam_digits", **{flag: True})(images(8, 1)).shape == (2, 10)

    def test_invalid_options(self, timm):
        for name, options, message in (
            ("mafc_v2", {"in_channels": 1}, "in_channels: 'mafc_v2' has no such option in timm; use 'in_c"),
            ("mafc_v2", {"image_size": 64}, "image_size: 'mafc_v2' has no such option in timm; use 'img_s"),
            ("mafc_v2", {"img_size": (64, 32)}, "img_size: expected one number or two equal numbers, got (64"),
            ("mafc_v2", {"num_classes": -1}, "num_classes: input should be greater than or equal to 1"),
            ("mafc_v2", {"global_pool": "max"}, "global_pool: expected 'avg' or '', and '' only with num_cla"),
            ("maam_digits", {"global_pool": "avg"}, "global_pool: expected '', and '' only with num_classes=0"),
            ("mafc_v2", {"global_pool": ""}, "global_pool: expected 'avg' or ''"),
            ("mafc_v2", {"drop_rate": 1.5}, "drop_rate: expected a number of at least 0 and below 1, got 1.5"),
            ("maam_digits", {"drop_rate": 0.5, "dropout": 0.5}, "drop_rate: the preset already has dropout"),
            ("maam_digits", {"fusion": "max"}, "fusion: input should be 'softmax', 'mean' or 'dynamic'"),
        ):
            kind = PresetError if {"in_channels", "image_size"} & options.keys() else SpecError
            assert message in error_of(kind, timm.create_model, name, **options)


@pytest.mark.slow_in("graph")
@pytest.mark.parametrize("mode", ["graph", "pynative"], indirect=True)
@pytest.mark.parametrize("library", ["mindcv"], indirect=True)
def test_a_training_step_in_mindspore(mode, library, ms_images, ms_train):
    model = library.native.create_model("maam_digits", seed=0, **DIGITS)
    losses, unchanged = ms_train(model, ms_images(8, 1))
    assert losses[1] < losses[0]
    assert unchanged == []
