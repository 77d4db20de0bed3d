"""CPU time of a training step in each framework, interleaved in one run, as ratios to plain eager float32 PyTorch.

python benchmarks/training_step.py maam_cifar10_2m3 --batch-size 64 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the frameworks read it

import numpy as np

from maam import spec
from maam._system import environment
from maam.mindspore import build as build_mindspore
from maam.mindspore.runner import Runner as MindSporeRunner
from maam.torch import build as build_torch
from maam.torch.runner import Runner as TorchRunner
from maam.training import Objective, Optimizer

SGD = Optimizer(lr=0.01, nesterov=True, weight_decay=5e-4)


def make_trainers(node):
    """A trainer for each configuration; the first is the yardstick."""
    torch_models = {
        name: build_torch(node, seed=0) for name in ("NCHW float32", "channels_last float32", "channels_last bf16")
    }
    runners = {name: TorchRunner(m, channels_last=name != "NCHW float32") for name, m in torch_models.items()}
    trainers = {
        f"PyTorch eager, {name}": runner.trainer(SGD, Objective(precision="bf16" if "bf16" in name else "fp32"))
        for name, runner in runners.items()
    }
    for module in torch_models["NCHW float32"].modules():
        module._pools_first = False  # the yardstick is what a loop of one's own runs
    for name, graph in (("graph", True), ("PyNative", False)):
        runner = MindSporeRunner(build_mindspore(node, seed=0), graph=graph)
        trainers[f"MindSpore {name}, float32"] = runner.trainer(SGD)
    return trainers


def measure(trainers, node, batch_size, rounds):
    """The least CPU time of a step on a batch of random images, by configuration."""
    rng = np.random.default_rng(0)
    images = rng.random((batch_size, *node.input_shape), np.float32)
    labels = rng.integers(0, node.num_classes, batch_size).astype(np.int32)
    found = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            batch = trainer.prepare(images, labels)
            trainer.fetch([trainer.update(batch, 0.01)])
            found[name].append(time.process_time() - start)
    return {name: min(times[1:]) for name, times in found.items()}  # the first step compiles


def make_parser(description, rounds):
    """The command line: a preset, --batch-size and --rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("preset", nargs="?", default="maam_cifar10_2m3")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def main():
    options = make_parser(__doc__, rounds=5).parse_args()
    node = spec.preset(options.preset)
    times = measure(make_trainers(node), node, options.batch_size, options.rounds)
    first = next(iter(times.values()))
    print(f"{options.preset}, batch {options.batch_size}: CPU time of a training step\n")
    print("| configuration | CPU time of a step | of plain eager float32 | images a second and core |")
    print("| --- | --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {1000 * seconds:.0f} ms | {seconds / first:.2f} | {options.batch_size / seconds:.0f} |")
    print("\n" + json.dumps(environment()))


if __name__ == "__main__":
    main()
