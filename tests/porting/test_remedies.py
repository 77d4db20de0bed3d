"""The layers that a port writes: each gives the result of the other framework's layer, or a reason says why not.

More of them are the remedies in test_causes.py.
"""

import numpy as np
import pytest

from maam.backend.registry import load_porting_backend
from maam.backend.settings import InexpressibleError

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
from mindspore import nn  # noqa: E402
from torch import nn as tnn  # noqa: E402

IMAGE, ROWS, VOLUME = (2, 4, 9, 8), (2, 4, 8), (2, 4, 5, 4, 6)
PADDED, VALID, BIAS = {"pad_mode": "pad", "padding": 1}, {"pad_mode": "valid"}, {"has_bias": True}
TO_TORCH = {
    "convolution 1d": (tnn.Conv1d(4, 4, 3, 2, 1), nn.Conv1d(4, 4, 3, 2, **BIAS), ROWS),
    "convolution 3d": (tnn.Conv3d(4, 4, 3, 2, 1), nn.Conv3d(4, 4, 3, 2, **BIAS), VOLUME),
    "even kernel": (tnn.Conv2d(4, 4, 4), nn.Conv2d(4, 4, 4, **BIAS), IMAGE),
    "maximum 1d": (tnn.MaxPool1d(3), nn.MaxPool1d(3, 2, pad_mode="same"), ROWS),
    "maximum 3d": (tnn.MaxPool3d(3), nn.MaxPool3d(3, 2, pad_mode="same"), VOLUME),
    "default stride": (tnn.AvgPool2d(2), nn.AvgPool2d(2), IMAGE),
    "mean with padding on one side": (tnn.AvgPool2d(3), nn.AvgPool2d(3, 2, pad_mode="same"), IMAGE),
    "transposed 1d": (tnn.ConvTranspose1d(4, 4, 3, 2, 1), nn.Conv1dTranspose(4, 4, 3, 2, **BIAS), ROWS),
    "transposed 2d": (tnn.ConvTranspose2d(4, 4, 3, 2, 1), nn.Conv2dTranspose(4, 4, 3, 2, **BIAS), IMAGE),
    "layer norm": (tnn.LayerNorm((8, 8)), nn.LayerNorm((8, 8), 2, 2, epsilon=0.1), (2, 4, 8, 8)),
    "layer norm without bias": (tnn.LayerNorm(8, bias=False), nn.LayerNorm((8,), epsilon=0.1), IMAGE),
    "fewer axes": (tnn.LayerNorm((8, 8)), nn.LayerNorm((8, 8), 3, 2), (2, 4, 8, 8)),
    "groups": (tnn.GroupNorm(2, 4), nn.GroupNorm(4, 4), IMAGE),
    "activation": (tnn.Linear(8, 3), nn.Dense(8, 3, activation="relu"), ROWS),
    "running statistics": (tnn.BatchNorm2d(4), nn.BatchNorm2d(4, use_batch_statistics=False), IMAGE),
    "frozen norm": (tnn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False, eps=0.1), IMAGE),
    "size": (tnn.Upsample(scale_factor=2), nn.Upsample(size=(12, 12)), IMAGE),
    "mirror": (tnn.ReflectionPad2d((1, 0, 2, 1)), nn.ReflectionPad2d((1, 0, 2, 2)), IMAGE),
    "value": (tnn.ConstantPad2d(1, 0.5), nn.ConstantPad2d((1, 0, 2, 2), 0.2), IMAGE),
    "softshrink": (tnn.Softshrink(0.2), nn.SoftShrink(0.4), IMAGE),
    "shuffle": (tnn.PixelShuffle(1), nn.PixelShuffle(2), IMAGE),
}
TO_MINDSPORE = {
    "reflect": (tnn.Conv2d(4, 4, 3, 1, 1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, **BIAS), IMAGE),
    "replicate": (tnn.Conv2d(4, 4, 3, 1, (1, 0), padding_mode="replicate"), nn.Conv2d(4, 4, 3, **BIAS), IMAGE),
    "circular": (tnn.Conv2d(4, 4, 3, 1, 1, padding_mode="circular"), nn.Conv2d(4, 4, 3, **BIAS), IMAGE),
    "even kernel": (tnn.Conv1d(4, 4, 4, dilation=2, padding="same"), nn.Conv1d(4, 4, 4, **VALID, **BIAS), ROWS),
    "pooling": (tnn.MaxPool1d(3, 2, 1), nn.MaxPool1d(3, 2), ROWS),
    "uneven": (tnn.ConvTranspose1d(4, 4, 3, 2, 1, 1), nn.Conv1dTranspose(4, 4, 3, 2, **PADDED, **BIAS), ROWS),
    "beyond": (tnn.ConvTranspose2d(4, 4, 3, 2, 0, 1), nn.Conv2dTranspose(4, 4, 3, 2, **BIAS), IMAGE),
    "size": (tnn.Upsample(size=12), nn.Upsample(size=(16, 16)), IMAGE),
    "factor": (
        tnn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=3.0, mode="bilinear", recompute_scale_factor=True),
        IMAGE,
    ),
    "more axes": (tnn.LayerNorm((8, 8)), nn.LayerNorm((8, 8), 3, 2), (2, 4, 8, 8)),
    "no axis": (tnn.Softmax(), nn.Softmax(0), (2, 5)),
    "momentum": (tnn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4), IMAGE),
    "tracked": (tnn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.InstanceNorm2d(4), IMAGE),
    "untrained row": (tnn.Embedding(10, 4, padding_idx=2), nn.Embedding(10, 4), ROWS),
    "axis": (tnn.GLU(1), nn.GLU(2), IMAGE),
    "threshold": (tnn.Threshold(0.1, 20.0), nn.Threshold(0.2, 20.0), IMAGE),
}
REASONS = {
    "mean with padding on one side": "leaves out padding only if it is the same on both sides",
    "running statistics": r"call eval\(\) of this layer",
    "fewer axes": "rewrite the layer by hand",
    "circular": 'no layer for padding_mode="circular"',
    "uneven": "the same number on both sides",
    "beyond": "beyond the last one that the kernel reaches",
    "momentum": "no momentum=None",
    "tracked": "always uses the statistics of the batch",
    "untrained row": "set the gradient of this row to zero",
}


