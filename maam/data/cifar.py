"""CIFAR-10 and CIFAR-100, read from the official folders in the binary or the Python layout.

Both layouts are described on https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maam._messages import shortened
from maam.data.checks import check_choice
from maam.data.dataset import ImageDataset
from maam.data.pickles import read_pickle
from maam.errors import DataError

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
BINARY_SUFFIX = ".bin"
_SMALL_FILE = 100_000
"""More than the bytes of every official file of class names, and than its opcodes if it is pickled."""


@dataclass(frozen=True)
class LabelKind:
    """A label that each record carries.

    Attributes:
        name: the value of `label_mode` that selects it.
        classes: the number of classes.
        labels_key: the key of the labels in a data file of the Python layout.
        names_key: the key of the class names in the meta file of the Python layout.
        names_file: the file of class names in the binary layout, one name per line.
    """

    name: str
    classes: int
    labels_key: bytes
    names_key: bytes
    names_file: str


@dataclass(frozen=True)
class Layout:
    """The published files of a data set.

    Attributes:
        name: the name of the data set in maam.
        binary_folder: the folder of the binary layout.
        python_folder: the folder of the Python layout.
        meta_file: the file of class names in the Python layout.
        files: the data files of each split in the Python layout; the binary layout adds ".bin" to each name.
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


def cifar10(root: str | os.PathLike[str], split: str = "train") -> ImageDataset:
    """Read CIFAR-10 from its official folder in the binary or the Python layout.

    If both layouts are present, the binary one is read.

    Args:
        root: the official folder, or the folder that contains it.
        split: "train" (50,000 images) or "test" (10,000 images).

    Returns:
        Images uint8 (N, 3, 32, 32), 0..255, in the published order, with 10 class names.

    Raises:
        DataError: the folder or a file is missing, a file differs from the published format, or the split is unknown.

    Example:
        >>> from maam.data import cifar10, download
        >>> download("cifar10", "data")  # doctest: +SKIP
        PosixPath('data/cifar-10-batches-bin')
        >>> test = cifar10("data", "test")  # doctest: +SKIP
        >>> test.images.shape, test.class_names[:2]  # doctest: +SKIP
        ((10000, 3, 32, 32), ('airplane', 'automobile'))
    """
    return read_dataset("cifar10", root, split, "class")


def cifar100(root: str | os.PathLike[str], split: str = "train", *, label_mode: str = "fine") -> ImageDataset:
    """Read CIFAR-100 from its official folder in the binary or the Python layout.

    If both layouts are present, the binary one is read.

    Args:
        root: the official folder, or the folder that contains it.
        split: "train" (50,000 images) or "test" (10,000 images).
        label_mode: "fine" (100 classes) or "coarse" (20 classes).

    Returns:
        Images uint8 (N, 3, 32, 32), 0..255, in the published order, with the class names.

    Raises:
        DataError: the folder or a file is missing, a file differs from the published format, or an argument is
            unknown.

    Example:
        >>> from maam.data import cifar100
        >>> coarse = cifar100("data", "test", label_mode="coarse")  # doctest: +SKIP
        >>> len(coarse), len(coarse.class_names)  # doctest: +SKIP
        (10000, 20)
    """
    return read_dataset("cifar100", root, split, label_mode)


def read_dataset(name: str, root: str | os.PathLike[str], split: str, label_mode: str) -> ImageDataset:
    """Return a split of the data set `name`, a key of `LAYOUTS`, with one kind of labels.

    Raises:
        DataError: see `cifar10` and `cifar100`.
    """
    layout = LAYOUTS[name]
    if Path(root).is_file():
        raise DataError(f"{root}: this is a file; expected the folder that `maam data {name} DIR` wrote")
    kinds = {kind.name: kind for kind in layout.label_kinds}
    check_choice("split", split, tuple(layout.files))
    check_choice("label_mode", label_mode, tuple(kinds))
    kind = kinds[label_mode]
    try:
        folder, is_binary = find_folder(layout, Path(root))
        names = (_binary_names if is_binary else _python_names)(layout, folder, kind)
        read = _binary_records if is_binary else _python_records
        parts = [read(layout, folder, split, file) for file in layout.files[split]]
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error}); check the permissions of the folder") from error
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, *IMAGE_SHAPE)
    return ImageDataset(images, np.concatenate([labels[kind.name] for _, labels in parts]), names)


