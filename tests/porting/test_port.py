"""Ports of models that maam did not build: equal models pass, and each planted fault is named."""

import json
from functools import partial

import numpy as np
import pytest

import maam
from maam.backend.adapter import Layer, Slot
from maam.errors import PortingError, ShapeError
from maam.parity import Verdict
from maam.porting.html import render
from maam.porting.inputs import InputText, load_inputs
from maam.porting.pairing import pair_layers
from maam.porting.trained import allowed_errors, errors

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
from tests.errors import error_of  # noqa: E402
from tests.porting.handwritten import Cell, both, chain, conv, linear, pair  # noqa: E402

port = partial(maam.port, input_shape=(3, 16, 16), steps=1)
slow = pytest.mark.slow


def test_all_stages_pass_and_weights_move():
    module, cell = pair()
    report = maam.port(module, cell, input_shape=(3, 16, 16))
    assert report.complete, report.to_markdown()
    assert {row.verdict for row in report.rows} == {Verdict.PASS}
    assert (cell.stem.weight.asnumpy() == module.conv1.weight.detach().numpy()).all()
    assert (cell.norm.gamma.asnumpy() == module.bn1.weight.detach().numpy()).all()
    assert (cell.norm.moving_variance.asnumpy() == 1).all()
    assert module.bn1.num_batches_tracked == 0
    assert module.training


def test_the_other_direction():
    module, cell = pair()
    before = {name: p.asnumpy().copy() for name, p in cell.parameters_and_names()}
    module.fc.bias.grad = torch.ones(5)
    report = port(module, cell, direction="mindspore-to-torch")
    assert report.complete, report.to_markdown()
    assert module.fc.bias.grad.sum() == 5
    assert all((before[name] == p.asnumpy()).all() for name, p in cell.parameters_and_names())
    assert (module.fc.bias.detach().numpy() == before["fc.bias"]).all()


@pytest.mark.parametrize(("fault", "value"), [("eps", 1e-3), ("momentum", 0.1), ("pad_mode", "same"), ("stride", 1)])
def test_a_fault_is_named(fault, value):
    report = port(*pair(**{fault: value}))
    layer = "bn2" if fault in ("eps", "momentum") else "conv2"
    place = "bn2.running_mean (MindSpore: bn2.moving_mean)" if fault == "momentum" else layer
    assert not report.passed
    assert report.first_difference == place, report.to_markdown()
    assert [cause.layers for cause in report.causes] == [(layer,)]


def test_all_faults_are_named_with_their_causes():
    """Padding, eps and momentum are wrong in three layers at once; every one is a cause, with what would agree."""
    module, cell = pair(pad_mode="same", momentum=0.1)
    cell.norm = mindspore.nn.BatchNorm2d(8, eps=1e-3)
    report = port(module, cell)
    assert report.first_difference == "bn1 (MindSpore: norm)"
    found = {cause.what: (cause.layers, cause.text, cause.remedy, cause.seen) for cause in report.causes}
    eps = "eps=1e-05 in PyTorch, eps=0.001 in MindSpore"
    padding = 'padding=1 in PyTorch, pad_mode="same" (rows 0+1, columns 0+1) in MindSpore'
    conv2 = 'nn.Conv2d(8, 8, 3, stride=2, pad_mode="pad", padding=1, has_bias=True)'
    momentum = "momentum=0.1 in PyTorch, momentum=0.1 in MindSpore"
    assert found == {
        "eps": (("bn1 (MindSpore: norm)",), eps, "nn.BatchNorm2d(8)", ("eval", "train")),
        "padding": (("conv2",), padding, conv2, ("eval", "train")),
        "momentum": (("bn2",), momentum, "nn.BatchNorm2d(8)", ("statistics",)),
    }
    assert report.differing_layers == ["bn1 (MindSpore: norm)", "conv2", "bn2"]
    remedies = {cause.what: cause.remedy for cause in port(module, cell, direction="mindspore-to-torch").causes}
    assert remedies["eps"] == "nn.BatchNorm2d(8, eps=0.001)"
    assert remedies["momentum"] == "nn.BatchNorm2d(8, momentum=0.9)"
    assert [cause["what"] for cause in json.loads(report.to_json())["causes"]] == [*found]
    page = render(report)
    assert "nn.BatchNorm2d(8)" in page
    assert page.count("class='differs'") == 3
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_fault_between_layers_is_located_by_the_layers_around_it():
    report = port(*pair(residual=0.9))
    assert report.first_difference == "drop", report.to_markdown()
    row = next(row for row in report.failures if row.stage == "layers in the model, eval")
    assert row.note == "its input differs: check the code between conv3 and this layer (functions, sums, order)"


