"""MAAM layers in a row: shapes, names, and that the network for large images is made of it."""

import pytest

from maam import spec
from maam.errors import SpecError


def test_it_is_the_body_of_the_network():
    options = {"fusion": "dynamic", "reduce": False, "depthwise": False, "act_layer": "silu", "norm_layer": "identity"}
    for given in ({}, options):
        model = spec.maam_imagenet(in_channels=1, channels=(8, 16), image_size=64, **given)
        assert dict(spec.maam_stem(1, (8, 16), **given).children) == dict(list(model.children.items())[:-1])


def test_shapes():
    assert spec.maam_stem(3, (8, 16, 32)).output_shape((3, 64, 96)) == (32, 4, 6)
    assert spec.maam_stem(3, 8).output_shape((3, 9, 9)) == (8, 2, 2)


def test_a_projection():
    node = spec.maam_stem(3, (8, 16), 24)
    assert node.output_shape((3, 32, 32)) == (24, 4, 4)
    assert list(node.children) == ["stem", "stage1", "stage2", "proj"]
    assert node.at("proj").num_parameters == 17 * 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, ()), "channels: expected at least one value"),
        ((3, (8,), 0), "out_channels: input should be greater than or equal to 1"),
        ((0, (8,)), "in_channels: input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(SpecError) as caught:
        spec.maam_stem(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("patch_size", "out_channels", "widths"), [(4, 16, (16,)), (16, 768, (192, 384, 768)), (16, 16, (8, 8, 16))]
)
def test_widths_for_patches(patch_size, out_channels, widths):
    assert spec.patch_widths(patch_size, out_channels) == widths
    side = 3 * patch_size
    assert spec.maam_stem(3, widths, 5).output_shape((3, side, side)) == (5, 3, 3)


@pytest.mark.parametrize("patch_size", [2, 14, (16, 8), 4.0])
def test_patches_that_no_stem_makes(patch_size):
    with pytest.raises(SpecError, match="patch_size: expected a power of two of at least 4, got"):
        spec.patch_widths(patch_size, 16)
