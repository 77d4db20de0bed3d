"""Gates: outputs of the published code, statistics, edge cases and invalid arguments."""

import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.errors import MaamError, ShapeError, SpecError
from maam.parity import check

GATES = {"MAF": spec.maf, "MAFC": spec.mafc, "MAFB": spec.mafb, "SE": spec.se, "CBAM": spec.cbam}
STAGES = ["exchange", "layers", "forward", "gradients", "precision"]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *((name, 8) for name in GATES),
        ("MAFC", 32),
        *(pytest.param(n, 32, marks=pytest.mark.slow) for n in GATES if n != "MAFC"),
    ],
)
def test_parity(name, channels):
    pytest.importorskip("torch")
    report = check(GATES[name](channels), compiled=False, stages=STAGES)
    assert report.passed, report.to_markdown()


@pytest.mark.parametrize("pool_types", ["avg", "std", "max", ("avg", "std", "max"), ("max", "std")])
def test_any_statistics(pool_types):
    pytest.importorskip("torch")
    node = spec.mafc(8, pool_types=pool_types)
    report = check(node, compiled=False, stages=["exchange", "layers", "forward"])
    assert report.passed, report.to_markdown()


@pytest.mark.parametrize("name", ["MAF", "MAFC", "MAFB"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 5, 5), (1, 3, 3)])
def test_constant_maps_have_finite_outputs_and_gradients(name, shape):
    node = GATES[name](shape[0])
    arrays = spec.draw(node.parameters(), 0)
    for runner in make_runners(node, arrays, compiled=False)[0]:
        for value in (0.0, 0.5, -3.0):
            x = np.full((2, *shape), value, np.float32)
            assert np.isfinite(runner.forward(x)).all()
            found = runner.gradients(x, np.ones_like(x))
            assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


@pytest.mark.parametrize("axis", ["spatial", "channels"])
def test_standard_deviation_equals_that_of_pytorch(axis):
    torch = pytest.importorskip("torch")
    from maam.torch import build

    node = spec.Sequential(children={"std": spec.GlobalPool(function="std", axis=axis)})
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64)
    expected = x.std((2, 3) if axis == "spatial" else (1,), keepdim=True)
    assert torch.allclose(build(node)(x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_standard_deviation_in_half_precision_does_not_overflow(framework):
    pytest.importorskip(framework)
    node = spec.Sequential(children={"std": spec.GlobalPool(function="std")})
    x = np.array([300.0, -300.0] * 32, np.float32).reshape(1, 1, 8, 8)  # their squares overflow float16
    runner = make_runners(node, {}, [framework], compiled=False)[0][-1]
    if framework == "torch":
        import torch

        found = runner.model(torch.from_numpy(x).half()).float().numpy()
    else:
        import mindspore as ms

        found = runner.model(ms.Tensor(x.astype(np.float16))).asnumpy()
    np.testing.assert_allclose(found.reshape(()), x.std(ddof=1), rtol=1e-3)


@pytest.mark.parametrize("name", GATES)
def test_same_signature_in_both_frameworks(name):
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    import maam.mindspore
    import maam.torch

    ours = list(inspect.signature(GATES[name]).parameters)
    assert list(inspect.signature(getattr(maam.mindspore, name)).parameters) == ours
    assert list(inspect.signature(getattr(maam.torch, name)).parameters) == [*ours, "device", "dtype"]


def test_width_is_not_rounded():
    assert spec.maf(40).at("mlp.1").out_features == 2
    assert spec.maf(8).at("mlp.1").out_features == 1
    assert spec.maf(8, rd_channels=5).at("mlp.1").out_features == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_types": ("avg", "avg")}, "pool_types: expected each statistic at most once, got avg, avg"),
        ({"pool_types": ("std", "avg", "std")}, "pool_types: expected each statistic at most once, got std, avg, std"),
        ({"pool_types": ()}, "pool_types: expected at least one of avg, std, max"),
        ({"pool_types": {"std"}}, "pool_types: expected a list or a tuple, got {'std'}"),
        ({"pool_types": 5}, "pool_types: expected a list or a tuple, got 5"),
        ({"pool_types": "median"}, "pool_types.0: input should be 'avg', 'std' or 'max', got 'median'"),
        ({"pool_types": ("avg", "median")}, "pool_types.1: input should be 'avg', 'std' or 'max', got 'median'"),
        ({"rd_ratio": 0.0}, "rd_ratio: input should be greater than 0"),
        ({"rd_ratio": 2.0}, "rd_ratio: input should be less than or equal to 1"),
        ({"rd_channels": 0}, "rd_channels: input should be greater than or equal to 1"),
        ({"gate_layer": "relu"}, "gate_layer: input should be 'sigmoid', 'hard_sigmoid' or 'tanh'"),
    ],
)
@pytest.mark.parametrize("gate", [spec.maf, spec.mafc, spec.mafb])
def test_invalid_arguments(gate, arguments, message):
    with pytest.raises(SpecError) as caught:
        gate(16, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["maam", "maf", "mafc", "mafb", "se", "cbam"])
