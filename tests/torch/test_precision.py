"""Mixed and low precision, and the channels_last layout."""

import pytest
import torch

from maam import spec
from maam.torch import MAAM, build

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


def test_autocast_of_a_model():
    model = build("maam_digits", seed=0).eval()
    x = torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    assert decibels(logits.detach(), model(x).detach()) > 25


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 25), (torch.float16, 40)])
def test_low_precision(layer, x, dtype, least):
    expected = layer.eval()(x).detach()
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


def test_contiguous_stays_contiguous(layer, x):
    assert layer(x).is_contiguous()


def test_every_branch_keeps_channels_last(x, scramble):
    layer = scramble(MAAM(4, 8, scales=(1, 2, 4))).to(memory_format=LAST)
    layouts = []
    for agent in layer.agents.children():
        agent.register_forward_hook(lambda _module, _inputs, y: layouts.append(y.is_contiguous(memory_format=LAST)))
    layer(x.to(memory_format=LAST))
    assert layouts == [True] * 3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
def test_nearest_resize(memory_format):
    """Source index floor(i * in / out), also where in / out is no power of two, and from a 1x1 map."""
    node = spec.Resize(children={"pool": spec.AvgPool2d(kernel_size=3)})
    for height, width in [(7, 11), (5, 3), (13, 8)]:
        x = torch.randn(2, 4, height, width).contiguous(memory_format=memory_format)
        pooled = torch.nn.functional.avg_pool2d(x, 3)
        rows = [i * (height // 3) // height for i in range(height)]
        columns = [i * (width // 3) // width for i in range(width)]
        expected = pooled[:, :, rows][:, :, :, columns]
        torch.testing.assert_close(build(node)(x), expected, rtol=0, atol=0)
