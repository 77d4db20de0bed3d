"""The settings of layers as causes: each is found, and the layer that the report writes instead agrees."""

import numpy as np
import pytest

import maam
from maam.backend.registry import load_porting_backend

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
from mindspore import nn, ops  # noqa: E402
from torch import nn as tnn  # noqa: E402

IMAGE = (4, 9, 8)
PADDED = {"pad_mode": "pad", "padding": 1}
POOL = {"kernel_size": 3, "stride": 2}
SETTINGS = {
    "stride": (tnn.Conv2d(4, 4, 3, 2, 1), lambda: nn.Conv2d(4, 4, 3, 1, **PADDED, has_bias=True)),
    "padding": (tnn.Conv2d(4, 4, 3, 2, 1), lambda: nn.Conv2d(4, 4, 3, 2, has_bias=True)),
    "dilation": (tnn.Conv2d(4, 4, 3, 1, 1, dilation=2), lambda: nn.Conv2d(4, 4, 3, 1, **PADDED, has_bias=True)),
    "eps": (tnn.BatchNorm2d(4, eps=1e-2), lambda: nn.BatchNorm2d(4)),
    "momentum": (tnn.BatchNorm2d(4, momentum=0.02), lambda: nn.BatchNorm2d(4)),
    "eps of group norm": (tnn.GroupNorm(2, 4, eps=1e-2), lambda: nn.GroupNorm(2, 4)),
    "eps of layer norm": (tnn.LayerNorm(8, eps=1e-2), lambda: nn.LayerNorm((8,))),
    "padding of transposed convolution": (
        tnn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1),
        lambda: nn.Conv2dTranspose(4, 4, 3, 2, **PADDED, output_padding=1, has_bias=True),
    ),
    "padding of max pooling": (tnn.MaxPool2d(3, 2, 1), lambda: nn.MaxPool2d(3, 2, pad_mode="same")),
    "ceil_mode": (tnn.MaxPool2d(2, 2, ceil_mode=True), lambda: nn.MaxPool2d(2, 2)),
    "count_include_pad": (tnn.AvgPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, pad_mode="same")),
    "output_size": (tnn.AdaptiveAvgPool2d(2), lambda: nn.AdaptiveAvgPool2d(3)),
    "approximate": (tnn.GELU(), nn.GELU),
    "negative_slope": (tnn.LeakyReLU(), nn.LeakyReLU),
    "alpha": (tnn.CELU(0.5), nn.CELU),
    "dim": (tnn.Softmax(1), lambda: nn.Softmax(-1)),
    "align_corners": (
        tnn.Upsample((18, 16), mode="bilinear", align_corners=True),
        lambda: nn.Upsample((18, 16), mode="bilinear", align_corners=False),
    ),
    "p": (tnn.Dropout(0.2), lambda: nn.Dropout(0.2)),
}
"""A layer and a cell that differ by one setting."""


def first():
    """Return the same 1x1 convolution in both frameworks, which comes before the layer."""
    return tnn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, has_bias=True)


def port(module, cell, **options):
    return maam.port(module, cell, **{"input_shape": IMAGE, "steps": 1, "batch_size": 2, **options})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_the_cause_and_its_remedy_agrees(name):
    layer, make = SETTINGS[name]
    setting, _, kind = name.partition(" of ")
    before, before_cell = first()
    report = port(tnn.Sequential(before, layer), nn.SequentialCell(before_cell, make()))
    cause = next(cause for cause in report.causes if cause.what == setting)
    assert cause.layers == ("1",)
    assert kind in cause.kind
    assert bool(cause.seen) != (setting == "p"), "dropout is off, so its rate changes no result"
    assert report.passed == (setting == "p")
    assert not [cause for cause in report.causes if cause.what in ("code", "no setting differs")]
    mended = nn.SequentialCell(before_cell, eval(cause.remedy, {"nn": nn}))
    again = port(tnn.Sequential(before, layer), mended)
    assert again.passed, again.to_markdown()
    assert not again.causes
    back = port(tnn.Sequential(before, layer), nn.SequentialCell(before_cell, make()), direction="mindspore-to-torch")
    remedy = next(cause for cause in back.causes if cause.what == setting).remedy
    assert remedy.startswith(f"nn.{type(layer).__name__}(")