def find_folder(layout: Layout, root: Path) -> tuple[Path, bool]:
    """Return the official folder in or at `root`, and whether it has the binary layout, which is preferred.

    Raises:
        DataError: `root` contains neither layout.
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


Labels = Mapping[str, npt.NDArray[np.int32]]
"""For each kind of label, int32 (N,)."""
Records = tuple[npt.NDArray[np.uint8], Labels]
"""The content of one file: pixels uint8 (N, 3072) and the labels."""


def _binary_records(layout: Layout, folder: Path, split: str, file: str) -> Records:
    """Read a file of records: label bytes, then the red, the green and the blue plane."""
    path = folder / f"{file}{BINARY_SUFFIX}"
    _check_file(layout, path)
    width = len(layout.label_kinds) + PIXELS
    count = layout.records[split]
    # The size is compared before reading: a huge file must not fill the memory.
    size = path.stat().st_size
    if size != count * width:
        raise _damage(layout, path, f"{size} bytes", f"{count * width} bytes ({count} records of {width})")
    table = np.fromfile(path, dtype=np.uint8, count=count * width).reshape(count, width)
    labels = {
        kind.name: _check_labels(layout, path, kind, table[:, column].tolist())
        for column, kind in enumerate(layout.label_kinds)
    }
    return table[:, len(labels) :], labels


def _binary_names(layout: Layout, folder: Path, kind: LabelKind) -> tuple[str, ...]:
    path = folder / kind.names_file
    _check_file(layout, path)
    if (size := path.stat().st_size) > _SMALL_FILE:
        raise _damage(layout, path, f"{size} bytes", f"{kind.classes} class names")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise _damage(layout, path, "not text", f"{kind.classes} class names") from None
    return _check_names(layout, path, kind, [line.strip() for line in lines if line.strip()])


def _python_records(layout: Layout, folder: Path, split: str, file: str) -> Records:
    """Read a pickled dict of an array of pixels and lists of labels."""
    path = folder / file
    count = layout.records[split]
    content = _load_dict(layout, path, count)
    pixels = content.get(b"data")
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (count, PIXELS)):
        raise _damage(layout, path, f"data is {_describe(pixels)}", f"uint8 {(count, PIXELS)}")
    labels = {}
    for kind in layout.label_kinds:
        values = _get_list(layout, path, content, kind.labels_key, count)
        labels[kind.name] = _check_labels(layout, path, kind, values)
    return pixels, labels


def _python_names(layout: Layout, folder: Path, kind: LabelKind) -> tuple[str, ...]:
    path = folder / layout.meta_file
    values = _get_list(layout, path, _load_dict(layout, path), kind.names_key, kind.classes)
    if not all(isinstance(value, bytes) and value.isascii() for value in values):
        raise _damage(layout, path, "class names that are not text", f"{kind.classes} byte strings")
    return _check_names(layout, path, kind, [value.decode("ascii") for value in values])


def _load_dict(layout: Layout, path: Path, records: int = 0) -> dict[Any, Any]:
    """Read a pickled dict for `records` images, with the strings of Python 2 as bytes, without running the pickle."""
    _check_file(layout, path)
    expected = "a pickled dict of numpy arrays and lists"
    if (size := path.stat().st_size) > (most := _SMALL_FILE + 7 * PIXELS * records):
        raise _damage(layout, path, f"{size} bytes", f"at most {most} bytes")
    data = path.read_bytes()
    try:
        content = read_pickle(data, limit=_SMALL_FILE + 20 * records)
    except Exception as error:  # a malformed pickle can raise almost anything
        found = f"cannot be unpickled safely ({type(error).__name__}: {shortened(str(error))})"
        raise _damage(layout, path, found, expected) from None
    if not isinstance(content, dict):
        raise _damage(layout, path, f"a pickled {type(content).__name__}", expected)
    return content


def _get_list(layout: Layout, path: Path, content: dict[Any, Any], key: bytes, count: int) -> list[Any]:
    values = content.get(key)
    if not (isinstance(values, list) and len(values) == count):
        raise _damage(layout, path, f"{key.decode()} is {_describe(values)}", f"a list of {count}")
    return values


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "missing" if value is None else f"a {type(value).__name__}"


def _check_file(layout: Layout, path: Path) -> None:
    if not path.is_file():
        raise _damage(layout, path, "the file is missing", f"all files of {path.parent.name}")


def _check_labels(layout: Layout, path: Path, kind: LabelKind, labels: Sequence[object]) -> npt.NDArray[np.int32]:
    for index, label in enumerate(labels):
        if not (type(label) is int and 0 <= label < kind.classes):
            found = f"record {index} has {kind.name} label {shortened(label)}"
            raise _damage(layout, path, found, f"a label in 0..{kind.classes - 1}")
    return np.array(labels, dtype=np.int32)


def _check_names(layout: Layout, path: Path, kind: LabelKind, names: Sequence[str]) -> tuple[str, ...]:
    if len(names) != kind.classes:
        raise _damage(layout, path, f"{len(names)} class names", str(kind.classes))
    return tuple(names)


def _damage(layout: Layout, path: Path, found: str, expected: str) -> DataError:
    """Return the error for a file that differs from the published one."""
    parent = path.absolute().parent.parent
    return DataError(f"{path}: {found}; expected {expected}; run: maam data {layout.name} {parent}")
