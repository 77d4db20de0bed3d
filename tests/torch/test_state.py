"""State: names, copies, files, dtypes and devices."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from maam.torch import MAAM, build

NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
EXACT = {"rtol": 0, "atol": 0}


def block(path, suffixes=("1", "2"), conv="conv{}"):
    for suffix in suffixes:
        yield f"{path}.{conv.format(suffix)}.weight"
        yield from (f"{path}.bn{suffix}.{name}" for name in NORM)


def through_file(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


GOLDEN = [
    "agents.alpha",
    "agents.0.conv1.weight",
    "agents.0.bn1.weight",
    "agents.0.bn1.bias",
    "agents.0.bn1.running_mean",
    "agents.0.bn1.running_var",
    "agents.0.bn1.num_batches_tracked",
    "agents.0.conv2.weight",
    "agents.0.bn2.weight",
    "agents.0.bn2.bias",
    "agents.0.bn2.running_mean",
    "agents.0.bn2.running_var",
    "agents.0.bn2.num_batches_tracked",
    "reduce.conv.weight",
    "reduce.bn.weight",
    "reduce.bn.bias",
    "reduce.bn.running_mean",
    "reduce.bn.running_var",
    "reduce.bn.num_batches_tracked",
]


def test_keys():
    assert list(MAAM(4, num_agents=1).state_dict()) == GOLDEN


def test_keys_of_dynamic_fusion():
    keys = [*block("agents.0"), *block("agents.1"), "agents.weighting.fc.weight", "agents.weighting.fc.bias"]
    assert list(MAAM(4, num_agents=2, fusion="dynamic", reduce=False).state_dict()) == keys


def test_keys_of_depthwise():
    convs = [f"agents.0.conv{i}.{kind}.weight" for i in "12" for kind in ("depthwise", "pointwise")]
    keys = list(MAAM(4, num_agents=1, depthwise=True, reduce=False, fusion="mean").state_dict())
    assert [key for key in keys if ".conv" in key] == convs
    assert [key for key in keys if ".bn" in key] == [key for key in block("agents.0") if ".bn" in key]


def test_keys_without_norm():
    pairs = [f"agents.0.conv{i}.{name}" for i in "12" for name in ("weight", "bias")]
    keys = list(MAAM(4, num_agents=1, norm_layer="identity").state_dict())
    assert keys == ["agents.alpha", *pairs, "reduce.conv.weight", "reduce.conv.bias"]


def test_keys_follow_the_spec(layer):
    own = [key for key in layer.state_dict() if not key.endswith("num_batches_tracked")]
    assert sorted(own) == sorted(p.name for p in layer.spec.parameters())


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_file],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies(layer, x, step, duplicate):
    other = duplicate(layer)
    assert other.spec == layer.spec
    assert other.rule == layer.rule
    assert repr(other) == repr(layer)
    torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(layer.parameters()))


def test_round_trip(layer, variant, x, step):
    other = MAAM(4, 8, **variant)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict(), strict=True)
    torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def test_loads_a_weights_only_file(layer, variant, tmp_path):
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    other = MAAM(4, 8, **variant)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    torch.testing.assert_close(dict(other.state_dict()), dict(layer.state_dict()), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
def test_dtype(variant, x, dtype):
    layer = MAAM(4, 8, dtype=dtype, **variant)
    assert {t.dtype for t in layer.state_dict().values() if t.is_floating_point()} == {dtype}
    assert layer(x.to(dtype)).dtype == dtype


def test_dtype_and_device_of_a_model():
    model = build("maam_digits", seed=0, dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(model.float().state_dict(), build("maam_digits", seed=0).state_dict(), **EXACT)
    assert {t.device.type for t in build("maam_digits", seed=0, device="meta").state_dict().values()} == {"meta"}


def test_meta_device(variant):
    layer = MAAM(4, 8, device="meta", dtype=torch.bfloat16, **variant)
    assert {t.device.type for t in layer.state_dict().values()} == {"meta"}
    assert layer(torch.empty(2, 4, 8, 8, device="meta", dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in nn.ModuleList([MAAM(4), build("maam_digits")]).parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)
