"""Values near a kink of a PyTorch model: points where ReLU or max pooling is not differentiable.

Rounding in float32 can move such a value across the kink, which changes gradients. `near_kinks` finds the values,
`across` moves one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maam.backend.protocol import Kink, NearKinks
from maam.spec.primitives import CURVES
from maam.torch.arrays import from_numpy
from maam.torch.primitives import ACTIVATIONS, GlobalPool

Array = np.ndarray[Any, Any]
ULP = 2.0**-23
REACH = 8.0
"""The largest expected rounding error of another framework, in units of PyTorch's rounding error in float32."""

KINKS = {ACTIVATIONS[name]: curve.kinks for name, curve in CURVES.items() if curve.kinks}
"""The inputs where the slope of an activation jumps."""


def near_kinks(exact: nn.Module, rounded: nn.Module, x: Array) -> NearKinks:
    """Find the values that rounding may have moved across a kink.

    Args:
        exact: a model in float64; it is run in train mode.
        rounded: the same model with the same arrays in float32. Its difference from `exact` in a layer is the rounding
            error of that layer.
        x: a batch (N, C, H, W).
    """
    found: list[Kink] = []
    total = 0
    inputs, others = _layer_inputs(exact, from_numpy(x).double()), _layer_inputs(rounded, from_numpy(x).float())
    for name, values in inputs.items():
        largest = float(values.abs().max())
        error = max(float((others[name].double() - values).abs().max()), ULP * largest)
        for index, gap, direction in _gaps(exact.get_submodule(name), values):
            total += gap.numel()
            near = (gap <= REACH * error).nonzero()[:, 0]
            for i, d, s in zip(index[near].tolist(), gap[near].tolist(), direction[near].tolist(), strict=True):
                found.append(Kink(name, i, s * (d + error), d / error if error else 0.0))
    return NearKinks(sorted(found, key=lambda kink: kink.distance), total, len(inputs))


@contextmanager
def across(model: nn.Module, kink: Kink) -> Iterator[None]:
    """Move the value of `kink` to the other side until the context is left; the gradient passes through unchanged."""

    def move(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        shift = torch.zeros_like(inputs[0], memory_format=torch.contiguous_format)
        shift.view(-1)[kink.place] = kink.shift
        return inputs[0] + shift

    handle = model.get_submodule(kink.layer).register_forward_pre_hook(move)
    try:
        yield
    finally:
        handle.remove()


def _layer_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the inputs of all layers with kinks by name, in train mode."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, given: inputs.__setitem__(name, given[0].detach())

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if type(module) in KINKS or _pools_the_largest(module):
                stack.callback(module.register_forward_pre_hook(keep(name)).remove)
        model.train()(x)
    return inputs


def _pools_the_largest(module: nn.Module) -> bool:
    largest_of_all = isinstance(module, GlobalPool) and module.function == "max"
    return isinstance(module, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)) or largest_of_all


Gaps = tuple[Tensor, Tensor, Tensor]
"""For each value its index in the flattened input, its distance from the kink, and the direction across, 1 or -1."""


def _gaps(module: nn.Module, values: Tensor) -> Iterator[Gaps]:
    if type(module) in KINKS:
        flat = values.flatten()
        for kink in KINKS[type(module)]:
            yield torch.arange(flat.numel()), (flat - kink).abs(), torch.where(flat > kink, -1.0, 1.0)
    else:
        yield _runners_up(module, values)


def _runners_up(module: nn.Module, values: Tensor) -> Gaps:
    """Return the values below the largest of each window, without values that are equal to the largest."""
    places = torch.arange(values.numel()).view(values.shape)
    competing, index = _windows(module, values), _windows(module, places)
    gap = competing.max(-1, keepdim=True).values - competing
    below = (gap > 0) & gap.isfinite()
    return index[below], gap[below], torch.ones_like(gap[below])


def _windows(module: nn.Module, x: Tensor) -> Tensor:
    """Return the values of each window of x (N, C, H, W) along the last axis; padding is minus infinity, or -1."""
    if isinstance(module, nn.MaxPool2d):
        size, step, pad = (int(value) for value in (module.kernel_size, module.stride, module.padding))  # type: ignore
        least = float("-inf") if x.is_floating_point() else -1
        padded = functional.pad(x, (pad, pad, pad, pad), value=least)
        return padded.unfold(2, size, step).unfold(3, size, step).flatten(4)  # (N, C, H', W', size * size)
    if isinstance(module, GlobalPool) and len(module.axes) == 1:
        return x.movedim(module.axes[0], -1)  # such as (N, H, W, C)
    return x.flatten(2)  # (N, C, H * W)
