"""Fusing a weights file into another, held to the first on images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from maam._io import check_target
from maam.errors import DeploymentError, WeightsError
from maam.fusion.rewrite import fuse
from maam.spec import Node
from maam.training import Runner
from maam.training.evaluate import Track, untracked
from maam.weights import write_weights
from maam.weights.exchange import PathLike, cast, read_whole
from maam.weights.file import check_suffix

Array = np.ndarray[Any, Any]


class Agreement(NamedTuple):
    """A fused model held to the one it was made of, by one runner, over all images.

    `images` counts them, `different` those whose largest logit is another one; `absolute` is the worst difference of
    an output and `relative` the same as a share of the largest output.
    """

    runner: str
    images: int
    different: int
    absolute: float
    relative: float


def fuse_file(src: PathLike, dst: PathLike, *, overwrite: bool = False) -> Node:
    """Write the fused form of the weights file `src` to `dst`, in the dtypes of `src`; returns its spec.

    Raises:
        DeploymentError: there is nothing to fuse, or `dst` cannot be written or exists.
        WeightsError: `src` is missing or broken, or `dst` has the suffix of another format.
    """
    check_suffix(dst)
    check_target(dst, overwrite=overwrite)
    spec, arrays = read_whole(src)
    fused, found = fuse(spec, arrays)
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1:
        raise WeightsError(f"{src}: arrays of several dtypes ({', '.join(sorted(map(str, dtypes)))}); save it in one")
    write_weights(dst, fused, cast(found, dict.fromkeys(found, dtypes.pop()), source=str(dst)))
    return fused


def agreements(
    runners: list[tuple[Runner, Runner]], images: Array, batch_size: int = 50, track: Track = untracked
) -> Iterator[Agreement]:
    """Hold the second of each pair, a fused model, to the first, over float32 images (N, C, H, W).

    `track` shows how far it is.

    Raises:
        DeploymentError: there are no images, or an output is not finite.
    """
    if not len(images):
        raise DeploymentError("images: expected at least one")
    for plain, fused in runners:
        worst, largest, different = 0.0, 0.0, 0
        starts = range(0, len(images), batch_size)
        for start in track(starts, plain.name, len(starts)):
            x = images[start : start + batch_size]
            expected, actual = plain.forward(x), fused.forward(x)
            if not np.isfinite([actual, expected]).all():
                raise DeploymentError(f"{plain.name}: the outputs for images {start} and on are not finite")
            worst = max(worst, float(np.abs(actual - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
            different += int((actual.argmax(1) != expected.argmax(1)).sum())
        yield Agreement(plain.name, len(images), different, worst, worst / max(largest, 1e-30))
