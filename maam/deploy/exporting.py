"""Exporting a weights file: fused, written, run against the model, and only then put in place."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io
from maam.backend.engines import OPENERS
from maam.backend.protocol import Predict
from maam.backend.registry import export_formats, load_export_backend
from maam.errors import DeploymentError, MaamError, SpecError, require
from maam.fusion import fuse, is_fusible
from maam.reference import ReferenceModel
from maam.spec import InputRule, Model, Node, input_rule, parse_json
from maam.spec.fields import plain_integer
from maam.spec.inputs import example_shape
from maam.tolerance import LOGITS, difference
from maam.weights.exchange import PathLike, cast, read_whole

Shape = tuple[int, ...]


def make_metadata(
    spec: Node,
    shape: Shape,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, str]:
    """Metadata as strings under names that start with `maam.`: name, version, spec, preprocessing, class names.

    Args:
        spec: what was exported, after fusion.
        shape: of one input, (C, H, W) or (features,).
        class_names: one for each output.
        mean: for each channel, subtracted from the pixels in [0, 1]; None: nothing is.
        std: for each channel, by which they are divided then; None: by nothing.

    Raises:
        DeploymentError: the names are no list of as many strings as there are outputs, or `check_preprocessing`
            refuses mean or std.
    """
    output = spec.output_shape(shape)
    names = _names(class_names)
    if names is not None and (len(output) != 1 or len(names) != output[0]):
        raise DeploymentError(f"class_names: expected {output[0]} names, one for each output, got {len(names)}")
    means, deviations = check_preprocessing(shape, mean, std)
    found = {
        "maam.name": spec.name if isinstance(spec, Model) else spec.kind,
        "maam.spec": spec.to_json(),
        "maam.preprocessing": json.dumps(_preprocessing(shape, means, deviations)),
    }
    return found if names is None else {**found, "maam.class_names": json.dumps(names)}


def exported_rule(metadata: Mapping[str, str]) -> InputRule | None:
    """What an exported file takes, of the one size that it was written for; None where it names no spec of ours.

    Raises:
        SpecError: the spec is broken, or of a later version.
        KeyError, TypeError, ValueError: what else is needed is absent or broken.
    """
    if "maam.spec" not in metadata:
        return None
    rule = input_rule(parse_json(metadata["maam.spec"]))
    described = json.loads(metadata["maam.preprocessing"])
    if "size" not in described:
        return rule
    height, width = described["size"]
    return rule._replace(rank=4, channels=len(described["mean"]), size=(height, width))


def check_preprocessing(
    shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float] | None, list[float] | None]:
    """Mean and deviation as plain numbers, by which inputs of `shape`, (C, H, W) or (features,), can be normalised.

    Raises:
        DeploymentError: one is no sequence of numbers, there are not as many as channels, one is not finite, or a
            deviation is not positive.
    """
    means, deviations = (_numbers(name, values, shape[0]) for name, values in (("mean", mean), ("std", std)))
    if deviations is not None and min(deviations) <= 0:
        raise DeploymentError(f"std: expected positive values, got {min(deviations)}")
    return means, deviations


def _numbers(name: str, values: Any, count: int) -> list[float] | None:
    if values is None:
        return None
    expected = f"{name}: expected a list of {count} number{'s' * (count > 1)}, one for each channel"
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise DeploymentError(f"{expected}, got {str(values)[:60]!r}") from None
    if len(numbers) != count:
        raise DeploymentError(f"{expected}, got {len(numbers)}")
    if wrong := [number for number in numbers if not math.isfinite(number)]:
        raise DeploymentError(f"{name}: expected finite values, got {wrong[0]}")
    return numbers


def _names(names: Any) -> list[str] | None:
    """The class names as a list; a string is no list of letters."""
    if names is None:
        return None
    given = None if isinstance(names, (str, bytes)) or not isinstance(names, Iterable) else list(names)
    if given is None or not all(isinstance(name, str) for name in given):
        raise DeploymentError(f"class_names: expected a list of strings, got {str(names)[:60]!r}")
    return [str(name) for name in given]


def _preprocessing(shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    """In this order: resize, scale the pixels to [0, 1], subtract the mean, divide by std."""
    if len(shape) != 3:
        return {"layout": "NF", "dtype": "float32"}
    colours = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    return {
        "layout": "NCHW",
        "dtype": "float32",
        "channels": colours,
        "size": list(shape[1:]),
        "range": [0, 1],
        "mean": list(mean or [0.0] * shape[0]),
        "std": list(std or [1.0] * shape[0]),
    }


Array = np.ndarray[Any, Any]


FORMATS = {name: one for name, (one, _) in export_formats().items()}
"""The formats by name."""


def find_format(path: Path, name: str | None = None) -> str:
    """The format called `name`, or told by the suffix of `path`, with all that writing it needs installed.

    Raises:
        DeploymentError: there is no such format, or `path` has the suffix of another.
        MissingFrameworkError: a package that it needs is not installed; the message names the extra.
    """
    name = _named(path, name)
    for package, extra in FORMATS[name].packages:
        require(package, extra)
    return name


def _named(path: Path, name: str | None) -> str:
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
    """The files that stand beside `path` in a format: weights (`model.bin`), or metadata (`model.mindir.json`)."""
    suffix = FORMATS[name].suffix
    return [path.with_name(path.name.removesuffix(suffix) + other) for other in FORMATS[name].companions]


def write(name: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write a model in the format `name` by the room that knows it, with a free batch; `shape` is of one input."""
    load_export_backend(export_formats()[name][1]).write_exported(name, path, spec, arrays, shape, metadata)


