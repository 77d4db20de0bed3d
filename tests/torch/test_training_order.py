"""A trainer runs a max pooling in front of the ReLU before it: not one bit differs; nobody else's hooks see it."""

import numpy as np
import pytest
import torch
from torch import nn

from maam.torch import build
from maam.torch.arrays import read_arrays
from maam.torch.modules import Container
from maam.torch.runner import Runner
from maam.training import Optimizer
from tests import pooled
from tests.pooled import SPECS


@pytest.fixture
def batch():
    """Images and labels."""
    return pooled.batch()


def trained(runner, batch, ordered=False, steps=3):
    """Losses, arrays and logits after some steps, in the order of the spec where that is asked for."""
    trainer = runner.trainer(Optimizer(lr=0.1, nesterov=True))
    for module in runner.model.modules():
        if ordered and isinstance(module, Container):
            assert module._pools_first
            module._pools_first = False
    losses = [trainer.step(*batch, 0.1) for _ in range(steps)]
    return losses, read_arrays(runner.model), runner.forward(batch[0])


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("name", SPECS)
def test_the_same_training(name, channels_last, batch):
    made = [Runner(build(SPECS[name](), seed=0), channels_last=channels_last) for _ in range(2)]
    losses, arrays, logits = trained(made[0], batch)
    their_losses, their_arrays, their_logits = trained(made[1], batch, ordered=True)
    assert losses == their_losses
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(logits, their_logits)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, their_arrays[key], err_msg=key)


def shapes(model, layer, x, training):
    """What a hook on a layer sees."""
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output.shape))
    model.train(training)(torch.from_numpy(x))
    handle.remove()
    return [tuple(shape[1:]) for shape in seen]


def test_who_sees_the_order(batch):
    model = build(SPECS["maam"](), seed=0)
    assert shapes(model, "agents.0.act1", batch[0], True) == [(4, 8, 8)]
    Runner(model).trainer(Optimizer())
    assert shapes(model, "agents.0.act1", batch[0], True) == [(4, 4, 4)]
    assert shapes(model, "agents.0.act1", batch[0], False) == [(4, 8, 8)]


def test_what_a_user_puts_in_place_of_the_activation_keeps_its_place(batch):
    model = build(SPECS["padded"](), seed=0)
    model.act = nn.GELU()
    Runner(model).trainer(Optimizer())
    assert shapes(model, "act", batch[0], True) == [(4, 8, 8)]