def adapters(layer, cell):
    return load_porting_backend("torch").adapt(layer), load_porting_backend("mindspore").adapt(cell)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning", "ignore:Implicit dimension:UserWarning")
@pytest.mark.parametrize(
    ("name", "row", "back"),
    [*((n, r, True) for n, r in TO_TORCH.items()), *((n, r, False) for n, r in TO_MINDSPORE.items())],
)
def test_a_written_layer_gives_the_result_of_the_other(name, row, back):
    layer, cell, shape = row
    target, source = adapters(layer, cell) if back else reversed(adapters(layer, cell))
    values = {key: setting.value for key, setting in source.settings("", [shape]).items() if key != "precision"}
    if name in REASONS:
        with pytest.raises(InexpressibleError, match=REASONS[name]):
            target.write_layer("", values, [shape])
        return
    text = target.write_layer("", values, [shape])
    assert text != target.write_layer("", {})
    built = target.build(text)
    arrays = source.read()
    slots = {key: slot for own in source.layers() for key, slot in own.slots.items()}
    new = {key: slot for own in built.layers() for key, slot in own.slots.items()}
    built.write({slot.name: arrays[slots[key].name].reshape(slot.shape) for key, slot in new.items()})
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(built.forward((x,)), source.forward((x,)), rtol=1e-4, atol=1e-5)


def test_arguments_that_stay():
    """Arguments whose defaults differ between the frameworks or the layers stay in the expression."""
    frozen = tnn.BatchNorm2d(4).requires_grad_(False)
    for layer, text in (
        (tnn.InstanceNorm2d(4, affine=True, eps=1e-3), "nn.InstanceNorm2d(4, eps=0.001, affine=True)"),
        (tnn.LSTM(4, 3, bias=False), "nn.LSTM(4, 3, bias=False)"),
        (tnn.MaxPool2d(2), "nn.MaxPool2d(2, stride=2)"),
        (frozen, "nn.BatchNorm2d(4)"),
        (nn.LSTM(4, 3, has_bias=False), "nn.LSTM(4, 3, has_bias=False)"),
        (nn.MultiheadAttention(4, 2, has_bias=False), "nn.MultiheadAttention(4, num_heads=2, has_bias=False)"),
        (nn.Dense(4, 3, activation="relu"), 'nn.Dense(4, 3, activation="relu")'),
        (mindspore.mint.nn.Linear(4, 3), ""),
    ):
        framework = "mindspore" if isinstance(layer, nn.Cell) else "torch"
        assert load_porting_backend(framework).adapt(layer).write_layer("", {}) == text
    adapter = load_porting_backend("torch").adapt(tnn.BatchNorm2d(4))
    assert adapter.write_layer("", {"affine": False}) == "nn.BatchNorm2d(4).requires_grad_(False)"
