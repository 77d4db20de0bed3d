"""The gates as drop-in layers: the same in both frameworks, on ordinary and on degenerate maps."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.parity import check, make_runners

GATES = {"MAF": spec.maf, "MAFC": spec.mafc, "MAFB": spec.mafb, "SE": spec.se, "CBAM": spec.cbam}
STAGES = ["exchange", "layers", "forward", "gradients", "precision"]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("channels", [8, 32])
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
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_constant_maps_have_finite_outputs_and_gradients(name, shape, value):
    node = GATES[name](shape[0])
    x = np.full((2, *shape), value, np.float32)
    arrays = spec.draw(node.parameters(), 0)
    for runner in make_runners(node, arrays, compiled=False)[0]:
        assert np.isfinite(runner.forward(x)).all()
        found = runner.gradients(x, np.ones_like(x))
        assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


@pytest.mark.parametrize("axis", ["spatial", "channels"])
def test_standard_deviation_is_pytorchs(axis):
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
    x = np.array([300.0, -300.0] * 32, np.float32).reshape(1, 1, 8, 8)  # squares beyond float16's largest
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
        ({"pool_types": ()}, "pool_types: expected at least one of avg, std, max"),
        ({"pool_types": {"std"}}, "pool_types: expected a list or a tuple, got {'std'}"),
        ({"pool_types": "median"}, "pool_types.0: input should be 'avg', 'std' or 'max', got 'median'"),
        ({"rd_ratio": 0.0}, "rd_ratio: input should be greater than 0"),
        ({"rd_channels": 0}, "rd_channels: input should be greater than or equal to 1"),
        ({"gate_layer": "relu"}, "gate_layer: input should be 'sigmoid', 'hard_sigmoid' or 'tanh'"),
    ],
)
@pytest.mark.parametrize("gate", [spec.maf, spec.mafc, spec.mafb])
def test_bad_arguments(gate, arguments, message):
    with pytest.raises(SpecError) as caught:
        gate(16, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["maam", "maf", "mafc", "mafb", "se", "cbam"])
def test_the_table_of_the_documentation(name):
    page = (Path(__file__).parents[1] / "docs" / "gates.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name.upper()}`"))
    layer = getattr(spec, name)(256)
    assert f"| {layer.num_parameters:,}; {layer.macs((256, 14, 14)):,} " in row
