"""Numbers of NumPy and of frameworks serve as a spec's numbers, and become Python's; a bool is none."""

import operator

import numpy as np
import pytest

from maam.errors import SpecError
from maam.spec import BatchNorm2d, Conv2d, Model, maam, maf, parse_json, patch_widths, preset
from maam.spec.heads import with_num_classes
from maam.spec.models import mobilenet

INTEGERS = [np.int64, np.int32, np.uint8, np.array]


class Countable:
    """What a framework's tensor of one integer is to Python."""

    def __index__(self):
        return 4


@pytest.mark.parametrize("make", INTEGERS)
def test_integers(make):
    given, plain = make(4), 4
    conv = Conv2d(in_channels=given, out_channels=given, kernel_size=3, padding=given)
    assert conv == Conv2d(in_channels=plain, out_channels=plain, kernel_size=3, padding=plain)
    assert {type(conv.in_channels), type(conv.padding)} == {int}
    assert parse_json(conv.to_json()) == conv
    assert maam(given, num_agents=given, pool=(given, 1)).to_json() == maam(4, num_agents=4, pool=(4, 1)).to_json()
    assert maam(4, kernel_sizes=make(3)) == maam(4, kernel_sizes=3)
    assert Model(name="m", input_shape=(given, 8, 8), children={"conv": conv}).to_json()


def test_integers_that_are_counted_from_labels():
    labels = np.array([0, 3, 1])
    model = preset("maam_digits", num_classes=labels.max() + 1)
    assert model == preset("maam_digits", num_classes=4) == preset("maam_digits", num_classes=Countable())
    assert with_num_classes(preset("maam_digits"), labels.max() + 1) == model
    assert patch_widths(np.int64(16), np.int64(64)) == patch_widths(16, 64)


@pytest.mark.parametrize("value", [np.True_, np.array(True), np.float64(4), np.array([4, 4]), np.str_("4"), True])
def test_what_is_no_integer(value):
    with pytest.raises(SpecError, match="in_channels: input should be a valid integer, got "):
        Conv2d(in_channels=value, out_channels=4, kernel_size=3)


def test_a_tensor_of_a_bool_is_no_integer():
    torch = pytest.importorskip("torch")
    assert operator.index(torch.tensor(True)) == 1
    with pytest.raises(SpecError, match=r"num_agents: input should be a valid integer, got tensor\(True\)"):
        maam(4, num_agents=torch.tensor(True))
    assert maam(4, num_agents=torch.tensor(2)) == maam(4, num_agents=2)


@pytest.mark.parametrize("make", [np.float32, np.float64, np.float16])
def test_numbers(make):
    norm = BatchNorm2d(num_features=4, momentum=make(0.25), eps=make(0.5))
    assert norm == BatchNorm2d(num_features=4, momentum=0.25, eps=0.5)
    assert {type(norm.momentum), type(norm.eps)} == {float}
    assert parse_json(norm.to_json()) == norm
    assert mobilenet("v1", width_multiplier=make(0.5)) == mobilenet("v1", width_multiplier=0.5)
    assert maf(8, rd_ratio=make(0.25)) == maf(8, rd_ratio=0.25)


@pytest.mark.parametrize("value", ["0.5", True, np.True_, None, [0.5]])
def test_what_is_no_number(value):
    with pytest.raises(SpecError, match="width_multiplier: input should be a valid number, got "):
        preset("mafc_v2", width_multiplier=value)
    with pytest.raises(SpecError, match="momentum: input should be a valid number, got "):
        BatchNorm2d(num_features=4, momentum=value)
