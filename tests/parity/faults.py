"""Faults to plant in a built model or its trainer, for each framework."""

from __future__ import annotations

import numpy as np

from maam.backend.protocol import OptimizerState


def layer(runner, path):
    """The framework's own module or cell at a canonical path."""
    return runner.model.get_submodule(path) if runner.name == "torch" else runner._layer(path)


def wrong_momentum(runner, path):
    """Batch norm with another momentum."""
    norm = layer(runner, path)
    if runner.name == "torch":
        norm.momentum = 0.2
    else:
        norm.bn_train = _mindspore_batch_norm(norm, momentum=0.2)


def epsilon(runner, path):
    """Batch norm with another epsilon."""
    norm = layer(runner, path)
    norm.eps = 1e-3
    if runner.name != "torch":
        norm.bn_train = _mindspore_batch_norm(norm)
        norm.bn_infer = _mindspore_batch_norm(norm, training=False)


def biased_variance(runner, path):
    """Batch norm whose running variance takes the biased variance of the batch."""
    norm = layer(runner, path)
    mean, var = (
        (norm.running_mean, norm.running_var) if runner.name == "torch" else (norm.moving_mean, norm.moving_variance)
    )
    original = norm.forward if runner.name == "torch" else norm.construct

    def biased(x):
        before = var.clone() if runner.name == "torch" else var.copy()
        y = original(x)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if norm.training:
            kept = 0.9 * before
            var.copy_(kept + (var - kept) * ((count - 1) / count))
        return y

    assert mean is not None
    if runner.name == "torch":
        norm.forward = biased
    else:
        norm.construct = biased


def wrong_padding(runner, path):
    """A convolution that pads one side twice and the other not at all."""
    conv = layer(runner, path)
    if runner.name == "torch":
        from torch.nn import functional

        conv.forward = lambda x: functional.conv2d(functional.pad(x, (2, 0, 2, 0)), conv.weight, conv.bias)
    else:
        from mindspore import ops

        conv.conv2d = ops.Conv2D(conv.out_channels, 3, pad_mode="pad", pad=(2, 0, 2, 0))


def permuted_branches(runner, path):
    """Branches that meet each other's fusion weights."""
    agents = layer(runner, path)
    if runner.name == "torch":
        agents.names = tuple(reversed(agents.names))
    else:
        agents.cell_list = list(reversed(agents.cell_list))


def nesterov_ignored(runner, path):
    """SGD with plain momentum for one parameter: w -= lr b instead of w -= lr (d + momentum b)."""

    def spoil(trainer, before, after, state, rate):
        after[path] = before[path] - rate * state.moments["momentum_buffer"][path]

    _plant_in_trainer(runner, spoil)


def weight_decay_skipped(runner, path):
    """SGD without weight decay for one parameter."""

    def spoil(trainer, before, after, state, rate):
        pull = trainer.optimizer.weight_decay * before[path]
        after[path] = after[path] + rate * (1 + trainer.optimizer.momentum) * pull
        state.moments["momentum_buffer"][path] -= pull

    _plant_in_trainer(runner, spoil)


def _plant_in_trainer(runner, spoil):
    make = runner.trainer

    def trainer_with_fault(optimizer):
        trainer = make(optimizer)
        step = trainer.step

        def faulty(x, labels, rate):
            before = runner.read_arrays()
            loss = step(x, labels, rate)
            after, state = runner.read_arrays(), trainer.read_state()
            spoil(trainer, before, after, state, rate)
            runner.write_arrays({name: np.asarray(array, np.float32) for name, array in after.items()})
            trainer.write_state(OptimizerState(state.step, state.moments))
            return loss

        trainer.step = faulty
        return trainer

    runner.trainer = trainer_with_fault


def _mindspore_batch_norm(norm, momentum=0.1, training=True):
    from mindspore import ops

    if not training:
        return ops.BatchNorm(is_training=False, epsilon=norm.eps)
    return ops.BatchNorm(is_training=True, epsilon=norm.eps, momentum=momentum)
