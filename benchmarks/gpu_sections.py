"""The sections of `python -m benchmarks gpu`: each yields the rows of its table."""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from benchmarks import rates
from benchmarks.rates import synchronize, tf32
from maam._system import interleave, ratios
from maam.errors import DeploymentError, DeviceError, MissingFrameworkError
from maam.parity import Verdict, check
from maam.parity.report import Row
from maam.parity.subject import random_images
from maam.reference import ReferenceModel
from maam.spec import (
    Activation,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Model,
    Node,
    Sequential,
    draw,
    preset,
)
from maam.tolerance import SIGNAL_TO_NOISE, STEP, difference, signal_to_noise
from maam.torch import build, optimize
from maam.torch.runner import Runner
from maam.training import Objective, Optimizer

Findings = Iterator[dict[str, Any]]
MODELS = ("maam_cifar10_2m3", "maam_net_m", "mafc_v3_small")
"""One stage and three stages of MAAM, and depthwise convolutions with gates and hard swish."""
LAYOUTS = {"eager": (False, False), "eager, channels_last": (False, True), "compiled, channels_last": (True, True)}
"""Whether each configuration compiles, and whether it keeps maps as (N, H, W, C)."""
ALL_STAGES = ("exchange", "lattice", "layers", "forward", "fused", "gradients", "steps")
WHOLE_STAGES = ("exchange", "forward", "fused", "gradients")
PRECISIONS = ("tf32", "bf16", "fp16", "bf16 autocast", "fp16 autocast")
COMPILED_PRECISIONS = ("tf32", "bf16 autocast")
SGD = Optimizer(lr=0.01, nesterov=True, weight_decay=5e-4)
COMPARED = 16
"""Images in a batch whose outputs are compared."""
EPOCH = 50_000
PUBLIC = {"compiled": 3.09, "eager": 3.83}
"""Seconds in which the public trainer reaches 94.01 % on CIFAR-10 on an A100 (400 W, PyTorch 2.4.1).

https://github.com/KellerJordan/cifar10-airbench (legacy/airbench94_compiled.py and airbench94.py).
"""
PUBLIC_EPOCHS = 9.9
TITLES = {
    "rates": "Matrix products",
    "parity": "Parity in float32 without TF32",
    "precisions": "Signal-to-noise ratio in other precisions",
    "distributed": "Distributed training with one process",
    "optimize": "Inference by `maam.torch.optimize`",
    "training": "Training speed",
}
NOTES = {
    "rates": "Tera-operations a second of the product of two square matrices, by the fastest installed library.",
    "parity": "The stages and bounds of `maam parity`, against the float64 reference.",
    "precisions": (
        "Signal-to-noise ratio in decibels to the float64 reference, of outputs in eval mode; of the gradients of all "
        "parameters in train mode, to float32 PyTorch on the CPU. TF32 rounds operands to the 10 bits of float16."
    ),
    "distributed": (
        "Parameters after three training steps in DistributedDataParallel, compared with the same steps without it. "
        "The second row repeats the steps without it."
    ),
    "optimize": (
        "Images a second, and how many times as many as the model in eager mode, float32, NCHW, with the framework's "
        "default settings."
    ),
    "training": (
        "Images a second in training steps on one batch in memory, and how many times as many as plain PyTorch: eager "
        "mode, float32, NCHW, with the framework's default settings. TFLOP/s counts two operations for each MAC, three "
        "times for a step. `public network` has the layers and sizes of the network of the fastest public trainer for "
        f"CIFAR-10 (cifar10-airbench, airbench94), whose own figure is {PUBLIC_EPOCHS} epochs in "
        f"{PUBLIC['compiled']} s compiled and {PUBLIC['eager']} s eager on an A100, with its final evaluation: "
        f"{PUBLIC_EPOCHS * EPOCH / PUBLIC['compiled']:,.0f} and {PUBLIC_EPOCHS * EPOCH / PUBLIC['eager']:,.0f} "
        "images a second, with augmentation."
    ),
}
_COMMUNICATION = {"cpu": "gloo", "cuda": "nccl"}


@dataclass(frozen=True)
class Setting:
    """What is checked.

    Attributes:
        device: "cpu" or "cuda".
        models: names of presets.
        batch_size: images in a batch of the speed measurements.
    """

    device: str
    models: Sequence[str]
    batch_size: int


def measure_rates(setting: Setting) -> Findings:
    """Measure matrix products."""
    for rate in rates.measure_rates(setting.device).values():
        yield {"precision": rate.precision, "library": rate.implementation, "TOP/s": rate.operations / 1e12}


def check_parity(setting: Setting) -> Findings:
    """Compare with the float64 reference: all stages in eager mode, those on the whole model in other layouts."""
    for node, layout, (compiled, channels_last) in _configurations(setting):
        model = build(node, device=setting.device)
        runner = Runner(model, compiled=compiled, channels_last=channels_last)
        runner.name = layout
        with tf32(False):
            report = check(
                node,
                draw(node.parameters(), 0),
                runners=[runner],
                stages=ALL_STAGES if layout == "eager" else WHOLE_STAGES,
            )
        for row in report.rows:
            if row.runner == layout:
                yield {"model": node.name, "configuration": layout, **_cells(row)}


