"""Quantizing a weights file: calibrated, written, run against the model, and only then put in place."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io
from maam.deploy.exporting import (
    FORMATS,
    companions,
    find_format,
    make_metadata,
    move,
    open_exported,
    scratch_folder,
    write,
)
from maam.errors import DataError, DeploymentError, require
from maam.fusion import fuse, is_fusible
from maam.spec import Node, input_rule
from maam.tolerance import signal_to_noise
from maam.weights.exchange import PathLike, read_whole

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


Predict = Callable[[Array], Array]
MIN_IMAGES = 64
"""The fewest calibration images: ranges of activations of fewer are those of single images."""
CHECKED_IMAGES = 64
LEAST_RATIO = 6.0
"""Signal-to-noise ratio in decibels under which an int8 model computes something else: noise of half the signal."""


class Quantized(NamedTuple):
    """What was written.

    Attributes:
        engine: what runs it.
        files: the files.
        size_before: bytes of the weights file.
        size_after: bytes of what was written.
        signal_to_noise: of the outputs on calibration images, in decibels.
    """

    engine: str
    files: tuple[Path, ...]
    size_before: int
    size_after: int
    signal_to_noise: float


def quantize(
    src: PathLike,
    dst: PathLike,
    images: Array,
    *,
    engine: str | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    accept: Callable[[Predict, Predict], None] | None = None,
    overwrite: bool = False,
) -> Quantized:
    """Write an int8 model of a weights file: convolutions and matrix products in int8, after training.

    Args:
        src: a weights file, of either framework.
        dst: .xml (OpenVINO, by NNCF; with .bin beside it) or .onnx (ONNX Runtime).
        images: calibration images as the model takes them, float32 (N, C, H, W), of the training set; at least
            `MIN_IMAGES`, a few hundred are usual.
        engine: "openvino" or "onnxruntime"; told by the suffix of `dst` where None.
        class_names: one for each output, as metadata.
        mean: of each channel, which was subtracted from pixels in [0, 1] to make `images`, as metadata.
        std: of each channel, by which they were divided then, as metadata.
        accept: called with the float32 and the int8 model, as functions of NumPy arrays, before the file stays; it
            raises to refuse.
        overwrite: whether a file that exists is replaced.

    Raises:
        WeightsError: `src` is missing or broken.
        DataError: too few images, of the wrong dtype, or with NaN or infinity.
        ShapeError: images of the wrong shape.
        DeploymentError: the engine is unknown, `dst` cannot be written or exists, metadata do not fit the model, or the
            outputs are too far off.
        MissingFrameworkError: a package is not installed.
    """
    target = Path(dst)
    chosen, name = _engine(target, engine)
    for path in (target, *companions(target, name)):
        _io.check_target(path, overwrite=overwrite)
    spec, arrays = read_whole(src)
    check_calibration(spec, images)
    shape = images.shape[1:]
    node, found = fuse(spec, arrays) if is_fusible(spec) else (spec, arrays)
    described = make_metadata(node, shape, class_names=class_names, mean=mean, std=std)
    metadata = described | {"maam.precision": "int8"}
    with scratch_folder(target) as folder:
        plain, temporary = folder / "float32" / "model.onnx", folder / target.name
        plain.parent.mkdir()  # of its own: `target` may have any name
        write("onnx", plain, node, found, shape, {})
        BACKENDS[chosen][0](plain, temporary, np.asarray(images), metadata)
        before, after = open_exported(plain)[0], open_exported(temporary)[0]
        ratio = _check(before, after, images)
        if accept is not None:
            accept(before, after)
        sizes = [path.stat().st_size for path in (temporary, *companions(temporary, name))]
        move(temporary, target, name)
    return Quantized(chosen, (target, *companions(target, name)), Path(src).stat().st_size, sum(sizes), ratio)


def check_calibration(spec: Node, images: Array) -> None:
    """Refuse calibration images that the model cannot take, or that tell too little.

    Raises:
        ShapeError: they have the wrong shape.
        DataError: too few, of the wrong dtype, or with NaN or infinity.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        given = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"calibration images: expected a float32 array (N, C, H, W) as the model takes it, got {given}")
    input_rule(spec).check(images.shape)
    if len(images) < MIN_IMAGES:
        raise DataError(f"calibration images: expected at least {MIN_IMAGES}, got {len(images)}")
    if not np.isfinite(images).all():
        raise DataError("calibration images: NaN or infinity among the values")


def _engine(target: Path, engine: str | None) -> tuple[str, str]:
    """The engine, and the format of what it writes."""
    formats = {"openvino": "openvino", "onnxruntime": "onnx"}
    if engine is None:
        engine = next((known for known, one in formats.items() if target.name.endswith(FORMATS[one].suffix)), None)
        if engine is None:
            raise DeploymentError(f"{target}: expected a name that ends in .xml (openvino) or .onnx (onnxruntime)")
    if engine not in formats:
        raise DeploymentError(f"engine: expected one of {', '.join(formats)}, got {engine!r}")
    name = find_format(target, formats[engine])
    for package in BACKENDS[engine][1]:
        require(package, "deploy")
    return engine, name


def _check(before: Predict, after: Predict, images: Array) -> float:
    x = images[:CHECKED_IMAGES]
    ratio = signal_to_noise(after(x), before(x).astype(np.float64))
    if ratio < LEAST_RATIO:
        raise DeploymentError(
            f"int8 outputs have a signal-to-noise ratio of {ratio:.0f} dB to the model's, expected at least "
            f"{LEAST_RATIO:.0f}: are the calibration images preprocessed as in training? Nothing was kept"
        )
    return ratio
