"""Inference engines that need no framework: ONNX Runtime and OpenVINO, with NumPy arrays in and out."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam._documents import parse_json
from maam._io import read_text
from maam.backend.protocol import Predict
from maam.errors import DeploymentError, DeviceError, require
from maam.tolerance import LOGITS, SIGNAL_TO_NOISE, difference, signal_to_noise

Array = np.ndarray[Any, Any]


class Engine(NamedTuple):
    """The facts about an inference engine.

    Attributes:
        packages: the packages that it needs; the extra `deploy` installs them.
        cpu_only: whether maam runs it on the CPU only.
    """

    packages: tuple[str, ...] = ()
    cpu_only: bool = True


ENGINES = {
    "torch": Engine(cpu_only=False),
    "onnxruntime": Engine(("onnx", "onnxscript", "onnxruntime")),
    "openvino": Engine(("onnx", "onnxscript", "openvino")),
}
"""The engines by name."""
AUTO = "auto"
"""The name that stands for the fastest installed engine."""
_MAX_METADATA = 16 << 20
"""The largest number of bytes of a file of metadata; a spec has at most half of it."""
_LEAST_RATIO = {"bf16": SIGNAL_TO_NOISE["bfloat16"], "fp16": SIGNAL_TO_NOISE["float16"]}


def open_onnx(path: Path, threads: int | None = None) -> tuple[Predict, dict[str, str]]:
    """Open an ONNX file in ONNX Runtime on the CPU; return its function and its metadata.

    Args:
        path: the file.
        threads: the number of threads; None uses OMP_NUM_THREADS, or the engine's default.
    """
    require("onnxruntime", "deploy")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if (threads := threads or thread_limit()) is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return lambda x: np.asarray(session.run(None, {name: np.ascontiguousarray(x, np.float32)})[0]), metadata


def open_openvino(path: Path, precision: str = "f32", threads: int | None = None) -> tuple[Predict, dict[str, str]]:
    """Open a model in OpenVINO on the CPU; return its function and its metadata.

    Args:
        path: an .xml file with its .bin file beside it, or an .onnx file.
        precision: the precision of the computation, "f32" or "bf16".
        threads: the number of threads; None uses OMP_NUM_THREADS, or the engine's default.
    """
    require("openvino", "deploy")
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if (threads := threads or thread_limit()) is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    with keep_signal_stack():
        compiled = core.compile_model(model, "CPU", settings)
    info = model.get_rt_info()
    metadata = {key: str(model.get_rt_info([key]).astype(str)) for key in info if str(key).startswith("maam.")}
    return lambda x: np.asarray(compiled(np.ascontiguousarray(x, np.float32))[0]), metadata


class _SignalStack(ctypes.Structure):
    """The type stack_t of the C library of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Restore the stack on which this thread handles signals at the end, for work that loads OpenVINO's CPU plugin.

    Each instance of the plugin sets a stack of its own, and unmaps it when it is destroyed. If instances end in another
    order than they began, the thread keeps an unmapped stack, and the next signal that Python handles, such as that of
    a child that ends, ends the process with SIGSEGV. Python has such a stack if `faulthandler` is enabled.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


def thread_limit() -> int | None:
    """Return the number of threads in OMP_NUM_THREADS, or None if it is not set; the engines do not read it."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() and int(value) > 0 else None


def write_companion(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata of a model whose format cannot hold it to a JSON file beside the model."""
    _companion(path).write_text(json.dumps(metadata, indent=1))


def read_companion(path: Path) -> dict[str, str]:
    """Return the metadata that `write_companion` has written."""
    return dict(parse_json(read_text(_companion(path), _MAX_METADATA)))


def _companion(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


OPENERS: dict[str, Callable[[Path], tuple[Predict, dict[str, str]]]] = {"onnx": open_onnx, "openvino": open_openvino}
"""The functions that open a file, by its format."""


def check_engine(engine: str, device: str) -> None:
    """Raise an error unless an engine, or "auto", is installed and runs on a device.

    Raises:
        DeploymentError: the engine is unknown.
        MissingFrameworkError: the engine is not installed; the message names the extra.
        DeviceError: the engine runs on the CPU only.
    """
    if engine == AUTO:
        return
    if engine not in ENGINES:
        raise DeploymentError(f"engine: expected one of {', '.join(ENGINES)}, {AUTO}, got {engine!r}")
    for package in ENGINES[engine].packages:
        require(package, "deploy")
    if ENGINES[engine].cpu_only and device != "cpu":
        raise DeviceError(f"engine {engine!r} runs on the CPU only, and the model is on {device!r}; move it to the CPU")


def check_output(actual: Array, expected: Array, precision: str) -> None:
    """Raise DeploymentError if outputs differ from the model's by more than their precision explains.

    Args:
        actual: the outputs to check.
        expected: the outputs of the model in float32, of the same shape.
        precision: "fp32", "bf16" or "fp16"; the bounds are those of parity.
    """
    if precision == "fp32":
        found = difference(actual, expected, LOGITS)
        if found.used > 1:
            raise DeploymentError(
                f"the result differs from the model's output by {found.absolute:.1e}, more than the bound {LOGITS}"
            )
    elif (ratio := signal_to_noise(actual, expected)) < _LEAST_RATIO[precision]:
        raise DeploymentError(
            f"in {precision} the result has a signal-to-noise ratio of {ratio:.0f} dB to the model's output, "
            f"expected at least {_LEAST_RATIO[precision]:.0f} dB; use precision='fp32'"
        )
