"""Implementations of equation 2 of the MAAM paper, the weighted sum of the branches, in training.

The paper combines softmax and weighting in one kernel (equation 9). The programs compare the CPU time of a chain of
multiplications and additions, which maam uses, with other implementations: alone and in whole training steps.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from types import MethodType
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the frameworks read it

import mindspore as ms
import numpy as np
import torch
import typer
from mindspore import ops

from benchmarks.training_step import PRESET, SGD, BatchSize, Rounds, measure_steps
from maam import spec
from maam._system import environment
from maam.mindspore import build as build_mindspore
from maam.mindspore import configure
from maam.mindspore.cells import Container
from maam.mindspore.runner import Runner as MindSporeRunner
from maam.torch import build as build_torch
from maam.torch.runner import Runner as TorchRunner
from maam.training import Trainer
from maam.training.compare import markdown_table

SHAPE = (64, 128, 16, 16)
TorchSum = Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]
Step = Callable[[], object]


def weighted_sum(
    rounds: Rounds = 20,
    graph_kernels: Annotated[
        bool, typer.Option("--graph-kernels", help="use MindSpore's kernel fusion (needs the package decorator)")
    ] = False,
) -> None:
    """Print the CPU time of forward and backward of sum_i softmax(alpha)_i A_i for three maps (64, 128, 16, 16)."""
    ms.set_context(enable_graph_kernel=graph_kernels)
    steps = make_steps()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    best = {name: min(found[1:]) for name, found in times.items()}  # the first step compiles
    rows = []
    for name, seconds in best.items():
        base = best["PyTorch NCHW, chain" if name.startswith("PyTorch") else "MindSpore O0, chain"]
        rows.append((name, f"{1000 * seconds:.1f} ms", f"{seconds / base:.2f}"))
    print(
        "\n".join(
            markdown_table(("implementation", "CPU time of a step", "relative to the chain in its framework"), rows)
        )
    )
    print("\n" + json.dumps(environment()))


def weighted_sum_in_training(
    preset: Annotated[str, typer.Argument(help="name of a preset")] = PRESET,
    batch_size: BatchSize = 64,
    rounds: Rounds = 8,
    graph_kernels: Annotated[
        bool, typer.Option("--graph-kernels", help="compare MindSpore's kernel fusion with PyTorch's chain only")
    ] = False,
) -> None:
    """Print the CPU time of a training step for each implementation of the weighted sum."""
    node = spec.preset(preset)
    base = "PyTorch, chain (the default of maam)"
    trainers = {base: _torch_trainer(node, None)}
    if graph_kernels:
        configure(graph_kernel=True)
        trainers["MindSpore, chain, graph kernels"] = _mindspore_trainer(node, None)
    else:
        trainers["PyTorch, stack"] = _torch_trainer(node, torch_stack)
        trainers["PyTorch, chain, compiled"] = _torch_trainer(node, torch.compile(torch_chain))
        trainers["MindSpore, chain (the default of maam)"] = _mindspore_trainer(node, None)
        trainers["MindSpore, stack"] = _mindspore_trainer(node, StackingContainer)
    times = measure_steps(trainers, node, batch_size, rounds)
    rows = [(name, f"{1000 * seconds:.0f} ms", f"{seconds / times[base]:.2f}") for name, seconds in times.items()]
    print("\n".join(markdown_table(("weighted sum", "CPU time of a step", "relative to PyTorch's chain"), rows)))
    print("\n" + json.dumps(environment()))


def torch_chain(alpha: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Return the weighted sum by multiplications and additions."""
    weights = torch.softmax(alpha, 0).unbind(0)
    terms = [weight * one for weight, one in zip(weights, maps, strict=True)]
    return sum(terms[1:], terms[0])


