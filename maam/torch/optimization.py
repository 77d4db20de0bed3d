"""How much faster a model gets here by `optimize`."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maam._system import interleave, ratios
from maam.backend.engines import check_engine, check_output, open_onnx, open_openvino
from maam.deploy.exporting import FORMATS
from maam.errors import DeploymentError, DeviceError, MaamError
from maam.spec import InputRule
from maam.torch.devices import has_native_bf16, select_precision
from maam.torch.export import onnx_program
from maam.torch.modules import Container
from maam.torch.weights import load

Function = Callable[[Tensor], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Optimized:
    """A model made ready for inference: callable with a float32 (N, C, H, W) tensor, gives float32 outputs.

    Attributes:
        engine: what runs it.
        precision: fp32, bf16 or fp16.
    """

    def __init__(self, function: Function, rule: InputRule | None, engine: str, precision: str) -> None:
        self.engine = engine
        self.precision = precision
        self._function = function
        self._rule = rule

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs for a batch of any size.

        Raises:
            ShapeError: the input does not fit the model, or is not float32.
        """
        if self._rule is not None:
            self._rule.check(tuple(x.shape), str(x.dtype).removeprefix("torch."), "float32")
        return self._function(x)

    def __repr__(self) -> str:
        return f"Optimized(engine={self.engine!r}, precision={self.precision!r})"


def optimize(
    model: nn.Module, example: Tensor, *, precision: str = "auto", engine: str = "torch", compile: bool = True
) -> Optimized:
    """A callable that computes what `model` does in eval mode, the fastest way that this machine has.

    It works on a copy with batch norm and branch weights fused (`reparameterize`), in channels_last, with weights in
    the given precision; in PyTorch the copy is compiled too, with its weights frozen into the code. What is fastest on
    the example is kept. The model stays as it is, and training it on does not change the callable: optimize again.

    Args:
        model: a module in eval mode; what is maam's in it is fused.
        example: a float32 input (N, C, H, W) of the size and batch that matter most; other batches work too.
        precision: "fp32", "bf16", "fp16", or "auto": fp32, or bf16 where the hardware multiplies it
            and it is faster.
        engine: "torch", "onnxruntime" (fp32, CPU) or "openvino" (fp32 and bf16, CPU).
        compile: whether PyTorch's copy is compiled, which takes seconds to minutes and a C++ compiler.

    Raises:
        DeploymentError: the model is no module or in train mode, there is no such engine, or the result is not close
            to the model's.
        DeviceError: the engine or the device has not the precision.
        MissingFrameworkError: the engine is not installed.
        ShapeError: the example does not fit the model.
    """
    _check_arguments(model, example)
    device = next((p.device.type for p in model.parameters()), "cpu")
    check_engine(engine, device)
    precisions = _precisions(engine, device, precision)
    with torch.no_grad():
        output = model(example)
        if not isinstance(output, Tensor):
            raise DeploymentError(f"optimize: expected a module that returns a tensor, got a {type(output).__name__}")
        expected = output.double().cpu().numpy()
        candidates = [
            Optimized(function, getattr(model, "rule", None), engine, each)
            for each in precisions
            for function in _ENGINES[engine](_folded(model), example, each, compile)
        ]
        fastest = _fastest(candidates, example)
        check_output(fastest(example).cpu().numpy(), expected, fastest.precision)
    return fastest


def _check_arguments(model: object, example: object) -> None:
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise DeploymentError(
            f"optimize: model: expected a torch.nn.Module, got an object of type {kind}; make one with "
            "maam.torch.build(NAME) or maam.torch.load(PATH)"
        )
    if not isinstance(example, Tensor):
        kind = type(example).__name__
        raise DeploymentError(f"optimize: example: expected a tensor (N, C, H, W), got an object of type {kind}")
    if model.training:
        raise DeploymentError("optimize: the model is in train mode; call eval() first")


def _precisions(engine: str, device: str, name: str) -> tuple[str, ...]:
    """Those to choose from: one, or for "auto" fp32, and bf16 where the hardware multiplies it."""
    if engine == "torch":
        best = select_precision(device, name)
        return ("fp32", best) if name == "auto" and best != "fp32" else (best,)
    supported = ("fp32", "bf16") if has_native_bf16() and engine == "openvino" else ("fp32",)
    if name != "auto" and name not in supported:
        raise DeviceError(f"precision {name!r}: {engine} has it not here; it has {', '.join(supported)}")
    return supported if name == "auto" else (name,)


