"""Porting a small network: what agrees passes, and each planted fault is named."""

import mindspore
import numpy as np
import pytest
import torch

import maam
from maam.errors import PortingError, ShapeError
from maam.parity import Verdict

SHAPE = (3, 16, 16)


def arrays(model):
    return {name: p.asnumpy().copy() for name, p in model.parameters_and_names()}


def test_all_stages_pass_and_weights_move(pair):
    module, cell = pair()
    report = maam.port(module, cell, input_shape=SHAPE)
    assert report.complete, report.to_markdown()
    assert {row.verdict for row in report.rows} == {Verdict.PASS}
    assert (cell.stem.weight.asnumpy() == module.conv1.weight.detach().numpy()).all()
    assert (cell.norm.gamma.asnumpy() == module.bn1.weight.detach().numpy()).all()
    assert (cell.norm.moving_variance.asnumpy() == 1).all()
    assert module.bn1.num_batches_tracked == 0
    assert module.training


def test_the_other_direction(pair):
    module, cell = pair()
    kept = arrays(cell)
    report = maam.port(module, cell, input_shape=SHAPE, direction="mindspore-to-torch", steps=1)
    assert report.complete, report.to_markdown()
    assert all((kept[name] == array).all() for name, array in arrays(cell).items())
    assert (module.fc.bias.detach().numpy() == kept["fc.bias"]).all()


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        ({"eps": 1e-3}, "bn2"),
        ({"momentum": 0.1}, "bn2.running_mean (MindSpore: bn2.moving_mean)"),
        ({"pad_mode": "same"}, "conv2"),
        ({"stride": 1}, "conv2"),
        ({"residual": 0.9}, "drop"),
    ],
)
def test_a_fault_is_named(pair, fault, layer):
    report = maam.port(*pair(**fault), input_shape=SHAPE, steps=1)
    assert not report.passed
    assert report.first_difference == layer, report.to_markdown()


def test_a_sum_without_a_layer_is_told_by_what_stands_around_it(pair):
    report = maam.port(*pair(residual=0.9), input_shape=SHAPE, steps=1)
    row = next(row for row in report.failures if row.stage == "layers in the model, eval")
    assert row.note == "what it is given differs: look at the code between conv3 and it (functions, sums, order)"


def test_a_weight_changed_after_the_transfer(pair):
    module, cell = pair()
    maam.port(module, cell, input_shape=SHAPE, steps=1)
    with torch.no_grad():
        module.conv2.weight[0, 0, 0, 0] += 1e-3
    report = maam.port(module, cell, input_shape=SHAPE, steps=1, transfer=False)
    assert report.first_difference == "conv2.weight"


def test_layers_that_were_exchanged(pair):
    module, cell = pair()
    maam.port(module, cell, input_shape=SHAPE, steps=1)
    cell.norm, cell.bn2 = cell.bn2, cell.norm
    cell.norm.gamma.set_data(cell.norm.gamma + 1)
    report = maam.port(module, cell, input_shape=SHAPE, steps=1, transfer=False)
    assert report.first_difference.startswith(("bn1", "bn2"))


def test_a_parameter_that_is_not_trained(pair):
    module, cell = pair()
    cell.conv3.bias.requires_grad = False
    report = maam.port(module, cell, input_shape=SHAPE, steps=1)
    assert report.first_difference == "conv3.bias"


def test_models_that_cannot_be_matched(pair):
    with pytest.raises(PortingError, match=r"'conv2' .*bias is there in PyTorch and absent in MindSpore .*has_bias="):
        maam.port(*pair(bias=False), input_shape=SHAPE)
    module, cell = pair()
    module.extra = torch.nn.Linear(2, 2)
    with pytest.raises(PortingError, match=r"'extra' .* of PyTorch has no counterpart in MindSpore; .*skip="):
        maam.port(module, cell, input_shape=SHAPE)
    assert maam.port(module, cell, input_shape=SHAPE, steps=1, skip=["extra"]).passed


def test_a_map_of_names(pair):
    module, cell = pair()
    report = maam.port(module, cell, input_shape=SHAPE, steps=1, names={"conv2": "conv3", "conv3": "conv2"})
    assert report.first_difference == "conv2 (MindSpore: conv3)"
    with pytest.raises(PortingError, match=r"names: .*'conv1'.* cannot stand for .*'fc'.*: a convolution is no linear"):
        maam.port(module, cell, input_shape=SHAPE, names={"conv1": "fc"})
    with pytest.raises(PortingError, match="names: the MindSpore cell has no layer with weights named conv9; did you"):
        maam.port(module, cell, input_shape=SHAPE, names={"conv2": "conv9"})


def test_bad_input(pair):
    module, cell = pair()
    with pytest.raises(ShapeError, match=r"input \(4, 2, 8, 8\): PyTorch's model cannot run in eval mode: Runtime"):
        maam.port(module, cell, input_shape=(2, 8, 8))
    with pytest.raises(PortingError, match="give input_shape, of one sample, or inputs"):
        maam.port(module, cell)
    with pytest.raises(PortingError, match="direction: expected torch-to-mindspore or"):
        maam.port(module, cell, input_shape=SHAPE, direction="both")
    with pytest.raises(PortingError, match=r"expected a torch.nn.Module, got an object of type Cell"):
        maam.port(cell, module, input_shape=SHAPE)
    with pytest.raises(PortingError, match="inputs: expected a batch of numbers"):
        maam.port(module, cell, inputs=np.array("x"))


def test_a_batch_that_cannot_be_trained_on():
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    cell = mindspore.nn.SequentialCell(mindspore.nn.Dense(8, 4), mindspore.nn.BatchNorm1d(4))
    message = r"input \(1, 8\): PyTorch's model cannot run in train mode: ValueError: .* a batch that"
    with pytest.raises(ShapeError, match=message):
        maam.port(module, cell, input_shape=(8,), batch_size=1)
    assert module.training
    assert (module[1].running_mean == 0).all()
    assert maam.port(module, cell, input_shape=(8,), steps=1).passed


def test_gradients_that_are_no_numbers_in_pytorch_itself():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 3)

        def forward(self, x):
            return torch.sqrt(self.fc(x) * 0)  # whose gradient is infinity times 0

    class Cell(mindspore.nn.Cell):
        def __init__(self):
            super().__init__()
            self.fc = mindspore.nn.Dense(4, 3)

        def construct(self, x):
            return mindspore.ops.sqrt(self.fc(x) * 0)

    report = maam.port(Module(), Cell(), input_shape=(4,), steps=1)
    (row,) = [row for row in report.rows if row.stage == "gradients"]
    assert row.verdict is Verdict.FAIL
    assert row.note == "not finite in PyTorch itself: 2 arrays"


class Refusing(mindspore.nn.Cell):
    """Its sum does not fit, which MindSpore tells only later, after the cell's own error."""

    def __init__(self):
        super().__init__()
        self.conv = mindspore.nn.Conv2d(3, 8, 3)

    def construct(self, x):
        y = self.conv(x)
        y + y[:, :, :4, :4]
        raise RuntimeError("refused")


def test_an_error_that_comes_late_does_not_end_the_report():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
    report = maam.port(module, Refusing(), input_shape=SHAPE)
    row = next(row for row in report.rows if row.stage == "output, eval")
    assert row.note == "MindSpore's model cannot run in eval mode: RuntimeError: refused"
