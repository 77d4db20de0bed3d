"""`reparameterize` of PyTorch modules, alone and as timm finds it."""

import copy
import pickle

import pytest
import torch
from torch import nn

from maam import DeploymentError, WeightsError, fuse, spec
from maam.fusion import is_fusible
from maam.torch import MAAM, SE, build, load, save_weights
from maam.torch.arrays import read_arrays

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def layer(scramble):
    return scramble(MAAM(4, 8, scales=(1, 2, 1), fusion="softmax")).eval()


def test_same_function_in_place(layer, x):
    before, parameters = layer(x), list(layer.parameters())
    expected, _ = fuse(layer.spec, read_arrays(layer))
    assert layer.reparameterize() is None
    torch.testing.assert_close(layer(x), before, **CLOSE)
    assert layer.spec == expected
    assert not any(isinstance(module, nn.BatchNorm2d) for module in layer.modules())
    assert not any(module.training for module in layer.modules())
    assert layer.reparameterized
    assert not {id(p) for p in parameters} & {id(p) for p in layer.parameters()}


def test_in_train_mode(layer):
    keys = list(layer.train().state_dict())
    with pytest.raises(DeploymentError, match=r"^reparameterize: the model is in train mode, .*eval\(\) in PyTorch"):
        layer.reparameterize()
    assert list(layer.state_dict()) == keys


def test_twice(layer):
    layer.reparameterize()
    with pytest.raises(DeploymentError, match=r"^reparameterize: the model is fused already; build or load it anew"):
        layer.reparameterize()


def test_nan(layer):
    with torch.no_grad():
        layer.agents.alpha[0] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinity in agents\.alpha"):
        layer.reparameterize()


def test_nothing_to_fuse_is_no_error(x):
    gate = SE(4).eval()
    own = list(gate.parameters())
    gate.reparameterize()
    gate.reparameterize()
    assert all(a is b for a, b in zip(own, gate.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(layer, dtype):
    layer.to(dtype).reparameterize()
    assert {p.dtype for p in layer.parameters()} == {dtype}


def test_a_model_is_saved_as_what_it_is(scramble, tmp_path):
    model = scramble(build(spec.preset("maam_digits"))).eval()
    x = torch.rand(2, 1, 8, 8)
    before = model(x)
    model.reparameterize()
    save_weights(model, tmp_path / "m.safetensors")
    torch.testing.assert_close(load(tmp_path / "m.safetensors").eval()(x), before, **CLOSE)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.spec == model.spec
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


def test_modules_of_a_subclass_stay(scramble, x):
    class Mine(MAAM):
        def __init__(self):
            super().__init__(4)
            self.extra = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.extra(super().forward(x))

    layer = scramble(Mine()).eval()
    before = layer(x)
    layer.reparameterize()
    assert isinstance(layer.extra, nn.BatchNorm2d)
    torch.testing.assert_close(layer(x), before, **CLOSE)


def test_a_function_of_its_own_below_is_not_fused_away(scramble, x):
    class Twice(MAAM):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = scramble(MAAM(4)).eval()
    inner = layer.agents.get_submodule("0")
    inner.__class__ = type("Mine", (type(inner),), {"forward": Twice.forward})
    with pytest.raises(DeploymentError, match=r"reparameterize: Mine at 'agents.0' has a forward of its own"):
        layer.reparameterize()


class TestTimm:
    """timm calls it on each module below the one that it is given, and goes on into what that has become."""

    @pytest.fixture
    def reparameterize_model(self):
        pytest.importorskip("timm")
        from timm.utils import reparameterize_model

        return reparameterize_model

    def test_a_network_with_layers(self, layer, x, reparameterize_model):
        network = nn.Sequential(layer, nn.Conv2d(8, 8, 1), SE(8)).eval()
        fused = reparameterize_model(network)
        torch.testing.assert_close(fused(x), network(x), **CLOSE)
        assert is_fusible(network[0].spec)
        assert fused[0].reparameterized
        assert not is_fusible(fused[0].spec)

    @pytest.mark.parametrize("name", ["maam_digits", "mobilenet_v3_small"])
    def test_a_whole_model(self, name, scramble, reparameterize_model, tmp_path):
        narrow = {"cifar": True, "width_multiplier": 0.1} if name.startswith("mobile") else {}
        model = scramble(build(spec.preset(name, **narrow))).eval()
        x = torch.rand(2, *model.spec.input_shape)
        fused = reparameterize_model(model)
        torch.testing.assert_close(fused(x), model(x), **CLOSE)
        assert not is_fusible(fused.spec)
        assert set(fused.state_dict()) == {p.name for p in fused.spec.parameters()}
        save_weights(fused, tmp_path / "m.safetensors")
        torch.testing.assert_close(load(tmp_path / "m.safetensors").eval()(x), fused(x), rtol=0, atol=0)
