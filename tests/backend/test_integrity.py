"""Integrity check: a model in which a layer was replaced runs that layer, and is not saved or fused by its old spec."""

import importlib

import numpy as np
import pytest

import maam
from maam.errors import DeploymentError, ShapeError, WeightsError
from maam.spec import Role
from maam.weights import read_weights
from tests.errors import error_of

X = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
ONE = np.ones((1, 8, 1, 1), np.float32)


@pytest.fixture
def model(backend):
    return backend.train(backend.maam.build("maam_digits", seed=0), False)


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


def test_a_container_with_another_spec_is_followed(backend, model, tmp_path):
    other = backend.train(backend.maam.build("maam_digits", seed=3), False)
    other.reduce.reparameterize()
    model.reduce = other.reduce
    backend.maam.save_weights(model, tmp_path / "model.safetensors")
    loaded = backend.train(backend.maam.load(tmp_path / "model.safetensors"), False)
    np.testing.assert_allclose(backend.call(loaded, X), backend.call(model, X), atol=1e-6)


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
        norm = backend.at(layer, path)
        if kind == "frozen":
            backend.train(norm, False)
        else:
            features = (1, norm.num_features) if kind == "GroupNorm" else ()
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
    wrap = {"checkpoint": checkpoint_wrapper, "data parallel": torch.nn.DataParallel}
    return wrap[kind](layer) if kind in wrap else torch.compile(layer, backend="eager")


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
class TestTorch:
    @staticmethod
    def check_saved(backend, given, model, folder):
        """Save a model or a wrapper, and check that the loaded model computes the same as the model."""
        backend.maam.save_weights(given, folder / "model.safetensors")
        loaded = backend.maam.load(folder / "model.safetensors").eval()
        np.testing.assert_array_equal(backend.call(loaded, X), backend.call(model, X))

    def test_settings_for_training_may_change(self, backend, model, tmp_path):
        for path in batch_norms(model):
            model.get_submodule(path).momentum = 0.5
        model.reduce.act.inplace = True
        model.reduce.bn = backend.nn.SyncBatchNorm.convert_sync_batchnorm(model.reduce.bn)
        self.check_saved(backend, model, model, tmp_path)

    def test_wrapped_models_and_hub_models_are_saved(self, backend, model, tmp_path):
        averaged, compiled = backend.torch.optim.swa_utils.AveragedModel(model), backend.torch.compile(model)
        for wrapper in (averaged, compiled, backend.nn.DataParallel(compiled)):
            self.check_saved(backend, wrapper, model, tmp_path)
        pytest.importorskip("huggingface_hub")
        for inner in (model, compiled):
            hub_model = importlib.import_module("maam.torch.huggingface").HubModel(inner)
            self.check_saved(backend, hub_model, model, tmp_path)

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # by torch.compile
    @pytest.mark.parametrize("kind", ["compile", "compile a leaf", "checkpoint", "data parallel", "frozen"])
    def test_wrappers_inside_the_model(self, backend, model, tmp_path, kind):
        """They are left out of names: the model is saved, loaded, converted, fused and optimized as without them."""
        torch, expected = backend.torch, backend.call(model, X)
        path = {"frozen": "reduce.bn", "compile a leaf": "reduce.conv"}.get(kind, "reduce")
        backend.set(model, path, wrapped(torch, backend.at(model, path), kind))
        self.check_saved(backend, model, model, tmp_path)
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
