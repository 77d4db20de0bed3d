"""Models that are the same network, written differently: they are paired, and their results agree."""

import copy
from functools import partial

import numpy as np
import pytest
import safetensors.torch  # noqa: F401  # in the code that loads a file

import maam
from maam.errors import PortingError

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
from mindspore import nn, ops  # noqa: E402
from torch import nn as tnn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

from tests.porting.handwritten import Cell, Module, both, chain, conv, linear, norm  # noqa: E402

IDS = np.random.default_rng(0).integers(0, 11, (2, 7))


def port(module, cell, input_shape=(3, 6, 6), **options):
    shape = None if "inputs" in options else input_shape
    return maam.port(module, cell, input_shape=shape, steps=1, batch_size=2, **options)


def embedding(*sizes):
    return tnn.Embedding(*sizes), nn.Embedding(*sizes)


def branches():
    """Two branches of the same shapes, registered in another order and with other names."""
    (left, projection), (right, main) = (chain(conv(3, 3, 3, bias=False), norm(3)) for _ in range(2))
    module = Module(lambda m, x: torch.cat((m.left(x), m.right(x)), 1), left=left, right=right)
    return module, Cell(lambda c, x: ops.cat((c.projection(x), c.main(x)), 1), main=main, projection=projection)


def both_orders():
    """Branches that run and are registered in other orders, and differ by their shapes."""
    (a, x), (b, y), (c, z) = linear(4, 3), linear(4, 3, bias=False), linear(1, 1)
    return Module(lambda m, x: m.a(x) + m.b(x), a=a, b=b, c=c), Cell(lambda c, x: c.y(x) + c.x(x), z=z, y=y, x=x)


def layer_scale():
    a, b = conv(3, 4)
    scale, gamma = tnn.Parameter(torch.rand(4, 1, 1)), mindspore.Parameter(ops.ones(4), name="gamma")
    module = Module(lambda m, x: (m.conv(x) * m.scale).mean((2, 3)), conv=a, scale=scale)
    cell = Cell(lambda c, x: (c.conv(x) * c.gamma.reshape(-1, 1, 1)).mean((2, 3)), conv=b, gamma=gamma)
    return module, cell


def scales_in_one_layer():
    """Two arrays in a layer of MindSpore that PyTorch keeps in two layers."""
    fc, dense = linear(4, 4)
    a, b = (Module(lambda m, x: x * m.scale, scale=tnn.Parameter(torch.rand(4))) for _ in range(2))
    arrays = {name: mindspore.Parameter(ops.ones(4), name=name) for name in ("scale_1", "scale_2")}
    module = Module(lambda m, x: m.b(m.fc(m.a(x))), a=a, fc=fc, b=b)
    return module, Cell(lambda c, x: c.scale_2 * c.fc(c.scale_1 * x), **arrays, fc=dense)


def pointwise():
    """Linear layers over the last axis against 1x1 convolutions."""
    layers, cells = {"a": tnn.Linear(3, 6), "b": tnn.Linear(6, 2)}, {"a": conv(3, 6)[1], "b": conv(6, 2)[1]}
    module = Module(lambda m, x: m.b(torch.relu(m.a(x.permute(0, 2, 3, 1)))).mean((1, 2)), **layers)
    return module, Cell(lambda c, x: c.b(ops.relu(c.a(x))).mean((2, 3)), **cells)


def table():
    fc, dense = linear(4, 3)
    module = Module(lambda m, x: m.fc(x) + m.table, fc=fc)
    module.register_buffer("table", torch.arange(3.0))
    return module, Cell(lambda c, x: c.fc(x) + ops.arange(3), fc=dense)


def masked():
    """A mask of infinity, which both models keep."""
    fc, dense = linear(4, 4)
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    module = Module(lambda m, x: torch.softmax(m.fc(x)[:, None] + m.mask, -1), fc=fc)
    module.register_buffer("mask", torch.from_numpy(mask))
    table = mindspore.Parameter(mindspore.Tensor(mask), requires_grad=False)
    return module, Cell(lambda c, x: ops.softmax(c.fc(x)[:, None] + c.mask, -1), fc=dense, mask=table)


