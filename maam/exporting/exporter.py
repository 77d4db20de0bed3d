"""Exporting a weights file: fused, written, run against the model, and only then put in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import files
from maam.errors import DeploymentError
from maam.exporting.formats import FORMATS, companions, find_format, open_exported, write
from maam.exporting.metadata import make_metadata
from maam.exporting.places import move, scratch_folder
from maam.fusion import fuse, is_fusible
from maam.parity.bounds import LOGITS, difference
from maam.reference import Referee
from maam.spec.fields import plain_integer
from maam.spec.inputs import example_shape
from maam.weights.exchange import PathLike, cast, read_whole

Array = np.ndarray[Any, Any]
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
        files.check_target(path, overwrite=overwrite)
    spec, arrays = read_whole(src)
    shape = example_shape(spec, size)
    single = cast(arrays, dict.fromkeys(arrays, np.dtype(np.float32)), source=str(src))
    node, found = fuse(spec, single) if fused and is_fusible(spec) else (spec, single)
    metadata = make_metadata(node, shape, class_names=class_names, mean=mean, std=std)
    referee = Referee(spec, single)
    with scratch_folder(target) as folder:
        temporary = folder / target.name
        write(name, temporary, node, found, shape, metadata)
        worst = _check(temporary, referee, shape) if FORMATS[name].reader else math.nan
        move(temporary, target, name)
    return Exported(name, (target, *companions(target, name)), worst)


def _checked_size(size: int | None) -> int | None:
    if size is None:
        return None
    found = plain_integer(size)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise DeploymentError(f"size: expected an integer of at least 1, height and width alike, got {size!r}")
    return found


def _check(path: Path, referee: Referee, shape: tuple[int, ...]) -> float:
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
