"""The network of MAAM layers for large images: counts worked out by hand, shapes and options."""

import pytest

from maam import spec
from maam.errors import SpecError


def branch(inputs, hidden, outputs):
    """Depthwise and pointwise weights, and two batch norms."""
    return 9 * (inputs + hidden) + inputs * hidden + hidden * outputs + 2 * (hidden + outputs)


def expected_parameters(widths, classes):
    total = 27 * widths[0] // 2 + widths[0]  # the first convolution, of half the width, and its batch norm
    for inputs, outputs in zip((widths[0] // 2, *widths[:-1]), widths, strict=True):
        total += 3 * branch(inputs, outputs // 2, outputs) + 3 + outputs**2 + 2 * outputs
    return total + (widths[-1] + 1) * classes


def test_counts():
    model = spec.preset("maam_imagenet")
    assert model.num_parameters == expected_parameters((64, 128, 256, 512), 1000) == 1_681_940
    assert model.macs(model.input_shape) == 565_794_816
    small = spec.preset("maam_imagenet", channels=(16, 32), num_classes=10)
    assert small.num_parameters == expected_parameters((16, 32), 10)


def test_stages():
    assert spec.preset("maam_imagenet").stages() == {
        "stem": (32, 112, 112),
        "stage1": (64, 56, 56),
        "stage2": (128, 28, 28),
        "stage3": (256, 14, 14),
        "stage4": (512, 7, 7),
        "classifier": (1000,),
    }


def test_it_takes_images_of_other_sizes():
    assert spec.maam_imagenet().output_shape((3, 160, 288)) == (1000,)
    assert spec.input_rule(spec.maam_imagenet()).describe() == "(N, 3, H, W) with H, W >= 31"


def test_options():
    model = spec.maam_imagenet(5, 1, image_size=64, channels=8, fusion="dynamic", reduce=False, dropout=0.5)
    assert model.output_shape((1, 64, 64)) == (5,)
    assert model.at("stage1.agents").merge == "dynamic"
    assert model.at("classifier.dropout").p == 0.5
    plain = spec.maam_imagenet(norm_layer="identity", depthwise=False, act_layer="silu")
    assert not any("bn" in p.name for p in plain.parameters())
    assert plain.at("stem.conv").bias


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, "channels: expected at least one value"),
        ({"channels": (64, 0)}, "channels.1: input should be greater than or equal to 1"),
        ({"image_size": 30}, "stage4.agents.0.pool2: a map of 1x1 is too small"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(SpecError) as caught:
        spec.maam_imagenet(**options)
    assert message in str(caught.value)
