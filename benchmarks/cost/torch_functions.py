"""What a layer or model costs in PyTorch, as functions to be timed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cost.baselines import LAYERS, MODELS, make_rival
from maam.backend.engines import open_openvino
from maam.deploy.quantization import by_openvino
from maam.errors import ShapeError
from maam.spec import Node
from maam.torch.devices import has_native_bf16
from maam.torch.export import onnx_program
from maam.torch.optimize import optimize
from maam.torch.weights import build

Call = Callable[[], object]
RIVALS = {"layers": list(LAYERS), "models": list(MODELS)}
MATRIX = 1024


def make_functions(name: str, node: Node | None, x: Any, kinds: list[str]) -> dict[str, Call]:
    """What to time for a case on the batch x (N, C, H, W), by kind of `KINDS`."""
    tensor = torch.from_numpy(x)
    return {kind: KINDS[kind](_module(name, node, tensor), tensor) for kind in kinds}


def facts(name: str, node: Node | None, x: Any) -> dict[str, int]:
    """Parameters, multiply-accumulates an image, bytes on disk, bytes kept for backward in training, an image.

    The last are the tensors that autograd saves, each once, parameters not counted.
    """
    tensor = torch.from_numpy(x)
    model = _module(name, node, tensor)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": _macs(model, tensor[:1]),
        "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "saved": _saved(model, torch.cat([tensor[:1], tensor[:1]])) // 2,
    }


def matrix_products() -> dict[str, Call]:
    """Products of two square matrices in float32 and, where the hardware has it, bfloat16; 2 MATRIX**3 operations."""
    dtypes = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if has_native_bf16() else {})}
    return {name: functools.partial(_product, torch.rand(MATRIX, MATRIX).to(dtype)) for name, dtype in dtypes.items()}


def _module(name: str, node: Node | None, x: Tensor) -> nn.Module:
    return make_rival(name, x.shape[1]) if node is None else build(node, seed=0)


def _product(matrix: Tensor) -> Tensor:
    return matrix @ matrix


def _infer(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.inference_mode():
        function(x)


def _eager(model: nn.Module, x: Tensor) -> Call:
    return functools.partial(_infer, model.eval(), x)


def _optimized(precision: str, model: nn.Module, x: Tensor) -> Call:
    return functools.partial(_infer, optimize(model.eval(), x, precision=precision), x)


def _int8(model: nn.Module, x: Tensor) -> Call:
    """By OpenVINO, quantized by NNCF on random images: for the time, not for the outputs."""
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


def _step(bf16: bool, model: nn.Module, x: Tensor) -> Call:
    """Forward, backward of the mean square, and a step of SGD with momentum, in channels_last with bf16 autocast."""
    if len(x) < 2:
        raise ShapeError("a training step needs at least 2 images: batch norm has no variance of one value")
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
    "inference fp32": _eager,
    "inference, optimized": functools.partial(_optimized, "auto"),
    "inference bf16": functools.partial(_optimized, "bf16"),
    "inference int8": _int8,
    "training step fp32": functools.partial(_step, False),
    "training step bf16": functools.partial(_step, True),
}


def _macs(model: nn.Module, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return int(counter.get_total_flops()) // 2


def _saved(model: nn.Module, x: Tensor) -> int:
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.train()(x)
    del output
    return sum(kept.values())
