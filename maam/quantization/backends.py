"""The two quantizers: each makes an int8 file of an ONNX one, from calibration images."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CALIBRATION_BATCH = 16


def by_openvino(source: Path, target: Path, images: Array, metadata: dict[str, str]) -> None:
    """NNCF's post-training quantization: weights by channel, activations asymmetric where they have negative values."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    batches = list(_batches(images))
    with _quiet("nncf"), _quiet("torch.utils.cpp_extension"):  # nncf imports it, and it warns where there is no CUDA
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(batches),
        )
    for name, text in metadata.items():
        quantized.set_rt_info(text, [name])
    openvino.save_model(quantized, target, compress_to_fp16=False)


def by_onnxruntime(source: Path, target: Path, images: Array, metadata: dict[str, str]) -> None:
    """ONNX Runtime's static quantization: QDQ, weights by channel, ranges of activations by their extremes."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    with _quiet("root"):
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            _Reader(images, onnx.load(source).graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    prepared.unlink()
    model = onnx.load(target)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, target)


BACKENDS: dict[str, tuple[Callable[[Path, Path, Array, dict[str, str]], None], tuple[str, ...]]] = {
    "openvino": (by_openvino, ("openvino", "nncf")),
    "onnxruntime": (by_onnxruntime, ("onnx", "onnxruntime")),
}
"""The quantizer of each engine, and the packages of the extra `deploy` that it needs."""


class _Reader:
    """What ONNX Runtime takes for calibration data: one batch at a time, then None."""

    def __init__(self, images: Array, name: str) -> None:
        self._batches = iter(_batches(images))
        self._name = name

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by the input's name."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _batches(images: Array) -> Iterator[Array]:
    for start in range(0, len(images), CALIBRATION_BATCH):
        yield np.ascontiguousarray(images[start : start + CALIBRATION_BATCH])


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """The quantizers log and warn of what they do to every layer."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
