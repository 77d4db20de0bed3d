"""The official CIFAR folders: their files, how many records each file holds, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr

import numpy as np
import numpy.typing as npt

from maam.errors import DataError

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
BINARY_SUFFIX = ".bin"


@dataclass(frozen=True)
class LabelKind:
    """One label that each record carries.

    Attributes:
        name: what `label_mode` calls it.
        classes: the number of classes.
        labels_key: key of the labels in a file of the Python layout.
        names_key: key of the class names in the meta file of the Python layout.
        names_file: file of the class names in the binary layout, one a line.
    """

    name: str
    classes: int
    labels_key: bytes
    names_key: bytes
    names_file: str


@dataclass(frozen=True)
class Layout:
    """One data set as it is published.

    Attributes:
        name: the data set's name in maam.
        binary_folder: folder of the binary layout.
        python_folder: folder of the Python layout.
        meta_file: file of the class names in the Python layout.
        files: the data files of each split, named as in the Python layout; binary ones add ".bin".
        records: the number of records in each file of a split.
        label_kinds: the labels, in the order of the label bytes of a binary record.
    """

    name: str
    binary_folder: str
    python_folder: str
    meta_file: str
    files: Mapping[str, tuple[str, ...]]
    records: Mapping[str, int]
    label_kinds: tuple[LabelKind, ...]


@dataclass(frozen=True, eq=False)
class Records:
    """The content of one file: pixels uint8 (N, 3072), and int32 labels (N,) for each kind of label."""

    pixels: npt.NDArray[np.uint8]
    labels: Mapping[str, npt.NDArray[np.int32]]


LAYOUTS = {
    "cifar10": Layout(
        name="cifar10",
        binary_folder="cifar-10-batches-bin",
        python_folder="cifar-10-batches-py",
        meta_file="batches.meta",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        records={"train": 10_000, "test": 10_000},
        label_kinds=(LabelKind("class", 10, b"labels", b"label_names", "batches.meta.txt"),),
    ),
    "cifar100": Layout(
        name="cifar100",
        binary_folder="cifar-100-binary",
        python_folder="cifar-100-python",
        meta_file="meta",
        files={"train": ("train",), "test": ("test",)},
        records={"train": 50_000, "test": 10_000},
        label_kinds=(
            LabelKind("coarse", 20, b"coarse_labels", b"coarse_label_names", "coarse_label_names.txt"),
            LabelKind("fine", 100, b"fine_labels", b"fine_label_names", "fine_label_names.txt"),
        ),
    ),
}


def find_folder(layout: Layout, root: Path) -> tuple[Path, bool]:
    """Return the official folder in or at `root`, and whether it is the binary one, which is preferred.

    Raises:
        DataError: there is neither.
    """
    for name, suffix in ((layout.binary_folder, BINARY_SUFFIX), (layout.python_folder, "")):
        if (root / name).is_dir():
            return root / name, suffix == BINARY_SUFFIX
        data_files = (root / f"{file}{suffix}" for files in layout.files.values() for file in files)
        if root.is_dir() and (root.resolve().name == name or any(file.is_file() for file in data_files)):
            return root, suffix == BINARY_SUFFIX
    raise DataError(
        f"{root}: found neither {layout.binary_folder} nor {layout.python_folder}; "
        f"expected one of them here; run: maam data {layout.name} {root}"
    )


def damage(layout: Layout, path: Path, found: str, expected: str) -> DataError:
    """Return the error for a file in an official folder that is not as published."""
    parent = path.absolute().parent.parent
    return DataError(f"{path}: {found}; expected {expected}; run: maam data {layout.name} {parent}")


def check_file(layout: Layout, path: Path) -> None:
    """Raise `DataError` unless `path` is a file."""
    if not path.is_file():
        raise damage(layout, path, "the file is missing", f"all files of {path.parent.name}")


def check_labels(layout: Layout, path: Path, kind: LabelKind, labels: Sequence[object]) -> npt.NDArray[np.int32]:
    """Return `labels` as int32 (N,); raise `DataError` unless all are integers in 0..classes - 1."""
    for index, label in enumerate(labels):
        if not (type(label) is int and 0 <= label < kind.classes):
            found = f"record {index} has {kind.name} label {short_repr(label)}"
            raise damage(layout, path, found, f"a label in 0..{kind.classes - 1}")
    return np.array(labels, dtype=np.int32)


def check_names(layout: Layout, path: Path, kind: LabelKind, names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` as a tuple; raise `DataError` unless there is one for each class."""
    if len(names) != kind.classes:
        raise damage(layout, path, f"{len(names)} class names", str(kind.classes))
    return tuple(names)
