"""The time of each layer of a network in OpenVINO, relative to the rate of matrix products."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from typing import Annotated, Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PyTorch read it

import numpy as np
import torch
import typer

from benchmarks import rates
from benchmarks.cost.cases import find_network
from maam._system import environment
from maam.backend.engines import keep_signal_stack
from maam.errors import require
from maam.torch import build
from maam.torch.engines import Source
from maam.training.compare import markdown_table

Array = np.ndarray[Any, Any]


class Layer(NamedTuple):
    """A layer of a network.

    Attributes:
        kind: what it computes; for a convolution also the kernel, the channels and the height and width of its output.
        operations: additions and multiplications of convolutions and linear layers; 0 for other layers.
        seconds: the shortest time of a call, in seconds.
    """

    kind: str
    operations: int
    seconds: float


def layer_times(
    network: Annotated[str, typer.Argument(help="name of `cost models`, or a preset")],
    batch: Annotated[int, typer.Option(min=1, help="images in a batch")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="number of rounds; the shortest time of each layer counts")] = 15,
) -> None:
    """Print the time of each kind of layer in OpenVINO, and its operations as a share of the matrix products' rate.

    The network is fused, as by `optimize`. Uses one thread unless OMP_NUM_THREADS is set. Times are elapsed times,
    because OpenVINO does not report CPU time.
    """
    rate = _rate(rounds)
    layers = measure_layers(network, batch, rounds)
    rows = layer_table(layers, rate)
    head = ("layers", "number", "share of the time", "share of the operations", "share of the fp32 rate")
    print(f"{network}, batch {batch}: {1000 * sum(layer.seconds for layer in layers):.2f} ms in OpenVINO")
    print(f"matrix products: {rate / 1e9:.0f} giga-operations a second\n")
    print("\n".join(markdown_table(head, rows)))
    print("\n" + json.dumps(environment()))


def measure_layers(network: str, batch: int, rounds: int) -> list[Layer]:
    """Return the layers of a network in running order, as OpenVINO runs them.

    Args:
        network: name of `cost models`, or a preset.
        batch: images in a batch.
        rounds: number of calls that are measured.
    """
    require("openvino", "deploy")
    import openvino

    node = find_network(network)
    x = np.random.default_rng(0).random((batch, *node.input_shape), np.float32)
    with Source(build(node, seed=0).eval(), torch.from_numpy(x), compile=False) as source:
        model = openvino.Core().read_model(source.onnx_file())
    model.reshape(x.shape)
    operations = {operation.get_friendly_name(): operation for operation in model.get_ops()}
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }
    with keep_signal_stack():
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds + 2):  # the first calls prepare weights
        request.infer([x])
        for found in request.profiling_info:
            seconds[found.node_name, found.node_type].append(found.real_time.total_seconds())
    return [Layer(*_describe(operations.get(name), kind), min(times[2:])) for (name, kind), times in seconds.items()]


def layer_table(layers: list[Layer], rate: float) -> list[tuple[str, ...]]:
    """Return a row for each kind of layer, in running order, and a last one for all layers.

    Args:
        layers: the layers.
        rate: operations a second of matrix products.
    """
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[layer.kind if layer.operations else "others"].append(layer)
    groups["others"] = groups.pop("others", [])
    seconds, operations = sum(layer.seconds for layer in layers), sum(layer.operations for layer in layers)
    rows: list[tuple[str, ...]] = []
    for kind, group in [*groups.items(), ("all", layers)]:
        own, count = sum(layer.seconds for layer in group), sum(layer.operations for layer in group)
        shares = (f"{count / operations:.3f}", f"{count / own / rate:.2f}") if count else ("", "")
        rows.append((kind, str(len(group)), f"{own / seconds:.3f}", *shares))
    return rows


def _describe(operation: Any, kind: str) -> tuple[str, int]:
    """Return the description of a layer and the number of its operations.

    Args:
        operation: the last operation of the layer in the network that OpenVINO read, or None for a layer it added.
        kind: the kind of the layer in the network that OpenVINO runs.
    """
    while kind == "FullyConnected" and operation.get_type_name() in ("Add", "Multiply"):  # the bias, and its factor
        operation = operation.input_value(0).get_node()
    if kind in ("Convolution", "GroupConvolution"):
        weight, output = (tuple(port.get_shape()) for port in (operation.input(1), operation.output(0)))
        groups = weight[0] if kind == "GroupConvolution" else 1
        kernel, in_channels = "x".join(map(str, weight[-2:])), groups * weight[-3]
        channels = f"{in_channels} to {output[1]} channels" if groups == 1 else f"{groups} groups"
        count = 2 * math.prod(weight[-3:]) * math.prod(output)
        return f"{kernel} convolution, {channels}, {output[2]}x{output[3]}", count
    if kind == "FullyConnected":
        channels, output = operation.input(0).get_shape()[-1], operation.output(0).get_shape()
        return f"linear, {channels} to {output[-1]}", 2 * channels * math.prod(output)
    return kind, 0


def _rate(rounds: int) -> float:
    """Return the operations a second of float32 matrix products of the fastest library, in elapsed time."""
    size = rates.SIZES["cpu"]
    best = 0.0
    for call in rates.matrix_products("cpu", size, precisions=("fp32",)).values():
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
