"""int8 quantization of a weights file after training, by NNCF for OpenVINO or by ONNX Runtime.

A quantized file is written under a temporary name, compared with the float32 model, and only then moved to its place.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io
from maam._system import share_protobuf
from maam.backend.engines import keep_signal_stack
from maam.backend.protocol import Predict
from maam.deploy.exporting import (
    FORMATS,
    companions,
    find_format,
    move,
    open_exported,
    scratch_folder,
    write,
)
from maam.deploy.metadata import make_metadata
from maam.deploy.sensitivity import Sensitivity, rank_nodes
from maam.deploy.source import read_source
from maam.errors import DataError, DeploymentError, require
from maam.fusion import fuse, is_fusible
from maam.spec import Node, input_rule
from maam.tolerance import INT8_SIGNAL_TO_NOISE, signal_to_noise
from maam.weights.exchange import PathLike

Array = np.ndarray[Any, Any]
CALIBRATION_BATCH = 16
CHECKED_IMAGES = 64
Accept = Callable[[Predict, Predict], None]
Writer = Callable[[Path, Path, Array, dict[str, str], Sequence[Sensitivity]], None]


class Quantizer(NamedTuple):
    """The quantizer of an engine.

    Attributes:
        write: a function that writes an int8 file.
        format: the name of the file's format.
        packages: the packages of the extra `deploy` that it needs.
        averaged: whether it averages the ranges of activations over the images.
    """

    write: Writer
    format: str
    packages: tuple[str, ...]
    averaged: bool


_LARGEST_SHARE = 0.5
"""The largest share of layers that are kept in float32."""
MIN_IMAGES = 64
"""The smallest number of calibration images; with fewer, single images determine the ranges of activations."""


class Quantized(NamedTuple):
    """The result of a quantization.

    Attributes:
        engine: the engine that runs the model.
        files: the files that were written.
        size_before: the size of the weights file, or of the model's arrays, in bytes.
        size_after: the size of the written files in bytes.
        signal_to_noise: of the outputs on calibration images, in decibels.
        float_layers: the layers that were kept in float32, the most sensitive first; usually none.

    Example:
        >>> from pathlib import Path
        >>> from maam.deploy import Quantized
        >>> found = Quantized("onnxruntime", (Path("q.onnx"),), 80_000, 25_000, 32.0)
        >>> found.size_before / found.size_after
        3.2
    """

    engine: str
    files: tuple[Path, ...]
    size_before: int
    size_after: int
    signal_to_noise: float
    float_layers: tuple[str, ...] = ()


def quantize(
    src: Any,
    dst: PathLike,
    images: Array,
    *,
    engine: str | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    accept: Accept | None = None,
    overwrite: bool = False,
) -> Quantized:
    """Write a model with int8 convolutions and matrix products.

    If the result is not good enough (too much noise in the outputs, or rejected by `accept`), the layers that int8
    disturbs most are kept in float32: one, then two, four, and so on, up to half of them.

    Args:
        src: a weights file, or a model that maam has built or loaded.
        dst: the file to write: .xml (OpenVINO, with a .bin file) or .onnx (ONNX Runtime).
        images: calibration images from the training set, preprocessed as in training, float32 (N, C, H, W). At least
            `MIN_IMAGES` are required; a few hundred are usual.
        engine: "openvino" or "onnxruntime"; None takes it from the suffix of `dst`.
        class_names: one name for each output, stored as metadata.
        mean: the mean of each channel that was used to make `images`, stored as metadata.
        std: the standard deviation of each channel that was used to make `images`, stored as metadata.
        accept: called with the float32 and the int8 model, as functions of NumPy arrays, before the file is kept. It
            raises a DeploymentError to reject the result; it is then called again with more layers in float32.
        overwrite: whether to replace an existing file.

    Returns:
        The engine, the files, their sizes, the signal-to-noise ratio, and the layers in float32.

    Raises:
        WeightsError: `src` is missing or broken.
        DataError: there are too few images, or they have a wrong dtype, NaN or infinity.
        ShapeError: the images have a wrong shape.
        DeploymentError: the engine is unknown, `dst` exists or cannot be written, metadata does not fit the model, or
            the outputs have too much noise or were rejected with half of the layers in float32, too.
        MissingFrameworkError: a package is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> import maam, maam.deploy
        >>> images = np.random.default_rng(0).random((64, 1, 8, 8)).astype(np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     src, dst = os.path.join(folder, "m.safetensors"), os.path.join(folder, "m.onnx")
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), src)
        ...     found = maam.deploy.quantize(src, dst, images)
        >>> found.engine, found.size_after < found.size_before
        ('onnxruntime', True)
    """
    share_protobuf()
    target = Path(dst)
    chosen, name = _find_engine(target, engine)
    for path in (target, *companions(target, name)):
        _io.check_target(path, overwrite=overwrite)
    spec, arrays = read_source(src)
    check_calibration(spec, images)
    shape = images.shape[1:]
    node, found = fuse(spec, arrays) if is_fusible(spec) else (spec, arrays)
    described = make_metadata(node, shape, class_names=class_names, mean=mean, std=std)
    metadata = described | {"maam.precision": "int8"}
    with scratch_folder(target) as folder:
        plain, temporary = folder / "float32" / "model.onnx", folder / target.name
        plain.parent.mkdir()  # a separate folder, because `target` can have any name
        write("onnx", plain, node, found, shape, {})
        ratio, kept = _quantize(QUANTIZERS[chosen], plain, temporary, np.asarray(images), metadata, accept)
        sizes = [path.stat().st_size for path in (temporary, *companions(temporary, name))]
        move(temporary, target, name)
    is_file = isinstance(src, (str, os.PathLike))
    before_size = Path(src).stat().st_size if is_file else sum(array.nbytes for array in arrays.values())
    layers = tuple(dict.fromkeys(one.layer for one in kept))
    return Quantized(chosen, (target, *companions(target, name)), before_size, sum(sizes), ratio, layers)


def _quantize(
    quantizer: Quantizer, plain: Path, target: Path, images: Array, metadata: dict[str, str], accept: Accept | None
) -> tuple[float, list[Sensitivity]]:
    """Write the int8 file; return its signal-to-noise ratio and the nodes in float32, as few as are needed."""
    before = open_exported(plain)[0]
    ranked: list[Sensitivity] | None = None
    count = 0
    while True:
        kept = (ranked or [])[:count]
        quantizer.write(plain, target, images, metadata, kept)
        try:
            after = open_exported(target)[0]
            ratio = _check_noise(before, after, images)
            if accept is not None:
                accept(before, after)
        except DeploymentError as error:
            if ranked is None:
                ranked = rank_nodes(plain, images[:CHECKED_IMAGES], averaged=quantizer.averaged)
            largest = int(len(ranked) * _LARGEST_SHARE)
            if count >= largest:
                also = f"; {len(kept)} of {len(ranked)} layers in float32 do not suffice" if kept else ""
                raise DeploymentError(f"{error}{also}") from None
            count = min(max(1, 2 * count), largest)
        else:
            return ratio, kept


def check_calibration(spec: Node, images: Array) -> None:
    """Check that calibration images fit the model and that there are enough of them.

    Raises:
        ShapeError: they have a wrong shape.
        DataError: there are too few, or they have a wrong dtype, NaN or infinity.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        given = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"calibration images: expected a float32 array (N, C, H, W), got {given}")
    input_rule(spec).check(images.shape)
    if len(images) < MIN_IMAGES:
        raise DataError(f"calibration images: expected at least {MIN_IMAGES}, got {len(images)}")
    if not np.isfinite(images).all():
        raise DataError("calibration images: expected finite numbers, got NaN or infinity")


