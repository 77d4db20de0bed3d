"""Engines and precisions: what there is, and how close a result must be."""

from __future__ import annotations

from typing import Any

import numpy as np

from maam.errors import DeploymentError, DeviceError, require
from maam.parity.bounds import LOGITS, SIGNAL_TO_NOISE, difference, signal_to_noise

Array = np.ndarray[Any, Any]
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
