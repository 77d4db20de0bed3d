"""Modules as PyTorch's users use them: copies, dtypes, devices, training, hooks, mixed precision, channels_last."""

import copy
import io
import pickle
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from maam import spec
from maam.torch import MAAM, build, devices
from maam.torch.runner import Runner

EXACT = {"rtol": 0, "atol": 0}
LAST = torch.channels_last
GAINS = [(True, 2.5, "bf16"), (True, 0.55, "fp32"), (True, 1.05, "fp32"), (False, 2.5, "fp32")]
"""Whether bfloat16 is native, how much faster it is, and what "auto" selects."""


def through_file(module):
    torch.save(module, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": through_file,
    "AveragedModel": lambda module: torch.optim.swa_utils.AveragedModel(module).module,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies(layer, x, step, way):
    other = COPIES[way](layer)
    assert (other.spec, other.rule, repr(other)) == (layer.spec, layer.rule, repr(layer))
    torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(layer.parameters()))


class TestDtypesAndDevices:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
    def test_of_a_layer(self, variant, x, dtype):
        for device in ("cpu", "meta"):
            layer = MAAM(4, 8, dtype=dtype, device=device, **variant)
            tensors = list(layer.state_dict().values())
            assert {t.dtype for t in tensors if t.is_floating_point()} == {dtype}
            assert {t.device.type for t in tensors} == {device}
            assert layer(x.to(device, dtype)).dtype == dtype

    def test_default_dtype(self):
        torch.set_default_dtype(torch.float64)
        try:
            assert {p.dtype for p in nn.ModuleList([MAAM(4), build("maam_digits")]).parameters()} == {torch.float64}
        finally:
            torch.set_default_dtype(torch.float32)


class TestLayersInside:
    def test_hooks_by_name(self, layer, x):
        """Every layer of the spec is a module of that name, is called, and gives the shape that the spec says."""
        summary = {path: shape for path, _, _, shape in layer.spec.summary((4, 8, 8))}
        paths, shapes = {layer.get_submodule(path): path for path in summary}, {}
        for module in paths:
            module.register_forward_hook(lambda own, _inputs, y: shapes.update({paths[own]: tuple(y.shape[1:])}))
        layer(x)
        assert shapes == summary

    def test_one_activation_module_in_two_places(self, x, scramble):
        layer = scramble(MAAM(4, act_layer="tanh")).eval()
        expected = layer(x)
        for block in layer.agents.children():
            block.act1 = block.act2  # `children()` would run it once
        torch.testing.assert_close(layer(x), expected, **EXACT)


def test_clones_keep_the_device_and_memory_format():
    runner = Runner(build("maam_digits", device="meta"), channels_last=True)
    clone = runner.clone_with(runner.spec, {}, "float16")
    weight = next(clone.model.parameters())
    assert (weight.device.type, weight.dtype) == ("meta", torch.float16)
    assert clone.memory_format is torch.channels_last


def decibels(actual, expected):
    noise = (actual.double() - expected.double()).square().sum()
    return 10 * torch.log10(expected.double().square().sum() / noise).item()


@pytest.mark.parametrize("training", [True, False])
def test_autocast(layer, x, step, training):
    layer.train(training)
    expected = step(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = step(layer, x)
    assert actual["output"].dtype == torch.bfloat16
    assert decibels(actual["output"], expected["output"]) > 25
    for name, parameter in layer.named_parameters():
        assert parameter.dtype == actual[name].dtype == torch.float32
        assert torch.isfinite(actual[name]).all()


def test_autocast_of_a_model():
    model, x = build("maam_digits", seed=0).eval().requires_grad_(False), torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    assert decibels(logits, model(x)) > 25


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 25), (torch.float16, 40)])
def test_low_precision(layer, x, dtype, least):
    expected = layer.eval().requires_grad_(False)(x)
    assert expected.is_contiguous()
    assert decibels(layer.to(dtype)(x.to(dtype)), expected) > least


@pytest.mark.parametrize("training", [True, False])
def test_channels_last(layer, x, step, training):
    layer.train(training)
    expected = step(layer, x)
    actual = step(layer.to(memory_format=LAST), x.to(memory_format=LAST))
    assert actual["output"].is_contiguous(memory_format=LAST)
    assert actual["input"].is_contiguous(memory_format=LAST)
    for name, tensor in expected.items():  # as parity judges gradients: by the largest of each
        torch.testing.assert_close(actual[name], tensor, rtol=1e-4, atol=1e-4 * max(1.0, float(tensor.abs().max())))


def test_every_branch_keeps_channels_last(x, scramble):
    layer, outputs = scramble(MAAM(4, 8, scales=(1, 2, 4))).to(memory_format=LAST), []
    for agent in layer.agents.children():
        agent.register_forward_hook(lambda *given: outputs.append(given[-1]))
    layer(x.to(memory_format=LAST))
    assert [y.is_contiguous(memory_format=LAST) for y in outputs] == [True] * 3


@pytest.mark.parametrize("options", [{"fusion": name} for name in ("softmax", "mean", "dynamic")] + [{"reduce": True}])
def test_gradients_keep_channels_last(options):
    """In the other format, the gradients of batch norm and GELU took three to five times as long on a CPU."""
    model = build(spec.maam_net(channels=(6, 6), **options)).to(memory_format=LAST)
    found: list[bool] = []
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GELU)):
            module.register_full_backward_hook(
                lambda *given: found.append(given[-1][0].is_contiguous(memory_format=LAST))
            )
    model(torch.randn(2, 3, 32, 32).to(memory_format=LAST)).sum().backward()
    assert found
    assert all(found)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(("height", "width"), [(7, 11), (5, 3), (13, 8)])
def test_nearest_resize(memory_format, height, width):
    """Source index floor(i * in / out), also where in / out is no power of two, and from a 1x1 map."""
    node = spec.Resize(children={"pool": spec.AvgPool2d(kernel_size=3)})
    x = torch.randn(2, 4, height, width).contiguous(memory_format=memory_format)
    rows, columns = ([i * (size // 3) // size for i in range(size)] for size in (height, width))
    expected = torch.nn.functional.avg_pool2d(x, 3)[:, :, rows][:, :, :, columns]
    torch.testing.assert_close(build(node)(x), expected, rtol=0, atol=0)


class TestAutomaticPrecision:
    """The precision "auto" on a CPU follows a measurement, not the list of instructions."""

    @pytest.fixture(autouse=True)
    def _measured_again(self):
        devices.has_fast_bf16.cache_clear()
        yield
        devices.has_fast_bf16.cache_clear()

    @pytest.mark.parametrize(("native", "gain", "expected"), GAINS)
    def test_auto(self, monkeypatch, native, gain, expected):
        measure = Mock(return_value=gain)
        monkeypatch.setattr(devices, "has_native_bf16", lambda: native)
        monkeypatch.setattr(devices, "_gain", measure)
        assert [devices.select_precision("cpu") for _ in range(2)] == [expected] * 2
        assert measure.call_count == native  # once, or not at all
        for name in ("fp32", "bf16", "fp16"):
            assert devices.select_precision("cpu", name) == name

    def test_gain_is_a_ratio_of_times(self, monkeypatch):
        calls = []

        def convolve(dtype):
            calls.append(dtype)
            for _ in range(200 if dtype == torch.float32 else 20):
                torch.rand(1000).sum()

        monkeypatch.setattr(devices, "_convolve", convolve)
        assert 3 < devices._gain(torch.bfloat16) < 30
        assert set(calls) == {torch.float32, torch.bfloat16}