CELLS = {
    "same": lambda: nn.Conv2d(4, 4, 3, 2),
    "valid": lambda: nn.Conv2d(4, 4, 3, 2, pad_mode="valid"),
    "pad": lambda: nn.Conv2d(4, 4, 3, 2, pad_mode="pad", padding=(0, 1, 2, 3)),
    "transposed": lambda: nn.Conv2dTranspose(4, 4, 3, 2),
    "maximum": lambda: nn.MaxPool2d(3, 2, pad_mode="same"),
    "mean": lambda: nn.AvgPool2d(3, 2, pad_mode="same"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_written_as_it_is(name):
    cell = CELLS[name]()
    written = eval(load_porting_backend("mindspore").adapt(nn.SequentialCell(cell)).write_layer("0", {}), {"nn": nn})
    for parameter, own in zip(written.get_parameters(), cell.get_parameters(), strict=True):
        parameter.set_data(own)
    x = mindspore.Tensor(np.random.default_rng(0).normal(size=(1, *IMAGE)).astype(np.float32))
    np.testing.assert_array_equal(written(x).asnumpy(), cell(x).asnumpy())


def test_a_layer_without_another_setting():
    """Where no setting differs, the report shows the input, the error and its place."""

    class Odd(nn.Conv2d):
        def construct(self, x):
            y = super().construct(x)
            return ops.cat((y[:, :, :1] + 1, y[:, :, 1:]), 2)

    report = port(tnn.Sequential(tnn.Conv2d(4, 4, 3, padding=1)), nn.SequentialCell(Odd(4, 4, 3, has_bias=True)))
    (cause,) = report.causes
    assert (cause.what, cause.layers) == ("no setting differs", ("0",))
    assert cause.text == "input (2, 4, 9, 8), largest error 1.0e+00, at the border of the map only: check the padding"


def test_code_between_layers_is_a_cause():
    class Cell(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = nn.Dense(4, 4), nn.ReLU6(), nn.Dense(4, 3)

        def construct(self, x):
            return 2 * self.b(self.act(self.a(100 * x)))

    class Module(tnn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = tnn.Linear(4, 4), tnn.ReLU(), tnn.Linear(4, 3)

        def forward(self, x):
            return self.b(self.act(self.a(100 * x)))

    report = port(Module(), Cell(), input_shape=(4,))
    places = [cause.text for cause in report.causes]
    assert places == [
        "the code between a and b (PyTorch runs relu; MindSpore runs relu6)",
        "the code after b",
    ]
    assert report.first_difference == "b"


class Padded(nn.Cell):
    """Pads in a function or in a layer of its own, where PyTorch's layer pads itself."""

    def __init__(self, layer, function):
        super().__init__()
        self.a, self.layer = nn.Conv2d(4, 4, 1, has_bias=True), layer
        self.pad = None if function else nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))

    def construct(self, x):
        x = ops.relu(self.a(x))
        return self.layer(ops.pad(x, (1, 1, 1, 1)) if self.pad is None else self.pad(x))


class Relu(tnn.Module):
    def forward(self, x):
        return torch.relu(x)


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize(
    ("layer", "make"),
    [
        (tnn.MaxPool2d(3, 2, 1), lambda: nn.MaxPool2d(3, 2)),
        (tnn.AvgPool2d(3, 2, 1), lambda: nn.AvgPool2d(3, 2)),
        (tnn.Conv2d(4, 4, 3, padding=1), lambda: nn.Conv2d(4, 4, 3, pad_mode="valid", has_bias=True)),
    ],
)
def test_the_same_split_differently_is_no_difference(layer, make, function):
    report = port(tnn.Sequential(tnn.Conv2d(4, 4, 1), Relu(), layer), Padded(make(), function))
    assert report.passed, report.to_markdown()
    assert not report.causes


def test_an_activation_inside_a_dense_layer_is_no_difference():
    module = tnn.Sequential(tnn.Linear(4, 4), tnn.ReLU(), tnn.Linear(4, 2))
    cell = nn.SequentialCell(nn.Dense(4, 4, activation="relu"), nn.Dense(4, 2))
    report = port(module, cell, input_shape=(4,))
    assert report.passed, report.to_markdown()
    assert not report.causes


@pytest.mark.parametrize(
    ("frozen", "trained", "text"),
    [
        ((), ("module", "cell"), ""),
        (("module",), ("cell",), "trained in MindSpore alone (PyTorch: requires_grad=False)"),
        (("cell",), ("module",), "trained in PyTorch alone (MindSpore: requires_grad=False)"),
        (("module", "cell"), (), "neither model trains an array"),
    ],
)
def test_trained_sets_are_compared_both_ways(frozen, trained, text):
    models = {"module": tnn.Sequential(tnn.Linear(4, 3)), "cell": nn.SequentialCell(nn.Dense(4, 3))}
    for name in frozen:
        parameters = models[name].parameters() if name == "module" else models[name].get_parameters()
        for parameter in parameters:
            parameter.requires_grad = False
    report = port(models["module"], models["cell"], input_shape=(4,))
    row = next(row for row in report.rows if row.stage == "trained arrays")
    assert report.passed == (len(frozen) != 1)
    assert text in row.note
    verdicts = {row.stage: row.verdict.value for row in report.rows}
    assert verdicts["gradients"] == ("pass" if not frozen else "NOT APPLICABLE")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", ["trace", "script", "no arrays"])
def test_what_cannot_be_observed_is_not_applicable(make):
    module, cell = tnn.Sequential(tnn.Linear(4, 3), tnn.ReLU()), nn.SequentialCell(nn.Dense(4, 3), nn.ReLU())
    if make == "no arrays":
        module, cell = tnn.Sequential(tnn.ReLU()), nn.SequentialCell(nn.ReLU())
    elif make == "trace":
        module = torch.jit.trace(module, torch.zeros(1, 4))
    else:
        module = torch.jit.script(module)
    report = port(module, cell, input_shape=(4,))
    assert report.passed, report.to_markdown()
    assert {row.verdict.value for row in report.rows} == {"pass", "NOT APPLICABLE"}
    assert np.isfinite([row.absolute for row in report.rows if row.stage == "output, eval"]).all()
