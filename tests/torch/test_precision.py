"""Mixed and low precision, the channels_last layout, and the automatic choice of a precision."""

from unittest.mock import Mock

import pytest
import torch

from maam import spec
from maam.torch import MAAM, build, devices

LAST = torch.channels_last


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


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 25), (torch.float16, 40)])
def test_low_precision(layer, x, dtype, least):
    expected = layer.eval()(x).detach()
    assert expected.is_contiguous()
    assert decibels(layer.to(dtype)(x.to(dtype)).detach(), expected) > least


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
    layer = scramble(MAAM(4, 8, scales=(1, 2, 4))).to(memory_format=LAST)
    layouts = []
    for agent in layer.agents.children():
        agent.register_forward_hook(lambda _module, _inputs, y: layouts.append(y.is_contiguous(memory_format=LAST)))
    layer(x.to(memory_format=LAST))
    assert layouts == [True] * 3


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

    @pytest.mark.parametrize(
        ("native", "gain", "expected"),
        [(True, 2.5, "bf16"), (True, 0.55, "fp32"), (True, 1.05, "fp32"), (False, 2.5, "fp32")],
    )
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
