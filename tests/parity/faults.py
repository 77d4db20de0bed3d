"""Faults to plant in a built model or in its trainer, for each framework."""

from contextlib import suppress
from functools import partial

import numpy as np

from tests.parity.models import Wrapper

with suppress(ImportError):
    import torch
with suppress(ImportError):
    from mindspore import ops


def layer(runner, path):
    """Return the framework's own module or cell at a canonical path."""
    return runner.model.get_submodule(path) if runner.name == "torch" else runner._layer(path)


def run_instead(runner, path, function):
    """Let the layer at a path run `function(f, x)`; f has the functions of the framework."""
    f, method = (torch.nn.functional, "forward") if runner.name == "torch" else (ops, "construct")
    setattr(layer(runner, path), method, lambda x: function(f, x))


def change_norm(runner, path, eps=1e-5, momentum=0.1):
    norm = layer(runner, path)
    norm.eps = eps
    if runner.name == "torch":
        norm.momentum = momentum
    else:
        norm.bn_train = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        norm.bn_infer = ops.BatchNorm(is_training=False, epsilon=eps)


wrong_momentum = partial(change_norm, momentum=0.2)
epsilon = partial(change_norm, eps=1e-3)


def biased_variance(runner, path):
    """Let the running variance of a batch norm take the biased variance of the batch."""
    norm = layer(runner, path)
    is_torch = runner.name == "torch"
    var, original = (norm.running_var, norm.forward) if is_torch else (norm.moving_variance, norm.construct)

    def biased(f, x):
        before = var + 0
        y = original(x)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if norm.training:
            kept = 0.9 * before
            var.copy_(kept + (var - kept) * ((count - 1) / count))
        return y

    run_instead(runner, path, biased)


def wrong_padding(runner, path):
    """Let a convolution pad one side twice and the other not at all."""
    conv = layer(runner, path)
    run_instead(runner, path, lambda f, x: f.conv2d(f.pad(x, (2, 0, 2, 0)), conv.weight, conv.bias))


def permuted_branches(runner, path):
    agents = layer(runner, path)
    names = "names" if runner.name == "torch" else "cell_list"
    setattr(agents, names, getattr(agents, names)[::-1])


ACTIVATIONS = {
    "relu6": ("relu", lambda x: x.clip(0, 6)),
    "clipped_gelu": ("gelu", lambda x: (x / 2 * (1 + (x / 2**0.5).erf())).clip(-1, 6)),
    "wrong_slope": ("leaky_relu", lambda x: x.clip(0, None) + 0.02 * x.clip(None, 0)),
    "wrong_hard_sigmoid": ("hard_sigmoid", lambda x: (0.2 * x + 0.5).clip(0, 1)),
}
"""Likely mistakes: the right function, and the one that runs in its place, for tensors of either framework."""


def wrong_activation(runner, path, fault):
    run_instead(runner, path, lambda f, x: ACTIVATIONS[fault][1](x))


def zero_padded_pooling(runner, path):
    """Let max pooling pad with zeros: the maximum of negative values at a border is then 0."""
    run_instead(runner, path, lambda f, x: f.max_pool2d(f.pad(x, (1, 1, 1, 1)), 3, 2))


def unused(runner, path):
    """Let a linear layer run with a copy of its weight, which no gradient reaches."""
    found, copy = layer(runner, path), torch.Tensor.detach if runner.name == "torch" else ops.stop_gradient
    run_instead(runner, path, lambda f, x: x @ copy(found.weight).T + found.bias)


def faulty_training(runner, spoil):
    """Return a runner that calls `spoil` after each training step: it changes arrays and momentum in place."""

    def make_trainer(optimizer, *rest):
        trainer = runner.trainer(optimizer, *rest)

        def step(x, labels, rate):
            before = runner.read_arrays()
            loss = trainer.step(x, labels, rate)
            after, state = runner.read_arrays(), trainer.read_state()
            spoil(optimizer, before, after, state.moments.get("momentum_buffer"), rate)
            runner.write_arrays({name: np.asarray(array, np.float32) for name, array in after.items()})
            trainer.write_state(state)
            return loss

        return Wrapper(trainer, step=step)

    return Wrapper(runner, trainer=make_trainer)


def nesterov_ignored(runner, path):
    """Train one parameter with plain momentum: w -= lr b, not w -= lr (d + momentum b)."""

    def spoil(optimizer, before, after, momentum, rate):
        after[path] = before[path] - rate * momentum[path]

    return faulty_training(runner, spoil)


def weight_decay_skipped(runner, path):
    """Train one parameter without weight decay."""

    def spoil(optimizer, before, after, momentum, rate):
        pull = optimizer.weight_decay * before[path]
        after[path] = after[path] + rate * (1 + optimizer.momentum) * pull
        momentum[path] -= pull

    return faulty_training(runner, spoil)
