"""CIFAR-10 and CIFAR-100 from their official folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from maam.data import binary_layout, python_layout
from maam.data.dataset import ImageDataset
from maam.data.layouts import IMAGE_SHAPE, LAYOUTS, Layout, find_folder
from maam.errors import DataError


def cifar10(root: str | os.PathLike[str], split: str = "train") -> ImageDataset:
    """Return CIFAR-10 from its official binary or Python folder; the binary one is preferred.

    Args:
        root: the official folder, or the folder that contains it.
        split: "train" (50,000 images) or "test" (10,000 images).

    Returns:
        Images uint8 (N, 3, 32, 32), 0..255, in the published order, with 10 class names.

    Raises:
        DataError: the folder or a file is missing, a file is not as published, or the split is unknown.
    """
    return read_dataset("cifar10", root, split, "class")


def cifar100(root: str | os.PathLike[str], split: str = "train", *, label_mode: str = "fine") -> ImageDataset:
    """Return CIFAR-100 from its official binary or Python folder; the binary one is preferred.

    Args:
        root: the official folder, or the folder that contains it.
        split: "train" (50,000 images) or "test" (10,000 images).
        label_mode: "fine" (100 classes) or "coarse" (20 classes).

    Returns:
        Images uint8 (N, 3, 32, 32), 0..255, in the published order, with the class names.

    Raises:
        DataError: the folder or a file is missing, a file is not as published, or an argument is unknown.
    """
    return read_dataset("cifar100", root, split, label_mode)


def read_dataset(name: str, root: str | os.PathLike[str], split: str, label_mode: str) -> ImageDataset:
    """Return a split of the data set `name`, a key of `LAYOUTS`, with one kind of its labels.

    Raises:
        DataError: as `cifar10` and `cifar100`.
    """
    layout = LAYOUTS[name]
    label_modes = [kind.name for kind in layout.label_kinds]
    _check_choice("split", split, list(layout.files))
    _check_choice("label_mode", label_mode, label_modes)
    try:
        return _read(layout, Path(root), split, label_modes.index(label_mode))
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error}); check the folder's permissions") from error


def _check_choice(name: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise DataError(f"{name} is {value!r}; expected {' or '.join(map(repr, choices))}")


def _read(layout: Layout, root: Path, split: str, kind_index: int) -> ImageDataset:
    folder, is_binary = find_folder(layout, root)
    reader = binary_layout if is_binary else python_layout
    kind = layout.label_kinds[kind_index]
    names = reader.read_names(layout, folder, kind)
    parts = [reader.read_records(layout, folder, split, file) for file in layout.files[split]]
    images = np.concatenate([part.pixels for part in parts]).reshape(-1, *IMAGE_SHAPE)
    labels = np.concatenate([part.labels[kind.name] for part in parts])
    return ImageDataset(images, labels, names)
