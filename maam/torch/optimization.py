"""`optimize`: the fastest form of a model for inference on this machine, and measurements of its speed."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maam._cache import read_cached, write_cached
from maam._system import environment, find_version, interleave, ratios
from maam.backend.devices import choose_precision
from maam.backend.engines import AUTO, check_engine, check_output
from maam.errors import DeploymentError, MaamError
from maam.spec import InputRule
from maam.torch.arrays import PRECISIONS, dtype_name
from maam.torch.devices import has_native_bf16, select_precision
from maam.torch.engines import BUILDERS, Function, Source
from maam.torch.weights import load

Array = np.ndarray[Any, Any]
Speeds = dict[tuple[str, str], float]
LATEST_START = 4.0
"""Seconds after which "auto" does not start to write an ONNX file."""
LONGEST_CALL = 0.1
"""Seconds of a call in eager mode above which "auto" measures with a part of the batch."""


class Optimized:
    """An optimized model: a function of a float32 tensor (N, C, H, W) that returns float32 outputs.

    `maam.torch.optimize` returns it.

    Attributes:
        engine: the engine that runs it: "torch", "onnxruntime" or "openvino".
        precision: the precision of the computation: "fp32", "bf16" or "fp16".
        form: "unchanged", "fused", or "compiled" (after fusion).

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

    def __init__(self, function: Function, rule: InputRule | None, engine: str, precision: str, form: str = "") -> None:
        self.engine = engine
        self.precision = precision
        self.form = form
        self._function = function
        self._rule = rule

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs for a batch of any size.

        Raises:
            ShapeError: the input does not fit the model, or is not float32.
        """
        if self._rule is not None:
            self._rule.check(tuple(x.shape), dtype_name(x.dtype), "float32")
        return self._function(x)

    def __repr__(self) -> str:
        return f"Optimized(engine={self.engine!r}, precision={self.precision!r})"


def optimize(
    model: nn.Module,
    example: Tensor,
    *,
    precision: str = "auto",
    engine: str = "torch",
    compile: bool | None = None,
    cache: bool = True,
) -> Optimized:
    """Return a function that computes the same as a model in eval mode, in the fastest form for this machine.

    It works on a copy of the model: batch norm and branch weights are fused (`reparameterize`), the memory format is
    channels_last, and the weights have the chosen precision. In PyTorch the copy is also compiled with frozen weights.
    The candidate that is fastest on the example is kept. Training the model later does not change the function.

    Args:
        model: a module in eval mode; layers of maam in it are fused.
        example: a float32 input (N, C, H, W) with the batch size and image size to optimize for; other batch sizes work
            too.
        precision: "fp32", "bf16", "fp16", or "auto" for fp32, or bf16 if the hardware supports it and it is faster.
        engine: "torch", "onnxruntime" (fp32 on a CPU), "openvino" (fp32 and bf16 on a CPU), or "auto" for the fastest
            of the installed engines, which may be the unchanged model in eager mode.
        compile: whether to compile the copy in PyTorch, which takes seconds to minutes and needs a C++ compiler. None
            compiles, except with engine "auto" on a CPU. Without compilation, "auto" takes 2 to 5 seconds of CPU time,
            and up to 16 for a deep network. Models with one input channel are never compiled: PyTorch's compiled code
            confuses their memory formats.
        cache: whether engine "auto" reuses the choice of an earlier call for the same kind of model on this machine,
            and stores its own choice. The environment variable MAAM_CACHE="off" has the same effect as False.

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
    compile = (engine != AUTO or device != "cpu") if compile is None else compile
    with torch.no_grad(), Source(model, example, compile) as source:
        expected = _output(model, example)
        if engine == AUTO:
            return _choose(source, device, precision, cache)
        candidates = [one for each in _precisions(engine, device, precision) for one in _build(source, engine, each)]
        fastest = min(_measure(candidates, example), key=lambda pair: pair[0])[1]
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


def _output(model: nn.Module, example: Tensor) -> Array:
    output = model(example)
    if not isinstance(output, Tensor):
        raise DeploymentError(f"optimize: expected a module that returns a tensor, got a {type(output).__name__}")
    return output.double().cpu().numpy()


def _precisions(engine: str, device: str, name: str) -> tuple[str, ...]:
    """Return the candidate precisions: `name` alone, or for "auto" fp32 and, if the hardware supports it, bf16."""
    if engine == "torch":
        best = select_precision(device, name)
        return ("fp32", best) if name == "auto" and best != "fp32" else (best,)
    supported = ("fp32", "bf16") if has_native_bf16() and engine == "openvino" else ("fp32",)
    return supported if name == "auto" else (choose_precision(engine, "this CPU", name, supported),)


def _build(source: Source, engine: str, precision: str) -> list[Optimized]:
    rule = getattr(source.model, "rule", None)
    functions = BUILDERS[engine](source, precision)
    return [Optimized(function, rule, engine, precision, form) for form, function in functions.items()]


