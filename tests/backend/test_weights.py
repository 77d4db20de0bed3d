"""`build`, `load`, `save_weights` and `load_weights` of each framework: wrong calls, and models with other layers.

A model in which a layer was replaced runs that layer, and is not saved or fused by its old spec.
"""

import copy
import importlib
import re
from functools import partial

import numpy as np
import pytest

import maam
from maam import spec
from maam.deploy.fusing import fuse_file
from maam.errors import DataError, DeploymentError, PresetError, ShapeError, SpecError, WeightsError
from maam.spec import Role, draw
from maam.weights import read_weights, write_weights
from tests.errors import error_of

DIGITS = spec.preset("maam_digits")
X = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
ONE = np.ones((1, 8, 1, 1), np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    write_weights(path, DIGITS, draw(DIGITS.parameters(), 3))
    return path


@pytest.fixture
def model(backend):
    return backend.train(backend.maam.build(DIGITS, seed=0), False)


def refusal(backend, model, path, *strict, **options):
    return error_of(WeightsError, backend.maam.load_weights, model, path, *strict, **options)


class TestLoadWeights:
    def test_a_replaced_head(self, backend, model, path):
        model.classifier.fc2 = backend.linear(64, 4)
        before = backend.read(model)
        for strict in (True, False):
            assert "classifier.fc2" in refusal(backend, model, path, strict)
        np.testing.assert_equal(backend.read(model), before)
        backend.maam.load_weights(model, path, skip=("classifier.fc2",))
        found, expected = backend.read(model), read_weights(path)[1]
        np.testing.assert_array_equal(found["reduce.conv.weight"], expected["reduce.conv.weight"])

    def test_a_replaced_activation(self, backend, model, path):
        model.reduce.act = backend.nn.GELU()
        expected = r"load_weights: layer 'reduce.act' was ReLU\(.*\) and is GELU"
        assert re.search(expected, refusal(backend, model, path))
        backend.maam.load_weights(model, path, skip=("reduce.act",))

    def test_fused_and_unfused_weights_are_not_mixed(self, backend, model, path, tmp_path):
        fused = backend.train(backend.maam.load(path), False)
        fused.reparameterize()
        backend.maam.save_weights(fused, tmp_path / "fused.safetensors")
        for strict in (True, False):
            assert "the model is fused" in refusal(backend, fused, path, strict)
            assert "the file is fused" in refusal(backend, model, tmp_path / "fused.safetensors", strict)

    def test_the_alpha_of_gct_remains_in_fused_files(self, backend, tmp_path):
        node = spec.preset("mobilenet_v2", attention="gct", cifar=True, num_classes=10)
        own, given = tmp_path / "gct.safetensors", tmp_path / "fused.safetensors"
        backend.maam.save_weights(backend.maam.build(node), own)
        fuse_file(own, given)
        model, fused = (backend.train(backend.maam.load(path), False) for path in (own, given))
        assert "the model is fused" in refusal(backend, fused, own)
        assert "the file is fused" in refusal(backend, model, given)

    def test_models_without_batch_norm_do_not_count_as_fused(self, backend, path, tmp_path):
        normed, plain = spec.maam(4), spec.maam(4, norm_layer="identity")
        for own, given in ((normed, plain), (plain, normed)):
            backend.maam.save_weights(backend.maam.build(given), tmp_path / "given.safetensors")
            message = refusal(backend, backend.maam.build(own), tmp_path / "given.safetensors")
            assert re.search(r"does not fit the model; unexpected: .*; missing: ", message)
        assert "does not fit the model; unexpected: " in refusal(backend, backend.maam.build("mlp"), path)

    def test_wrong_arguments(self, backend, model, path):
        assert "skip: expected a sequence of layer names, got None" in refusal(backend, model, path, skip=None)
        for act in (backend.maam.save_weights, backend.maam.load_weights):
            for wrong in (str(path), {"a": 1}, DIGITS):
                with pytest.raises(WeightsError, match=f"{act.__name__}: expected a .*, got an object of"):
                    act(wrong, model)
        message = error_of(DataError, backend.maam.ImageFolderBatches, "pets/train", 4)
        assert "expected a maam.data.ImageFolder, got a str; " in message

    def test_another_dropout_is_saved(self, backend, tmp_path):
        model = backend.maam.build("maam_digits", dropout=0.2)
        model.classifier.dropout.p = 0.5
        backend.maam.save_weights(model, tmp_path / "model.safetensors")


class TestBuild:
    def test_options_of_presets_and_dtypes(self, backend):
        expected = spec.preset("maam_digits", num_classes=7)
        assert backend.maam.build("maam_digits", num_classes=7).spec == expected
        assert maam.reference.build("maam_digits", num_classes=7).spec == expected
        assert "no option 'classes'" in error_of(PresetError, backend.maam.build, "maam_digits", classes=7)
        assert re.search("num_classes: .*preset", error_of(SpecError, backend.maam.build, DIGITS, num_classes=7))
        for dtype in (backend.dtype("int32"), "float16", 3):  # the last two are no dtypes of the framework
            assert "dtype: expected a floating" in error_of(SpecError, backend.maam.build, "maam_digits", dtype=dtype)

    def test_layers_by_index(self, backend, model):
        assert model.agents[0] is getattr(model.agents, "0")
        assert len(model.agents) == 3
        assert list(model)[-1] is model.classifier
        assert copy.deepcopy(model.spec) is model.spec
        changes = [(model.__getitem__, slice(2))]
        if backend.name == "mindspore":
            changes += [(model.append, model.classifier), (model.__delitem__, -1)]
        for change in changes:
            assert "the spec determines the layers; to get a part of the model: maam" in error_of(SpecError, *change)


def refused(backend, model, folder, message):
    """Check that neither `save_weights` nor `reparameterize` accepts the model."""
    with pytest.raises(WeightsError, match=f"save_weights: {message}"):
        backend.maam.save_weights(model, folder / "model.safetensors")
    with pytest.raises(DeploymentError, match=f"reparameterize: {message}"):
        model.reparameterize()
    assert not (folder / "model.safetensors").exists()


def test_a_replaced_layer_runs(runtime, small):
    model = runtime.train(runtime.maam.build(small, seed=0), False)
    first = runtime.call(model, X)
    model.classifier = runtime.nn.Flatten()  # in graph mode the compiled graph is dropped
    assert runtime.call(model, X).shape == (2, 8 * 4 * 4)
    other = runtime.train(runtime.maam.build(small, seed=0), False)
    other.reduce.act = runtime.nn.Sigmoid()
    assert np.abs(runtime.call(other, X) - first).max() > 1e-3


@pytest.mark.parametrize("path", ["reduce.act", "classifier.fc2", "agents.1", "agents.0"])
def test_a_replaced_layer_is_named(backend, model, path, tmp_path):
    if path == "agents.0":
        model = backend.train(backend.maam.MAAM(8, fusion="dynamic"), False)
        assert [type(branch).__name__ for branch in model.agents] == ["Container"] * 3
    layers = {"reduce.act": backend.nn.SiLU(), "classifier.fc2": backend.linear(64, 5)}
    layer = layers.get(path, backend.nn.Identity())
    backend.set(model, path, layer)
    refused(backend, model, tmp_path, rf"layer '{path}' was .* and is {type(layer).__name__}")


def test_changed_settings_and_removed_layers_are_named(backend, model, tmp_path):
    model.reduce.bn.eps = 1e-3
    refused(backend, model, tmp_path, r"layer 'reduce.bn' was BatchNorm2d\(.* eps=0.001")
    model.reduce.bn.eps = 1e-5
    del model.classifier.fc2
    refused(backend, model, tmp_path, r"layer 'classifier.fc2' .* is absent")


def check_saved(backend, given, model, folder):
    """Save a model or a wrapper, and check that the loaded model computes the same as the model."""
    backend.maam.save_weights(given, folder / "model.safetensors")
    loaded = backend.train(backend.maam.load(folder / "model.safetensors"), False)
    np.testing.assert_array_equal(backend.call(loaded, X), backend.call(model, X))


def test_a_container_with_another_spec_is_followed(backend, model, tmp_path):
    other = backend.train(backend.maam.build("maam_digits", seed=3), False)
    other.reduce.reparameterize()
    model.reduce = other.reduce
    check_saved(backend, model, model, tmp_path)


def test_overridden_methods(backend, tmp_path):
    """A layer that computes something else is not saved; a layer that contains one is not fused."""
    twice = type("Twice", (backend.maam.MAFC,), {backend.method: lambda self, x: 2 * x})
    with pytest.raises(WeightsError, match=rf"save_weights: Twice overrides {backend.method}\(\), which the spec does"):
        backend.maam.save_weights(twice(8), tmp_path / "layer.safetensors")
    backend.maam.save_weights(type("Named", (backend.maam.MAFC,), {})(8), tmp_path / "layer.safetensors")
    layer = backend.train(backend.maam.MAAM(4), False)
    inner = backend.at(layer, "agents.0")
    inner.__class__ = type("Mine", (type(inner),), {backend.method: lambda self, x: x})
    with pytest.raises(DeploymentError, match=rf"reparameterize: Mine at 'agents.0' overrides {backend.method}\(\)"):
        layer.reparameterize()


def test_arrays_that_cannot_be_loaded_are_not_saved(backend, model, tmp_path):
    backend.write(model, {"classifier.fc2.bias": np.array([0, np.nan] * 5, np.float32)})
    message = error_of(WeightsError, backend.maam.save_weights, model, tmp_path / "model.safetensors")
    assert "NaN or infinity in classifier.fc2.bias" in message
    assert not list(tmp_path.iterdir())


def batch_norms(model):
    return [p.name.rpartition(".")[0] for p in model.spec.parameters() if p.role is Role.RUNNING_VAR]


@pytest.mark.parametrize("kind", ["frozen", "GroupNorm", "Identity"])
def test_frozen_batch_norm_and_other_norms_take_a_batch_of_one(backend, kind):
    layer = backend.train(backend.maam.MAAM(8))
    for path in batch_norms(layer):
        if kind == "frozen":
            backend.train(backend.at(layer, path), False)
        else:
            features = (1, backend.at(layer, path).num_features) if kind == "GroupNorm" else ()
            backend.set(layer, path, getattr(backend.nn, kind)(*features))
    assert (backend.nn.BatchNorm2d in backend.kinds(layer)) == (kind == "frozen")
    assert backend.call(layer, ONE).shape == ONE.shape
    if kind == "frozen":
        backend.train(layer.reduce.bn)
        assert "reduce.bn: expected more than 1 value per channel" in error_of(ShapeError, backend.call, layer, ONE)
    layer.reduce = backend.nn.Identity()
    assert backend.call(layer, ONE).shape == ONE.shape


def wrapped(torch, layer, kind):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    if kind == "frozen":
        frozen = pytest.importorskip("torchvision").ops.FrozenBatchNorm2d(layer.num_features, layer.eps)
        frozen.load_state_dict(layer.state_dict())
        return frozen
    compiled = partial(torch.compile, backend="eager")
    return {"checkpoint": checkpoint_wrapper, "data parallel": torch.nn.DataParallel}.get(kind, compiled)(layer)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
class TestTorch:
    def test_settings_for_training_may_change(self, backend, model, tmp_path):
        expected, names = backend.call(model, X), list(model.state_dict())
        for path in batch_norms(model):
            model.get_submodule(path).momentum = 0.5
        model.reduce.act.inplace = True
        assert backend.nn.SyncBatchNorm.convert_sync_batchnorm(model) is model
        assert {type(model.get_submodule(path)) for path in batch_norms(model)} == {backend.nn.SyncBatchNorm}
        assert list(model.state_dict()) == names
        np.testing.assert_array_equal(backend.call(model, X), expected)
        check_saved(backend, model, model, tmp_path)

    def test_wrapped_models_and_hub_models_are_saved(self, backend, model, tmp_path):
        averaged, compiled = backend.torch.optim.swa_utils.AveragedModel(model), backend.torch.compile(model)
        for wrapper in (averaged, compiled, backend.nn.DataParallel(compiled)):
            check_saved(backend, wrapper, model, tmp_path)
        pytest.importorskip("huggingface_hub")
        for inner in (model, compiled):
            hub_model = importlib.import_module("maam.torch.huggingface").HubModel(inner)
            check_saved(backend, hub_model, model, tmp_path)

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # by torch.compile
    @pytest.mark.parametrize("kind", ["compile", "compile a leaf", "checkpoint", "data parallel", "frozen"])
    def test_wrappers_inside_the_model(self, backend, model, tmp_path, kind):
        """They are left out of names: the model is saved, loaded, converted, fused and optimized as without them."""
        torch, expected = backend.torch, backend.call(model, X)
        path = {"frozen": "reduce.bn", "compile a leaf": "reduce.conv"}.get(kind, "reduce")
        backend.set(model, path, wrapped(torch, backend.at(model, path), kind))
        check_saved(backend, model, model, tmp_path)
        before = backend.maam.build("maam_digits", seed=3)
        backend.maam.save_weights(before, tmp_path / "other.safetensors")
        backend.maam.load_weights(model, tmp_path / "other.safetensors")
        np.testing.assert_array_equal(backend.call(model, X), backend.call(before.eval(), X))
        backend.maam.load_weights(model, tmp_path / "model.safetensors")
        if kind != "data parallel":  # its name, "module", can be that of a layer
            torch.save(model.state_dict(), tmp_path / "state.pth")
            maam.convert(tmp_path / "state.pth", tmp_path / "converted.safetensors", "maam_digits")
            np.testing.assert_equal(*(read_weights(tmp_path / f"{n}.safetensors") for n in ("converted", "model")))
        fast = backend.maam.optimize(model, torch.from_numpy(X), precision="fp32", compile=False)
        np.testing.assert_allclose(fast(torch.from_numpy(X)).detach(), expected, atol=1e-5)
        model.reparameterize()
        np.testing.assert_allclose(backend.call(model, X), expected, atol=1e-5)

    def test_a_network_is_not_a_wrapper(self, backend, model, tmp_path):
        network = backend.nn.Module()
        network.module, network.head = model, backend.nn.Linear(10, 2)
        assert "has no .spec" in error_of(WeightsError, backend.maam.save_weights, network, tmp_path / "m.safetensors")
