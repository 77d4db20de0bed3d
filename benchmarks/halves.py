"""CIFAR-10 as two image folders with five classes each: one to train on, and a small one to fine-tune on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from maam import data
from maam.data import ImageDataset
from maam.errors import MaamError

HALVES = {
    "first": ("airplane", "bird", "cat", "deer", "ship"),
    "second": ("automobile", "dog", "frog", "horse", "truck"),
}
"""The classes of each folder: animals and vehicles in both."""


def halves(
    root: Annotated[Path, typer.Argument(help="folder of CIFAR-10")],
    out: Annotated[Path, typer.Argument(help="new folder, in which first/ and second/ are written")],
    images: Annotated[int, typer.Option(min=1, help="training images of each class in the second half")] = 50,
) -> None:
    """Write CIFAR-10 as two image folders of five classes each, the second one with few training images.

    The test images of each half are in its folder val.
    """
    if out.exists():
        raise MaamError(f"{out}: exists already; choose a new folder")
    for split, folder in (("train", "train"), ("test", "val")):
        found = data.cifar10(root, split)
        for half, names in HALVES.items():
            most = images if (half, split) == ("second", "train") else len(found)
            for name in names:
                _write(found, name, most, out / half / folder / name)
    typer.echo(f"{out}: first and second, {images} training images of each class in second")


def _write(dataset: ImageDataset, name: str, most: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    places = np.flatnonzero(dataset.labels == dataset.class_names.index(name))[:most]
    for place in places:
        Image.fromarray(dataset.images[place].transpose(1, 2, 0)).save(folder / f"{place:05d}.png")
