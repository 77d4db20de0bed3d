"""The speed of every engine as a share of the processor's rate of matrix products, measured in the same run."""

from __future__ import annotations

import functools
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the frameworks read it

import numpy as np
import typer
from rich.console import Console

from maam.mindspore import build as build_mindspore  # before onnx, see docs/install.md
from maam.mindspore.arrays import from_numpy
from maam.mindspore.runner import Runner as MindSporeRunner
from maam.torch import build as build_torch
from maam.torch import optimize
from maam.torch.runner import Runner as TorchRunner

# isort: split
import torch

from benchmarks import rates
from benchmarks.cost.cases import find_network
from benchmarks.cost.torch_functions import infer_int8
from benchmarks.training_step import SGD
from maam._io import write_text
from maam._system import environment, interleave
from maam.cli.options import split
from maam.errors import MaamError
from maam.spec import Conv2d, Model
from maam.training import Trainer
from maam.training.compare import markdown_table

Call = Callable[[], object]
CASES = ("maam_net_s", "maam_net_m", "maam_imagenet", "mafc_v2", "MobileNetV2", "ResNet-20")
"""Networks whose time is not dominated by one large linear layer."""
PRODUCT = "matrix product"
EAGER = "PyTorch, eager"
CHANNELS_LAST = "PyTorch, eager, channels_last"
OPTIMIZED = "optimize, auto"
FUSED = "MindSpore, graph, fused"
LARGE = 64
"""Images with more rows are measured in smaller batches."""
_TARGETS = {"batch": 0.9, "one image": 0.6, "depthwise": 2.0, "MindSpore": 0.9, "training": 1.0}


@dataclass(frozen=True)
class Speed:
    """The speed of one engine.

    Attributes:
        network: the name of the network.
        batch: images in a batch.
        engine: what ran.
        images: images a second of CPU time.
        share: operations a second, as a share of the rate of float32 matrix products in the same rounds.
        relative: how many times as fast as eager PyTorch: NCHW in inference, channels_last in training.
        remark: the engine that "auto" chose.
    """

    network: str
    batch: int
    engine: str
    images: float
    share: float
    relative: float
    remark: str = ""