def open_exported(path: Path | str) -> tuple[Predict, dict[str, str]]:
    """What an exported file computes, as a function of NumPy arrays, and its metadata.

    The function takes (N, C, H, W) of the size that the file was written for, or (N, features), of any floating-point
    dtype, and computes in float32. It raises ShapeError for what the model does not take, where the metadata say it.

    Raises:
        DeploymentError: there is no such file, its suffix is unknown, or it cannot be read.
        MissingFrameworkError: a package that reads it is not installed.
    """
    path = Path(path)
    name = _named(path, None)
    if not path.is_file():
        raise DeploymentError(f"{path}: no such file")
    if not FORMATS[name].readable:
        raise DeploymentError(f"{path}: nothing runs {name} as it is; compile it with atc (docs/ascend.md)")
    try:
        if engine := FORMATS[name].engine:
            predict, metadata = OPENERS[engine](path)
        else:
            predict, metadata = load_export_backend(export_formats()[name][1]).open_exported(name, path)
    except MaamError:
        raise
    except Exception as error:  # of many kinds: each engine has its own
        raise DeploymentError(f"{path}: cannot be read as {name}: {' '.join(str(error).split())[:200]}") from None
    rule = _rule(path, metadata)
    return predict if rule is None else _checked(predict, rule), metadata


def _rule(path: Path, metadata: dict[str, str]) -> InputRule | None:
    try:
        return exported_rule(metadata)
    except (SpecError, KeyError, TypeError, ValueError) as error:
        raise DeploymentError(f"{path}: its metadata are none that this version of maam reads: {error}") from None


def _checked(predict: Predict, rule: InputRule) -> Predict:
    def call(x: Array) -> Array:
        array = np.asarray(x)
        rule.check(array.shape, str(array.dtype))
        return predict(array)

    return call


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same disk, that is gone afterwards with all that is left in it.

    Raises:
        DeploymentError: the disk is full, or the system refuses a name.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".maam-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is not None and target.parent.resolve() not in Path(error.filename).resolve().parents:
            raise  # of something else that is done meanwhile
        raise DeploymentError(f"{target}: cannot be written: {error.strerror or error}") from None