def _find_engine(target: Path, engine: str | None) -> tuple[str, str]:
    """Return the engine and the name of its format."""
    suffixes = {known: FORMATS[one.format].suffix for known, one in QUANTIZERS.items()}
    if engine is None:
        engine = next((known for known, suffix in suffixes.items() if target.name.endswith(suffix)), None)
        if engine is None:
            expected = " or ".join(f"{suffix} ({known})" for known, suffix in suffixes.items())
            raise DeploymentError(f"{target}: expected a name that ends in {expected}")
    if engine not in QUANTIZERS:
        raise DeploymentError(f"engine: expected one of {', '.join(QUANTIZERS)}, got {engine!r}")
    name = find_format(target, QUANTIZERS[engine].format)
    for package in QUANTIZERS[engine].packages:
        require(package, "deploy")
    return engine, name


def _check_noise(before: Predict, after: Predict, images: Array) -> float:
    """Return the signal-to-noise ratio of the int8 outputs; raise if it is too small."""
    x = images[:CHECKED_IMAGES]
    ratio = signal_to_noise(after(x), before(x).astype(np.float64))
    if ratio < INT8_SIGNAL_TO_NOISE:
        raise DeploymentError(
            f"the int8 outputs have a signal-to-noise ratio of {ratio:.0f} dB, expected at least "
            f"{INT8_SIGNAL_TO_NOISE:.0f} dB; check that the calibration images are preprocessed as in training. No "
            "file was kept"
        )
    return ratio


def by_openvino(
    source: Path, target: Path, images: Array, metadata: dict[str, str], kept: Sequence[Sensitivity] = ()
) -> None:
    """Quantize with NNCF: weights by channel, activations with a zero point if they can be negative."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    batches = list(_batches(images))
    with keep_signal_stack(), _quiet("nncf"), _quiet("torch.utils.cpp_extension"):  # it warns without CUDA
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(patterns=[_pattern(node) for node in kept], validate=False),
        )
    for name, text in metadata.items():
        quantized.set_rt_info(text, [name])
    openvino.save_model(quantized, target, compress_to_fp16=False)


def _pattern(node: Sensitivity) -> str:
    """Return a pattern of the names that OpenVINO gives to an ONNX node; it splits one with a bias in two."""
    names = "|".join(re.escape(name) for name in (node.node, *node.outputs))
    return rf"^({names})(/.*)?$"


def by_onnxruntime(
    source: Path, target: Path, images: Array, metadata: dict[str, str], kept: Sequence[Sensitivity] = ()
) -> None:
    """Quantize with ONNX Runtime: static QDQ, weights by channel, activations by their smallest and largest value."""
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
            nodes_to_exclude=[node.node for node in kept],
        )
    prepared.unlink()
    model = onnx.load(target)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, target)


QUANTIZERS = {
    "openvino": Quantizer(by_openvino, "openvino", ("openvino", "nncf"), averaged=True),
    "onnxruntime": Quantizer(by_onnxruntime, "onnx", ("onnx", "onnxruntime"), averaged=False),
}
"""The quantizer of each engine."""


class _Reader:
    """A reader of calibration data for ONNX Runtime: it returns one batch at a time, then None."""

    def __init__(self, images: Array, name: str) -> None:
        self._batches = iter(_batches(images))
        self._name = name

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch under the name of the input."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _batches(images: Array) -> Iterator[Array]:
    for start in range(0, len(images), CALIBRATION_BATCH):
        yield np.ascontiguousarray(images[start : start + CALIBRATION_BATCH])


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence the log, the warnings and the output of a quantizer, which prints messages for every layer."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
