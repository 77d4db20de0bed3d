"""Output shapes, and errors for input shapes that a layer does not accept."""

import pytest

from maam import spec
from maam.errors import ShapeError
from maam.spec import maam

CONV = spec.Conv2d(in_channels=3, out_channels=4, kernel_size=3)
WIDE = CONV.replace(padding=1, dilation=3)
NORM = spec.BatchNorm2d(num_features=3)
POOL = spec.MaxPool2d(kernel_size=2)
FC = spec.Linear(in_features=6, out_features=2)
RNN = spec.RNN(input_size=12, hidden_size=2)
IDENTITY, FLATTEN = spec.Identity(), spec.Flatten()


def inside(node):
    return spec.Sequential(children={"body": spec.Residual(children={"gate": node})})


def two(merge):
    return spec.Parallel(children={"a": IDENTITY, "b": POOL}, merge=merge)


def dynamic(branch):
    weighting = spec.Sequential(children={"flatten": FLATTEN, "fc": FC})
    return spec.Parallel(children={"a": branch}, merge="dynamic", weighting=weighting)


NO_MAP = "expected a feature map (C, H, W), got shape"
ADDS = "a residual adds the output of its layers to its input: expected an output of shape"
NOT_OVER, SAME = "does not broadcast over a map of shape", "expected branches of the same output shape"
ERRORS = [
    (CONV, (4, 8, 8), "expected 3 channels, got 4"),
    (CONV, (3, 8), f"{NO_MAP} (3, 8)"),
    (CONV, (3, 2, 8), "a map of 2x8 is too small for a window of 3x3"),
    (WIDE, (3, 8, 4), "a map of 8x4 padded by 1 is too small for a window of 7x7"),
    (NORM, (2, 1, 1), "expected 3 channels, got 2"),
    (NORM, (3,), f"{NO_MAP} (3,)"),
    (POOL, (3, 1, 9), "a map of 1x9 is too small for a window of 2x2"),
    (spec.AvgPool2d(kernel_size=5), (3, 5, 4), "a map of 5x4 is too small for a window of 5x5"),
    (spec.GlobalPool(), (3,), f"{NO_MAP} (3,)"),
    (spec.GlobalPool(), (3, 0, 4), f"{NO_MAP} (3, 0, 4)"),
    (FC, (5,), "expected a vector of 6 features, got shape (5,)"),
    (FC, (6, 1, 1), "expected a vector of 6 features, got shape (6, 1, 1)"),
    (RNN, (3, 4, 5), "expected rows of 12 values, got 3 x 5"),
    (RNN, (12,), f"{NO_MAP} (12,)"),
    (spec.Residual(children={"pool": POOL}), (3, 4, 4), f"{ADDS} (3, 4, 4), got (3, 2, 2)"),
    (spec.Scale(children={"pool": POOL}), (3, 4, 4), f"a gate of shape (3, 2, 2) {NOT_OVER} (3, 4, 4)"),
    (spec.Scale(children={"flatten": FLATTEN}), (3, 1, 1), "a gate of shape (3,) does not broadcast"),
    (spec.Resize(children={}, stride=3), (3, 9, 2), "a map of 9x2 is too small for a stride of 3"),
    (spec.Resize(children={"flatten": FLATTEN}), (3, 9, 9), f"{NO_MAP} (243,)"),
    (two("sum"), (1, 4, 4), "expected maps of the same shape, or of size 1 along an axis, got [(1, 4, 4), (1, 2,"),
    (two("softmax"), (1, 4, 4), f"merge 'softmax': {SAME}"),
    (two("concat"), (1, 4, 4), "branches cannot be concatenated along axis 0 of (C, H, W): [(1, 4, 4), (1, 2, 2)]"),
    (dynamic(POOL), (3, 1, 2), "a: a map of 1x2 is too small"),
    (dynamic(IDENTITY), (3, 1, 2), "weighting: expected an output of shape (1,), got (2,)"),
    (dynamic(IDENTITY), (3, 1, 1), "weighting.fc: expected a vector of 6"),
    (spec.Sequential(children={"conv1": CONV, "pool": POOL}), (3, 3, 3), "pool: a map of 1x1 is too small"),
    (inside(CONV), (3, 8, 8), f"body: {ADDS} (3, 8, 8), got (4, 6,"),
    (inside(FC), (3, 8, 8), "body.gate: expected a vector of 6 features, got shape (3, 8, 8)"),
    (maam(4, pool=(1, 2)), (4, 1, 8), "agents.0.pool2: a map of 1x8 is too small for a window of 2x2"),
    (maam(4, scales=(1, 1, 3)), (4, 2, 2), "agents.2.scale: a map of 2x2 is too small for a window of 3x3"),
    (maam(4, pool=2, scales=2), (4, 3, 3), "agents.0.pool2: a map of 1x1 is too small for a window of 2x2"),
    (maam(4), (5, 8, 8), "agents.0.conv1: expected 4 channels, got 5"),
]


@pytest.mark.parametrize(("node", "shape", "message"), ERRORS)
def test_errors(node, shape, message):
    with pytest.raises(ShapeError) as error:
        node.output_shape(shape)
    assert str(error.value).startswith(message)
    assert str(error.value) == (f"{error.value.path}: " if error.value.path else "") + error.value.reason