def share(
    networks: Annotated[str, typer.Option(help="comma-separated: names of `cost models`, or presets")] = ",".join(
        CASES
    ),
    only: Annotated[str, typer.Option(help="comma-separated: inference, training")] = "inference,training",
    rounds: Annotated[int, typer.Option(min=1, help="each round runs every engine")] = 7,
    out: Annotated[Path | None, typer.Option(help="folder for share.json and share.md")] = None,
) -> None:
    """Measure the rate of matrix products and the speed of every engine in the same process, in CPU time.

    Uses one thread unless OMP_NUM_THREADS is set.
    """
    parts = split("--only", only, ("inference", "training"))
    nodes = {name: find_network(name) for name in split("--networks", networks)}
    console = Console(stderr=True)
    found = list(rates.measure_rates().values())
    inference: list[Speed] = []
    training: list[Speed] = []
    problems: dict[str, str] = {}
    for name, node in nodes.items():
        for batch in batches(node):
            if "inference" in parts:
                console.print(f"{name}, inference, batch {batch}", highlight=False)
                inference += measure_inference(name, node, batch, rounds, problems)
        if "training" in parts:
            console.print(f"{name}, training", highlight=False)
            training += measure_training(name, node, batches(node)[-1], rounds)
    text = _text(found, inference, training, problems)
    typer.echo(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        document = {
            "rates": [rate._asdict() for rate in found],
            "inference": [asdict(one) for one in inference],
            "training": [asdict(one) for one in training],
            "not measured": problems,
            "environment": environment(),
        }
        write_text(out / "share.json", json.dumps(document, indent=1) + "\n")
        write_text(out / "share.md", text + "\n")


def _text(found: list[rates.Rate], inference: list[Speed], training: list[Speed], problems: Mapping[str, str]) -> str:
    """Return the rates of matrix products and the tables of speeds."""
    return "\n\n".join(
        [
            "Matrix products, giga-operations a second of CPU time: "
            + ", ".join(f"{rate.precision} {rate.operations / 1e9:.0f} ({rate.implementation})" for rate in found)
            + ".",
            *(speed_table(rows, head) for rows, head in ((inference, "eager"), (training, "channels_last")) if rows),
            *(f"Not measured: {what}: {reason}" for what, reason in problems.items()),
            json.dumps(environment()),
        ]
    )


def batches(node: Model) -> tuple[int, int]:
    """Return the batch sizes to measure: one image, and many."""
    return 1, 64 if node.input_shape[-1] <= LARGE else 8


def is_depthwise(node: Model) -> bool:
    """Return whether a network has depthwise convolutions; they have little arithmetic for their memory traffic."""
    return any(isinstance(inner, Conv2d) and inner.groups == inner.in_channels > 1 for _, inner in node.walk())


def measure_inference(
    name: str, node: Model, batch: int, rounds: int, problems: dict[str, str] | None = None
) -> list[Speed]:
    """Return the speed of every engine that is installed.

    Args:
        name: name of the network.
        node: its spec.
        batch: images in a batch.
        rounds: number of rounds.
        problems: receives the reason for each engine that could not run.
    """
    x = np.random.default_rng(0).random((batch, *node.input_shape), np.float32)
    calls: dict[str, Call] = {PRODUCT: product()}
    remarks: dict[str, str] = {}
    for engine, make in _engines().items():
        try:
            calls[engine] = make(node, x, remarks)
        except (MaamError, RuntimeError, ImportError) as error:
            if problems is not None:
                problems[f"{name}, batch {batch}, {engine}"] = " ".join(str(error).split())[:200]
    times = interleave(calls, rounds=rounds, clock=rates.clock_of("cpu"))
    return _speeds(name, batch, 2 * node.macs(node.input_shape), times, EAGER, remarks)


def measure_training(name: str, node: Model, batch: int, rounds: int) -> list[Speed]:
    """Return the speed of a training step: in eager PyTorch in both layouts, and in maam's loop in both frameworks."""
    rng = np.random.default_rng(0)
    images = rng.random((batch, *node.input_shape), np.float32)
    labels = rng.integers(0, node.num_classes, batch).astype(np.int32)
    calls: dict[str, Call] = {PRODUCT: product()}
    for engine, trainer in _trainers(node).items():
        calls[engine] = functools.partial(_step, trainer, images, labels)
    times = interleave(calls, rounds=rounds, clock=rates.clock_of("cpu"))
    return _speeds(name, batch, 6 * node.macs(node.input_shape), times, CHANNELS_LAST, {})


@functools.cache
def product() -> Call:
    """Return the fastest product of float32 matrices, which takes `2 * rates.SIZES["cpu"]**3` operations."""
    library = rates.measure_rates(precisions=("fp32",))["fp32"].implementation
    return rates.matrix_products("cpu", rates.SIZES["cpu"], precisions=("fp32",))["fp32", library]


def speed_table(speeds: list[Speed], base: str) -> str:
    """Return a table of speeds, in which the targets that apply are marked as reached or missed."""
    head = ("network", "batch", "engine", "images/s", "share of the fp32 rate", f"times {base}", "target", "remark")
    rows = [
        (
            one.network,
            str(one.batch),
            one.engine,
            f"{one.images:.0f}" if one.images >= 100 else f"{one.images:.1f}",
            f"{one.share:.2f}",
            f"{one.relative:.2f}",
            _target(one, base),
            one.remark,
        )
        for one in speeds
    ]
    return "\n".join(markdown_table(head, rows))


def _target(one: Speed, base: str) -> str:
    if base == "channels_last":
        value, least = one.relative, _TARGETS["training"] if "maam" in one.engine else 0.0
    elif one.engine == FUSED:
        value, least = one.relative, _TARGETS["MindSpore"]
    elif one.engine == OPTIMIZED and one.batch == 1:
        value, least = one.share, _TARGETS["one image"]
    elif one.engine == OPTIMIZED and is_depthwise(find_network(one.network)):
        value, least = one.relative, _TARGETS["depthwise"]
    else:
        value, least = one.share, _TARGETS["batch"] if one.engine == OPTIMIZED else 0.0
    return "" if not least else f"{least:g}: {'reached' if value >= least else 'missed'}"


def _speeds(
    name: str,
    batch: int,
    operations: int,
    times: Mapping[str, list[float]],
    base: str,
    remarks: Mapping[str, str],
) -> list[Speed]:
    """Return the medians over the rounds; shares and ratios are taken within the rounds."""
    size = rates.SIZES["cpu"]
    found = []
    for engine, seconds in times.items():
        if engine == PRODUCT:
            continue
        shares = [
            (operations * batch / own) / (2 * size**3 / unit) for own, unit in zip(seconds, times[PRODUCT], strict=True)
        ]
        relative = [other / own for own, other in zip(seconds, times[base], strict=True)]
        found.append(
            Speed(
                name,
                batch,
                engine,
                batch / statistics.median(seconds),
                statistics.median(shares),
                statistics.median(relative),
                remarks.get(engine, ""),
            )
        )
    return found


def _engines() -> dict[str, Callable[[Model, Any, dict[str, str]], Call]]:
    names = ("torch", "onnxruntime", "openvino", "auto")
    return {
        EAGER: functools.partial(_eager, torch.contiguous_format),
        CHANNELS_LAST: functools.partial(_eager, torch.channels_last),
        **{f"optimize, {name}": functools.partial(_optimized, name) for name in names},
        "int8, OpenVINO": lambda node, x, _: infer_int8(build_torch(node, seed=0), torch.from_numpy(x)),
        "MindSpore, graph": functools.partial(_mindspore, False),
        FUSED: functools.partial(_mindspore, True),
    }


def _eager(layout: torch.memory_format, node: Model, x: Any, remarks: dict[str, str]) -> Call:
    model = build_torch(node, seed=0).eval().to(memory_format=layout)
    return functools.partial(_run, model, torch.from_numpy(x).to(memory_format=layout))


def _optimized(engine: str, node: Model, x: Any, remarks: dict[str, str]) -> Call:
    images = torch.from_numpy(x)
    fast = optimize(build_torch(node, seed=0).eval(), images, engine=engine, precision="fp32", cache=False)
    remarks[f"optimize, {engine}"] = f"{fast.engine}, {fast.form}" if engine == "auto" else fast.form
    return functools.partial(_run, fast, images)


def _run(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    with torch.inference_mode():
        function(x)


def _mindspore(fused: bool, node: Model, x: Any, remarks: dict[str, str]) -> Call:
    cell = build_mindspore(node, seed=0)
    if fused:
        cell.reparameterize()
    runner, images = MindSporeRunner(cell), from_numpy(x)
    runner.enter()
    return lambda: runner.model(images).asnumpy()


def _trainers(node: Model) -> dict[str, Trainer]:
    found: dict[str, Trainer] = {}
    for name, channels_last in ((EAGER, False), (CHANNELS_LAST, True), ("maam in PyTorch", True)):
        runner = TorchRunner(build_torch(node, seed=0), channels_last=channels_last)
        found[name] = runner.trainer(SGD)
        for module in runner.model.modules():
            if "maam" not in name and hasattr(module, "_pools_first"):
                setattr(module, "_pools_first", False)  # noqa: B010  # an optimization of maam, not part of PyTorch
    found["maam in MindSpore"] = MindSporeRunner(build_mindspore(node, seed=0)).trainer(SGD)
    return found


def _step(trainer: Trainer, images: Any, labels: Any) -> None:
    trainer.fetch([trainer.update(trainer.prepare(images, labels), 0.01)])
