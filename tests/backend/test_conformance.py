"""Every registered backend keeps the contract of `maam.backend.protocol`, as far as its capabilities go."""

import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

from maam import backend as registry
from maam import parity, preset, reference, spec
from maam.backend import Capability, find_entry, load_backend, protocol
from maam.backend.optimizer import Optimizer
from maam.data import ImageBatches
from maam.errors import MaamError, PortingError, SpecError
from maam.spec import draw
from tests.errors import error_of

PROTOCOLS = {
    Capability.TRAINING: protocol.TrainingBackend,
    Capability.PORTING: protocol.PortingBackend,
    Capability.CHECKPOINTS: protocol.CheckpointBackend,
    Capability.EXPORT: protocol.ExportBackend,
    Capability.GRADIENT_REFERENCE: protocol.GradientReferenceBackend,
}
MODEL = preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)
ARRAYS = draw(MODEL.parameters(), 0)
IMAGES = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
EXPECTED = reference.ReferenceModel(MODEL, ARRAYS)(IMAGES)
LABELS = np.arange(4, dtype=np.int32)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def third():
    """Register the backend of third_backend.py for the tests of this module, and return its Python module."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(Path(__file__).parent)
        module = importlib.import_module("third_backend")
        registry.register(module.ENTRY)
        yield module
        registry.unregister("third")
        del sys.modules["third_backend"]


@pytest.fixture(params=["torch", "mindspore", "reference", "third"])
def backend(request, third):
    if not registry.is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return load_backend(request.param)


def with_capability(capability):
    return pytest.mark.parametrize("backend", registry.backend_names(capability), indirect=True)


@pytest.fixture
def runner(backend):
    found = backend.make_runner(backend.build(MODEL))
    found.write_arrays(ARRAYS)
    return found


def assert_accepts(found, contract):
    """Each method has the contract's parameters; what it has besides has a default."""
    for name, method in inspect.getmembers(contract, inspect.isfunction):
        if not name.startswith("_"):
            own = inspect.signature(getattr(found, name)).parameters
            expected = list(inspect.signature(method).parameters)[1:]
            assert set(expected) <= set(own), name
            extra = [own[p] for p in own if p not in expected and own[p].kind is not inspect.Parameter.VAR_KEYWORD]
            assert all(p.default is not inspect.Parameter.empty for p in extra), name


def test_all_registered_backends_are_tested(third):
    assert registry.backend_names() == ["torch", "mindspore", "reference", "third"]


def test_methods_of_the_backend_its_runner_and_its_trainer(backend, runner):
    entry = find_entry(backend.name)
    assert backend.name == entry.name
    assert runner.capabilities == entry.modes[runner.name]
    for contract in [protocol.Backend, *(PROTOCOLS[one] for one in entry.capabilities)]:
        assert_accepts(backend, contract)
    assert_accepts(runner, protocol.Runner)
    if Capability.TRAINING in entry.capabilities:
        assert_accepts(runner.trainer(Optimizer(name="sgd", lr=0.1)), protocol.Trainer)


class TestModels:
    def test_a_preset_a_seed_and_a_weights_file(self, backend, tmp_path):
        assert backend.make_runner(backend.build("maam_digits", seed=0)).spec == preset("maam_digits")
        model = backend.build(MODEL, seed=3)
        backend.save_weights(model, tmp_path / "model.safetensors")
        loaded = backend.make_runner(backend.load(tmp_path / "model.safetensors"))
        assert loaded.spec == MODEL
        for runner in (backend.make_runner(model), loaded):
            np.testing.assert_equal(runner.read_arrays(), draw(MODEL.parameters(), 3))

    def test_every_mode(self, backend):
        for mode, capabilities in find_entry(backend.name).modes.items():
            found = backend.make_runner(backend.build(MODEL), mode)
            found.write_arrays(ARRAYS)
            assert (found.name, found.capabilities) == (mode, capabilities)
            if mode != "torch compiled":  # which tests/torch/test_graphs.py compiles
                np.testing.assert_allclose(found.forward(IMAGES), EXPECTED, **TOLERANCE)


class TestRunner:
    def test_train_mode_moves_the_statistics(self, runner):
        model = reference.ReferenceModel(MODEL, ARRAYS)
        np.testing.assert_allclose(runner.forward(IMAGES, training=True), model(IMAGES, training=True), **TOLERANCE)
        found = runner.read_arrays()
        for name in ("agents.0.bn1.running_mean", "reduce.bn.running_var"):
            np.testing.assert_allclose(found[name], model.arrays[name], rtol=1e-5, atol=1e-6)
            assert not np.array_equal(found[name], ARRAYS[name])

    def test_a_layer_by_path(self, runner):
        model = reference.ReferenceModel(MODEL, ARRAYS)
        found = runner.forward_layer("agents.0.conv1", IMAGES)
        np.testing.assert_allclose(found, model.run("agents.0.conv1", IMAGES.astype(np.float64)), **TOLERANCE)

    def test_state_is_preserved(self, runner):
        with runner.preserve_state():
            runner.forward(IMAGES, training=True)
            runner.write_arrays({"agents.alpha": np.ones_like(ARRAYS["agents.alpha"])})
        np.testing.assert_equal(runner.read_arrays(), ARRAYS)

    def test_arrays_that_are_read_and_those_of_a_clone_are_copies(self, runner):
        clone = runner.clone_with(MODEL, draw(MODEL.parameters(), 1))
        runner.read_arrays()["agents.alpha"][:] = 5
        assert (clone.name, clone.spec) == (runner.name, MODEL)
        np.testing.assert_equal(runner.read_arrays(), ARRAYS)
        np.testing.assert_equal(clone.read_arrays(), draw(MODEL.parameters(), 1))


