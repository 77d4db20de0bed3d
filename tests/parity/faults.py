"""Faults to plant in a built model or in its trainer, for each framework."""

from functools import partial

import numpy as np

from maam.backend.protocol import OptimizerState
from tests.parity.models import Wrapper


def layer(runner, path):
    """Return the framework's own module or cell at a canonical path."""
    return runner.model.get_submodule(path) if runner.name == "torch" else runner._layer(path)


def change_norm(runner, path, eps=1e-5, momentum=0.1):
    norm = layer(runner, path)
    norm.eps = eps
    if runner.name == "torch":
        norm.momentum = momentum
    else:
        from mindspore import ops

        norm.bn_train = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        norm.bn_infer = ops.BatchNorm(is_training=False, epsilon=eps)


wrong_momentum = partial(change_norm, momentum=0.2)
epsilon = partial(change_norm, eps=1e-3)


def biased_variance(runner, path):
    """Let the running variance of a batch norm take the biased variance of the batch."""
    norm = layer(runner, path)
    is_torch = runner.name == "torch"
    var = norm.running_var if is_torch else norm.moving_variance
    original = norm.forward if is_torch else norm.construct

    def biased(x):
        before = var.clone() if is_torch else var.copy()
        y = original(x)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if norm.training:
            kept = 0.9 * before
            var.copy_(kept + (var - kept) * ((count - 1) / count))
        return y

    setattr(norm, "forward" if is_torch else "construct", biased)


def wrong_padding(runner, path):
    """Let a convolution pad one side twice and the other not at all."""
    conv = layer(runner, path)
    if runner.name == "torch":
        from torch.nn import functional

        conv.forward = lambda x: functional.conv2d(functional.pad(x, (2, 0, 2, 0)), conv.weight, conv.bias)
    else:
        from mindspore import ops

        conv.conv2d = ops.Conv2D(conv.out_channels, 3, pad_mode="pad", pad=(2, 0, 2, 0))


def permuted_branches(runner, path):
    agents = layer(runner, path)
    names = "names" if runner.name == "torch" else "cell_list"
    setattr(agents, names, getattr(agents, names)[::-1])


ACTIVATIONS = {
    "relu6": ("relu", lambda x: x.clip(0, 6)),
    "clipped_gelu": ("gelu", lambda x: GELU(x).clip(-1, 6)),
    "wrong_slope": ("leaky_relu", lambda x: x.clip(0, None) + 0.02 * x.clip(None, 0)),
    "wrong_hard_sigmoid": ("hard_sigmoid", lambda x: (0.2 * x + 0.5).clip(0, 1)),
}
"""Likely mistakes: the right function, and the one that runs in its place, for tensors of either framework."""


def GELU(x):  # noqa: N802
    if type(x).__module__.startswith("torch"):
        from torch.nn import functional

        return functional.gelu(x)
    from mindspore import ops

    return ops.gelu(x, approximate="none")


def wrong_activation(runner, path, fault):
    function = ACTIVATIONS[fault][1]
    setattr(layer(runner, path), "forward" if runner.name == "torch" else "construct", function)


def zero_padded_pooling(runner, path):
    """Let max pooling pad with zeros: the maximum of negative values at a border is then 0."""
    pool = layer(runner, path)
    name = "forward" if runner.name == "torch" else "construct"
    pooled = getattr(pool, name)
    if runner.name == "torch":
        from torch.nn import functional

        setattr(pool, name, lambda x: functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2))
    else:
        setattr(pool, name, lambda x: pooled(x).clip(0, None))


def unused(runner, path):
    """Let a linear layer or convolution run with a copy of its weight, which no gradient reaches."""
    if runner.name == "torch":
        from torch.nn import functional

        found = layer(runner, path)
        found.forward = lambda x: functional.linear(x, found.weight.detach(), found.bias)
    else:
        from mindspore import ops

        found = layer(runner, path)
        found.construct = lambda x: ops.matmul(x, ops.stop_gradient(found.weight).T) + found.bias


class FaultyTraining(Wrapper):
    """A runner whose trainers spoil the result of each step: subclasses change arrays and moments in place."""

    def __init__(self, inner, path):
        super().__init__(inner)
        self.path = path

    def trainer(self, optimizer, *rest):
        return _FaultyTrainer(self.inner.trainer(optimizer, *rest), self)


class _FaultyTrainer(Wrapper):
    def __init__(self, inner, runner):
        super().__init__(inner)
        self.runner = runner

    def step(self, x, labels, rate):
        before = self.runner.read_arrays()
        loss = self.inner.step(x, labels, rate)
        after, state = self.runner.read_arrays(), self.inner.read_state()
        self.runner.spoil(self.inner.optimizer, before, after, state.moments["momentum_buffer"], rate)
        self.runner.write_arrays({name: np.asarray(array, np.float32) for name, array in after.items()})
        self.inner.write_state(OptimizerState(state.step, state.moments))
        return loss


class NesterovIgnored(FaultyTraining):
    """A runner that trains one parameter with plain momentum: w -= lr b, not w -= lr (d + momentum b)."""

    def spoil(self, optimizer, before, after, momentum, rate):
        after[self.path] = before[self.path] - rate * momentum[self.path]


class WeightDecaySkipped(FaultyTraining):
    """A runner that trains one parameter without weight decay."""

    def spoil(self, optimizer, before, after, momentum, rate):
        pull = optimizer.weight_decay * before[self.path]
        after[self.path] = after[self.path] + rate * (1 + optimizer.momentum) * pull
        momentum[self.path] -= pull
