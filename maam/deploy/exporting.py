"""Export of a weights file to a format of an inference engine, and reading of exported files.

An exported file is written under a temporary name, run and compared with the model, and only then moved to its place.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io
from maam._messages import one_line
from maam.backend.engines import OPENERS
from maam.backend.protocol import Predict
from maam.backend.registry import export_formats, load_export_backend
from maam.deploy.metadata import exported_rule, make_metadata
from maam.deploy.source import read_source
from maam.errors import DeploymentError, MaamError, SpecError, WeightsError, require
from maam.fusion import fuse, is_fusible
from maam.reference import ReferenceModel
from maam.spec import InputRule, Node, Shape, input_rule
from maam.spec.fields import plain_integer
from maam.spec.inputs import example_shape
from maam.tolerance import LOGITS, difference
from maam.weights.exchange import PathLike

Array = np.ndarray[Any, Any]
FORMATS = {name: one for name, (one, _) in export_formats().items()}
"""The formats by name."""
BATCHES = (1, 3)
"""The batch sizes on which an exported file is run."""


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        format: the name of the format.
        files: the files that were written.
        difference: the largest absolute difference of an output from the model's; NaN for AIR, which is not run.

    Example:
        >>> from pathlib import Path
        >>> from maam.deploy import Exported
        >>> Exported("onnx", (Path("model.onnx"),), 1e-7).files[0].name
        'model.onnx'
    """

    format: str
    files: tuple[Path, ...]
    difference: float


