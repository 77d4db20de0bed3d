"""What the layer refuses, in the spec's words, and what mixed precision lets in."""

import copy

import pytest
import torch

from maam.errors import ShapeError
from maam.torch import MAAM, build


def refused(module, x):
    with pytest.raises(ShapeError) as caught:
        module(x)
    return str(caught.value)


@pytest.fixture(scope="module")
def layer():
    return MAAM(4, scales=(1, 2, 1))


EXPECTED = "expected an input (N, 4, H, W) with H, W >= 2, got "


@pytest.mark.parametrize(
    ("shape", "got"),
    [
        ((4, 8, 8), "3 dimensions: (4, 8, 8)"),
        ((2, 4, 8, 8, 1), "5 dimensions: (2, 4, 8, 8, 1)"),
        ((2, 3, 8, 8), "(2, 3, 8, 8)"),
        ((2, 4, 1, 8), "(2, 4, 1, 8)"),
        ((2, 4, 8, 1), "(2, 4, 8, 1)"),
    ],
)
def test_wrong_shape(layer, shape, got):
    assert refused(layer, torch.zeros(shape)) == EXPECTED + got


def test_smallest_shape(layer):
    assert layer(torch.zeros(2, 4, 2, 3)).shape == (2, 4, 2, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers(layer, dtype):
    message = refused(layer, torch.zeros(2, 4, 8, 8, dtype=dtype))
    assert message.startswith("expected a floating-point input (N, 4, H, W)")
    assert f"got {str(dtype).removeprefix('torch.')}; convert it" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_float(layer, dtype):
    name = str(dtype).removeprefix("torch.")
    expected = f"expected an input of dtype float32, the dtype of the parameters, got {name}; convert one"
    assert refused(layer, torch.zeros(2, 4, 8, 8, dtype=dtype)) == expected


def test_weights_of_half_precision(layer):
    message = refused(copy.deepcopy(layer).half(), torch.zeros(2, 4, 8, 8))
    assert message.startswith(
        "expected an input of dtype float16, the dtype of the parameters, got float32; convert one; load"
    )


def test_model_of_one_size():
    model = build("maam_digits")
    assert refused(model, torch.zeros(2, 1, 9, 9)) == "expected an input (N, 1, 8, 8), got (2, 1, 9, 9)"


def test_only_the_root_checks(layer):
    assert layer.rule is not None
    assert all(getattr(module, "rule", None) is None for module in layer.modules() if module is not layer)


def test_mixed_precision_takes_what_autocast_converts(layer):
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
        assert "float64" in refused(layer, torch.zeros(2, 4, 8, 8, dtype=torch.float64))
        assert "int64" in refused(layer, torch.zeros(2, 4, 8, 8, dtype=torch.int64))


def test_meta_device_has_no_autocast():
    layer = MAAM(4, device="meta")
    assert layer(torch.zeros(2, 4, 8, 8, device="meta")).shape == (2, 4, 8, 8)
    assert "got float64" in refused(layer, torch.zeros(2, 4, 8, 8, device="meta", dtype=torch.float64))
