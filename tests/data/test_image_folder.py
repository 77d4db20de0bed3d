"""Image folders: their files, labels and class names, and the errors."""

import os
import shutil

import numpy as np
import pytest

from maam.data import imagefolder
from maam.data.image_folder import find_images
from maam.errors import DataError
from tests.errors import error_of
from tests.image_folders import NAMES, write_folder

pytest.importorskip("PIL")


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "images", classes=3, train=3, val=2)


def refusal(root, split="train", names=None):
    return error_of(DataError, imagefolder, root, split, names)


def test_files_labels_and_names(root):
    train, val = imagefolder(root), imagefolder(str(root), "val")
    assert train.class_names == val.class_names == NAMES[:3]
    assert train.labels.dtype == np.int32
    assert (train.labels.tolist(), val.labels.tolist()) == ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 1, 1, 2, 2])
    assert train.files[3] == os.path.join("automobile", "00.jpg")
    assert train.path(3) == root / "train" / "automobile" / "00.jpg"


def test_order_equals_that_of_torchvision(root):
    """Sort capitals first; list subfolders and suffixes in capitals; ignore files that are not images."""
    datasets = pytest.importorskip("torchvision.datasets")
    train = root / "train"
    for name in ("Zebra", "_10", "9"):
        shutil.copytree(train / "bird", train / name)
    for name in ("a/b/1.jpg", "a/2.PNG", "a!/3.jpeg", "a.jpg/4.webp", "10.jpg", "9.bmp", "x.txt"):
        (train / "Zebra" / name).parent.mkdir(parents=True, exist_ok=True)
        (train / "Zebra" / name).touch()
    (train / "list.txt").touch()
    shutil.rmtree(root / "val")
    expected = datasets.ImageFolder(str(train))
    ours = imagefolder(root)
    assert list(ours.class_names) == expected.classes
    assert [(str(ours.path(i)), int(ours.labels[i])) for i in range(len(ours))] == expected.samples


def test_linked_class_folders_and_a_single_split(root, tmp_path):
    (root / "train" / "bird").rename(tmp_path / "elsewhere")
    (root / "train" / "bird").symlink_to(tmp_path / "elsewhere")
    assert len(imagefolder(root)) == 9
    shutil.rmtree(root / "train")
    assert len(imagefolder(root, "val")) == 6
    expected = root / "train" / "CLASS" / "*.jpg"
    assert refusal(root) == f"{root / 'train'}: no such folder; expected {expected}, a folder for each class"
    (tmp_path / "1.jpg").touch()
    assert refusal(tmp_path / "1.jpg").startswith(f"{tmp_path / '1.jpg'}: this is a file; expected ")


def test_unknown_splits_and_splits_without_class_folders(root):
    for split in ("test", "", None, 0):
        assert refusal(root, split) == f"split is {split!r}; expected 'train' or 'val'"
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    assert refusal(root, "val").startswith(f"{root / 'val'}: no class folders; expected ")
    for name in ("1.jpg", "2.JPEG", "readme.txt"):
        (root / "val" / name).touch()
    assert refusal(root, "val").startswith(f"{root / 'val'}: 2 images and no class folders; expected ")


def test_empty_class_folders(root):
    for name in ("bird", "airplane"):
        for path in (root / "train" / name).iterdir():
            path.rename(path.with_suffix(".txt"))
    message = refusal(root)
    assert message.startswith(f"{root / 'train'}: no images in airplane, bird; expected files that end in .jpg, ")
    assert message.endswith("in every class folder; add images or remove the folders")


def test_splits_with_different_classes(root):
    (root / "val" / "bird").rename(root / "val" / "boat")
    message = "has classes that"
    assert refusal(root).startswith(f"{root / 'train'} {message} {root / 'val'} does not have: bird; labels number")
    assert refusal(root, "val").startswith(f"{root / 'val'} {message} {root / 'train'} does not have: boat; ")
    (root / "val" / "boat").rename(root / "val" / "bird")
    for index in range(8):
        (root / "val" / f"more{index}").mkdir()
    assert "does not have: more0, more1, more2, more3, more4 and 3 more; " in refusal(root)


def test_hidden_files_and_folders_are_left_out(root):
    before = [imagefolder(root, split).files for split in ("train", "val")]
    for split in ("train", "val"):
        for name in (".ipynb_checkpoints", "__MACOSX", "bird/.cache", "bird/__MACOSX"):
            shutil.copytree(root / split / "airplane", root / split / name)
        (root / split / "bird" / "._00.jpg").touch()
    assert [imagefolder(root, split).files for split in ("train", "val")] == before
    assert len(find_images(root / "val")) == len(before[1])


def test_labels_by_given_class_names(root):
    names = ("truck", *NAMES[2::-1])
    assert imagefolder(root, "val", names).labels.tolist() == [1, 1, 2, 2, 3, 3]
    shutil.rmtree(root / "val" / "bird")
    for name in ("bird", "truck"):
        (root / "val" / name).mkdir()
    found = imagefolder(root, "val", names)
    assert (found.labels.tolist(), found.class_names) == ([2, 2, 3, 3], names)
    message = f"{root / 'val'}: the model does not have these classes: automobile; its classes are air"
    assert refusal(root, "val", ["airplane", "bird", "truck"]).startswith(message)
    for name in NAMES[:2]:
        shutil.rmtree(root / "val" / name)
    assert refusal(root, "val", names).startswith(f"{root / 'val'}: no images in any class folder; ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder(root):
    (root / "train" / "bird").chmod(0)
    assert refusal(root) == f"{root / 'train' / 'bird'}: cannot be read: Permission denied"
    (root / "train" / "bird").chmod(0o700)
