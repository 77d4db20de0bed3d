"""Folders of image files with one folder for each class, the usual layout of ImageNet (ILSVRC 2012)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from maam._messages import listed
from maam.data.checks import check_choice
from maam.errors import DataError

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The suffixes of image files, in lower or upper case; the same as in torchvision."""
_RESOURCE_FORKS = "__MACOSX"
"""The folder that macOS adds to archives; its files are not images."""
_MAX_NAMES = 5
"""The most names in an error message."""


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Labeled image files, not decoded.

    Attributes:
        folder: the folder of the split, root/train or root/val.
        files: N paths below `folder`, CLASS/NAME.jpg, sorted within each class.
        labels: int32 (N,), 0..len(class_names) - 1, in ascending order.
        class_names: the names of the class folders, sorted.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from maam.data import ImageFolder
        >>> files = ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
        >>> images = ImageFolder(Path("images/train"), files, np.array([0, 1, 1], np.int32), ("cat", "dog"))
        >>> len(images), images.path(2).name
        (3, '2.jpg')
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
        """Return `count` evenly spaced images, so that every class is represented; all images if there are fewer."""
        if count >= len(self):
            return self
        indices = np.arange(count) * len(self) // count
        return replace(self, files=tuple(self.files[index] for index in indices), labels=self.labels[indices])


def imagefolder(
    root: str | os.PathLike[str], split: str = "train", class_names: Sequence[str] | None = None
) -> ImageFolder:
    """List the images in root/SPLIT/CLASS/**, in the order of `torchvision.datasets.ImageFolder`.

    Hidden files and folders, such as .ipynb_checkpoints, are left out.

    Args:
        root: the folder that contains `train` and `val`.
        split: "train" or "val".
        class_names: the class of each label; class folders may then be missing or empty. Default: the names of the
            class folders, sorted. If the other split exists, both must then have the same classes.

    Returns:
        The files with their labels.

    Raises:
        DataError: the split is unknown or missing, it has no class folders, a class folder is not in `class_names`,
            there are no images, or a folder cannot be read. Without `class_names` also: a class folder has no images,
            or the classes of train and val differ.

    Example:
        >>> from pathlib import Path
        >>> from maam.data import imagefolder
        >>> for name in ("cat", "dog"):
        ...     Path("images/train", name).mkdir(parents=True)
        ...     Path("images/train", name, "1.jpg").touch()
        >>> train = imagefolder("images", "train")
        >>> train.class_names, train.labels.tolist()
        (('cat', 'dog'), [0, 1])
    """
    check_choice("split", split, SPLITS)
    folder = Path(root) / split
    try:
        names = _classes(folder)
        if class_names is None:
            _check_other_split(folder, names)
        else:
            names = _check_known(folder, names, tuple(class_names))
        files = [_images(folder, name) if (folder / name).is_dir() else [] for name in names]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    if class_names is not None and not any(files):
        raise DataError(f"{folder}: no images in any class folder; expected files that end in {', '.join(EXTENSIONS)}")
    if class_names is None and (empty := [name for name, found in zip(names, files, strict=True) if not found]):
        raise DataError(
            f"{folder}: no images in {_shorten(empty)}; expected files that end in {', '.join(EXTENSIONS)} "
            "in every class folder; add images or remove the folders"
        )
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in files])
    return ImageFolder(folder, tuple(file for found in files for file in found), labels, tuple(names))


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all images below a folder, sorted within each folder.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        return [str(Path(folder) / name) for name in _images(Path(folder), "")]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None


def _classes(folder: Path) -> list[str]:
    layout = f"expected {folder / 'CLASS' / '*.jpg'}, a folder for each class"
    if folder.parent.is_file():
        raise DataError(f"{folder.parent}: this is a file; {layout}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {layout}")
    if names := sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not _is_hidden(entry.name)):
        return names
    loose = sum(_is_image(entry.name) for entry in os.scandir(folder))
    found = f"{loose} images and no class folders" if loose else "no class folders"
    raise DataError(f"{folder}: {found}; {layout}")


def _check_known(folder: Path, found: list[str], known: tuple[str, ...]) -> list[str]:
    """Return the known classes after checking that no class folder has another name."""
    if unknown := [name for name in found if name not in known]:
        raise DataError(
            f"{folder}: the model does not have these classes: {_shorten(unknown)}; its classes are {_shorten(known)}; "
            "rename the folders, or move them elsewhere"
        )
    return list(known)


def _check_other_split(folder: Path, names: list[str]) -> None:
    other = folder.with_name(SPLITS[1 - SPLITS.index(folder.name)])
    if not other.is_dir():
        return
    theirs = _classes(other)
    for here, mine, there, others in ((folder, names, other, theirs), (other, theirs, folder, names)):
        if alone := sorted(set(mine) - set(others)):
            raise DataError(
                f"{here} has classes that {there} does not have: {_shorten(alone)}; "
                "labels number the sorted class names, so both splits must have the same classes"
            )


def _images(folder: Path, name: str) -> list[str]:
    """Return the images of a class and its subfolders, as paths below `folder`."""
    found = []
    try:
        folders = sorted(_walk(folder / name))
    except RecursionError:
        raise DataError(f"{folder / name}: the folders in it are nested too deeply") from None
    for where, files in folders:
        below = os.path.relpath(where, folder)
        found += [os.path.join(below, file) for file in sorted(files) if _is_image(file)]
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below `folder` and its files, without hidden folders; links to folders are followed.

    Raises:
        DataError: a link leads to a folder that contains it.
    """
    for where, names, files in os.walk(folder, onerror=_raise, followlinks=True):
        names[:] = [name for name in names if not _is_hidden(name)]
        yield where, files
        for link in (os.path.join(where, name) for name in names):
            if os.path.islink(link) and Path(os.path.realpath(where)).is_relative_to(os.path.realpath(link)):
                raise DataError(f"{link}: this link leads to a folder that contains it; remove the link")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == _RESOURCE_FORKS


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not _is_hidden(name)


def _raise(error: OSError) -> NoReturn:
    raise error


def _shorten(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return listed(names[:_MAX_NAMES]) + rest