def _measure(candidates: Sequence[Optimized], example: Tensor) -> list[tuple[float, Optimized]]:
    """Return each candidate with its least time; a single one is not measured."""
    if len(candidates) == 1:
        return [(0.0, candidates[0])]

    def call(candidate: Optimized) -> None:
        candidate(example)
        if example.is_cuda:
            torch.cuda.synchronize()

    times = interleave({str(i): functools.partial(call, one) for i, one in enumerate(candidates)}, rounds=5)
    return [(min(seconds), one) for seconds, one in zip(times.values(), candidates, strict=True)]


# --- the choice of an engine


def _choose(source: Source, device: str, precision: str, cache: bool) -> Optimized:
    """Return the fastest candidate of all engines that computes the same as the model, or the choice in the cache."""
    key = _key(source, device, precision)
    example = _shortened(source.model, source.example)
    expected = _output(source.model, example)
    if cache and (found := _recall(source, read_cached("engines", key), example, expected)) is not None:
        return found
    candidates = list(_candidates(source, device, precision))
    timed = sorted(_measure(candidates, example), key=lambda pair: pair[0])
    for _, candidate in timed:
        if _agrees(candidate, example, expected):
            break
    if cache:
        milliseconds = {f"{one!r} {one.form}": round(1000 * seconds, 3) for seconds, one in timed}
        choice = {"engine": candidate.engine, "precision": candidate.precision, "form": candidate.form}
        write_cached("engines", key, {**choice, "milliseconds": milliseconds})
    return candidate


def _candidates(source: Source, device: str, precision: str) -> Iterator[Optimized]:
    """Yield the model as it is, and its forms in the engines that are installed and support the precision."""
    start = time.perf_counter()
    if precision in ("auto", "fp32"):
        yield _eager(source)
    for engine in BUILDERS:
        if time.perf_counter() - start > LATEST_START and not source.has_onnx_file:  # what takes long is to write it
            return
        try:
            check_engine(engine, device)
            for each in _precisions(engine, device, precision):
                yield from _build(source, engine, each)
        except Exception:  # engines have exceptions of their own; they are additions to PyTorch
            if engine == "torch":
                raise


def _eager(source: Source) -> Optimized:
    model = copy.deepcopy(source.model).requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            output: Tensor = model(x.clone() if x.is_inference() else x)
            return output

    return Optimized(run, getattr(model, "rule", None), "torch", "fp32", "unchanged")


def _recall(source: Source, choice: dict[str, Any], example: Tensor, expected: Array) -> Optimized | None:
    """Return the candidate that an earlier call chose; None if there is none, or it does not compute the same."""
    engine, precision, form = (choice.get(name) for name in ("engine", "precision", "form"))
    if form == "unchanged":
        return _eager(source)
    if engine not in BUILDERS or precision not in PRECISIONS:
        return None
    compile, source.compile = source.compile, form == "compiled"
    try:
        found = [one for one in _build(source, engine, precision) if one.form == form]
    except Exception:  # engines have exceptions of their own
        return None
    finally:
        source.compile = compile
    return found[0] if found and _agrees(found[0], example, expected) else None


def _agrees(candidate: Optimized, example: Tensor, expected: Array) -> bool:
    try:
        check_output(candidate(example).cpu().numpy(), expected, candidate.precision)
    except DeploymentError:
        return False
    return True


def _shortened(model: nn.Module, example: Tensor) -> Tensor:
    """Return as much of a batch as eager mode computes in `LONGEST_CALL`, at least one image."""
    start = time.perf_counter()
    model(example)
    share = LONGEST_CALL / max(time.perf_counter() - start, 1e-9)
    return example if share >= 1 or example.is_cuda else example[: max(1, int(share * len(example)))]


def _key(source: Source, device: str, precision: str) -> dict[str, Any]:
    """Return what the choice of an engine depends on; the values of the weights do not matter."""
    model = source.model
    shapes = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()]
    described = repr((type(model).__module__, type(model).__qualname__, model, getattr(model, "spec", None), shapes))
    return {
        "model": hashlib.sha256(described.encode()).hexdigest(),
        "example": list(source.example.shape),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "precision": precision,
        "compile": source.compile,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": environment()
        | {name: find_version(name) or "not installed" for name in ("onnxruntime", "openvino")},
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
                chosen = f"{engine}:{fast.engine}" if engine == AUTO else engine
                functions[f"{chosen} {precision if precision != 'auto' else f'auto: {fast.precision}'}"] = (
                    functools.partial(_run, fast, x)
                )
    found = ratios(interleave(functions, clock=time.process_time), "eager fp32")
    return {(name.partition(" ")[0], name.partition(" ")[2]): value for name, value in found.items()}, reasons


def _run(function: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        function(x)
