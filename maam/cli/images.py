"""Images for commands: a named data set, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maam import data
from maam.errors import DataError, ShapeError, SpecError
from maam.spec import Node, input_rule

Array = np.ndarray[Any, Any]
NAMES = ("digits", "cifar10", "cifar100")


def check_images(spec: Node, name: str, images: Array, labels: Array) -> None:
    """Refuse a data set whose images (N, C, H, W) or labels (N,) the model cannot take.

    Raises:
        ShapeError: the images have the wrong size or number of channels.
        SpecError: there are more or fewer classes than logits.
    """
    try:
        input_rule(spec).check(images.shape)
        output = spec.output_shape(images.shape[1:])
    except ShapeError as error:
        raise ShapeError(f"--data {name}: {error}") from None
    if len(output) == 1 and labels.max() + 1 != output[0]:  # a map has no classes, and is not trained
        raise SpecError(f"--data {name}: {labels.max() + 1} classes, but the model has {output[0]}")


def check_classifier(spec: Node, images: Array) -> None:
    """Refuse a model of maps, of which there is no accuracy, before anything is written.

    Raises:
        SpecError: its output for `images` (N, C, H, W) is no vector.
    """
    output = spec.output_shape(images.shape[1:])
    if len(output) != 1:
        raise SpecError(f"--data shows accuracies, which a model of maps {output} has not; take a classifier")


def test_images(name: str, root: Path | None) -> tuple[Array, Array]:
    """`split_images` of the test split."""
    return split_images(name, root, "test")


def split_images(name: str, root: Path | None, split: str) -> tuple[Array, Array]:
    """The images of a split of a data set, float32 (N, C, H, W) in [0, 1], and their labels, int32 (N,).

    Raises:
        DataError: there is no such data set, or it is not whole; a root is missing.
    """
    if name not in NAMES:
        raise DataError(f"--data: expected one of {', '.join(NAMES)}, got {name!r}")
    if name != "digits" and root is None:
        raise DataError(f"--data {name} needs --root DIR, the folder that `maam data {name} DIR` wrote")
    dataset = data.digits(split) if name == "digits" else getattr(data, name)(root, split)
    return data.to_float(dataset.images), dataset.labels