def _cells(row: Row) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "worst abs": None if math.isnan(row.absolute) else row.absolute,
        "bound": row.bound,
        "verdict": row.verdict.value,
        "remarks": "; ".join(filter(None, (row.layer, row.note))),
    }


def check_precisions(setting: Setting) -> Findings:
    """Compare outputs and gradients in narrower precisions with float32 and the reference."""
    for node, layout, (compiled, channels_last) in _configurations(setting):
        arrays = draw(node.parameters(), 0)
        images, labels = random_images(node, COMPARED)
        exact = ReferenceModel(node, arrays)(images)
        plain = Runner(build(node))
        plain.write_arrays(arrays)
        slopes = _gradient(plain, images, labels)
        for precision in COMPILED_PRECISIONS if compiled else PRECISIONS:
            if precision == "tf32" and setting.device == "cpu":
                continue
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
            model = build(node, device=setting.device, dtype=dtype)
            runner = Runner(model, compiled=compiled, channels_last=channels_last)
            runner.write_arrays(arrays)
            with _precision(setting.device, precision):
                outputs = signal_to_noise(runner.forward(images), exact)
                gradients = signal_to_noise(_gradient(runner, images, labels), slopes)
            least = SIGNAL_TO_NOISE["bfloat16" if "bf16" in precision else "float16"]
            yield {
                "model": node.name,
                "configuration": layout,
                "precision": precision,
                "outputs, dB": outputs,
                "bound, dB": least,
                "verdict": (Verdict.PASS if outputs >= least else Verdict.FAIL).value,
                "gradients, dB": gradients,
            }


def check_distributed(setting: Setting) -> Findings:
    """Train with and without DistributedDataParallel in a group of one process that needs no network."""
    node = preset(setting.models[0])
    images, labels = random_images(node, COMPARED)
    expected = _train(node, setting.device, images, labels, distributed_too=False)
    with _process_group(setting.device):
        found = {"DistributedDataParallel": _train(node, setting.device, images, labels, distributed_too=True)}
    found["repeated without it"] = _train(node, setting.device, images, labels, distributed_too=False)
    for what, arrays in found.items():
        compared = [difference(arrays[name], expected[name].astype(np.float64), STEP) for name in expected]
        yield {
            "steps": what,
            "backend": _COMMUNICATION[setting.device],
            "worst abs": max(one.absolute for one in compared),
            "bound": str(STEP),
            "verdict": (Verdict.PASS if max(one.used for one in compared) <= 1 else Verdict.FAIL).value,
        }


def check_optimize(setting: Setting) -> Findings:
    """Measure what `optimize` returns in each precision, and let it compare the outputs with the model's."""
    settings = [("torch", "fp32"), ("torch", "auto"), ("auto", "auto")]
    settings += [("torch", "fp16")] if setting.device == "cuda" else []
    for name in setting.models:
        for batch in (1, setting.batch_size):
            model = build(name, seed=0, device=setting.device).eval()
            images = torch.from_numpy(random_images(preset(name), batch)[0]).to(setting.device)
            for engine, precision in settings:
                row = {"model": name, "batch": batch, "engine": engine, "precision": precision}
                yield row | _optimized(model, images, engine, precision)


def measure_training(setting: Setting) -> Findings:
    """Measure training steps of the public trainer's network and of the first two models."""
    for node in (public_network(), *map(preset, setting.models[:2])):
        shape = (setting.batch_size, *node.input_shape)
        generator = np.random.default_rng(0)
        images = generator.random(shape, np.float32)
        labels = generator.integers(0, node.num_classes, setting.batch_size).astype(np.int32)
        baseline = _plain_step(node, setting.device, images, labels)
        for name, make in _steps(node, setting.device).items():
            calls = {"plain": baseline, name: make(images, labels)}
            times = interleave(calls, rounds=3, least=0.2, clock=rates.clock_of(setting.device))
            rate = setting.batch_size / min(times[name])
            yield {
                "network": node.name,
                "configuration": name,
                "images/s": rate,
                "times plain PyTorch": ratios(times, "plain")[name],
                "TFLOP/s": 6 * node.macs(node.input_shape) * rate / 1e12,
            }