@with_capability(Capability.TRAINING)
class TestTraining:
    def test_gradients(self, backend, runner):
        found = runner.gradients(IMAGES, np.ones((4, 10), np.float32))
        assert found.input.shape == IMAGES.shape
        trained = {p.name: p.shape for p in MODEL.parameters() if p.trainable}
        assert {name: array.shape for name, array in found.parameters.items()} == trained

    def test_a_step_and_its_state(self, backend, runner):
        trainer = runner.trainer(Optimizer(name="sgd", lr=0.1, momentum=0.9))
        first = trainer.step(IMAGES, LABELS, 0.1)
        state, arrays = trainer.read_state(), runner.read_arrays()
        second = trainer.step(IMAGES, LABELS, 0.1)
        assert second < first
        runner.write_arrays(arrays)
        trainer.write_state(state)
        assert trainer.step(IMAGES, LABELS, 0.1) == second

    def test_devices_precisions_batches_and_a_training_runner(self, backend):
        assert "cpu" in backend.list_devices()
        assert backend.select_device("cpu") == "cpu"
        assert backend.select_precision("cpu", "fp32") == "fp32"
        assert issubclass(backend.image_batches(), ImageBatches)
        found = backend.make_training_runner(MODEL, seed=0, device=backend.select_device("cpu"))
        np.testing.assert_allclose(found.forward(IMAGES), EXPECTED, **TOLERANCE)

    def test_one_process_alone(self, backend):
        processes = backend.join_processes("cpu")
        assert (processes.rank, processes.size) == (0, 1)
        np.testing.assert_array_equal(processes.gather(np.arange(3)), np.arange(3))
        backend.leave_processes()


class TestOtherCapabilities:
    @pytest.mark.parametrize("backend", ["reference"], indirect=True)
    def test_the_reference_says_that_it_does_not_train(self, runner):
        for call, *given in ((runner.gradients, IMAGES, IMAGES), (runner.trainer, Optimizer())):
            with pytest.raises(MaamError, match=r"the NumPy reference .*; use framework='torch' or 'mindspore'"):
                call(*given)

    @with_capability(Capability.PORTING)
    def test_adapters_refuse_what_is_no_model(self, backend):
        assert backend.adapt(backend.build(MODEL)).framework == backend.name
        assert "got an object of type int" in error_of(PortingError, backend.adapt, 3)

    @with_capability(Capability.CHECKPOINTS)
    def test_checkpoints_come_back(self, backend, tmp_path):
        for suffix in find_entry(backend.name).checkpoint_suffixes:
            path = tmp_path / f"model{suffix}"
            backend.write_checkpoint(path, MODEL, ARRAYS)
            np.testing.assert_equal(backend.read_checkpoint(path, MODEL)[0], ARRAYS)

    @with_capability(Capability.EXPORT)
    def test_formats_are_those_of_the_entry(self, backend):
        module = importlib.import_module(f"maam.{backend.name}.export")
        entry = find_entry(backend.name)
        assert set(module.WRITERS) == set(entry.formats)
        assert set(module.READERS) == {name for name, one in entry.formats.items() if one.readable and not one.engine}

    @with_capability(Capability.GRADIENT_REFERENCE)
    def test_the_gradient_reference_is_exact(self, backend, runner):
        exact = runner.clone_with(MODEL, ARRAYS, "float64")
        np.testing.assert_allclose(exact.forward(IMAGES), EXPECTED, rtol=1e-12, atol=1e-12)
        found = backend.near_kinks(exact.model, runner.model, IMAGES)
        assert found.layers > 0
        assert found.values > 0


NODES = {"maam": spec.maam(8, num_agents=3, pool=(1, 2)), "mean": spec.maam(8, fusion="mean", scales=(1, 1, 1))}
NODES |= {"se": spec.se(16), "cbam": spec.cbam(16), "model": MODEL}


class TestThirdBackend:
    """A backend that is written in a test file takes part in parity."""

    @pytest.mark.parametrize("name", NODES)
    def test_parity(self, name, third):
        report = parity.check(NODES[name], frameworks=["third"], stages=["exchange", "lattice", "layers", "forward"])
        assert report.passed, report.to_markdown()
        assert {row.runner for row in report.rows} == {"third"}

    def test_a_fault_in_it_is_found(self, third, monkeypatch):
        right = third.Network.activation
        monkeypatch.setattr(third.Network, "activation", lambda *given: right(*given) * np.float32(1.001))
        report = parity.check(NODES["se"], frameworks=["third"], stages=["layers"])
        assert not report.passed
        assert "act" in report.first_difference


def test_names_that_the_registry_refuses(third):
    assert "backend 'third' is already registered" in error_of(SpecError, registry.register, third.ENTRY)
    with pytest.raises(SpecError, match=r"framework: expected one of torch, mindspore, reference.*got 'jax'"):
        load_backend("jax")
    with pytest.raises(SpecError, match=r"expected one of torch, mindspore, got 'reference'.*used for training"):
        load_backend("reference", Capability.TRAINING)