def plain():
    return chain(conv(3, 4, 3), norm(4), (tnn.ReLU(), nn.ReLU()))


def not_affine():
    return chain(conv(3, 4), norm(4, affine=False))


def batch_statistics():
    norms = tnn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4, use_batch_statistics=True)
    return chain(conv(3, 4), norms)


def tied(torch_ties=True, mindspore_ties=True):
    parts = {"e": embedding(11, 6), "fc": linear(6, 6), "o": linear(6, 11, bias=False)}
    module, cell = both(lambda m, x: m.o(m.fc(m.e(x))).mean(1), **parts)
    if torch_ties:
        module.o.weight = module.e.weight
    if mindspore_ties:
        cell.o.weight = cell.e.embedding_table
    return module, cell


def fused(*order):
    """One projection of query, key and value against three, which MindSpore registers in any order."""

    def attend(m, q, k, v, softmax):
        return m.fc(m.proj(softmax(q @ k.swapaxes(-1, -2), -1) @ v).mean(1))

    parts = {"proj": tnn.Linear(8, 8), "fc": tnn.Linear(8, 2)}
    module = Module(lambda m, x: attend(m, *m.qkv(x).chunk(3, -1), torch.softmax), qkv=tnn.Linear(8, 24), **parts)
    parts = {**{name: nn.Dense(8, 8) for name in order or ("q", "k", "v", "proj")}, "fc": nn.Dense(8, 2)}
    return module, Cell(lambda c, x: attend(c, c.q(x), c.k(x), c.v(x), ops.softmax), **parts)


def attention():
    layers = [library.MultiheadAttention(8, 2, batch_first=True) for library in (tnn, nn)]
    module, cell = both(lambda m, x: m.fc(m.attention(x, x, x)[0].mean(1)), attention=layers, fc=linear(8, 2))
    module.run = lambda m, x: m.fc(m.attention(x, x, x, need_weights=False)[0].mean(1))
    return module, cell


def recurrent(name):
    layers = [getattr(library, name)(4, 5, 2, batch_first=True) for library in (tnn, nn)]
    return both(lambda m, x: m.fc(m.rnn(x)[0].mean(1)), rnn=layers, fc=linear(5, 2))


def normalized():
    norms = tnn.LayerNorm(8, 1e-5), nn.LayerNorm((8,), epsilon=1e-5)
    return chain(embedding(11, 8), norms, linear(8, 3))


def activation_inside():
    layers = [nn.Dense(4, 4, activation="relu"), nn.Dense(4, 2)]
    return tnn.Sequential(tnn.Linear(4, 4), tnn.ReLU(), tnn.Linear(4, 2)), nn.SequentialCell(layers)


PADS = {"a function": lambda x: ops.pad(x, (1, 1, 1, 1)), "a layer": nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))}
PADDED = {
    "max pooling": lambda: (tnn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2)),
    "average pooling": lambda: (tnn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2)),
    "convolution": lambda: (conv(3, 4, 3)[0], nn.Conv2d(3, 4, 3, pad_mode="valid", has_bias=True)),
}


def padded(name, pad):
    """MindSpore pads in a function or in a layer of its own, where PyTorch's layer pads itself."""
    (first, first_cell), (layer, layer_cell) = conv(3, 3), PADDED[name]()
    module = tnn.Sequential(first, Module(lambda m, x: torch.relu(x)), layer)
    return module, Cell(lambda c, x: c.layer(c.pad(ops.relu(c.a(x)))), a=first_cell, layer=layer_cell, pad=PADS[pad])


def several_inputs():
    return both(lambda m, x, ids: m.fc(x) + m.table(ids).mean(1), fc=linear(4, 3), table=embedding(11, 3))


def volumes():
    return chain((tnn.Conv3d(2, 4, 1), nn.Conv3d(2, 4, 1, has_bias=True)), (tnn.BatchNorm3d(4), nn.BatchNorm3d(4)))