def move(temporary: Path, target: Path, name: str) -> None:
    """Put a written file of the format `name` in its place, its companions first.

    A reader that finds the model finds them too. Permissions are those of the file that is replaced, else the user's.
    """
    for source, path in zip(
        [*companions(temporary, name), temporary], [*companions(target, name), target], strict=True
    ):
        source.chmod(_io.mode_of(path))
        os.replace(source, os.path.realpath(path))  # a link stays one


BATCHES = (1, 3)
"""The sizes of the batches that an exported file is run on."""


class Exported(NamedTuple):
    """What was written: the format, the files, and the worst difference of an output to the model's (NaN for AIR)."""

    format: str
    files: tuple[Path, ...]
    difference: float


def export(
    src: PathLike,
    dst: PathLike,
    format: str | None = None,
    *,
    size: int | None = None,
    fused: bool = True,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the model of a weights file for an inference engine, with a free batch, and check the result.

    The file is written beside `dst`, run on two sizes of batch, held to the float64 referee of the unfused model by the
    bound of logits, and then moved to its name; where something fails, nothing is left.

    Args:
        src: a weights file, of either framework.
        dst: the file to write: .onnx, .xml (OpenVINO, with .bin), .pt2, .pte (ExecuTorch), .mindir, or on a
            host with Ascend .air, for a batch of 1 and unchecked, because nothing runs it as it is.
        format: "onnx", "openvino", "pt2", "executorch", "mindir" or "air"; told by the suffix of `dst` where None.
        size: height and width of the input; where None a model's own, or 32 for a layer.
        fused: whether batch norm and branch weights are fused first.
        class_names: one for each output, as metadata.
        mean: of each channel, subtracted from pixels in [0, 1] in front of the model, as metadata.
        std: of each channel, by which they are divided then, as metadata.
        overwrite: whether a file that exists is replaced.

    Raises:
        WeightsError: `src` is missing or broken.
        DeploymentError: the format is unknown, `dst` cannot be written or exists, `size` or metadata do not fit the
            model, the format cannot express it, or the written file computes something else.
        ShapeError: the model takes no images of `size`.
        DeviceError: AIR is asked for, and there is no Ascend here.
        MissingFrameworkError: a package is not installed.
    """
    target = Path(dst)
    name = find_format(target, format)
    size = _checked_size(size)
    for path in (target, *companions(target, name)):
        _io.check_target(path, overwrite=overwrite)
    spec, arrays = read_whole(src)
    shape = example_shape(spec, size)
    single = cast(arrays, dict.fromkeys(arrays, np.dtype(np.float32)), source=str(src))
    node, found = fuse(spec, single) if fused and is_fusible(spec) else (spec, single)
    metadata = make_metadata(node, shape, class_names=class_names, mean=mean, std=std)
    referee = ReferenceModel(spec, single)
    with scratch_folder(target) as folder:
        temporary = folder / target.name
        write(name, temporary, node, found, shape, metadata)
        worst = _check(temporary, referee, shape) if FORMATS[name].readable else math.nan
        move(temporary, target, name)
    return Exported(name, (target, *companions(target, name)), worst)


def _checked_size(size: int | None) -> int | None:
    if size is None:
        return None
    found = plain_integer(size)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise DeploymentError(f"size: expected an integer of at least 1, height and width alike, got {size!r}")
    return found


def _check(path: Path, referee: ReferenceModel, shape: tuple[int, ...]) -> float:
    predict, _ = open_exported(path)
    worst = 0.0
    for size in BATCHES:
        x = np.random.default_rng(size).random((size, *shape)).astype(np.float32)
        found = difference(predict(x), referee(x), LOGITS)
        if found.used > 1:
            raise DeploymentError(
                f"{path.name}: the written file computes something else: off by {found.absolute:.1e} "
                f"with a batch of {size}, allowed is {LOGITS}; nothing was kept"
            )
        worst = max(worst, found.absolute)
    return worst


__all__ = ["FORMATS", "Exported", "export"]
