"""Engines that need no framework: ONNX Runtime and OpenVINO, with NumPy arrays in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maam.backend.protocol import Predict
from maam.errors import DeploymentError, DeviceError, require
from maam.tolerance import LOGITS, SIGNAL_TO_NOISE, difference, signal_to_noise

Array = np.ndarray[Any, Any]


def open_onnx(path: Path, threads: int | None = None) -> tuple[Predict, dict[str, str]]:
    """An ONNX file in ONNX Runtime on the CPU; `threads` None: as many as OMP_NUM_THREADS says, or as it likes."""
    require("onnxruntime", "deploy")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, _options(onnxruntime, threads), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return lambda x: np.asarray(session.run(None, {name: np.ascontiguousarray(x, np.float32)})[0]), metadata


def open_openvino(path: Path, precision: str = "f32", threads: int | None = None) -> tuple[Predict, dict[str, str]]:
    """An OpenVINO model (.xml with .bin beside it, or .onnx) on the CPU, computing in `precision`, f32 or bf16."""
    require("openvino", "deploy")
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if (threads := threads or thread_limit()) is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)
    info = model.get_rt_info()
    metadata = {key: str(model.get_rt_info([key]).astype(str)) for key in info if str(key).startswith("maam.")}
    return lambda x: np.asarray(compiled(np.ascontiguousarray(x, np.float32))[0]), metadata


def thread_limit() -> int | None:
    """The number of threads that OMP_NUM_THREADS allows, which neither engine reads; None where it does not say."""
    import os

    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() and int(value) > 0 else None


def _options(onnxruntime: Any, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    if (threads := threads or thread_limit()) is not None:
        options.intra_op_num_threads = threads
    return options


ENGINES = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""What runs models, and the packages of the extra `deploy` that it needs."""
_LEAST = {"bf16": SIGNAL_TO_NOISE["bfloat16"], "fp16": SIGNAL_TO_NOISE["float16"]}


def check_engine(engine: str, device: str) -> None:
    """Refuse an engine that there is not, is not installed, or does not run on `device`.

    Raises:
        DeploymentError: the engine is unknown.
        MissingFrameworkError: it is not installed; the message names the extra.
        DeviceError: it runs on the CPU alone here.
    """
    if engine not in ENGINES:
        raise DeploymentError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    for package in ENGINES[engine]:
        require(package, "deploy")
    if engine != "torch" and device != "cpu":
        raise DeviceError(f"engine {engine!r} runs on the CPU here, the model is on {device!r}: move it to the CPU")


def check_output(actual: Array, expected: Array, precision: str) -> None:
    """Refuse outputs that are further from the model's than `precision` explains: the bounds of parity.

    Raises:
        DeploymentError: they are.
    """
    if precision == "fp32":
        found = difference(actual, expected, LOGITS)
        if found.used > 1:
            raise DeploymentError(f"the result is off by {found.absolute:.1e} from the model, allowed is {LOGITS}")
    elif (ratio := signal_to_noise(actual, expected)) < _LEAST[precision]:
        raise DeploymentError(
            f"in {precision} the result has a signal-to-noise ratio of {ratio:.0f} dB to the model, "
            f"expected {_LEAST[precision]:.0f}; use precision='fp32'"
        )


def read_companion(path: Path) -> dict[str, str]:
    """Return the metadata in the file beside a model whose format holds none."""
    return dict(json.loads(Path(f"{path}.json").read_text("utf-8")))


OPENERS: dict[str, Callable[[Path], tuple[Predict, dict[str, str]]]] = {"onnx": open_onnx, "openvino": open_openvino}
"""The engines by the formats that they read."""
