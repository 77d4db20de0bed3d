"""Fusion of a weights file for deployment, and comparison of the fused model with the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from maam._io import check_target
from maam.backend.protocol import Runner
from maam.deploy.source import read_source
from maam.errors import DeploymentError, WeightsError
from maam.fusion.rewrite import fuse as rewrite
from maam.spec import Node
from maam.training.evaluate import Track, untracked
from maam.weights import write_weights
from maam.weights.exchange import PathLike, cast, read_whole
from maam.weights.file import check_suffix

Array = np.ndarray[Any, Any]


class Agreement(NamedTuple):
    """Comparison of a fused model with the original, in one backend.

    Attributes:
        runner: the name of the backend.
        images: the number of images.
        different: the number of images with another predicted class.
        absolute: the largest difference of an output.
        relative: `absolute` divided by the largest absolute output of the original.
    """

    runner: str
    images: int
    different: int
    absolute: float
    relative: float


def fuse(source: Any, arrays: Mapping[str, Array] | None = None) -> tuple[Node, dict[str, Array]]:
    """Return a model that computes the same in inference with fewer layers, as a spec and its arrays.

    Batch norm is fused into convolutions, and learned branch weights into the last convolutions of their branches.

    Args:
        source: a weights file, a model that maam has built or loaded, or a spec.
        arrays: the arrays by canonical name, for a spec; else None.

    Returns:
        The fused spec, and its arrays by canonical name, in the dtypes of the source.

    Raises:
        DeploymentError: there is nothing to fuse, or `arrays` is given without a spec or missing.
        WeightsError: the file is missing or broken, or the arrays do not fit the spec.

    Example:
        >>> import maam
        >>> model = maam.torch.build("maam_digits")
        >>> spec, arrays = maam.fuse(model)
        >>> spec.num_parameters < model.spec.num_parameters
        True
    """
    if isinstance(source, Node):
        if arrays is None:
            raise DeploymentError("fuse: a spec has no weights; pass its arrays too, or a model or a weights file")
        return rewrite(source, arrays)
    if arrays is not None:
        raise DeploymentError("fuse: arrays are only allowed with a spec; a model or a weights file has its own")
    return rewrite(*read_source(source))


def fuse_file(src: PathLike, dst: PathLike, *, overwrite: bool = False) -> Node:
    """Write the fused form of the weights file `src` to `dst`, in the dtype of `src`.

    Args:
        src: a weights file.
        dst: the weights file to write.
        overwrite: whether to replace an existing file.

    Returns:
        The fused spec.

    Raises:
        DeploymentError: there is nothing to fuse, or `dst` exists or cannot be written.
        WeightsError: `src` is missing or broken, or `dst` has the suffix of another format.

    Example:
        >>> import os, tempfile
        >>> from maam import reference
        >>> from maam.deploy.fusing import fuse_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     src, dst = os.path.join(folder, "a.safetensors"), os.path.join(folder, "b.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), src)
        ...     fused = fuse_file(src, dst)
        >>> any(node.kind == "batch_norm2d" for _, node in fused.walk())
        False
    """
    check_suffix(dst)
    check_target(dst, overwrite=overwrite)
    spec, arrays = read_whole(src)
    fused, found = rewrite(spec, arrays)
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1:
        given = ", ".join(sorted(map(str, dtypes)))
        raise WeightsError(
            f"{src}: expected arrays of one dtype, got {given}; convert the file with maam convert --dtype"
        )
    write_weights(dst, fused, cast(found, dict.fromkeys(found, dtypes.pop()), source=str(dst)))
    return fused


def agreements(
    runners: list[tuple[Runner, Runner]], images: Array, batch_size: int = 50, track: Track = untracked
) -> Iterator[Agreement]:
    """Compare fused models with their originals.

    Args:
        runners: pairs of an original model and its fused form.
        images: float32, (N, C, H, W).
        batch_size: the number of images in a forward pass.
        track: shows the progress.

    Yields:
        The comparison of each pair.

    Raises:
        DeploymentError: there are no images, or an output is not finite.
    """
    if not len(images):
        raise DeploymentError("images: expected at least one image, got none")
    for plain, fused in runners:
        worst, largest, different = 0.0, 0.0, 0
        starts = range(0, len(images), batch_size)
        for start in track(starts, plain.name, len(starts)):
            x = images[start : start + batch_size]
            expected, actual = plain.forward(x), fused.forward(x)
            if not np.isfinite([actual, expected]).all():
                raise DeploymentError(
                    f"{plain.name}: expected finite outputs, got NaN or infinity from image {start} on"
                )
            worst = max(worst, float(np.abs(actual - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
            different += int((actual.argmax(1) != expected.argmax(1)).sum())
        yield Agreement(plain.name, len(images), different, worst, worst / max(largest, 1e-30))
