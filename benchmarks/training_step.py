"""CPU time of a training step in each framework, interleaved in one process, relative to eager float32 PyTorch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the frameworks read it

import numpy as np
import typer

from maam import spec
from maam._system import environment
from maam.mindspore import build as build_mindspore
from maam.mindspore.runner import Runner as MindSporeRunner
from maam.torch import build as build_torch
from maam.torch.runner import Runner as TorchRunner
from maam.training import Objective, Optimizer, Trainer
from maam.training.compare import markdown_table

SGD = Optimizer(lr=0.01, nesterov=True, weight_decay=5e-4)
PRESET = "maam_cifar10_2m3"
BatchSize = Annotated[int, typer.Option(min=2, help="images in a batch")]
Rounds = Annotated[int, typer.Option(min=1, help="each round takes one step of each configuration")]


def training_step(
    preset: Annotated[str, typer.Argument(help="name of a preset")] = PRESET,
    batch_size: BatchSize = 64,
    rounds: Rounds = 5,
) -> None:
    """Print the CPU time of a training step in PyTorch and MindSpore.

    The first row is the baseline: PyTorch in eager mode, as in a user's own training loop. Uses one thread unless
    OMP_NUM_THREADS is set.
    """
    node = spec.preset(preset)
    times = measure_steps(make_trainers(node), node, batch_size, rounds)
    first = next(iter(times.values()))
    head = ("configuration", "CPU time of a step", "relative to eager float32", "images per second and core")
    rows = [
        (name, f"{1000 * seconds:.0f} ms", f"{seconds / first:.2f}", f"{batch_size / seconds:.0f}")
        for name, seconds in times.items()
    ]
    print(f"{preset}, batch {batch_size}: CPU time of a training step\n")
    print("\n".join(markdown_table(head, rows)))
    print("\n" + json.dumps(environment()))


def make_trainers(node: spec.Model) -> dict[str, Trainer]:
    """Return a trainer for each configuration, the baseline first."""
    models = {
        name: build_torch(node, seed=0) for name in ("NCHW float32", "channels_last float32", "channels_last bf16")
    }
    runners = {name: TorchRunner(model, channels_last=name != "NCHW float32") for name, model in models.items()}
    trainers: dict[str, Trainer] = {
        f"PyTorch eager, {name}": runner.trainer(SGD, Objective(precision="bf16" if "bf16" in name else "fp32"))
        for name, runner in runners.items()
    }
    for module in models["NCHW float32"].modules():
        if hasattr(module, "_pools_first"):
            setattr(module, "_pools_first", False)  # noqa: B010  # an optimization of maam, not part of the baseline
    for name, graph in (("graph", True), ("PyNative", False)):
        runner = MindSporeRunner(build_mindspore(node, seed=0), graph=graph)
        trainers[f"MindSpore {name}, float32"] = runner.trainer(SGD)
    return trainers


def measure_steps(trainers: Mapping[str, Trainer], node: spec.Model, batch_size: int, rounds: int) -> dict[str, float]:
    """Return the least CPU time of a step on a batch of random images, in seconds, by configuration."""
    rng = np.random.default_rng(0)
    images = rng.random((batch_size, *node.input_shape), np.float32)
    labels = rng.integers(0, node.num_classes, batch_size).astype(np.int32)
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            batch = trainer.prepare(images, labels)
            trainer.fetch([trainer.update(batch, 0.01)])
            found[name].append(time.process_time() - start)
    return {name: min(times[1:]) for name, times in found.items()}  # the first step compiles
