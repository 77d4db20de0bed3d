"""Folders of images, a folder for each class, as ImageNet (ILSVRC 2012) is commonly laid out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from maam._messages import listed
from maam.errors import DataError

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as an image, in any case; torchvision's list."""
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Labelled image files, none of them decoded.

    Attributes:
        folder: the split's folder, root/train or root/val.
        files: N paths below `folder`, CLASS/NAME.jpg, sorted within each class.
        labels: int32 (N,), 0..len(class_names) - 1, ascending.
        class_names: the names of the class folders, sorted.
    """

    folder: Path
    files: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.files)

    def path(self, index: int) -> Path:
        """Return the path of image `index`, 0..N - 1."""
        return self.folder / self.files[index]

    def spread(self, count: int) -> ImageFolder:
        """Return `count` images, evenly spaced because they stand class by class; all where there are fewer."""
        if count >= len(self):
            return self
        indices = np.arange(count) * len(self) // count
        return replace(self, files=tuple(self.files[index] for index in indices), labels=self.labels[indices])


def imagefolder(root: str | os.PathLike[str], split: str = "train") -> ImageFolder:
    """List the images of root/SPLIT/CLASS/**; classes and files are in the order of `torchvision.datasets.ImageFolder`.

    Args:
        root: the folder that holds `train` and `val`.
        split: "train" or "val". Where the other one is there too, both must have the same classes.

    Returns:
        The files with their labels.

    Raises:
        DataError: the split is unknown or missing, it has no class folders or one without images, the classes of
            train and val differ, or a folder cannot be read.
    """
    if split not in SPLITS:
        raise DataError(f"split is {split!r}; expected {' or '.join(map(repr, SPLITS))}")
    folder = Path(root) / split
    try:
        names = _classes(folder)
        _check_other_split(folder, names)
        files = [_images(folder, name) for name in names]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    if empty := [name for name, found in zip(names, files, strict=True) if not found]:
        raise DataError(
            f"{folder}: no images in {_some(empty)}; expected files that end in {', '.join(EXTENSIONS)} "
            "in every class folder: fill or remove them"
        )
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in files])
    return ImageFolder(folder, tuple(file for found in files for file in found), labels, tuple(names))


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of all images below a folder, sorted in each of its folders.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        return [str(Path(folder) / name) for name in _images(Path(folder), "")]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None


def _classes(folder: Path) -> list[str]:
    layout = f"expected {folder / 'CLASS' / '*.jpg'}, a folder for each class"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {layout}")
    if names := sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        return names
    loose = sum(_is_image(entry.name) for entry in os.scandir(folder))
    found = f"{loose} images and no class folders" if loose else "no class folders"
    raise DataError(f"{folder}: {found}; {layout}")


def _check_other_split(folder: Path, names: list[str]) -> None:
    other = folder.with_name(SPLITS[1 - SPLITS.index(folder.name)])
    if not other.is_dir():
        return
    theirs = _classes(other)
    for here, mine, there, others in ((folder, names, other, theirs), (other, theirs, folder, names)):
        if alone := sorted(set(mine) - set(others)):
            raise DataError(
                f"{here} has classes that {there} has not: {_some(alone)}; "
                "labels are numbers in the order of the names, so both splits must have the same classes"
            )


def _images(folder: Path, name: str) -> list[str]:
    """The images of a class, below `folder`, subfolders too."""
    found = []
    for where, _, files in sorted(os.walk(folder / name, onerror=_refuse, followlinks=True)):
        below = os.path.relpath(where, folder)
        found += [os.path.join(below, file) for file in sorted(files) if _is_image(file)]
    return found


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _refuse(error: OSError) -> NoReturn:
    raise error


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return listed(names[:_MOST_NAMED]) + rest