def public_network() -> Model:
    """Return the layers and sizes of the public trainer's network (arXiv 2404.00498, section 3)."""
    children: dict[str, Node] = {
        "whiten": Conv2d(in_channels=3, out_channels=24, kernel_size=2),
        "act": Activation(function="gelu"),
    }
    for index, (before, width) in enumerate(((24, 64), (64, 256), (256, 256))):
        children[f"stage{index + 1}"] = Sequential(
            children={
                "conv1": Conv2d(in_channels=before, out_channels=width, kernel_size=3, padding=1, bias=False),
                "pool": MaxPool2d(kernel_size=2),
                "bn1": BatchNorm2d(num_features=width),
                "act1": Activation(function="gelu"),
                "conv2": Conv2d(in_channels=width, out_channels=width, kernel_size=3, padding=1, bias=False),
                "bn2": BatchNorm2d(num_features=width),
                "act2": Activation(function="gelu"),
            }
        )
    children |= {
        "pool": MaxPool2d(kernel_size=3),
        "flatten": Flatten(),
        "fc": Linear(in_features=256, out_features=10, bias=False),
    }
    return Model(name="public network", input_shape=(3, 32, 32), children=children)


def _configurations(setting: Setting) -> Iterator[tuple[Model, str, tuple[bool, bool]]]:
    """Yield models and layouts; only the first model is compiled, because compiling a deep network takes minutes."""
    for index, name in enumerate(setting.models):
        for layout, (compiled, channels_last) in LAYOUTS.items():
            if not (compiled and index):
                yield preset(name), layout, (compiled, channels_last)


@contextmanager
def _precision(device: str, name: str) -> Iterator[None]:
    dtype = torch.bfloat16 if "bf16" in name else torch.float16
    with tf32(name == "tf32"), torch.autocast(device, dtype, enabled="autocast" in name):
        yield


def _gradient(runner: Runner, images: Any, labels: Any) -> Any:
    """Return the gradients of the mean cross entropy by all parameters in train mode, as one vector, float32."""
    runner.model.train()
    targets = torch.from_numpy(labels).long().to(runner.device)
    loss = F.cross_entropy(runner.function(runner.tensor(images)).float(), targets)
    gradients = torch.autograd.grad(loss, list(runner.model.parameters()))
    return np.concatenate([gradient.float().flatten().cpu().numpy() for gradient in gradients]).astype(np.float64)


def _train(node: Node, device: str, images: Any, labels: Any, *, distributed_too: bool) -> dict[str, Any]:
    """Return the arrays after three training steps in float32."""
    runner = Runner(build(node, seed=0, device=device), channels_last=True)
    trainer = runner.trainer(SGD)
    if distributed_too:
        trainer.function = DistributedDataParallel(runner.model)
    with tf32(False):
        for _ in range(3):
            trainer.step(images, labels, lr=0.01)
    return runner.read_arrays()


@contextmanager
def _process_group(device: str) -> Iterator[None]:
    """Form a group of this process alone; the loopback interface and a file replace the network."""
    backend = _COMMUNICATION[device]
    os.environ.setdefault(f"{backend.upper()}_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store").as_uri()
        distributed.init_process_group(backend, init_method=store, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def _optimized(model: nn.Module, images: Tensor, engine: str, precision: str) -> dict[str, Any]:
    device = images.device.type

    def run(function: Callable[[Tensor], Tensor]) -> None:
        with torch.inference_mode():
            function(images)
        synchronize(device)

    try:
        fast = optimize(model, images, engine=engine, precision=precision)
    except (DeviceError, MissingFrameworkError) as error:
        return {"verdict": Verdict.NOT_AVAILABLE.value, "remarks": str(error)}
    except DeploymentError as error:
        return {"verdict": Verdict.FAIL.value, "remarks": str(error)}
    functions = {"eager": functools.partial(run, model), "fast": functools.partial(run, fast)}
    times = interleave(functions, rounds=5, clock=rates.clock_of(device))
    return {
        "images/s": len(images) / min(times["fast"]),
        "times eager": ratios(times, "eager")["fast"],
        "verdict": Verdict.PASS.value,
        "remarks": f"{fast.engine}, {fast.precision}",
    }


def _plain_step(node: Model, device: str, images: Any, labels: Any) -> rates.Call:
    """Return a training step as in a user's own loop: eager mode, float32, NCHW."""
    model = build(node, seed=0, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x, targets = torch.from_numpy(images).to(device), torch.from_numpy(labels).long().to(device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        synchronize(device)

    return step


def _steps(node: Model, device: str) -> Mapping[str, Callable[[Any, Any], rates.Call]]:
    """Return functions that make a training step from images and labels: a plain one, and those of maam's loop."""
    precisions = ("fp32", "bf16", "fp16") if device == "cuda" else ("fp32", "bf16")

    def make(compiled: bool, precision: str, images: Any, labels: Any) -> rates.Call:
        runner = Runner(build(node, seed=0, device=device), compiled=compiled, channels_last=True)
        trainer = runner.trainer(SGD, Objective(precision=precision))
        batch = trainer.prepare(images, labels)

        def step() -> None:
            trainer.update(batch, 0.01)
            synchronize(device)

        return step

    return {"plain PyTorch": functools.partial(_plain_step, node, device)} | {
        f"maam, {'compiled' if compiled else 'eager'}, channels_last, {precision}": functools.partial(
            make, compiled, precision
        )
        for compiled in (False, True)
        for precision in precisions
    }