def _fastest(candidates: list[Optimized], example: Tensor) -> Optimized:
    if len(candidates) == 1:
        return candidates[0]

    def call(candidate: Optimized) -> None:
        candidate(example)
        if example.is_cuda:
            torch.cuda.synchronize()

    times = interleave({str(i): functools.partial(call, one) for i, one in enumerate(candidates)}, rounds=5)
    return candidates[int(min(times, key=lambda name: min(times[name])))]


def _folded(model: nn.Module) -> nn.Module:
    folded = copy.deepcopy(model)
    outermost: list[str] = []
    for name, module in folded.named_modules():
        inside = any(name.startswith(f"{other}." if other else "") for other in outermost)
        if isinstance(module, Container) and not inside:
            outermost.append(name)
            if not module.reparameterized:
                module.reparameterize()
    return folded.requires_grad_(False)


def _torch(model: nn.Module, example: Tensor, precision: str, compile: bool) -> list[Function]:
    """As it is, and compiled: small batches in float32 gain nothing by it on some machines."""
    dtype = DTYPES[precision]
    # With one channel both layouts have the same strides, and compiled code takes one for the other (PyTorch 2.15).
    layout = torch.channels_last if example.dim() == 4 and example.shape[1] > 1 else torch.contiguous_format
    prepared = model.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    computing = (
        [prepared, *_compiled(prepared, example.to(dtype=dtype, memory_format=layout))] if compile else [prepared]
    )

    def run(compute: Function, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            given = x.to(dtype=dtype, memory_format=layout)  # outside of what is compiled, which then sees one kind
            return compute(given.clone() if given.is_inference() else given).float()

    return [functools.partial(run, compute) for compute in computing]


def _compiled(model: nn.Module, example: Tensor) -> list[Function]:
    """The model, compiled with frozen weights; nothing, with a warning, where this machine cannot compile."""
    compiled = torch.compile(_of_its_own(model))

    def frozen(x: Tensor) -> Tensor:
        with torch._inductor.config.patch(freezing=True):  # looked at when a new kind of input is compiled
            return compiled(x)

    try:
        frozen(example)
    except (RuntimeError, OSError) as error:  # no C++ compiler, above all
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"optimize: torch.compile does not work here, the model is not compiled: {reason}", stacklevel=5)
        return []
    return [frozen]


def _of_its_own(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`model` as a function with a code object of its own: Dynamo counts recompilations for each, and stops at 8."""

    def call(x: Tensor) -> Tensor:
        return model(x)

    return types.FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)


def _onnxruntime(model: nn.Module, example: Tensor, precision: str, compile: bool) -> list[Function]:
    return _by_onnx(model, example, lambda path: open_onnx(path, torch.get_num_threads()))


def _openvino(model: nn.Module, example: Tensor, precision: str, compile: bool) -> list[Function]:
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    return _by_onnx(model, example, lambda path: open_openvino(path, hint, torch.get_num_threads()))


def _by_onnx(model: nn.Module, example: Tensor, opener: Callable[[Path], Any]) -> list[Function]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{FORMATS['onnx'].suffix}"
        onnx_program(model.float(), tuple(example.shape[1:])).save(path, external_data=False)
        predict, _ = opener(path)
    return [lambda x: torch.from_numpy(predict(x.numpy()))]


_ENGINES: dict[str, Callable[[nn.Module, Tensor, str, bool], list[Function]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


Speeds = dict[tuple[str, str], float]


def measure(
    path: str | os.PathLike[str], shape: tuple[int, ...], engines: Sequence[str], precisions: Sequence[str]
) -> tuple[Speeds, list[str]]:
    """CPU time of plain eager float32 PyTorch over that of each (engine, precision), and why others were left out.

    All are run in turns on random images of `shape` (N, C, H, W).

    Raises:
        WeightsError: the file is broken.
    """
    model = load(path, torch.float32).eval()
    x = torch.rand(shape)
    functions: dict[str, Any] = {"eager fp32": functools.partial(_run, model, x)}
    reasons = []
    for engine in engines:
        for precision in precisions:
            try:
                fast = optimize(model, x, engine=engine, precision=precision)
            except MaamError as error:
                reasons.append(str(error))
            else:
                functions[f"{engine} {precision if precision != 'auto' else f'auto: {fast.precision}'}"] = (
                    functools.partial(_run, fast, x)
                )
    found = ratios(interleave(functions, clock=time.process_time), "eager fp32")
    return {(name.partition(" ")[0], name.partition(" ")[2]): value for name, value in found.items()}, reasons


def _run(function: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        function(x)
