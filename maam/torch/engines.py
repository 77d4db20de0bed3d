"""A model as a function in each inference engine: PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import copy
import functools
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from maam._messages import one_line
from maam.backend.engines import open_onnx, open_openvino
from maam.backend.protocol import Predict
from maam.torch.arrays import PRECISIONS
from maam.torch.export import onnx_program
from maam.torch.modules import Container

Function = Callable[[Tensor], Tensor]


class Source:
    """A model in eval mode and an example of its input, from which engines make functions.

    It is a context manager, because its ONNX file, which several engines read, is in a temporary folder.

    Args:
        model: the model; it is not changed.
        example: a float32 input (N, C, H, W).
        compile: whether PyTorch also compiles the model.

    Attributes:
        has_onnx_file: whether the ONNX file is written.
    """

    def __init__(self, model: nn.Module, example: Tensor, compile: bool) -> None:
        self.model = model
        self.example = example
        self.compile = compile
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.has_onnx_file = False

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def fused_copy(self) -> nn.Module:
        """Return a copy of the model whose layers of maam are fused."""
        return _fused_copy(self.model)

    def onnx_file(self) -> Path:
        """Return the fused model as an ONNX file."""
        self._folder = self._folder or tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "model.onnx"
        if not self.has_onnx_file:
            program = onnx_program(self.fused_copy().float(), tuple(self.example.shape[1:]))
            program.save(path, external_data=False)
            self.has_onnx_file = True
        return path


def _fused_copy(model: nn.Module) -> nn.Module:
    fused = copy.deepcopy(model)
    outermost: list[str] = []
    for name, module in fused.named_modules():
        inside = any(name.startswith(f"{other}." if other else "") for other in outermost)
        if isinstance(module, Container) and not inside:
            outermost.append(name)
            if not module.reparameterized:
                module.joins_branches = True  # only the output of the copy is needed
                module.reparameterize()
    return fused.requires_grad_(False)


def _torch(source: Source, precision: str) -> dict[str, Function]:
    """Return the model in eager mode and compiled: on some machines compiled code is not faster for small batches."""
    dtype, example = PRECISIONS[precision], source.example
    # With one channel both layouts have the same strides, and code that PyTorch compiles confuses them (2.14, 2.15).
    several = example.dim() != 4 or example.shape[1] > 1
    layout = torch.channels_last if example.dim() == 4 and several else torch.contiguous_format
    prepared = source.fused_copy().to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    computing: dict[str, Function] = {"fused": prepared}
    if source.compile and several:
        computing |= _compiled(prepared, example.to(dtype=dtype, memory_format=layout))

    def run(compute: Function, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            given = x.to(dtype=dtype, memory_format=layout)  # before the compiled part, which then sees one layout
            return compute(given.clone() if given.is_inference() else given).float()

    return {form: functools.partial(run, compute) for form, compute in computing.items()}


def _compiled(model: nn.Module, example: Tensor) -> dict[str, Function]:
    """Return the model compiled with frozen weights, or warn and return nothing if the compilation fails."""
    compiled = torch.compile(_separate_function(model))

    def frozen(x: Tensor) -> Tensor:
        with torch._inductor.config.patch(freezing=True):  # read at each compilation for a new kind of input
            return compiled(x)

    try:
        frozen(example)
    except (RuntimeError, OSError) as error:  # most often there is no C++ compiler
        reason = one_line(error, 200)
        warnings.warn(f"optimize: torch.compile failed, so the model is not compiled: {reason}", stacklevel=6)
        return {}
    return {"compiled": frozen}


def _separate_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model as a function with a new code object; Dynamo recompiles each code object at most 8 times."""

    def call(x: Tensor) -> Tensor:
        return model(x)

    return types.FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)


def _onnxruntime(source: Source, precision: str) -> dict[str, Function]:
    return _by_numpy(open_onnx(source.onnx_file(), torch.get_num_threads())[0])


def _openvino(source: Source, precision: str) -> dict[str, Function]:
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    return _by_numpy(open_openvino(source.onnx_file(), hint, torch.get_num_threads())[0])


def _by_numpy(predict: Predict) -> dict[str, Function]:
    return {"fused": lambda x: torch.from_numpy(predict(x.numpy()))}


BUILDERS: dict[str, Callable[[Source, str], dict[str, Function]]] = {
    "torch": _torch,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}
"""The functions that make a source's functions in a precision, by engine; the results are named by their form."""
