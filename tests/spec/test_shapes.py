"""Output shapes, and errors for input shapes that a layer does not accept."""

import pytest

from maam.errors import ShapeError
from maam.spec import (
    RNN,
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Parallel,
    Residual,
    Resize,
    Scale,
    Sequential,
    maam,
)

CONV = Conv2d(in_channels=3, out_channels=4, kernel_size=3)
WIDE = CONV.replace(padding=1, dilation=3)
POOL = MaxPool2d(kernel_size=2)
FC = Linear(in_features=6, out_features=2)
TWO = {"a": Identity(), "b": POOL}
WEIGHTING = Sequential(children={"flatten": Flatten(), "fc": FC})


def inside(node):
    return Sequential(children={"body": Residual(children={"gate": node})})


ERRORS = [
    (CONV, (4, 8, 8), "expected 3 channels, got 4"),
    (CONV, (3, 8), "expected a feature map (C, H, W), got shape (3, 8)"),
    (CONV, (3, 2, 8), "a map of 2x8 is too small for a window of 3x3"),
    (WIDE, (3, 8, 4), "a map of 8x4 padded by 1 is too small for a window of 7x7"),
    (BatchNorm2d(num_features=3), (2, 1, 1), "expected 3 channels, got 2"),
    (BatchNorm2d(num_features=3), (3,), "expected a feature map (C, H, W), got shape (3,)"),
    (POOL, (3, 1, 9), "a map of 1x9 is too small for a window of 2x2"),
    (AvgPool2d(kernel_size=5), (3, 5, 4), "a map of 5x4 is too small for a window of 5x5"),
    (GlobalPool(), (3,), "expected a feature map (C, H, W), got shape (3,)"),
    (GlobalPool(), (3, 0, 4), "expected a feature map (C, H, W), got shape (3, 0, 4)"),
    (FC, (5,), "expected a vector of 6 features, got shape (5,)"),
    (FC, (6, 1, 1), "expected a vector of 6 features, got shape (6, 1, 1)"),
    (RNN(input_size=12, hidden_size=2), (3, 4, 5), "expected rows of 12 values, got 3 x 5"),
    (RNN(input_size=12, hidden_size=2), (12,), "expected a feature map (C, H, W), got shape (12,)"),
    (
        Residual(children={"pool": POOL}),
        (3, 4, 4),
        "a residual adds the output of its layers to its input: their shape (3, 2, 2) must be (3, 4, 4)",
    ),
    (
        Scale(children={"pool": POOL}),
        (3, 4, 4),
        "a gate of shape (3, 2, 2) does not broadcast over a map of shape (3, 4, 4)",
    ),
    (Scale(children={"flatten": Flatten()}), (3, 1, 1), "a gate of shape (3,) does not broadcast"),
    (Resize(children={}, stride=3), (3, 9, 2), "a map of 9x2 is too small for a stride of 3"),
    (Resize(children={"flatten": Flatten()}), (3, 9, 9), "expected a feature map (C, H, W), got shape (243,)"),
    (
        Parallel(children=TWO),
        (1, 4, 4),
        "merge 'sum': expected branches of the same output shape, or of size 1 along an axis, got [(1, 4, 4), (1, 2,",
    ),
    (Parallel(children=TWO, merge="softmax"), (1, 4, 4), "merge 'softmax': expected branches of the same output shape"),
    (
        Parallel(children=TWO, merge="concat"),
        (1, 4, 4),
        "branches cannot be concatenated along axis 0 of (C, H, W): [(1, 4, 4), (1, 2, 2)]",
    ),
    (Parallel(children={"a": POOL}, merge="dynamic", weighting=WEIGHTING), (3, 1, 2), "a: a map of 1x2 is too small"),
    (
        Parallel(children={"a": Identity()}, merge="dynamic", weighting=WEIGHTING),
        (3, 1, 2),
        "weighting: expected an output of shape (1,), got (2,)",
    ),
    (
        Parallel(children={"a": Identity()}, merge="dynamic", weighting=WEIGHTING),
        (3, 1, 1),
        "weighting.fc: expected a vector of 6",
    ),
    (Sequential(children={"conv1": CONV, "pool": POOL}), (3, 3, 3), "pool: a map of 1x1 is too small"),
    (inside(CONV), (3, 8, 8), "body: a residual adds the output of its layers to its input: their shape (4, 6,"),
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


@pytest.mark.parametrize("node", [Activation(function="relu"), Dropout(p=0.5), Identity(), Sequential(children={})])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 6)])
def test_layers_that_take_any_shape(node, shape):
    assert node.output_shape(shape) == shape
    assert node.macs(shape) == node.num_parameters == 0


@pytest.mark.parametrize(("shape", "size"), [((3, 4, 6), 72), ((5,), 5)])
def test_flatten(shape, size):
    assert Flatten().output_shape(shape) == (size,)


@pytest.mark.parametrize("gate", [(3, 4, 6), (3, 1, 1), (1, 4, 6), (1, 1, 1)])
def test_gates_that_broadcast(gate):
    children = {"pool": GlobalPool()} if gate[1] == 1 else {}
    children["conv"] = Conv2d(in_channels=3, out_channels=gate[0], kernel_size=1)
    assert Sequential(children=children).output_shape((3, 4, 6)) == gate
    assert Scale(children=children).output_shape((3, 4, 6)) == (3, 4, 6)


@pytest.mark.parametrize(("merge", "channels"), [("sum", 4), ("concat", 8), ("softmax", 4), ("weighted", 4)])
def test_merges(merge, channels):
    node = Parallel(children={"a": CONV, "b": CONV}, merge=merge, weights=(1, 2) if merge == "weighted" else None)
    assert node.output_shape((3, 5, 5)) == (channels, 3, 3)
    assert node.macs((3, 5, 5)) == 2 * CONV.macs((3, 5, 5))


def test_vectors_are_merged_too():
    node = Parallel(children={"a": FC, "b": Linear(in_features=6, out_features=5)}, merge="concat")
    assert node.output_shape((6,)) == (7,)