def test_the_table_in_the_documentation(name):
    page = (Path(__file__).parents[1] / "docs" / "gates.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name.upper()}`"))
    layer = getattr(spec, name)(256)
    assert row.endswith(f"| {layer.num_parameters:,} | {layer.macs((256, 14, 14)):,} |")


class Framework:
    """The layers of a framework, called with NumPy arrays."""

    def __init__(self, name):
        self.native = pytest.importorskip(name)
        self.maam = import_module(f"maam.{name}")
        self.name = name

    def run(self, layer, x, training=False):
        if self.name == "mindspore":
            layer.set_train(training)
            return layer(self.native.Tensor(x)).asnumpy()
        layer.train(training)
        return layer(self.native.from_numpy(x)).detach().numpy()

    def arrays(self, layer):
        return import_module(f"maam.{self.name}.arrays").read_arrays(layer)


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    return Framework(request.param)


def maps(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["MAF", "MAFC", "MAFB"])
def test_layer_classes_raise_the_errors_of_the_composites(framework, name):
    with pytest.raises(SpecError, match=r"pool_types\.1: input should be 'avg', 'std' or 'max', got 'median'"):
        getattr(framework.maam, name)(16, pool_types=("avg", "median"))


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("channels", [0, -1, 2.5, "16", None])
def test_invalid_channels(framework, name, channels):
    with pytest.raises(SpecError, match=rf"^{name.lower()}: channels: input should be "):
        getattr(framework.maam, name)(channels)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("channels", [1, 3, 15])
def test_fewer_channels_than_the_reduction(framework, name, channels):
    """The width of the perceptron is then 1."""
    layer = getattr(framework.maam, name)(channels)
    x = maps((2, channels, 5, 4))
    for training in (False, True):
        y = framework.run(layer, x, training)
        assert y.shape == x.shape
        assert np.isfinite(y).all()


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("shape", [(1, 16, 5, 4), (2, 16, 1, 1), (1, 16, 1, 2)], ids=str)
def test_one_image_and_one_position(framework, name, shape):
    layer = getattr(framework.maam, name)(16)
    for training in (False, True):
        assert np.isfinite(framework.run(layer, maps(shape), training)).all()
    assert all(np.isfinite(array).all() for array in framework.arrays(layer).values())


@pytest.mark.parametrize("name", ["MAFC", "MAFB", "CBAM"])
def test_one_image_of_one_position(framework, name):
    """Inference works; training raises an error and does not change the running statistics."""
    layer, x = getattr(framework.maam, name)(16), maps((1, 16, 1, 1))
    assert np.isfinite(framework.run(layer, x)).all()
    before = framework.arrays(layer)
    with pytest.raises(ShapeError, match=r"expected more than 1 value per channel when training, got .*; use a larger"):
        framework.run(layer, x, training=True)
    for key, array in framework.arrays(layer).items():
        np.testing.assert_array_equal(array, before[key])


def test_the_error_names_the_layer_with_one_value(framework):
    model = framework.maam.build(spec.preset("mafc_v3_small", width_multiplier=0.25, num_classes=3), seed=0)
    with pytest.raises(ShapeError) as caught:
        framework.run(model, maps((1, 3, 8, 8)), training=True)
    assert str(caught.value).startswith("backbone.stage2.unit1.conv2.bn: expected more than 1 value per channel")
    assert framework.run(model, maps((1, 3, 8, 8))).shape == (1, 3)


@pytest.mark.parametrize("name", GATES)
def test_constant_maps(framework, name):
    for value in (0.0, 1.0, -7.5):
        layer, x = getattr(framework.maam, name)(16), np.full((2, 16, 6, 5), value, np.float32)
        for training in (False, True):
            assert np.isfinite(framework.run(layer, x, training)).all()


@pytest.mark.parametrize("name", GATES)
def test_wrong_number_of_channels(framework, name):
    with pytest.raises(ShapeError, match=r"^expected an input \(N, 16, H, W\), got \(2, 8, 5, 5\)$"):
        framework.run(getattr(framework.maam, name)(16), maps((2, 8, 5, 5)))


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v3_small"])
def test_width_multipliers_that_are_too_small(framework, version):
    with pytest.raises(MaamError, match=r"^width_multiplier: 0\.01 leaves no channel of \d+; use at least 0\.0"):
        framework.maam.build(spec.preset(f"mafc_{version}", width_multiplier=0.01))
