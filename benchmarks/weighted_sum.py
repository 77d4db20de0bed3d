"""Equation 2 of the MAAM paper in training: the ways to weigh branches and add them up, as CPU time of a step.

The paper fuses softmax and weighting into one kernel (equation 9). Forward and backward of softmax(alpha)_i A_i,
summed, on three maps (64, 128, 16, 16), interleaved in one run.

    python benchmarks/weighted_sum.py --rounds 20
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, ops

from maam._system import environment

SHAPE = (64, 128, 16, 16)


def torch_chain(alpha, maps):
    weights = torch.softmax(alpha, 0).unbind(0)
    terms = [weight * one for weight, one in zip(weights, maps, strict=True)]
    return sum(terms[1:], terms[0])


def torch_addcmul(alpha, maps):
    weights = torch.softmax(alpha, 0).unbind(0)
    total = weights[0] * maps[0]
    for weight, one in zip(weights[1:], maps[1:], strict=True):
        total = torch.addcmul(total, weight, one)
    return total


def torch_stack(alpha, maps):
    return torch.tensordot(torch.softmax(alpha, 0), torch.stack(maps), 1)


def mindspore_chain(alpha, *maps):
    weights = ops.softmax(alpha, 0)
    total = weights[0] * maps[0]
    for index in range(1, len(maps)):
        total = total + weights[index] * maps[index]
    return total


def mindspore_stack(alpha, *maps):
    weights = ops.softmax(alpha, 0).reshape((-1, 1, 1, 1, 1))
    return (weights * ops.stack(maps)).sum(0)


def torch_step(function, alpha, maps, cotangent):
    """Forward, and gradients of alpha and the maps."""

    def step():
        torch.autograd.grad(function(alpha, maps), [alpha, *maps], cotangent)

    return step


def mindspore_step(function, alpha, maps, cotangent, level):
    def scalar(alpha, first, second, third):
        return (function(alpha, first, second, third) * cotangent).sum()

    gradient = ms.jit(ms.grad(scalar, (0, 1, 2, 3)), jit_level=level)
    return lambda: gradient(alpha, *maps)[0].asnumpy()


def make_steps():
    """A function for each way."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(SHAPE, np.float32) for _ in range(4)]
    alpha = torch.zeros(3, requires_grad=True)
    steps = {}
    for layout, memory_format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        *maps, cotangent = [torch.from_numpy(a).contiguous(memory_format=memory_format) for a in arrays]
        maps = [one.requires_grad_() for one in maps]
        for name, function in (("chain", torch_chain), ("addcmul", torch_addcmul), ("stack", torch_stack)):
            steps[f"PyTorch {layout}, {name}"] = torch_step(function, alpha, maps, cotangent)
        compiled = torch.compile(torch_chain)
        steps[f"PyTorch {layout}, chain compiled"] = torch_step(compiled, alpha, maps, cotangent)
    *maps, cotangent = map(Tensor, arrays)
    for level in ("O0", "O1"):
        for name, function in (("chain", mindspore_chain), ("stack", mindspore_stack)):
            parts = (Tensor(np.zeros(3, np.float32)), maps, cotangent)
            steps[f"MindSpore {level}, {name}"] = mindspore_step(function, *parts, level)
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--graph-kernels", action="store_true", help="MindSpore's kernel fusion (needs `decorator`)")
    options = parser.parse_args()
    ms.set_context(enable_graph_kernel=options.graph_kernels)
    steps = make_steps()
    times = {name: [] for name in steps}
    for _ in range(options.rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    print("| way | CPU time of a step | of its framework's chain |")
    print("| --- | --- | --- |")
    best = {name: min(found[1:]) for name, found in times.items()}
    for name, seconds in best.items():
        yardstick = best["PyTorch NCHW, chain" if name.startswith("PyTorch") else "MindSpore O0, chain"]
        print(f"| {name} | {1000 * seconds:.1f} ms | {seconds / yardstick:.2f} |")
    print("\n" + json.dumps(environment()))


if __name__ == "__main__":
    main()
