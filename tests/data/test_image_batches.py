"""Image folders: their files, labels and class names, their batches, the same in both frameworks, and broken files."""

import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from maam.data import IMAGENET_MEAN, IMAGENET_STD, BrokenImageWarning, CenterCrop, RandomResizedCrop, imagefolder
from maam.data.image_batches import reason_of
from maam.data.image_folder import find_images
from maam.errors import DataError
from tests.errors import error_of
from tests.hostile import bombs
from tests.image_folders import NAMES, write_folder

image = pytest.importorskip("PIL.Image")
FRAMINGS = {"train": RandomResizedCrop(24), "val": CenterCrop(24, 28)}
MODES = ("L", "LA", "P", "RGBA", "CMYK", "1", "RGB")
AS_STORED = {"mean": (0, 0, 0), "std": (1, 1, 1)}
STORED = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
"""How a camera stores an upright picture with the EXIF orientations 2 to 8."""
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Real images in JPEG, and one more for each way to store pixels."""
    folder = write_folder(tmp_path_factory.mktemp("images"), classes=3)
    for index, mode in enumerate(MODES):
        path = folder / "train" / "bird" / f"{index:02}.jpg"
        picture = image.open(path).convert(mode)
        picture.save(path.with_suffix(".tif" if mode == "CMYK" else ".png"))
    return folder


def load(framework, root, split="train", size=7, **options):
    pytest.importorskip("torchvision" if framework == "torch" else "mindspore")
    options = {"seed": 5, "framing": FRAMINGS[split], **options}
    return import_module(f"maam.{framework}").ImageFolderBatches(imagefolder(root, split), size, **options)


@pytest.fixture(params=["torch", "mindspore"])
def make(request):
    """Return the batches of a folder in a framework."""
    return partial(load, request.param)


@pytest.fixture
def make_single(make):
    """Return batches of one image, in the order of the files."""
    return partial(make, size=1, shuffle=False)


def as_bytes(batches):
    return [(x.shape, x.dtype, x.tobytes(), y.dtype, y.tobytes()) for x, y in batches]


@pytest.mark.parametrize("split", FRAMINGS)
def test_the_same_bytes_in_both_frameworks(root, split):
    ours, theirs = (load(framework, root, split) for framework in ("torch", "mindspore"))
    for epoch in (0, 3):
        assert as_bytes(theirs.epoch(epoch)) == as_bytes(ours.epoch(epoch))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(make, root, workers):
    whole = as_bytes(make(root).epoch(1))
    loader = make(root, num_workers=workers)
    assert as_bytes(loader.epoch(1)) == whole
    assert as_bytes(loader.epoch(1, 2)) == whole[2:]


def test_no_more_workers_than_processors(make, root):
    loader = make(root, num_workers=10_000)
    assert 1 <= loader.num_workers < 10_000
    assert as_bytes(loader.epoch(0, 4)) == as_bytes(make(root).epoch(0, 4))


def test_epochs_and_starts(make, root):
    loader, count = make(root), 24 + len(MODES)
    assert len(loader) == (count + 6) // 7
    first, second = (as_bytes(loader.epoch(epoch)) for epoch in (0, 1))
    assert first != second
    for start in range(len(loader) + 1):
        assert as_bytes(loader.epoch(0, start)) == first[start:]
    labels = np.concatenate([y for _, y in loader.epoch(0)])
    assert sorted(labels) == sorted(loader.dataset.labels)
    assert sum(len(x) for x, _ in make(root, drop_last=True).epoch(0)) == count // 7 * 7
    for epoch, start in ((-1, 0), (0, -1), (0, len(loader) + 1), (0.5, 0)):
        assert error_of(DataError, loader.epoch, epoch, start).startswith(("index is ", "start is "))


def test_processes_that_share_each_batch(make, root):
    """The last batch has one image, so only the first of three processes gets one."""
    whole = list(make(root, size=6).epoch(0))
    assert len(whole[-1][1]) == 1
    for rank in range(3):
        expected = [(images[rank::3], labels[rank::3]) for images, labels in whole if len(labels) > rank]
        assert as_bytes(make(root, size=6, share=(rank, 3)).epoch(0)) == as_bytes(expected)


def test_validation_equals_that_of_torchvision(make, root):
    """The pipeline and the data set of torchvision give the same bytes."""
    transforms = pytest.importorskip("torchvision.transforms")
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(28), transforms.CenterCrop(24), transforms.ToTensor()]
    pipeline = transforms.Compose([*steps, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = list(ImageFolder(str(root / "val"), pipeline))
    found = list(make(root, "val", shuffle=False).epoch(0))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), np.stack([x.numpy() for x, _ in expected]))
    assert np.concatenate([y for _, y in found]).tolist() == [y for _, y in expected]


def test_pixels_in_zero_to_one(make, root):
    images, labels = next(make(root, **AS_STORED).epoch(0))
    assert (images.dtype, labels.dtype, images.shape) == (np.float32, np.int32, (7, 3, 24, 24))
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_array_equal(images, np.round(images * 255).astype(np.float32) / np.float32(255))


def test_invalid_arguments_and_too_few_images(make, root):
    for options, message in [
        ({"num_workers": -1}, "num_workers is -1; expected an integer of at least 0"),
        ({"on_broken": "ignore"}, "on_broken is 'ignore'; expected 'error' or 'skip'"),
        ({"mean": (0.5,)}, "mean is (0.5,); expected three numbers, one for each channel"),
        ({"std": (1, 1, 0)}, "std is (1, 1, 0); expected three numbers above 0, one for each channel"),
        ({"size": 0}, "batch_size is 0; expected an integer of at least 1"),
    ]:
        assert error_of(DataError, make, root, **options) == message
    message = f"batch_size is 32, and {root / 'train'} has 31 images; expected at most 31"
    assert error_of(DataError, make, root, size=32, drop_last=True) == message


class TestPictures:
    @pytest.fixture
    def read_back(self, make, tmp_path):
        """Return a function that saves a picture, and returns what a backend reads: uint8 (32, 32, 3)."""

        def read(picture, name="a.png", **options):
            folder = tmp_path / name / "train" / "one"
            folder.mkdir(parents=True)
            picture.save(folder / name, **options)
            ((images, _),) = make(tmp_path / name, size=1, framing=CenterCrop(32, 32), **AS_STORED).epoch(0)
            return np.round(images[0].transpose(1, 2, 0) * 255).astype(np.uint8)

        return read

    @pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
    def test_orientation_of_the_metadata_is_applied(self, read_back, suffix):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        for orientation, turn in enumerate(STORED, 2):
            exif = image.Exif()
            exif[0x0112] = orientation
            picture = image.fromarray(pixels).transpose(image.Transpose[turn])
            found = read_back(picture, f"{orientation}.{suffix}", exif=exif, lossless=True)
            np.testing.assert_array_equal(found, pixels, str(orientation))

    def test_broken_metadata_does_not_matter(self, read_back):
        assert (read_back(image.new("L", (32, 32), 99), exif=b"Exif\0\0rubbish") == 99).all()

    def test_transparent_pixels_are_blended_with_white(self, read_back):
        """The left half of each picture is transparent, with different colors there."""
        pixels = np.random.default_rng(1).integers(0, 250, (32, 32, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        pixels[:, :16] = (10, 20, 30, 0)
        colors, gray = image.fromarray(pixels), image.fromarray(pixels[..., :3]).convert("L")
        gray_alpha = image.merge("LA", (gray, colors.getchannel("A")))
        indices = np.random.default_rng(2).integers(1, 16, (32, 32), dtype=np.uint8)
        indices[:, :16] = 0
        palette = image.fromarray(indices)
        palette.putpalette(pixels[:16, 16:17, :3].tobytes())
        keys = [(palette, 0), (gray, gray.getpixel((0, 0))), (colors.convert("RGB"), (10, 20, 30))]
        pictures = [(colors, {}), (gray_alpha, {}), *((one, {"transparency": key}) for one, key in keys)]
        for picture, options in pictures:
            found = read_back(picture, f"{picture.mode}.png", **options)
            assert (found[:, :16] == 255).all(), picture.mode
            np.testing.assert_array_equal(found[:, 16:], np.asarray(picture.convert("RGB"))[:, 16:], picture.mode)
        found = read_back(image.new("RGBA", (32, 32), (100, 0, 200, 51)))  # an alpha of 0.2
        np.testing.assert_allclose(found[0, 0], (224, 204, 244), atol=1)


@pytest.fixture
def two(tmp_path):
    return write_folder(tmp_path / "two", classes=2)


def break_files(root):
    """Break one file in train/airplane in each way; return the reason for each path."""
    paths = [root / "train" / "airplane" / f"0{index}.jpg" for index in range(4)]
    for path, content in zip(paths, (b"", b"this is no image", paths[3].read_bytes()[:-40]), strict=False):
        path.write_bytes(content)
    reasons = ("an empty file", "not an image", "a broken image (image file is truncated")
    return {str(path): reason for path, reason in zip(paths, reasons, strict=False)}


class TestBrokenFiles:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_stop_by_default(self, make_single, two, workers):
        loader = make_single(two, num_workers=workers)
        whole = as_bytes(loader.epoch(0))
        for index, (path, reason) in enumerate(break_files(two).items()):
            message = error_of(DataError, list, loader.epoch(0, index))
            assert message.startswith(f"{path}: {reason}")
            advice = "repair or remove the file, or skip broken images with on_broken='skip' (--on-broken skip)"
            assert message.endswith(advice)
        assert as_bytes(loader.epoch(0, 3)) == whole[3:]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_are_skipped(self, make, make_single, two, workers):
        whole = list(make_single(two).epoch(0))
        broken = break_files(two)
        loader = make(two, size=5, shuffle=False, num_workers=workers, on_broken="skip")
        with pytest.warns(BrokenImageWarning) as caught:
            found = list(loader.epoch(0))
        assert [len(x) for x, _ in found] == [2, 5, 5, 1]
        np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), np.concatenate([x for x, _ in whole[3:]]))
        assert np.concatenate([y for _, y in found]).tolist() == [0] * 5 + [1] * 8
        assert loader.broken.keys() == broken.keys()
        assert all(loader.broken[path].startswith(reason) for path, reason in broken.items())
        messages = [f"{path}: {why}; the image is left out" for path, why in loader.broken.items()]
        assert [str(one.message) for one in caught] == messages
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # each file is reported once
            assert as_bytes(loader.epoch(0)) == as_bytes(found)

    def test_of_a_whole_batch(self, make, two):
        path, reason = next(iter(break_files(two).items()))
        options = {"size": 3, "shuffle": False, "on_broken": "skip"}
        message = f"{path}: {reason}; no image can be read in a batch of 3; remove the broken files"
        assert error_of(DataError, list, make(two, **options, drop_last=True).epoch(0)) == message
        loader = make(two, **options)
        with pytest.warns(BrokenImageWarning):
            found = list(loader.epoch(0))
        assert sum(len(labels) for _, labels in found) == len(loader.dataset) - len(loader.broken)
        assert len(found) == len(loader) - 1

    @pytest.mark.parametrize(("mode", "suffix"), [("I;16", ".png"), ("I", ".tif"), ("F", ".tif")])
    def test_pixels_of_more_than_eight_bits(self, make_single, two, mode, suffix):
        path = two / "train" / "airplane" / f"00{suffix}"
        image.fromarray(np.full((40, 40), 1000, np.int32)).convert(mode).save(path)
        path.with_suffix(".jpg").unlink()
        message = f"^{path}: .*pixels of more than 8 bits, mode {mode}.*; convert the file to 8"
        with pytest.raises(DataError, match=message):
            list(make_single(two).epoch(0))

    def test_unreadable_files_are_not_called_broken(self, make, two):
        loader = make(two)
        path = loader.dataset.path(0)
        path.unlink()
        assert error_of(DataError, list, loader.epoch(0)).startswith(f"{path}: no such file; ")
        path.write_bytes(b"x")
        error = PermissionError(13, "Permission denied", str(path))
        assert reason_of(error, path) == "cannot be read (Permission denied)"
        assert reason_of(AttributeError("no attribute 'chunk_xxxx'"), path) == "a broken image"  # of Pillow

    def test_hostile_files(self, make, tmp_path):
        """They are refused at once: no other program runs, no pipe is waited for, no memory is filled."""
        postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        for name, content, reason in (
            ("script.jpg", postscript, "not an image"),
            (
                "huge.png",
                bombs.png(20_000, 20_000, rows=1),
                "a broken image (Image size (400000000 pixels) exceeds lim",
            ),
            ("pipe.jpg", None, "a device, a pipe or a folder"),
        ):
            path = tmp_path / name / "train" / "cat" / name
            path.parent.mkdir(parents=True)
            os.mkfifo(path) if content is None else path.write_bytes(content)
            assert f"{path}: {reason}" in error_of(DataError, list, make(tmp_path / name, size=1).epoch(0))

    @pytest.mark.parametrize("split", FRAMINGS)
    @pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
    def test_thin_images(self, make, tmp_path, split, size):
        """The whole image would have billions of pixels after resizing."""
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "thin.png").write_bytes(bombs.png(*size))
        ((images, _),) = list(make(tmp_path, split, size=1).epoch(0))
        assert images.shape == (1, 3, 24, 24)


def test_a_process_ends_in_the_middle_of_a_pass(root):
    """PyTorch's workers ignore the SIGTERM with which `multiprocessing` would end them."""
    pytest.importorskip("torchvision")
    code = (
        "import sys, maam",
        "crop, images = maam.data.CenterCrop(size=16), maam.data.imagefolder(sys.argv[1])",
        "held = maam.torch.ImageFolderBatches(images, 2, framing=crop, num_workers=1).epoch(0)",
        "next(held)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(code), root], check=True, timeout=60)


class TestFolders:
    """Their files, labels and class names, without a framework."""

    @pytest.fixture
    def root(self, tmp_path):
        return write_folder(tmp_path / "images", classes=3, train=3, val=2)

    def refusal(self, root, split="train", names=None):
        return error_of(DataError, imagefolder, root, split, names)

    def test_files_labels_and_names(self, root):
        train, val = imagefolder(root), imagefolder(str(root), "val")
        assert train.class_names == val.class_names == NAMES[:3]
        assert train.labels.dtype == np.int32
        assert (train.labels.tolist(), val.labels.tolist()) == ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 1, 1, 2, 2])
        assert train.files[3] == os.path.join("automobile", "00.jpg")
        assert train.path(3) == root / "train" / "automobile" / "00.jpg"

    def test_order_equals_that_of_torchvision(self, root):
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
        ours, expected = imagefolder(root), datasets.ImageFolder(str(train))
        assert list(ours.class_names) == expected.classes
        assert [(str(ours.path(i)), int(ours.labels[i])) for i in range(len(ours))] == expected.samples

    def test_linked_class_folders_and_a_single_split(self, root, tmp_path):
        (root / "train" / "bird").rename(tmp_path / "elsewhere")
        (root / "train" / "bird").symlink_to(tmp_path / "elsewhere")
        assert len(imagefolder(root)) == 9
        shutil.rmtree(root / "train")
        assert len(imagefolder(root, "val")) == 6
        expected = root / "train" / "CLASS" / "*.jpg"
        assert self.refusal(root) == f"{root / 'train'}: no such folder; expected {expected}, a folder for each class"
        (tmp_path / "1.jpg").touch()
        assert self.refusal(tmp_path / "1.jpg").startswith(f"{tmp_path / '1.jpg'}: this is a file; expected ")

    def test_unknown_splits_and_splits_without_class_folders(self, root):
        for split in ("test", "", None, 0):
            assert self.refusal(root, split) == f"split is {split!r}; expected 'train' or 'val'"
        val = root / "val"
        shutil.rmtree(val)
        val.mkdir()
        assert self.refusal(root, "val").startswith(f"{val}: no class folders; expected ")
        for name in ("1.jpg", "2.JPEG", "readme.txt"):
            (val / name).touch()
        assert self.refusal(root, "val").startswith(f"{val}: 2 images and no class folders; expected ")

    def test_empty_class_folders(self, root):
        for path in [*(root / "train" / "bird").iterdir(), *(root / "train" / "airplane").iterdir()]:
            path.rename(path.with_suffix(".txt"))
        message = self.refusal(root)
        assert message.startswith(f"{root / 'train'}: no images in airplane, bird; expected files that end in .jpg, ")
        assert message.endswith("in every class folder; add images or remove the folders")

    def test_splits_with_different_classes(self, root):
        train, val = root / "train", root / "val"
        (val / "bird").rename(val / "boat")
        assert self.refusal(root).startswith(f"{train} has classes that {val} does not have: bird; labels number")
        assert self.refusal(root, "val").startswith(f"{val} has classes that {train} does not have: boat; ")
        (val / "boat").rename(val / "bird")
        for index in range(8):
            (val / f"more{index}").mkdir()
        assert "does not have: more0, more1, more2, more3, more4 and 3 more; " in self.refusal(root)

    def test_hidden_files_and_folders_are_left_out(self, root):
        before = [imagefolder(root, split).files for split in ("train", "val")]
        for split in (root / "train", root / "val"):
            for name in (".ipynb_checkpoints", "__MACOSX", "bird/.cache", "bird/__MACOSX"):
                shutil.copytree(split / "airplane", split / name)
            (split / "bird" / "._00.jpg").touch()
        assert [imagefolder(root, split).files for split in ("train", "val")] == before
        assert len(find_images(root / "val")) == len(before[1])

    def test_labels_by_given_class_names(self, root):
        names, val = ("truck", *NAMES[2::-1]), root / "val"
        assert imagefolder(root, "val", names).labels.tolist() == [1, 1, 2, 2, 3, 3]
        shutil.rmtree(val / "bird")
        for name in ("bird", "truck"):
            (val / name).mkdir()
        found = imagefolder(root, "val", names)
        assert (found.labels.tolist(), found.class_names) == ([2, 2, 3, 3], names)
        message = f"{val}: the model does not have these classes: automobile; its classes are air"
        assert self.refusal(root, "val", ["airplane", "bird", "truck"]).startswith(message)
        for name in NAMES[:2]:
            shutil.rmtree(val / name)
        assert self.refusal(root, "val", names).startswith(f"{val}: no images in any class folder; ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_unreadable_folder(self, root):
        (root / "train" / "bird").chmod(0)
        assert self.refusal(root) == f"{root / 'train' / 'bird'}: cannot be read: Permission denied"
        (root / "train" / "bird").chmod(0o700)
