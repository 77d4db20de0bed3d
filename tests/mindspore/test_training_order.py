"""A trainer runs a max pooling in front of the ReLU before it: not one bit differs."""

import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.mindspore import build
from maam.mindspore.arrays import read_arrays
from maam.mindspore.cells import Container
from maam.mindspore.runner import Runner
from maam.training import Objective, Optimizer
from tests import pooled
from tests.pooled import SPECS


def kinds(cells):
    return [type(cell).__name__ for cell in cells]


def in_the_order_of_the_spec(model):
    """After a trainer has it."""
    for _, cell in model.cells_and_names():
        if isinstance(cell, Container):
            cell.cell_list = [cell._cells[name] for name in cell.spec.nodes]


def trained(model, graph, ordered=False, steps=3):
    """Losses, arrays and logits after some steps."""
    x, labels = pooled.batch()
    runner = Runner(model, graph=graph)
    trainer = runner.trainer(Optimizer(lr=0.1, nesterov=True))
    if ordered:
        in_the_order_of_the_spec(model)
    losses = [trainer.step(x, labels, 0.1) for _ in range(steps)]
    return losses, read_arrays(model), runner.forward(x)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "pynative"])
@pytest.mark.parametrize("name", SPECS)
def test_the_same_training(name, graph):
    losses, arrays, logits = trained(build(SPECS[name](), seed=0), graph)
    their_losses, their_arrays, their_logits = trained(build(SPECS[name](), seed=0), graph, ordered=True)
    assert losses == their_losses
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(logits, their_logits)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, their_arrays[key], err_msg=key)


def chain(act="relu"):
    return spec.Sequential(children={"act": spec.Activation(function=act), "pool": spec.MaxPool2d(kernel_size=2)})


def test_the_order():
    model = build(SPECS["maam"](), seed=0)
    agent = model.agents.cell_list[0]
    assert kinds(agent.cell_list) == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 2
    Runner(model).trainer(Optimizer())
    assert kinds(agent.cell_list) == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"] * 2


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_order_in_mixed_precision(precision):
    """It fills the chains anew, with casts around each batch norm."""
    model = build(SPECS["maam"](), seed=0)
    Runner(model).trainer(Optimizer(), Objective(precision=precision))
    for agent in model.agents.cell_list:
        found = [kind for kind in kinds(agent.cell_list) if kind in ("ReLU", "MaxPool2d")]
        assert found == ["MaxPool2d", "ReLU"] * 2


def test_only_a_relu_is_passed():
    model = build(chain("gelu"))
    model.pool_first()
    assert kinds(model.cell_list) == ["GELU", "MaxPool2d"]


def test_branches_are_no_chain():
    branches = {"act": spec.Activation(function="relu"), "pool": spec.MaxPool2d(kernel_size=3, stride=1, padding=1)}
    model = build(spec.Parallel(children=branches, merge="concat"))
    model.pool_first()
    assert kinds(model.cell_list) == ["ReLU", "MaxPool2d"]


def test_what_a_user_puts_in_place_of_the_activation_keeps_its_place():
    model = build(chain())
    model.pool_first()
    assert kinds(model.cell_list) == ["MaxPool2d", "ReLU"]
    model.act = nn.GELU()
    assert kinds(model.cell_list) == ["GELU", "MaxPool2d"]
    model.pool_first()
    assert kinds(model.cell_list) == ["GELU", "MaxPool2d"]
