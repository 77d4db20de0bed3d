"""The ways to weigh branches and add them up (equation 2 of the MAAM paper), as CPU time of a whole training step.

Everything but the sum is the same; all in turns within one run. weighted_sum.py has the sum alone.

    python benchmarks/weighted_sum_in_training.py maam_cifar10_2m3 --rounds 8
    python benchmarks/weighted_sum_in_training.py maam_cifar10_2m3 --rounds 8 --graph-kernels   # MindSpore's own fusion
"""

from __future__ import annotations

import json
import os
from types import MethodType

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from mindspore import ops
from training_step import SGD, make_parser, measure
from weighted_sum import torch_chain, torch_stack

from maam import spec
from maam._system import environment
from maam.mindspore import build as build_mindspore
from maam.mindspore import configure
from maam.mindspore.cells import Container
from maam.mindspore.runner import Runner as MindSporeRunner
from maam.torch import build as build_torch
from maam.torch.runner import Runner as TorchRunner


class Stacked(Container):
    """A container that stacks its branches and reduces them."""

    def _merge(self, x):
        outputs = ()
        for index in range(self._count):
            outputs += (self.cell_list[index](x),)
        weights = ops.softmax(self.alpha, 0).reshape((-1, 1, 1, 1, 1))
        return (weights * ops.stack(outputs)).sum(0)


def torch_trainer(node, way):
    """A trainer whose network sums by `way`; None is what maam does."""
    model = build_torch(node, seed=0)
    for module in model.modules():
        if way is not None and getattr(module, "kind", "") == "parallel":
            module._merge = MethodType(lambda self, x, outputs: way(self.alpha, outputs), module)
    return TorchRunner(model, channels_last=True).trainer(SGD)


def mindspore_trainer(node, way):
    """The same in graph mode; `way` is a class of cells."""
    model = build_mindspore(node, seed=0)
    for _, cell in model.cells_and_names():
        if way is not None and getattr(cell, "kind", "") == "parallel":
            cell.__class__ = way
    return MindSporeRunner(model, graph=True).trainer(SGD)


def main():
    parser = make_parser(__doc__, rounds=8)
    parser.add_argument("--graph-kernels", action="store_true", help="in MindSpore; PyTorch's chain is the yardstick")
    options = parser.parse_args()
    node = spec.preset(options.preset)
    ways = {"PyTorch, chain (what maam does)": torch_trainer(node, None)}
    if options.graph_kernels:
        configure(graph_kernel=True)
        ways["MindSpore, chain, graph kernels"] = mindspore_trainer(node, None)
    else:
        ways["PyTorch, stack"] = torch_trainer(node, torch_stack)
        ways["PyTorch, chain, compiled"] = torch_trainer(node, torch.compile(torch_chain))
        ways["MindSpore, chain (what maam does)"] = mindspore_trainer(node, None)
        ways["MindSpore, stack"] = mindspore_trainer(node, Stacked)
    times = measure(ways, node, options.batch_size, options.rounds)
    print("| weighted sum | CPU time of a step | of PyTorch's chain |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {1000 * seconds:.0f} ms | {seconds / times['PyTorch, chain (what maam does)']:.2f} |")
    print("\n" + json.dumps(environment()))


if __name__ == "__main__":
    main()