def export(
    src: Any,
    dst: PathLike,
    format: str | None = None,
    *,
    size: int | None = None,
    dynamic_size: bool = False,
    fused: bool = True,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model for an inference engine, with a dynamic batch axis, and check the result.

    The written file is run on two batch sizes and compared with the float64 reference of the model before fusion. If
    anything fails, no file is left.

    Args:
        src: a weights file, or a model that maam has built or loaded.
        dst: the file to write: .onnx, .xml (OpenVINO, with a .bin file), .pt2, .pte (ExecuTorch), .mindir, or, on a
            host with Ascend, .air. AIR has a fixed batch of 1 and is not run, because it must be compiled first.
        format: "onnx", "openvino", "pt2", "executorch", "mindir" or "air"; None takes it from the suffix of `dst`.
        size: height and width of the input; None takes the model's own, or 32 for a layer.
        dynamic_size: whether height and width of the input are dynamic too, for models that accept any size. The
            metadata then contains `size` as the usual size. Not available for .pte and .air.
        fused: whether to fuse batch norm and branch weights first.
        class_names: one name for each output, stored as metadata.
        mean: the mean of each channel, for pixels in [0, 1], stored as metadata.
        std: the standard deviation of each channel, for pixels in [0, 1], stored as metadata.
        overwrite: whether to replace an existing file.

    Returns:
        The format, the files, and the largest difference.

    Raises:
        WeightsError: `src` is missing or broken, or is a model that maam has not built.
        DeploymentError: the format is unknown, `dst` exists or cannot be written, `size`, `dynamic_size` or metadata
            do not fit the model, the format cannot express it, or the outputs of the written file are wrong.
        ShapeError: the model does not take images of `size`.
        DeviceError: the format is AIR and no Ascend is available.
        MissingFrameworkError: a package is not installed.

    Example:
        >>> import os, tempfile
        >>> import maam
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = maam.export(maam.torch.build("maam_digits", seed=0), os.path.join(folder, "m.pt2"))
        >>> found.format, found.difference < 1e-4
        ('pt2', True)
    """
    target = Path(dst)
    name = find_format(target, format)
    size = _check_size(size)
    for path in (target, *companions(target, name)):
        _io.check_target(path, overwrite=overwrite)
    spec, single = read_source(src, np.dtype(np.float32))
    shape = example_shape(spec, size)
    if dynamic_size:
        _check_free_size(spec, name)
    node, found = fuse(spec, single) if fused and is_fusible(spec) else (spec, single)
    metadata = make_metadata(node, shape, class_names=class_names, mean=mean, std=std, dynamic_size=dynamic_size)
    reference = ReferenceModel(spec, single)
    with scratch_folder(target) as folder:
        temporary = folder / target.name
        write(name, temporary, node, found, (shape[0], None, None) if dynamic_size else shape, metadata)
        shapes = [shape, _other_size(spec, shape)] if dynamic_size else [shape]
        worst = max(_check_outputs(temporary, reference, one) if FORMATS[name].readable else math.nan for one in shapes)
        move(temporary, target, name)
    return Exported(name, (target, *companions(target, name)), worst)


def _check_size(size: int | None) -> int | None:
    if size is None:
        return None
    found = plain_integer(size)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise DeploymentError(f"size: expected an integer of at least 1 (height and width are equal), got {size!r}")
    return found


def _check_free_size(spec: Node, name: str) -> None:
    rule = input_rule(spec)
    if rule.rank != 4 or rule.size is not None:
        raise DeploymentError(
            f"dynamic_size (--dynamic-size): the model takes inputs {rule.describe()} only; a model with global "
            "pooling takes images of any size"
        )
    if not FORMATS[name].free_size:
        free = ", ".join(known for known, one in FORMATS.items() if one.free_size)
        raise DeploymentError(
            f"dynamic_size (--dynamic-size): format {name} needs one size of the input; use one of {free}"
        )


def _other_size(spec: Node, shape: Shape) -> Shape:
    """Return the shape (C, H, W) of a smaller image that is not square."""
    least = input_rule(spec).minimum
    return shape[0], max(least, shape[1] // 2 + 1), max(least, shape[2] // 2 + 4)


def _check_outputs(path: Path, reference: ReferenceModel, shape: Shape) -> float:
    """Return the largest difference of the file's outputs from the reference; raise if it is outside the bound."""
    predict, _ = open_exported(path, trusted=True)  # the program itself; this process has just written it
    worst = 0.0
    for size in BATCHES:
        x = np.random.default_rng(size).random((size, *shape)).astype(np.float32)
        found = difference(predict(x), reference(x), LOGITS)
        if found.used > 1:
            raise DeploymentError(
                f"{path.name}: the outputs of the written file differ from the model's by {found.absolute:.1e} with a "
                f"batch of {size}; the bound is {LOGITS}. No file was kept"
            )
        worst = max(worst, found.absolute)
    return worst


def open_exported(path: Path | str, *, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
    """Open an exported file for inference on NumPy arrays.

    Files in the formats .pt2 and .mindir can contain code. By default, maam does not run it. It builds the model of a
    .pt2 file from the spec and the weights in the file, and refuses .pt2 files that it did not write and .mindir files
    with operators that can run code. See docs/security.md.

    Args:
        path: a file in one of `FORMATS`; its suffix selects the format.
        trusted: whether the file may run any code on this machine. Set it only for a file whose source you trust; a
            .pt2 file then runs its own program.

    Returns:
        The predict function and the metadata of the file. The function takes floating-point inputs (N, C, H, W), with
        the height and width that the file was written for, or (N, features). It computes in float32, and raises
        ShapeError for other inputs.

    Raises:
        DeploymentError: the file does not exist, its suffix is unknown, it cannot be read, or it can run code and
            `trusted` is False.
        MissingFrameworkError: a package that reads it is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> import maam, maam.deploy
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weights, program = (os.path.join(folder, name) for name in ("m.safetensors", "m.pt2"))
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), weights)
        ...     found = maam.export(weights, program)
        ...     predict, metadata = maam.deploy.open_exported(program)
        >>> predict(np.zeros((2, 1, 8, 8), np.float32)).shape, metadata["maam.name"]
        ((2, 10), 'maam_digits')
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DeploymentError(
            f"open_exported: expected the path of a file that maam.export wrote, got an object of type "
            f"{type(path).__name__}"
        )
    path = Path(path)
    name = _format_name(path, None)
    if not path.is_file():
        raise DeploymentError(f"{path}: no such file")
    if not FORMATS[name].readable:
        raise DeploymentError(
            f"{path}: {name} files cannot be run here; compile the file with atc first (docs/ascend.md)"
        )
    try:
        if engine := FORMATS[name].engine:
            predict, metadata = OPENERS[engine](path)
        else:
            predict, metadata = load_export_backend(export_formats()[name][1]).open_exported(name, path, trusted)
    except WeightsError as error:
        raise DeploymentError(str(error)) from None
    except MaamError:
        raise
    except Exception as error:  # each engine has its own errors
        raise DeploymentError(f"{path}: cannot be read as {name}: {one_line(error, 200)}") from None
    try:
        rule = exported_rule(metadata)
    except (SpecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DeploymentError(
            f"{path}: the file's metadata is not supported by this version of maam: {error}"
        ) from None
    return predict if rule is None else _with_check(predict, rule), metadata


def _with_check(predict: Predict, rule: InputRule) -> Predict:
    def call(x: Array) -> Array:
        array = np.asarray(x)
        rule.check(array.shape, str(array.dtype))
        return predict(array)

    return call


def find_format(path: Path, name: str | None = None) -> str:
    """Return the name of the format of `path`, after checking that the packages that write it are installed.

    Args:
        path: the file to write.
        name: the format; None takes it from the suffix.

    Raises:
        DeploymentError: the format is unknown, or `path` has the suffix of another.
        MissingFrameworkError: a package is not installed; the message names the extra.
    """
    name = _format_name(path, name)
    for package, extra in FORMATS[name].packages:
        require(package, extra)
    return name


def _format_name(path: Path, name: str | None) -> str:
    if name is None:
        name = next((known for known, one in FORMATS.items() if path.name.endswith(one.suffix)), None)
        if name is None:
            known = ", ".join(f"{one.suffix} ({known})" for known, one in FORMATS.items())
            raise DeploymentError(f"{path}: unknown suffix {path.suffix[:60]!r}; known are {known}")
    if name not in FORMATS:
        raise DeploymentError(f"format: expected one of {', '.join(FORMATS)}, got {name[:60]!r}")
    if not path.name.endswith(FORMATS[name].suffix):
        raise DeploymentError(f"{path}: expected a name that ends in {FORMATS[name].suffix} for format {name}")
    return name


def companions(path: Path, name: str) -> list[Path]:
    """Return the files beside `path` in a format: weights (`model.bin`) or metadata (`model.mindir.json`)."""
    suffix = FORMATS[name].suffix
    return [path.with_name(path.name.removesuffix(suffix) + other) for other in FORMATS[name].companions]


def write(name: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write a model in a format with the backend that supports it; arguments as in `ExportBackend`."""
    load_export_backend(export_formats()[name][1]).write_exported(name, path, spec, arrays, shape, metadata)


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Create a temporary folder beside `target`, on the same disk, and remove it on leaving the context.

    Raises:
        DeploymentError: the disk is full, or the system rejects a name.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".maam-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is not None and target.parent.resolve() not in Path(error.filename).resolve().parents:
            raise  # an error of the caller with another file
        raise DeploymentError(f"{target}: cannot be written: {error.strerror or error}") from None


def move(temporary: Path, target: Path, name: str) -> None:
    """Move a written file to its place, its companions first, so that the file never exists without them.

    Permissions are those of the replaced file, or the user's default.
    """
    for source, path in zip(
        [*companions(temporary, name), temporary], [*companions(target, name), target], strict=True
    ):
        source.chmod(_io.mode_of(path))
        os.replace(source, os.path.realpath(path))  # a symbolic link is preserved
