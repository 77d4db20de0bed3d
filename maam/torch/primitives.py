"""The primitives of `maam.spec` as PyTorch modules: all that this room knows of architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from maam import spec
from maam.torch.initialization import initialize

Options = dict[str, Any]
"""Keyword arguments `device` and `dtype` of a module that owns arrays."""


class _Initialized(nn.Module):
    """Draws its arrays from the spec's table, where PyTorch's own `reset_parameters` has one default for all."""

    spec: spec.Node | None = None

    def reset_parameters(self) -> None:
        """Draw this module's parameters anew, with PyTorch's generator."""
        if self.spec is not None:
            initialize(self, self.spec.own_parameters())


class Conv2d(_Initialized, nn.Conv2d):
    """`spec.Conv2d`: (N, in_channels, H, W) to (N, out_channels, H', W')."""

    def __init__(self, node: spec.Conv2d, **options: Any) -> None:
        super().__init__(
            node.in_channels,
            node.out_channels,
            node.kernel_size,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=node.groups,
            bias=node.bias,
            **options,
        )
        self.spec = node
        self.reset_parameters()


class Linear(_Initialized, nn.Linear):
    """`spec.Linear`: (N, in_features) to (N, out_features)."""

    def __init__(self, node: spec.Linear, **options: Any) -> None:
        super().__init__(node.in_features, node.out_features, bias=node.bias, **options)
        self.spec = node
        self.reset_parameters()


class RowRNN(nn.RNN):
    """`spec.RNN`: (N, C, H, W) to the last state (N, hidden_size)."""

    def __init__(self, node: spec.RNN, **options: Any) -> None:
        super().__init__(node.input_size, node.hidden_size, batch_first=True, **options)
        self.spec = node

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Read the rows from top to bottom."""
        rows = x.transpose(1, 2).flatten(2)  # (N, C, H, W) -> (N, H, C * W)
        _, state = super().forward(rows)  # (1, N, hidden_size)
        return state[0]  # type: ignore[no-any-return]  # (N, hidden_size)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "softmax": nn.Softmax,
    "identity": nn.Identity,
}
NORMS: dict[str, type[nn.Module]] = {"batch_norm": nn.BatchNorm2d, "identity": nn.Identity}


def _activation(node: spec.Activation) -> nn.Module:
    arguments: Options = {"leaky_relu": {"negative_slope": node.negative_slope}, "softmax": {"dim": 1}}
    return ACTIVATIONS[node.function](**arguments.get(node.function, {}))


def _batch_norm(node: spec.BatchNorm2d, **options: Any) -> nn.Module:
    return nn.BatchNorm2d(node.num_features, eps=node.eps, momentum=node.momentum, **options)


def _global_pool(node: spec.GlobalPool) -> nn.Module:
    return nn.AdaptiveAvgPool2d(1) if node.function == "avg" else nn.AdaptiveMaxPool2d(1)


WITH_ARRAYS: dict[type[spec.Node], Callable[..., nn.Module]] = {
    spec.Conv2d: Conv2d,
    spec.Linear: Linear,
    spec.RNN: RowRNN,
    spec.BatchNorm2d: _batch_norm,
}
WITHOUT_ARRAYS: dict[type[spec.Node], Callable[[Any], nn.Module]] = {
    spec.Activation: _activation,
    spec.MaxPool2d: lambda node: nn.MaxPool2d(node.kernel_size, node.step, node.padding),
    spec.AvgPool2d: lambda node: nn.AvgPool2d(node.kernel_size, node.step),
    spec.GlobalPool: _global_pool,
    spec.Flatten: lambda node: nn.Flatten(1),
    spec.Dropout: lambda node: nn.Dropout(node.p),
    spec.Identity: lambda node: nn.Identity(),
}


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Nearest resize by source index floor(i * in / out): (N, C, H, W) to (N, C, height, width)."""
    for axis, size in ((2, height), (3, width)):
        if x.shape[axis] != size:
            index = torch.arange(size, device=x.device) * x.shape[axis] // size
            x = x.index_select(axis, index)
    return x