def torch_addcmul(alpha: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Return the weighted sum by torch.addcmul."""
    weights = torch.softmax(alpha, 0).unbind(0)
    total = weights[0] * maps[0]
    for weight, one in zip(weights[1:], maps[1:], strict=True):
        total = torch.addcmul(total, weight, one)
    return total


def torch_stack(alpha: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Return the weighted sum by a product with the stacked maps."""
    return torch.tensordot(torch.softmax(alpha, 0), torch.stack(maps), 1)


def mindspore_chain(alpha: Any, *maps: Any) -> Any:
    """Return the weighted sum by multiplications and additions."""
    weights = ops.softmax(alpha, 0)
    total = weights[0] * maps[0]
    for index in range(1, len(maps)):
        total = total + weights[index] * maps[index]
    return total


def mindspore_stack(alpha: Any, *maps: Any) -> Any:
    """Return the weighted sum by a reduction of the stacked maps."""
    weights = ops.softmax(alpha, 0).reshape((-1, 1, 1, 1, 1))
    return (weights * ops.stack(maps)).sum(0)


class StackingContainer(Container):
    """A container that stacks its branches and reduces them."""

    def _merge(self, x: Any) -> Any:
        outputs = ()
        for index in range(self._count):
            outputs += (self.cell_list[index](x),)  # type: ignore[assignment]
        weights = ops.softmax(self.alpha, 0).reshape((-1, 1, 1, 1, 1))
        return (weights * ops.stack(outputs)).sum(0)


def make_steps() -> dict[str, Step]:
    """Return a function for each way that computes the sum and the gradients of alpha and the maps."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(SHAPE, np.float32) for _ in range(4)]
    alpha = torch.zeros(3, requires_grad=True)
    steps: dict[str, Step] = {}
    for layout, memory_format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        *maps, cotangent = [torch.from_numpy(a).contiguous(memory_format=memory_format) for a in arrays]
        maps = [one.requires_grad_() for one in maps]
        for name, function in (("chain", torch_chain), ("addcmul", torch_addcmul), ("stack", torch_stack)):
            steps[f"PyTorch {layout}, {name}"] = _torch_step(function, alpha, maps, cotangent)
        compiled = torch.compile(torch_chain)
        steps[f"PyTorch {layout}, chain compiled"] = _torch_step(compiled, alpha, maps, cotangent)
    *tensors, gradient = map(ms.Tensor, arrays)
    zeros = ms.Tensor(np.zeros(3, np.float32))
    for level in ("O0", "O1"):
        for name, way in (("chain", mindspore_chain), ("stack", mindspore_stack)):
            steps[f"MindSpore {level}, {name}"] = _mindspore_step(way, zeros, tensors, gradient, level)
    return steps


def _torch_step(function: TorchSum, alpha: torch.Tensor, maps: list[torch.Tensor], cotangent: torch.Tensor) -> Step:
    return lambda: torch.autograd.grad(function(alpha, maps), [alpha, *maps], cotangent)


def _mindspore_step(function: Callable[..., Any], alpha: Any, maps: list[Any], cotangent: Any, level: str) -> Step:
    def scalar(alpha: Any, first: Any, second: Any, third: Any) -> Any:
        return (function(alpha, first, second, third) * cotangent).sum()

    gradient = ms.jit(ms.grad(scalar, (0, 1, 2, 3)), jit_level=level)
    return lambda: gradient(alpha, *maps)[0].asnumpy()


def _torch_trainer(node: spec.Model, way: TorchSum | None) -> Trainer:
    """Return a trainer of a network that uses the sum `way`; None keeps maam's implementation."""
    model = build_torch(node, seed=0)
    for module in model.modules():
        if way is not None and getattr(module, "kind", "") == "parallel":
            module._merge = MethodType(lambda self, x, outputs: way(self.alpha, outputs), module)  # type: ignore[assignment]
    return TorchRunner(model, channels_last=True).trainer(SGD)


def _mindspore_trainer(node: spec.Model, way: type[Container] | None) -> Trainer:
    """Return a trainer in graph mode with containers of the class `way`; None keeps maam's implementation."""
    model = build_mindspore(node, seed=0)
    for _, cell in model.cells_and_names():
        if way is not None and getattr(cell, "kind", "") == "parallel":
            cell.__class__ = way
    return MindSporeRunner(model, graph=True).trainer(SGD)
