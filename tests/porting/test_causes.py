"""The settings of layers as causes: each is found, and the layer that the report writes instead agrees.

At the end, the layers that are written alone: each gives the result of the other, or a reason says why not.
"""

from functools import partial
from itertools import product

import numpy as np
import pytest

import maam
from maam.backend.registry import load_porting_backend
from maam.backend.settings import InexpressibleError

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
from mindspore import nn, ops  # noqa: E402
from torch import nn as tnn  # noqa: E402

from tests.porting.handwritten import Cell, Module, chain, conv, linear  # noqa: E402

port = partial(maam.port, input_shape=(4, 9, 8), steps=1, batch_size=2)
PADDED = {"pad_mode": "pad", "padding": 1}
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
    "num_groups": (tnn.GroupNorm(2, 4), lambda: nn.GroupNorm(4, 4)),
}
"""A layer and a cell that differ by one setting."""
WITHOUT_REMEDY = {
    "padding_idx": (tnn.Embedding(9, 4, padding_idx=2), nn.Embedding(9, 4), "gradients", "MindSpore trains the row"),
    "momentum": (tnn.BatchNorm1d(8, momentum=None), nn.BatchNorm1d(8), "statistics", "no momentum=None"),
    "alpha": (tnn.ELU(0.5), nn.ELU(), "eval", "cannot have these settings: ValueError"),
    "size": (tnn.Upsample(scale_factor=2), nn.Upsample(size=(16,)), "", ""),
    "mint": (tnn.Linear(8, 4), mindspore.mint.nn.Linear(8, 4), "", ""),
}
"""A layer, a cell, a result that changes, and a part of the reason why no layer of MindSpore agrees."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_the_cause_and_its_remedy_agrees(name):
    layer, make = SETTINGS[name]
    setting, _, kind = name.partition(" of ")
    before, before_cell = conv(4, 4)
    module, cell = chain((before, before_cell), (layer, make()))
    report = port(module, cell)
    cause = next(cause for cause in report.causes if cause.what == setting)
    assert cause.layers == ("1",)
    assert kind in cause.kind
    assert bool(cause.seen) != (setting == "p"), "dropout is off, so its rate changes no result"
    assert report.passed == (setting == "p")
    assert not [cause for cause in report.causes if cause.what in ("code", "no setting differs")]
    again = port(module, nn.SequentialCell(before_cell, eval(cause.remedy, {"nn": nn})))
    assert again.passed, again.to_markdown()
    assert not again.causes
    back = partial(port, direction="mindspore-to-torch")
    remedy = next(cause for cause in back(module, cell).causes if cause.what == setting).remedy
    again = back(tnn.Sequential(before, eval(remedy, {"nn": tnn})), cell)
    assert again.passed, again.to_markdown()
    assert not again.causes


@pytest.mark.parametrize("name", WITHOUT_REMEDY)
def test_a_setting_without_a_remedy(name):
    layer, cell, seen, note = WITHOUT_REMEDY[name]
    x = np.arange(16).reshape(2, 8) % 5 if name == "padding_idx" else np.random.default_rng(0).normal(size=(2, 8))
    report = maam.port(*chain((layer, cell)), inputs=x[:, None] if name == "size" else x, steps=1)
    assert report.passed != bool(seen), report.to_markdown()
    found = [(cause.what, cause.remedy, seen in cause.seen, note in cause.note) for cause in report.causes]
    assert found == ([(name, "", True, True)] if seen else [])


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
    x = mindspore.Tensor(np.random.default_rng(0).normal(size=(1, 4, 9, 8)).astype(np.float32))
    np.testing.assert_array_equal(written(x).asnumpy(), cell(x).asnumpy())


def test_a_layer_without_another_setting():
    """Where no setting differs, the report shows the input, the error and its place."""

    class Odd(nn.Conv2d):
        def construct(self, x):
            y = super().construct(x)
            return ops.cat((y[:, :, :1] + 1, y[:, :, 1:]), 2)

    report = port(*chain((tnn.Conv2d(4, 4, 3, padding=1), Odd(4, 4, 3, has_bias=True))))
    (cause,) = report.causes
    assert (cause.what, cause.layers) == ("no setting differs", ("0",))
    assert cause.text == "input (2, 4, 9, 8), largest error 1.0e+00, at the border of the map only: check the padding"


def test_code_between_layers_is_a_cause():
    (a, a_cell), (b, b_cell) = linear(4, 4), linear(4, 3)
    module = Module(lambda m, x: m.b(m.act(m.a(100 * x))), a=a, act=tnn.ReLU(), b=b)
    cell = Cell(lambda c, x: 2 * c.b(c.act(c.a(100 * x))), a=a_cell, act=nn.ReLU6(), b=b_cell)
    report = port(module, cell, input_shape=(4,))
    between = "the code between a and b (PyTorch runs relu; MindSpore runs relu6)"
    assert [cause.text for cause in report.causes] == [between, "the code after b"]
    assert report.first_difference == "b"


KINDS = {
    "no difference on these inputs": ((tnn.ReLU6(), nn.ReLU()), "relu6 in PyTorch, relu in MindSpore"),
    "another result": ((tnn.ReLU(), nn.GELU()), "the code after 0 (PyTorch runs relu; MindSpore runs gelu)"),
    "alone": ((tnn.ReLU(), nn.GELU()), "the code after the input (PyTorch runs relu; MindSpore runs gelu)"),
    "dropout": ((tnn.Dropout(), nn.Identity()), "dropout in PyTorch, identity in MindSpore"),
}


@pytest.mark.parametrize("name", KINDS)
def test_layers_of_other_kinds_are_causes(name):
    pair, text = KINDS[name]
    report = port(*(chain(pair) if name == "alone" else chain(linear(4, 3), pair)), input_shape=(4,))
    assert report.passed == (name not in ("another result", "alone"))
    assert [(cause.text, bool(cause.seen)) for cause in report.causes] == [(text, not report.passed)]
    assert bool(report.remarks) == (name == "dropout")


@pytest.mark.parametrize(("side", "name"), [(0, "PyTorch"), (1, "MindSpore")])
def test_dropout_in_one_model_only_is_a_remark(side, name):
    models = chain(linear(4, 3))
    models[side].append((tnn.Dropout(), nn.Dropout(0.5))[side])
    report = port(*models, input_shape=(4,))
    assert report.passed
    assert report.remarks[0].startswith(f"dropout in {name} without a counterpart in ")


@pytest.mark.parametrize("swaps", [True, False])
def test_an_lstm_with_another_first_axis(swaps):
    """Code that swaps the axes around the layer makes the setting right."""
    (fc, dense), layers = linear(5, 2), (tnn.LSTM(4, 5, batch_first=True), nn.LSTM(4, 5))

    def run(cell, x):
        y = cell.fc(cell.rnn(x.swapaxes(0, 1) if swaps else x)[0])
        return y[-1] if swaps else y[:, -1]

    module = Module(lambda m, x: m.fc(m.rnn(x)[0])[:, -1], rnn=layers[0], fc=fc)
    report = port(module, Cell(run, rnn=layers[1], fc=dense), input_shape=(6, 4))
    assert report.passed == swaps
    (cause,) = report.causes
    assert (cause.what, bool(cause.seen), bool(cause.remedy)) == ("batch_first", not swaps, not swaps)


@pytest.mark.parametrize(("sides", "seed"), [((0,), 0), ((1,), 0), ((0, 1), 0), ((0, 1), 18)])
def test_random_code_is_a_cause(sides, seed):
    """Dropout that is called as a function cannot be switched off, and is not rounding.

    With seed 18, the first outputs of both models are equal by chance.
    """
    torch.manual_seed(seed)
    mindspore.set_seed(seed + 1)
    layer, cell = linear(4, 3)
    functions = [lambda m, x: m.fc(x)] * 2
    for side in sides:
        dropout = (tnn.functional.dropout, ops.dropout)[side]
        functions[side] = lambda m, x, drop=dropout: drop(m.fc(x), 0.5, m.training)
    report = port(Module(functions[0], fc=layer), Cell(functions[1], fc=cell), input_shape=(4,))
    assert not report.passed
    (cause,) = report.causes
    names = " and ".join(("PyTorch", "MindSpore")[side] for side in sides)
    assert cause.text.endswith(f": the output of {names} changes from run to run in train mode")


TRAINED = {
    (): "",
    ("module",): "trained in MindSpore alone (PyTorch: requires_grad=False)",
    ("cell",): "trained in PyTorch alone (MindSpore: requires_grad=False)",
    ("module", "cell"): "neither model trains an array",
}


@pytest.mark.parametrize("frozen", TRAINED)
def test_trained_sets_are_compared_both_ways(frozen):
    module, cell = chain(linear(4, 3))
    parameters = {"module": module.parameters(), "cell": cell.get_parameters()}
    for parameter in (p for name in frozen for p in parameters[name]):
        parameter.requires_grad = False
    report = port(module, cell, input_shape=(4,))
    rows = {row.stage: row for row in report.rows}
    assert report.passed == (len(frozen) != 1)
    assert TRAINED[frozen] in rows["trained arrays"].note
    assert rows["gradients"].verdict.value == ("NOT APPLICABLE" if frozen else "pass")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["trace", "script", "export", "graph", "no arrays"])
def test_what_cannot_be_observed_is_not_applicable(kind, tmp_path):
    module, cell = chain(*[linear(4, 3)] * (kind != "no arrays"), (tnn.ReLU(), nn.ReLU()))
    if kind == "trace":
        module = torch.jit.trace(module, torch.zeros(1, 4))
    elif kind == "script":
        module = torch.jit.script(module)
    elif kind == "export":
        module = torch.export.export(module, (torch.zeros(2, 4),)).module()
    elif kind == "graph":
        path = str(tmp_path / "graph.mindir")
        mindspore.export(cell, mindspore.Tensor(np.zeros((2, 4), np.float32)), file_name=path, file_format="MINDIR")
        cell = nn.GraphCell(mindspore.load(path))
    report = port(module, cell, input_shape=(4,))
    assert report.passed, report.to_markdown()
    assert {row.verdict.value for row in report.rows} == {"pass", "NOT APPLICABLE"}
    assert np.isfinite([row.absolute for row in report.rows if row.stage == "output, eval"]).all()


IMAGE, ROWS, VOLUME = (2, 4, 9, 8), (2, 4, 8), (2, 4, 5, 4, 6)
VALID, BIAS = {"pad_mode": "valid"}, {"has_bias": True}
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
    "tracked": "always uses the statistics of the batch",
    "untrained row": "set the gradient of this row to zero",
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning", "ignore:Implicit dimension:UserWarning")
@pytest.mark.parametrize(("back", "name"), [*product([True], TO_TORCH), *product([False], TO_MINDSPORE)])
def test_a_written_layer_gives_the_result_of_the_other(back, name):
    *models, shape = (TO_TORCH if back else TO_MINDSPORE)[name]
    layers = [load_porting_backend(name).adapt(one) for name, one in zip(("torch", "mindspore"), models, strict=True)]
    target, source = layers if back else reversed(layers)
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