class Lrn(nn.LRN):
    """MindSpore's layer, written with the function that has the same options."""

    def construct(self, x):
        return ops.lrn(x, 1, 1.0, 1e-4 / 3, 0.75)


FOUR = {"input_shape": (4,)}
CONSTANT = {"inputs": np.zeros((2, 3, 8, 8), np.float32)}
"""Batch norm of equal values is rounding in train mode, and ReLU hides a part of it."""
VECTORS = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
NETWORKS = {
    "branches registered in another order": (branches, {}),
    "branches in other orders everywhere": (both_orders, FOUR),
    "arrays with axes of size 1": (layer_scale, {}),
    "arrays in another layer": (scales_in_one_layer, FOUR),
    "linear layers and 1x1 convolutions": (pointwise, {}),
    "a constant table on one side": (table, FOUR),
    "a mask of infinity": (masked, FOUR),
    "norm without affine arrays": (not_affine, {}),
    "norm without running statistics": (batch_statistics, {}),
    "tied weights": (tied, {"inputs": IDS}),
    "fused query, key and value": (fused, {"input_shape": (6, 8)}),
    "fused in another order": (partial(fused, "k", "q", "v", "proj"), {"input_shape": (6, 8)}),
    "fused, apart": (partial(fused, "proj", "q", "fc", "k", "v"), {"input_shape": (6, 8)}),
    "attention": (attention, {"input_shape": (6, 8)}),
    **{name: (partial(recurrent, name), {"input_shape": (6, 4)}) for name in ("RNN", "GRU", "LSTM")},
    "embedding and layer norm": (normalized, {"inputs": IDS}),
    "an activation inside a dense layer": (activation_inside, FOUR),
    **{f"{name}, padded by {pad}": (partial(padded, name, pad), {}) for name in PADDED for pad in PADS},
    "batch norm of volumes": (volumes, {"input_shape": (2, 3, 4, 4)}),
    "batch norm of constant maps": (plain, CONSTANT),
    "a normalization without weights": (lambda: chain(conv(3, 4), (tnn.LocalResponseNorm(3), Lrn()), conv(4, 3)), {}),
    "several inputs": (several_inputs, {"inputs": (VECTORS, IDS)}),
}


@pytest.mark.parametrize("direction", ["torch-to-mindspore", "mindspore-to-torch"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "GRU")) for n in NETWORKS])
def test_the_same_network_is_paired(name, direction):
    make, options = NETWORKS[name]
    report = port(*make(), direction=direction, **options)
    assert report.passed, report.to_markdown()
    assert not report.causes


def test_arrays_that_only_the_target_has_become_neutral():
    module, cell = not_affine()
    cell[1].gamma.set_data(ops.zeros(4))
    with pytest.raises(PortingError, match="MindSpore has a weight and PyTorch does not"):
        port(module, cell, direction="mindspore-to-torch")
    report = port(module, cell)
    assert report.passed
    assert (cell[1].gamma.asnumpy() == 1).all()
    assert report.remarks == ["arrays that only one model has; their values change nothing: 1.gamma, 1.beta"]


@pytest.mark.parametrize("ties", [(True, False), (False, True)])
def test_weights_tied_in_one_model_only_are_named(ties):
    causes = port(*tied(*ties), inputs=IDS).causes
    tied_in, free = ("PyTorch", "MindSpore") if ties[0] else ("MindSpore", "PyTorch")
    text = f"the same array as that of another layer in {tied_in}, an array of its own in {free}"
    assert [cause.text for cause in causes if cause.what == "trained arrays"] == [text]


def test_a_frozen_part_of_a_joined_array_is_named():
    module, cell = fused()
    cell.k.weight.requires_grad = False
    (cause,) = port(module, cell, (6, 8)).causes
    assert cause.layers == ("k.weight",)
    assert cause.text == "trained in PyTorch alone (MindSpore: requires_grad=False)"


