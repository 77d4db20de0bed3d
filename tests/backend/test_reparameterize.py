"""`reparameterize`: the same function in place, with fused parameters."""

import copy
import pickle
import re

import numpy as np
import pytest

from maam import DeploymentError, WeightsError, fuse, spec
from maam.fusion import is_fusible
from tests.errors import error_of

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LAYER = spec.maam(4, 8, scales=(1, 2, 1))


def make(backend, node, **options):
    return backend.train(backend.scramble(backend.maam.build(node), **options), False)


@pytest.fixture
def layer(backend):
    return make(backend, LAYER)


def check_saved(backend, model, folder, x):
    """Check that a fused model is saved with its spec, and that the loaded one computes the same."""
    backend.maam.save_weights(model, folder / "m.safetensors")
    loaded = backend.train(backend.maam.load(folder / "m.safetensors"), False)
    assert loaded.spec == model.spec
    np.testing.assert_array_equal(backend.call(loaded, x), backend.call(model, x))


def test_same_function_in_place(runtime, x):
    layer = make(runtime, LAYER)
    before, parameters = runtime.call(layer, x), list(runtime.parameters(layer).values())
    expected, _ = fuse(layer.spec, runtime.read(layer))
    assert layer.reparameterize() is None
    np.testing.assert_allclose(runtime.call(layer, x), before, **CLOSE)
    assert (layer.spec, layer.reparameterized) == (expected, True)
    assert runtime.nn.BatchNorm2d not in runtime.kinds(layer)
    assert not any(module.training for module in runtime.modules(layer))
    assert not {id(p) for p in parameters} & {id(p) for p in runtime.parameters(layer).values()}
    bias = runtime.read(layer)["reduce.conv.bias"]
    runtime.write(layer, {"reduce.conv.bias": bias + 1})
    assert not np.allclose(runtime.call(layer, x), before)  # in graph mode the old graph is gone


def test_refusals(backend, layer):
    names = list(backend.parameters(layer))
    message = error_of(DeploymentError, backend.train(layer).reparameterize)
    assert re.match(r"reparameterize: the model is in train mode, .*eval\(\) in PyTorch", message)
    assert list(backend.parameters(layer)) == names
    backend.train(layer, False)
    alpha = backend.read(layer)["agents.alpha"]
    backend.write(layer, {"agents.alpha": np.array([np.nan, 0, 0], np.float32)})
    assert "NaN or infinity in agents.alpha" in error_of(WeightsError, layer.reparameterize)
    backend.write(layer, {"agents.alpha": alpha})
    layer.reparameterize()
    message = error_of(DeploymentError, layer.reparameterize)
    assert message.startswith("reparameterize: the model is already fused; build or load it again")


def test_nothing_happens_without_anything_to_fuse(backend):
    gate = backend.train(backend.maam.SE(4), False)
    before = list(backend.parameters(gate).values())
    for _ in range(2):
        gate.reparameterize()
    assert all(one is other for one, other in zip(before, backend.parameters(gate).values(), strict=True))


def test_a_part_alone(backend, layer, x):
    before = backend.call(layer, x)
    layer.agents.reparameterize()
    assert layer.spec.at("agents").merge == "sum"
    assert "bn" in layer.spec.at("reduce").nodes
    np.testing.assert_allclose(backend.call(layer, x), before, **CLOSE)


def test_a_fused_model_is_saved_with_its_spec(backend, small, tmp_path):
    model = make(backend, small)
    x = np.random.default_rng(0).random((2, *small.input_shape), np.float32)
    before = backend.call(model, x)
    model.reparameterize()
    np.testing.assert_allclose(backend.call(model, x), before, **CLOSE)
    check_saved(backend, model, tmp_path, x)


def test_frozen_layers_stay_frozen(backend, layer):
    for name, parameter in backend.parameters(layer).items():
        parameter.requires_grad = not name.startswith("agents.")
    layer.reparameterize()
    frozen = {name for name, parameter in backend.parameters(layer).items() if not parameter.requires_grad}
    assert frozen == {name for name in backend.parameters(layer) if name.startswith("agents.")}


@pytest.mark.parametrize("level", ["O2", "O3"])
@pytest.mark.parametrize("backend", ["mindspore"], indirect=True)
def test_mixed_precision_comes_after(backend, layer, level):
    backend.ms.amp.auto_mixed_precision(layer, level)
    message = error_of(DeploymentError, layer.reparameterize)
    assert "mixed precision has wrapped the cell; fuse the cell first" in message


def test_two_layers_in_a_network(runtime, x):
    layers, expected = [make(runtime, spec.maam(*sizes)) for sizes in ((4, 8), (8, 4))], x
    chain = runtime.train(runtime.chain(*layers), False)
    for layer in layers:
        expected = runtime.reference(layer)(expected)
        layer.reparameterize()
    names = list(runtime.state(chain))
    assert names[0] == "0.agents.head.conv1.weight"
    assert len(set(names)) == len(names)
    np.testing.assert_allclose(runtime.call(chain, x), expected, **CLOSE)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
class TestTorch:
    @pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
    def test_dtype_and_memory_format_are_kept(self, backend, layer, dtype):
        last = backend.torch.channels_last
        layer.to(backend.dtype(dtype), memory_format=last).reparameterize()
        assert {p.dtype for p in layer.parameters()} == {backend.dtype(dtype)}
        maps = [p.is_contiguous(memory_format=last) for p in layer.parameters() if not p.is_contiguous()]
        assert maps
        assert all(maps)

    def test_copies_of_a_fused_layer(self, backend, layer, x):
        layer.reparameterize()
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other.spec == layer.spec
            np.testing.assert_array_equal(backend.call(other, x), backend.call(layer, x))

    def test_modules_of_a_subclass_stay(self, backend, x):
        class Mine(backend.maam.MAAM):
            def __init__(self):
                super().__init__(4)
                self.extra = backend.nn.BatchNorm2d(4)

            def forward(self, x):
                return self.extra(super().forward(x))

        layer = backend.scramble(Mine()).eval()
        before = backend.call(layer, x)
        layer.reparameterize()
        assert isinstance(layer.extra, backend.nn.BatchNorm2d)
        np.testing.assert_allclose(backend.call(layer, x), before, **CLOSE)

    def test_timm_fuses_a_network_with_layers(self, backend, layer, x):
        network = backend.chain(layer, backend.nn.Conv2d(8, 8, 1), backend.maam.SE(8)).eval()
        fused = pytest.importorskip("timm.utils").reparameterize_model(network)
        np.testing.assert_allclose(backend.call(fused, x), backend.call(network, x), **CLOSE)
        assert [is_fusible(model[0].spec) for model in (network, fused)] == [True, False]
        assert fused[0].reparameterized

    @pytest.mark.parametrize("name", ["maam_digits", "mobilenet_v3_small"])
    def test_timm_fuses_a_whole_model(self, backend, name, tmp_path):
        narrow = {"cifar": True, "width_multiplier": 0.1} if name.startswith("mobile") else {}
        model = make(backend, spec.preset(name, **narrow), least_norm_weight=-0.5)
        x = np.random.default_rng(0).random((2, *model.spec.input_shape), np.float32)
        fused = pytest.importorskip("timm.utils").reparameterize_model(model)
        np.testing.assert_allclose(backend.call(fused, x), backend.call(model, x), **CLOSE)
        assert not is_fusible(fused.spec)
        assert set(fused.state_dict()) == {p.name for p in fused.spec.parameters()}
        check_saved(backend, fused, tmp_path, x)