def test_faults_after_a_transfer():
    """Weights and layers that change later are found when nothing is copied again."""
    module, cell = pair()
    cell.conv3.bias.requires_grad = False
    assert port(module, cell).first_difference == "conv3.bias"  # one framework does not train it
    cell.conv3.bias.requires_grad = True
    weight = module.conv2.weight.detach()
    before = weight.clone()
    weight[0, 0, 0, 0] += 1e-3
    assert port(module, cell, transfer=False).first_difference == "conv2.weight"
    weight.copy_(before)
    cell.norm, cell.bn2 = cell.bn2, cell.norm
    cell.norm.gamma.set_data(cell.norm.gamma + 1)
    assert port(module, cell, transfer=False).first_difference.startswith(("bn1", "bn2"))


def test_a_map_of_names_and_skipped_layers():
    module, cell = pair()
    assert port(module, cell, names={"conv2": "conv3", "conv3": "conv2"}).first_difference == "conv2 (MindSpore: conv3)"
    module.extra = torch.nn.Linear(2, 2)
    with pytest.raises(PortingError, match=r"PyTorch's 'extra' .* has no counterpart in MindSpore; .*skip="):
        port(module, cell)
    assert port(module, cell, skip=["extra"]).passed


KINDS = "does not match MindSpore's 'fc'.*: the kinds convolution and linear differ"
REFUSED = [
    ({"input_shape": (2, 8, 8)}, r"input \(4, 2, 8, 8\): PyTorch's model cannot run in eval mode: Runtime"),
    ({"input_shape": None}, r"pass exactly one of input_shape .* and inputs"),
    ({"direction": "both"}, "direction: expected torch-to-mindspore or"),
    ({"input_shape": None, "inputs": np.array("x")}, "inputs: expected a batch of numbers"),
    ({"input_shape": None, "inputs": [[1.0, 2.0], [3.0]]}, "inputs: expected a batch of numbers as an array: "),
    ({"input_shape": 4}, r"input_shape: expected positive integers such as \(3, 224, 224\), got 4"),
    ({"input_shape": (10**20, 8, 8)}, "input_shape: expected at most 2,147,483,648 numbers in a batch, got 4 sam"),
    ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
    ({"batch_size": "a"}, "batch_size: expected an integer of at least 1, got 'a'"),
    ({"steps": 1.5}, "steps: expected an integer of at least 1, got 1.5"),
    ({"seed": -1}, r"seed: expected an integer in \[0, 2\*\*63\), got -1"),
    ({"names": {"conv2": "conv9"}}, "names: the MindSpore cell has no layer .* named conv9; did you"),
    ({"names": {"conv1": "fc"}}, f"names: PyTorch's 'conv1'.* {KINDS}"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_arguments(options, message):
    with pytest.raises(ShapeError if message.startswith("input ") else PortingError, match=message):
        port(*pair(), **options)


def test_models_that_cannot_be_paired():
    with pytest.raises(PortingError, match=r"'conv2' .*: PyTorch has a bias and MindSpore does not .*has_bias="):
        port(*pair(bias=False))
    with pytest.raises(PortingError, match=r"expected a torch.nn.Module, got an object of type MindSporeNet"):
        port(*reversed(pair()))


def test_an_output_of_integers_has_no_gradients():
    class Largest(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x).argmax(1)

    class LargestCell(mindspore.nn.Conv2d):
        def construct(self, x):
            return super().construct(x).argmax(1)

    report = port(Largest(4, 2, 1), LargestCell(4, 2, 1, has_bias=True), input_shape=(4, 6, 6))
    assert report.passed, report.to_markdown()
    assert [row.verdict for row in report.rows[-2:]] == [Verdict.NOT_APPLICABLE] * 2


def test_a_batch_too_small_to_train_on():
    module, cell = chain(linear(8, 4), (torch.nn.BatchNorm1d(4), mindspore.nn.BatchNorm1d(4)))
    with pytest.raises(ShapeError, match=r"input \(1, 8\): .* cannot run in train mode: ValueError: .* a batch that"):
        port(module, cell, input_shape=(8,), batch_size=1)
    assert module.training
    assert (module[1].running_mean == 0).all()
    assert port(module, cell, input_shape=(8,)).passed


def test_gradients_that_are_not_finite_in_pytorch_itself():
    """The gradient is infinity times 0."""
    report = port(*both(lambda m, x: (m.fc(x) * 0).sqrt(), fc=linear(4, 3)), input_shape=(4,))
    found = [(row.verdict, row.note) for row in report.rows if row.stage == "gradients"]
    assert found == [(Verdict.FAIL, "not finite in PyTorch itself: 2 arrays")]


def test_a_late_error_of_mindspore_is_a_row_of_the_report():
    """MindSpore raises the error of the invalid sum later than the cell's own."""

    def run(cell, x):
        y = cell.conv(x)
        y + y[:, :, :4, :4]
        raise RuntimeError("refused")

    layer, layer_cell = conv(3, 8, 3, bias=False)
    report = port(torch.nn.Sequential(layer), Cell(run, conv=layer_cell))
    row = next(row for row in report.rows if row.stage == "output, eval")
    assert row.note == "MindSpore's model cannot run in eval mode: RuntimeError: refused"
    assert [cause.text for cause in report.causes] == [report.refusal] == [row.note]


@pytest.mark.parametrize("side", [0, 1])
def test_weights_that_are_not_finite_are_refused(side):
    module, cell = pair()
    with torch.no_grad():
        module.conv2.weight[0] = torch.inf
    cell.stem.weight[0] = np.nan
    name = ("PyTorch's conv2.weight", "MindSpore's stem.weight")[side]
    with pytest.raises(PortingError, match=f"{name} has values that are not finite"):
        port(module, cell, direction=("torch-to-mindspore", "mindspore-to-torch")[side])


def test_values_that_are_not_finite_are_errors():
    expected = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}
    found = errors({"a": expected["a"], "b": np.array([np.nan, 4.0])}, expected)
    assert found == {"a": 0.0, "b": np.inf}
    assert allowed_errors(expected, [{"a": expected["a"], "b": np.full(2, np.nan)}])["b"] == np.inf


UNEQUAL = "names: PyTorch's a has 2 layers with weights, MindSpore's x has 1, and no names are equal; name the"
SEVERAL = "names: MindSpore's x.d is paired with several layers of PyTorch"
INVALID = [
    ("a.p a.q", "x.s y", {"names": {"a": "x"}}, UNEQUAL),
    ("a.d b", "x.d y", {"names": {"a": "x", "b": "x.d"}, "skip": ["y"]}, SEVERAL),
    ("a", "a", {"skip": "a"}, "skip: expected a sequence of names, got 'a'; write ('a',)"),
    ("a", "a", {"skip": ["c"]}, "skip: neither model has a layer with weights named c"),
    ("a", "a", {"names": [1]}, "names: expected a mapping from PyTorch's names to MindSpore's, got a list"),
]


def pairs(own, other, **options):
    """Return the pairs of layers by name; `own` and `other` are the names in PyTorch and in MindSpore."""
    layers = (
        [Layer(name, "linear", {"weight": Slot(f"{name}.weight", (2, 2), True)}) for name in names.split()]
        for names in (own, other)
    )
    return {pair.torch.name: pair.mindspore.name for pair in pair_layers(*layers, **options)[0].pairs}


def test_pairs_of_layers_by_order_by_names_of_containers_and_by_equal_names():
    assert pairs("a.conv b.conv", "left.c right.c") == {"a.conv": "left.c", "b.conv": "right.c"}
    swapped = {"a": "right", "b": "left"}
    assert pairs("a.conv b.conv", "left.c right.c", names=swapped) == {"a.conv": "right.c", "b.conv": "left.c"}
    assert pairs("a.x a.p a.q", "b.s b.x b.t", names={"a": "b"}) == {"a.x": "b.x", "a.p": "b.s", "a.q": "b.t"}
    assert pairs("a.x a.p", "b.x b.t", names={"a": "b"}, skip=["a.p", "b.t"]) == {"a.x": "b.x"}


@pytest.mark.parametrize(("own", "other", "options", "message"), INVALID)
def test_invalid_names(own, other, options, message):
    assert message in error_of(PortingError, pairs, own, other, **options)


class TestPublishedNetworks:
    """torchvision's networks and MindCV's: weights move, and faults are found, also in deep networks."""

    def make(self, torch_name, mindspore_name, *, same_pooling=True):
        models = pytest.importorskip("torchvision.models")
        mindcv = pytest.importorskip("mindcv.models")
        cell = getattr(mindcv, mindspore_name)(num_classes=10)
        if same_pooling and hasattr(cell, "max_pool"):  # MindCV pools with pad_mode="same", another padding
            cell.max_pool = mindspore.nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)
        return getattr(models, torch_name)(num_classes=10), cell

    @slow
    @pytest.mark.parametrize("names", [("resnet18",) * 2, ("mobilenet_v2", "mobilenet_v2_100"), ("resnet50",) * 2])
    def test_a_pair_agrees(self, names):
        report = port(*self.make(*names), input_shape=(3, 64, 64))
        assert report.passed, report.to_markdown()

    @pytest.mark.parametrize("direction", ["torch-to-mindspore", pytest.param("mindspore-to-torch", marks=slow)])
    def test_another_pooling_is_found(self, direction):
        models = self.make("resnet18", "resnet18", same_pooling=False)
        report = port(*models, input_shape=(3, 64, 64), direction=direction)
        assert report.first_difference == "maxpool (MindSpore: max_pool)", report.to_markdown()

    @slow
    @pytest.mark.parametrize("fault", ["1.bn1.eps", "1.bn1.momentum", "0.conv1.stride"])
    def test_a_fault_in_resnet_is_named(self, fault):
        module, cell = self.make("resnet18", "resnet18")
        layer, _, setting = f"layer3.{fault}".rpartition(".")
        if setting == "stride":
            cell.layer3[0].conv1 = mindspore.nn.Conv2d(128, 256, 3, stride=1, pad_mode="pad", padding=1)
        else:
            setattr(module.get_submodule(layer), setting, 1e-3)
        found = port(module, cell, input_shape=(3, 64, 64)).first_difference
        assert found.startswith(f"{layer}.running_mean" if setting == "momentum" else layer)


def test_input_images_are_decoded_as_everywhere(tmp_path):
    """Colours under transparent pixels do not count, and a PostScript file, which starts a program, is refused."""
    image = pytest.importorskip("PIL.Image")
    for name, red in (("a", 10), ("b", 200)):
        image.new("RGBA", (4, 4), (red, 0, 0, 0)).save(tmp_path / f"{name}.png")
    (hidden,), (other,) = (load_inputs([InputText((), 0, tmp_path / f"{name}.png")], 2, 0) for name in "ab")
    assert np.array_equal(hidden, other)
    image.new("RGB", (4, 4)).save(tmp_path / "script.eps")
    (tmp_path / "script.eps").rename(tmp_path / "script.png")
    with pytest.raises(PortingError, match=r"script.png: cannot be read: cannot identify image file"):
        load_inputs([InputText((), 0, tmp_path / "script.png")], 2, 0)