CHECKPOINT = "torch.distributed.algorithms._checkpoint.checkpoint_wrapper"
WRAPPERS = {
    "compile": torch.compile,
    "data parallel": tnn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "checkpoint": lambda module: pytest.importorskip(CHECKPOINT).checkpoint_wrapper(module),
}


def written_files_load(module, model, folder):
    """Check that the line that `save_weights` returns loads all arrays into `model`, built like `module`."""
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    for suffix in (".pth", ".safetensors"):
        model.load_state_dict({name: torch.zeros_like(value) for name, value in expected.items()})
        eval(maam.porting.save_weights("torch", module, folder / f"own{suffix}"))
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_looked_through(name, deep, tmp_path):
    module, cell = plain()
    if deep:
        module[0] = WRAPPERS[name](module[0])
    else:
        module = WRAPPERS[name](module)
    report = port(module, cell)
    assert report.passed, report.to_markdown()
    assert report.names == {"0": "0", "1": "1"}
    written_files_load(module, copy.deepcopy(module), tmp_path)


@pytest.mark.parametrize("level", ["O1", "O2", "auto"])
def test_mixed_precision_is_the_only_cause(level, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore writes the code of O1 to the working folder
    module, cell = plain()
    report = port(module, mindspore.amp.auto_mixed_precision(cell, level))
    assert report.names == {"0": "0", "1": "1"}
    assert not report.passed
    assert {cause.what for cause in report.causes} == {"precision"}
    expected = "float16" if level == "O2" else f'auto_mixed_precision level "{level}"'
    assert {cause.mindspore for cause in report.causes} == {expected}


def test_half_precision_in_pytorch_is_no_code():
    (cause,) = port(tnn.Sequential(tnn.Conv2d(3, 4, 1)).half(), nn.SequentialCell(conv(3, 4)[1])).causes
    assert (cause.what, cause.seen) == ("precision", ())


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, tnn.utils.weight_norm])
def test_parametrizations_are_computed(wrap):
    module, cell = chain((wrap(tnn.Linear(4, 4)), nn.Dense(4, 4)), linear(4, 2))
    report = port(module, cell, (4,))
    assert report.passed, report.to_markdown()
    assert "by a parametrization" in report.remarks[0]
    x = torch.randn(3, 4)
    expected = module.eval()(x).detach().numpy()
    np.testing.assert_allclose(cell(mindspore.Tensor(x.numpy())).asnumpy(), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, tnn.utils.weight_norm])
def test_parametrizations_take_weights(wrap, tmp_path):
    module, cell = chain((wrap(tnn.Linear(4, 3)), nn.Dense(4, 3)))
    assert port(module, cell, (4,), direction="mindspore-to-torch").passed
    module.eval()(torch.zeros(1, 4))
    np.testing.assert_allclose(module[0].weight.detach().numpy(), cell[0].weight.asnumpy(), atol=1e-6)
    written_files_load(module, tnn.Sequential(wrap(tnn.Linear(4, 3))), tmp_path)
    refusing = tnn.Sequential(parametrizations.spectral_norm(tnn.Linear(4, 3)))
    with pytest.raises(PortingError, match=r"0\.weight: the parametrization cannot take a value"):
        port(refusing, cell, (4,), direction="mindspore-to-torch")


@pytest.mark.parametrize(("side", "name"), [(0, "Linear"), (1, "Dense")])
def test_a_class_in_place_of_a_model(side, name):
    models = [tnn.Linear(4, 3), nn.Dense(4, 3)]
    models[side] = type(models[side])
    with pytest.raises(PortingError, match=rf"got the class {name}; pass an instance: {name}\(\)"):
        port(*models, (4,))


@pytest.mark.parametrize("seed", [54, 57, 77])
def test_rounding_that_float64_does_not_show(seed):
    """The gradient of the bias in front of batch norm is a sum of values that cancel."""
    torch.manual_seed(seed)
    mindspore.set_seed(seed + 1)
    report = port(*plain(), direction="mindspore-to-torch", **CONSTANT)
    assert report.passed, report.to_markdown()
