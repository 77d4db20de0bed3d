"""`optimize`: the fastest form of a model for inference on this machine, and measurements of its speed."""

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
from maam.backend.devices import choose_precision
from maam.backend.engines import check_engine, check_output, open_onnx, open_openvino
from maam.errors import DeploymentError, MaamError
from maam.spec import InputRule
from maam.torch.devices import has_native_bf16, select_precision
from maam.torch.export import onnx_program
from maam.torch.modules import Container
from maam.torch.weights import load

Function = Callable[[Tensor], Tensor]
Speeds = dict[tuple[str, str], float]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Optimized:
    """An optimized model: a function of a float32 tensor (N, C, H, W) that returns float32 outputs.

    `maam.torch.optimize` returns it.

    Attributes:
        engine: the engine that runs it: "torch", "onnxruntime" or "openvino".
        precision: the precision of the computation: "fp32", "bf16" or "fp16".

    Example:
        >>> import torch
        >>> import maam
        >>> model, images = maam.torch.build("maam_digits").eval(), torch.rand(4, 1, 8, 8)
        >>> fast = maam.torch.optimize(model, images, precision="fp32", compile=False)
        >>> fast
        Optimized(engine='torch', precision='fp32')
        >>> fast(images[:2]).shape
        torch.Size([2, 10])
    """

    def __init__(self, function: Function, rule: InputRule | None, engine: str, precision: str) -> None:
        self.engine = engine
        self.precision = precision
        self._function = function
        self._rule = rule

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs for a batch of any size.

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
    """Return a function that computes the same as a model in eval mode, in the fastest form for this machine.

    It works on a copy of the model: batch norm and branch weights are fused (`reparameterize`), the memory format is
    channels_last, and the weights have the chosen precision. In PyTorch the copy is also compiled with frozen weights.
    The candidate that is fastest on the example is kept. Training the model later does not change the function.

    Args:
        model: a module in eval mode; layers of maam in it are fused.
        example: a float32 input (N, C, H, W) of the most important batch and image size; other batches work too.
        precision: "fp32", "bf16", "fp16", or "auto" for fp32, or bf16 if the hardware supports it and it is faster.
        engine: "torch", "onnxruntime" (fp32 on a CPU) or "openvino" (fp32 and bf16 on a CPU).
        compile: whether to compile the copy in PyTorch, which takes seconds to minutes and needs a C++ compiler.

    Returns:
        The function, with the attributes `engine` and `precision`.

    Raises:
        DeploymentError: `model` is not a module or is in train mode, the engine is unknown, or the result differs from
            the model's output by more than its precision explains.
        DeviceError: the engine or the device does not support the precision.
        MissingFrameworkError: the engine is not installed.
        ShapeError: the example does not fit the model.

    Example:
        >>> import torch
        >>> import maam
        >>> model, images = maam.torch.build("maam_digits").eval(), torch.rand(4, 1, 8, 8)
        >>> fast = maam.torch.optimize(model, images, precision="fp32", compile=False)
        >>> bool(torch.allclose(fast(images), model(images), atol=1e-4))
        True
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
            for function in _ENGINES[engine](_fused_copy(model), example, each, compile)
        ]
        fastest = _fastest(candidates, example)
        check_output(fastest(example).cpu().numpy(), expected, fastest.precision)
    return fastest


def _check_arguments(model: object, example: object) -> None:
    if not isinstance(model, nn.Module):
        raise DeploymentError(
            f"optimize: model: expected a torch.nn.Module, got an object of type {type(model).__name__}; make one with "
            "maam.torch.build(NAME) or maam.torch.load(PATH)"
        )
    if not isinstance(example, Tensor):
        kind = type(example).__name__
        raise DeploymentError(f"optimize: example: expected a tensor (N, C, H, W), got an object of type {kind}")
    if model.training:
        raise DeploymentError("optimize: the model is in train mode; call eval() first")


def _precisions(engine: str, device: str, name: str) -> tuple[str, ...]:
    """Return the candidate precisions: `name` alone, or for "auto" fp32 and, if the hardware supports it, bf16."""
    if engine == "torch":
        best = select_precision(device, name)
        return ("fp32", best) if name == "auto" and best != "fp32" else (best,)
    supported = ("fp32", "bf16") if has_native_bf16() and engine == "openvino" else ("fp32",)
    return supported if name == "auto" else (choose_precision(engine, "this CPU", name, supported),)


def _fastest(candidates: list[Optimized], example: Tensor) -> Optimized:
    if len(candidates) == 1:
        return candidates[0]

    def call(candidate: Optimized) -> None:
        candidate(example)
        if example.is_cuda:
            torch.cuda.synchronize()

    times = interleave({str(i): functools.partial(call, one) for i, one in enumerate(candidates)}, rounds=5)
    return candidates[int(min(times, key=lambda name: min(times[name])))]


def _fused_copy(model: nn.Module) -> nn.Module:
    fused = copy.deepcopy(model)
    outermost: list[str] = []
    for name, module in fused.named_modules():
        inside = any(name.startswith(f"{other}." if other else "") for other in outermost)
        if isinstance(module, Container) and not inside:
            outermost.append(name)
            if not module.reparameterized:
                module.reparameterize()
    return fused.requires_grad_(False)


def _torch(model: nn.Module, example: Tensor, precision: str, compile: bool) -> list[Function]:
    """Return two candidates, eager and compiled: on some machines compiled code is not faster for small batches."""
    dtype = DTYPES[precision]
    # With one channel both layouts have the same strides, and compiled code confuses them (PyTorch 2.15).
    layout = torch.channels_last if example.dim() == 4 and example.shape[1] > 1 else torch.contiguous_format
    prepared = model.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    computing = (
        [prepared, *_compiled(prepared, example.to(dtype=dtype, memory_format=layout))] if compile else [prepared]
    )

    def run(compute: Function, x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            given = x.to(dtype=dtype, memory_format=layout)  # before the compiled part, which then sees one layout
            return compute(given.clone() if given.is_inference() else given).float()

    return [functools.partial(run, compute) for compute in computing]


def _compiled(model: nn.Module, example: Tensor) -> list[Function]:
    """Return the model compiled with frozen weights, or warn and return an empty list if the compilation fails."""
    compiled = torch.compile(_separate_function(model))

    def frozen(x: Tensor) -> Tensor:
        with torch._inductor.config.patch(freezing=True):  # read at each compilation for a new kind of input
            return compiled(x)

    try:
        frozen(example)
    except (RuntimeError, OSError) as error:  # most often there is no C++ compiler
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"optimize: torch.compile failed, so the model is not compiled: {reason}", stacklevel=5)
        return []
    return [frozen]


def _separate_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model as a function with a new code object; Dynamo recompiles each code object at most 8 times."""

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
        path = Path(folder) / "model.onnx"
        onnx_program(model.float(), tuple(example.shape[1:])).save(path, external_data=False)
        predict, _ = opener(path)
    return [lambda x: torch.from_numpy(predict(x.numpy()))]


_ENGINES: dict[str, Callable[[nn.Module, Tensor, str, bool], list[Function]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def measure(
    path: str | os.PathLike[str], shape: tuple[int, ...], engines: Sequence[str], precisions: Sequence[str]
) -> tuple[Speeds, list[str]]:
    """Measure how many times faster than eager float32 PyTorch a model is in each engine and precision.

    Args:
        path: the weights file of the model.
        shape: the shape of a batch, (N, C, H, W); the images are random.
        engines: the engines to measure.
        precisions: the precisions to measure.

    Returns:
        The speedups in CPU time by (engine, precision), and the reasons why combinations were left out.

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
