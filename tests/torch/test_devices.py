"""What "auto" precision is on a CPU: decided by a measurement, not by the list of instructions."""

import pytest
import torch

from maam.torch import devices


@pytest.fixture(autouse=True)
def _measured_anew():
    devices.has_fast_bf16.cache_clear()
    yield
    devices.has_fast_bf16.cache_clear()


@pytest.mark.parametrize(
    ("native", "gain", "expected"),
    [(True, 2.5, "bf16"), (True, 0.55, "fp32"), (True, 1.05, "fp32"), (False, 2.5, "fp32")],
)
def test_auto(monkeypatch, native, gain, expected):
    monkeypatch.setattr(devices, "has_native_bf16", lambda: native)
    monkeypatch.setattr(devices, "_gain", lambda dtype: gain)
    assert devices.select_precision("cpu") == expected
    for name in ("fp32", "bf16", "fp16"):
        assert devices.select_precision("cpu", name) == name


def test_gain_is_a_ratio_of_times(monkeypatch):
    calls = []

    def convolve(dtype):
        calls.append(dtype)
        for _ in range(200 if dtype == torch.float32 else 20):
            torch.rand(1000).sum()

    monkeypatch.setattr(devices, "_convolve", convolve)
    assert 3 < devices._gain(torch.bfloat16) < 30
    assert set(calls) == {torch.float32, torch.bfloat16}


def test_measured_once(monkeypatch):
    gains = iter([2.0])
    monkeypatch.setattr(devices, "has_native_bf16", lambda: True)
    monkeypatch.setattr(devices, "_gain", lambda dtype: next(gains))
    assert devices.has_fast_bf16()
    assert devices.has_fast_bf16()
