"""The functions that `benchmarks.cost.measure` times in PyTorch."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost import baselines
from maam.backend.engines import open_openvino
from maam.deploy.quantization import by_openvino
from maam.errors import ShapeError
from maam.spec import Node
from maam.torch import build, optimize
from maam.torch.devices import has_native_bf16
from maam.torch.export import onnx_program

Call = Callable[[], object]
BASELINES: dict[str, list[str]] = {"layers": list(baselines.LAYERS), "models": []}
"""Cases without a spec."""
MATRIX = 1024


def make_function(name: str, node: Node | None, x: Any, kind: str) -> Call:
    """Return a function that runs a case.

    Args:
        name: name of the case.
        node: spec of the case; None for a baseline.
        x: batch, float32 (N, C, H, W).
        kind: one of `KINDS`.
    """
    tensor = torch.from_numpy(x)
    return KINDS[kind](_make_module(name, node, tensor), tensor)


def facts(name: str, node: Node | None, x: Any) -> dict[str, int]:
    """Return the size of a case.

    Returns:
        parameters: their number.
        macs: multiply-accumulate operations per image.
        bytes: size of parameters and buffers.
        saved: bytes that autograd saves for the backward pass per image, without parameters.
    """
    tensor = torch.from_numpy(x)
    model = _make_module(name, node, tensor)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": _count_macs(model, tensor[:1]),
        "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "saved": _count_saved_bytes(model, torch.cat([tensor[:1], tensor[:1]])) // 2,
    }


def matrix_products() -> dict[str, Call]:
    """Return products of two square matrices in float32 and, if the CPU supports it, bfloat16.

    A product takes 2 * MATRIX**3 operations.
    """
    dtypes = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if has_native_bf16() else {})}
    return {name: functools.partial(_square, torch.rand(MATRIX, MATRIX).to(dtype)) for name, dtype in dtypes.items()}


def _make_module(name: str, node: Node | None, x: Tensor) -> nn.Module:
    return baselines.make_baseline(name, x.shape[1]) if node is None else build(node, seed=0)


def _square(matrix: Tensor) -> Tensor:
    return matrix @ matrix


def _run(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.inference_mode():
        function(x)


def _infer(model: nn.Module, x: Tensor) -> Call:
    return functools.partial(_run, model.eval(), x)


def _infer_optimized(precision: str, model: nn.Module, x: Tensor) -> Call:
    return functools.partial(_run, optimize(model.eval(), x, precision=precision), x)


def infer_int8(model: nn.Module, x: Tensor) -> Call:
    """Return inference in OpenVINO; random calibration images suffice because only the time is measured."""
    model.eval()
    if callable(reparameterize := getattr(model, "reparameterize", None)):
        reparameterize()
    with tempfile.TemporaryDirectory() as folder:
        plain, target = Path(folder) / "model.onnx", Path(folder) / "int8.xml"
        onnx_program(model, tuple(x.shape[1:])).save(plain, external_data=False)
        images = np.random.default_rng(0).random((32, *x.shape[1:])).astype(np.float32)
        by_openvino(plain, target, images, {})
        predict, _ = open_openvino(target, threads=torch.get_num_threads())
    return functools.partial(predict, x.numpy())


def _train(bf16: bool, model: nn.Module, x: Tensor) -> Call:
    """Return a step of SGD with momentum on the mean square of the output; bf16 autocast runs in channels_last."""
    if len(x) < 2:
        raise ShapeError("a training step needs at least 2 images, because batch norm computes a variance")
    layout = torch.channels_last if bf16 else torch.contiguous_format
    model = model.train().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    images = x.to(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(images)
        output.float().square().mean().backward()
        optimizer.step()

    return step


KINDS: dict[str, Callable[[nn.Module, Tensor], Call]] = {
    "inference fp32": _infer,
    "inference, optimized": functools.partial(_infer_optimized, "auto"),
    "inference bf16": functools.partial(_infer_optimized, "bf16"),
    "inference int8": infer_int8,
    "training step fp32": functools.partial(_train, False),
    "training step bf16": functools.partial(_train, True),
}


def _count_macs(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return int(counter.get_total_flops()) // 2


def _count_saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the size of the tensors that autograd saves, each storage once, without the parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = model.train()(x)
    del output
    return sum(saved.values())
