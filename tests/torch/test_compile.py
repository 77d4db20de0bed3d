"""torch.compile without a graph break, forward and backward, and symbolic tracing."""

import shutil

import pytest
import torch
import torch._dynamo.testing

from maam import spec
from maam.errors import ShapeError
from maam.torch import CBAM, MAAM, MAF, MAFB, MAFC, build

MODELS = ["maam_digits", "cnn", "mlp", "rnn", "t_cnn", "without_agent_attention"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # gradients are sums of 1024 terms of size 1


def small(name):
    options = {"channels": 8, "hidden_features": 8} if name.startswith(("t_cnn", "without")) else {}
    return spec.preset(name, image_size=8, **options)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def compiled(module, backend="aot_eager", **options):
    return torch.compile(module, fullgraph=True, backend=backend, **options)


def test_variants(layer, x, step):
    expected = step(layer, x)
    torch.testing.assert_close(step(compiled(layer), x), expected, **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_models(name, step):
    model = build(small(name), seed=0).eval()
    x = torch.randn(3, *model.spec.input_shape)
    expected = step(model, x)
    torch.testing.assert_close(step(compiled(model), x), expected, **CLOSE)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
def test_inductor(x, step, scramble):
    layer = scramble(MAAM(4, 8, scales=(1, 2, 1)))
    expected = step(layer, x)
    torch.testing.assert_close(step(compiled(layer, "inductor"), x), expected, **CLOSE)


def test_dynamic_sizes_compile_once(scramble):
    layer = scramble(MAAM(4, scales=(1, 2, 1))).eval()
    counter = torch._dynamo.testing.CompileCounter()
    call = compiled(layer, counter, dynamic=True)
    for shape in [(2, 4, 8, 10), (3, 4, 9, 11), (5, 4, 16, 12)]:
        x = torch.randn(shape)
        torch.testing.assert_close(call(x), layer(x), **CLOSE)
    apart = torch.__version__.startswith("2.8.")  # it pools maps of odd sizes apart
    assert counter.frame_count == (2 if apart else 1)


def test_mixed_precision(x, scramble):
    """In the middle of a network, where the layer's input is bfloat16 already."""
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), scramble(MAAM(4, fusion="dynamic")))
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        actual = compiled(model)(x)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)


def test_wrong_input_still_has_its_message():
    with pytest.raises((ShapeError, torch._dynamo.exc.Unsupported), match="expected an input"):
        torch.compile(MAAM(4), backend="eager")(torch.zeros(2, 3, 8, 8))


def test_symbolic_trace(layer, x, step):
    layer.eval()
    traced = torch.fx.symbolic_trace(layer)
    torch.testing.assert_close(step(traced, x), step(layer, x), rtol=0, atol=0)
    larger = torch.randn(3, 4, 12, 9)
    torch.testing.assert_close(traced(larger), layer(larger), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_symbolic_trace_of_models(name, step):
    model = build(small(name), seed=0)
    x = torch.randn(3, *model.spec.input_shape)
    expected = step(model, x)
    torch.testing.assert_close(step(torch.fx.symbolic_trace(model), x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("gate", [MAF, MAFC, MAFB, CBAM])
def test_symbolic_trace_of_gates(gate):
    """A graph that knows no sizes computes standard deviations all the same."""
    layer = gate(8).eval()
    traced = torch.fx.symbolic_trace(layer)
    for size in ((2, 8, 5, 5), (1, 8, 1, 1)):
        x = torch.randn(size)
        torch.testing.assert_close(traced(x), layer(x), rtol=0, atol=0)
