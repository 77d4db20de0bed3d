"""Batches of image files: the same pixels in both frameworks, and how broken files are handled."""

import os
import subprocess
import sys
import warnings
from importlib import import_module
from re import escape

import numpy as np
import pytest

from maam.data import IMAGENET_MEAN, IMAGENET_STD, BrokenImageWarning, CenterCrop, RandomResizedCrop, imagefolder
from maam.data.image_batches import reason_of
from maam.errors import DataError
from tests.hostile import bombs
from tests.image_folders import write_folder

image = pytest.importorskip("PIL.Image")
FRAMINGS = {"train": RandomResizedCrop(24), "val": CenterCrop(24, 28)}
MODES = ("L", "LA", "P", "RGBA", "CMYK", "1", "RGB")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Real images in JPEG, and one more for each way to store pixels."""
    folder = write_folder(tmp_path_factory.mktemp("images"), classes=3)
    for index, mode in enumerate(MODES):
        picture = image.open(folder / "train" / "bird" / f"{index:02}.jpg")
        path = folder / "train" / "bird" / f"{index:02}.{'tif' if mode == 'CMYK' else 'png'}"
        picture.convert(mode).save(path)
    return folder


@pytest.fixture(params=["torch", "mindspore"])
def batches_of(request):
    pytest.importorskip("torchvision" if request.param == "torch" else "mindspore")
    return import_module(f"maam.{request.param}").ImageFolderBatches


def make(cls, root, split="train", size=7, **options):
    return cls(imagefolder(root, split), size, seed=5, framing=FRAMINGS[split], **options)


def as_bytes(batches):
    return [(x.shape, x.dtype, x.tobytes(), y.dtype, y.tobytes()) for x, y in batches]


@pytest.mark.parametrize("split", FRAMINGS)
def test_the_same_bytes_in_both_frameworks(root, split):
    pytest.importorskip("torchvision")
    pytest.importorskip("mindspore")
    ours, theirs = (import_module(f"maam.{name}").ImageFolderBatches for name in ("torch", "mindspore"))
    for epoch in (0, 3):
        expected = as_bytes(make(ours, root, split).epoch(epoch))
        assert as_bytes(make(theirs, root, split).epoch(epoch)) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(batches_of, root, workers):
    whole = as_bytes(make(batches_of, root).epoch(1))
    loader = make(batches_of, root, num_workers=workers)
    assert as_bytes(loader.epoch(1)) == whole
    assert as_bytes(loader.epoch(1, 2)) == whole[2:]


def test_epochs_and_starts(batches_of, root):
    loader = make(batches_of, root)
    count = 24 + len(MODES)
    assert len(loader) == (count + 6) // 7
    first, second = (as_bytes(loader.epoch(epoch)) for epoch in (0, 1))
    assert first != second
    for start in range(len(loader) + 1):
        assert as_bytes(loader.epoch(0, start)) == first[start:]
    labels = np.concatenate([y for _, y in loader.epoch(0)])
    assert sorted(labels) == sorted(loader.dataset.labels)
    assert sum(len(x) for x, _ in make(batches_of, root, drop_last=True).epoch(0)) == count // 7 * 7


def test_processes_that_share_each_batch(batches_of, root):
    """The last batch has one image, so only the first of three processes gets one."""
    whole = list(make(batches_of, root, size=6).epoch(0))
    assert len(whole[-1][1]) == 1
    for rank in range(3):
        expected = [(images[rank::3], labels[rank::3]) for images, labels in whole if len(labels) > rank]
        assert as_bytes(make(batches_of, root, size=6, share=(rank, 3)).epoch(0)) == as_bytes(expected)


def test_validation_equals_that_of_torchvision(batches_of, root):
    """The pipeline and the data set of torchvision give the same bytes."""
    transforms = pytest.importorskip("torchvision.transforms")
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(28), transforms.CenterCrop(24), transforms.ToTensor()]
    pipeline = transforms.Compose([*steps, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = list(ImageFolder(str(root / "val"), pipeline))
    found = list(make(batches_of, root, "val", shuffle=False).epoch(0))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), np.stack([x.numpy() for x, _ in expected]))
    assert np.concatenate([y for _, y in found]).tolist() == [y for _, y in expected]


@pytest.fixture
def read_back(batches_of, tmp_path):
    """Return a function that saves a picture, and returns what a backend reads: uint8 (32, 32, 3)."""

    def read(picture, name="a.png", **options):
        folder = tmp_path / name / "train" / "one"
        folder.mkdir(parents=True)
        picture.save(folder / name, **options)
        dataset, whole = imagefolder(tmp_path / name), CenterCrop(32, 32)
        ((images, _),) = batches_of(dataset, 1, framing=whole, mean=(0, 0, 0), std=(1, 1, 1)).epoch(0)
        return np.round(images[0].transpose(1, 2, 0) * 255).astype(np.uint8)

    return read


STORED = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
"""How a camera stores an upright picture with the EXIF orientations 2 to 8."""


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_orientation_of_the_metadata_is_applied(read_back, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for orientation, turn in enumerate(STORED, 2):
        exif = image.Exif()
        exif[0x0112] = orientation
        picture = image.fromarray(pixels).transpose(image.Transpose[turn])
        found = read_back(picture, f"{orientation}.{suffix}", exif=exif, lossless=True)
        np.testing.assert_array_equal(found, pixels, str(orientation))


def test_broken_metadata_does_not_matter(read_back):
    assert (read_back(image.new("L", (32, 32), 99), exif=b"Exif\0\0rubbish") == 99).all()


def test_transparent_pixels_are_blended_with_white(read_back):
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
    for picture, options in (
        (colors, {}),
        (gray_alpha, {}),
        (palette, {"transparency": 0}),
        (gray, {"transparency": gray.getpixel((0, 0))}),
        (colors.convert("RGB"), {"transparency": (10, 20, 30)}),
    ):
        found = read_back(picture, f"{picture.mode}.png", **options)
        assert (found[:, :16] == 255).all(), picture.mode
        np.testing.assert_array_equal(found[:, 16:], np.asarray(picture.convert("RGB"))[:, 16:], picture.mode)
    found = read_back(image.new("RGBA", (32, 32), (100, 0, 200, 51)))  # an alpha of 0.2
    np.testing.assert_allclose(found[0, 0], (224, 204, 244), atol=1)


def test_pixels_in_zero_to_one(batches_of, root):
    images, labels = next(make(batches_of, root, mean=(0, 0, 0), std=(1, 1, 1)).epoch(0))
    assert (images.dtype, labels.dtype, images.shape) == (np.float32, np.int32, (7, 3, 24, 24))
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_array_equal(images, np.round(images * 255).astype(np.float32) / np.float32(255))


def break_files(root):
    """Break one file in train/airplane in each way; return the reason for each path."""
    folder = root / "train" / "airplane"
    content = (folder / "03.jpg").read_bytes()
    (folder / "00.jpg").write_bytes(b"")
    (folder / "01.jpg").write_text("this is no image")
    (folder / "02.jpg").write_bytes(content[:-40])
    reasons = ("an empty file", "not an image", "a broken image (image file is truncated")
    return {str(folder / f"0{index}.jpg"): reason for index, reason in enumerate(reasons)}


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_stop_by_default(batches_of, tmp_path, workers):
    write_folder(tmp_path, classes=2)
    loader = make(batches_of, tmp_path, size=1, shuffle=False, num_workers=workers)
    whole = as_bytes(loader.epoch(0))
    for index, (path, reason) in enumerate(break_files(tmp_path).items()):
        advice = "repair or remove the file, or skip broken images with on_broken='skip' (--on-broken skip)"
        with pytest.raises(DataError, match=f"^{escape(f'{path}: {reason}')}.*{escape(advice)}$"):
            list(loader.epoch(0, index))
    assert as_bytes(loader.epoch(0, 3)) == whole[3:]


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", ".png"), ("I", ".tif"), ("F", ".tif")])
def test_more_than_eight_bits(batches_of, tmp_path, mode, suffix):
    write_folder(tmp_path, classes=2)
    path = tmp_path / "train" / "airplane" / f"00{suffix}"
    image.fromarray(np.full((40, 40), 1000, np.int32)).convert(mode).save(path)
    path.with_suffix(".jpg").unlink()
    with pytest.raises(DataError, match=f"{path}: .*pixels of more than 8 bits, mode {mode}.*; convert the file to 8"):
        list(make(batches_of, tmp_path, size=1, shuffle=False).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_skipped(batches_of, tmp_path, workers):
    write_folder(tmp_path, classes=2)
    whole = list(make(batches_of, tmp_path, size=1, shuffle=False).epoch(0))
    broken = break_files(tmp_path)
    loader = make(batches_of, tmp_path, size=5, shuffle=False, num_workers=workers, on_broken="skip")
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


def test_a_batch_of_broken_images_only(batches_of, tmp_path):
    write_folder(tmp_path, classes=2)
    path, reason = next(iter(break_files(tmp_path).items()))
    loader = make(batches_of, tmp_path, size=3, shuffle=False, on_broken="skip", drop_last=True)
    message = f"{path}: {reason}; no image can be read in a batch of 3; remove the broken files"
    with pytest.raises(DataError, match=f"^{escape(message)}$"):
        list(loader.epoch(0))
    loader = make(batches_of, tmp_path, size=3, shuffle=False, on_broken="skip")
    with pytest.warns(BrokenImageWarning):
        found = list(loader.epoch(0))
    assert sum(len(labels) for _, labels in found) == len(loader.dataset) - len(loader.broken)
    assert len(found) == len(loader) - 1


def test_unreadable_files_are_not_called_broken(batches_of, tmp_path):
    write_folder(tmp_path, classes=2)
    loader = make(batches_of, tmp_path)
    path = loader.dataset.path(0)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: no such file; "):
        list(loader.epoch(0))
    path.write_bytes(b"x")
    error = PermissionError(13, "Permission denied", str(path))
    assert reason_of(error, path) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers is -1; expected an integer of at least 0"),
        ({"on_broken": "ignore"}, "on_broken is 'ignore'; expected 'error' or 'skip'"),
        ({"mean": (0.5,)}, "mean is (0.5,); expected three numbers, one for each channel"),
        ({"std": (1, 1, 0)}, "std is (1, 1, 0); expected three numbers above 0, one for each channel"),
        ({"size": 0}, "batch_size is 0; expected an integer of at least 1"),
    ],
)
def test_invalid_arguments(batches_of, root, options, message):
    with pytest.raises(DataError, match=f"^{escape(message)}$"):
        make(batches_of, root, **options)


def test_invalid_epochs_and_too_few_images(batches_of, root):
    loader = make(batches_of, root)
    for epoch, start in ((-1, 0), (0, -1), (0, len(loader) + 1), (0.5, 0)):
        with pytest.raises(DataError, match=r"^(index|start) is "):
            loader.epoch(epoch, start)
    with pytest.raises(DataError, match=r"^batch_size is 32, and .*train has 31 images; expected at most 31$"):
        make(batches_of, root, size=32, drop_last=True)


def test_no_more_workers_than_processors(batches_of, root):
    loader = make(batches_of, root, num_workers=10_000)
    assert 1 <= loader.num_workers < 10_000
    assert as_bytes(loader.epoch(0, 4)) == as_bytes(make(batches_of, root).epoch(0, 4))


HOSTILE = {
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
    "huge.png": (bombs.png(20_000, 20_000, rows=1), "a broken image (Image size (400000000 pixels) exceeds limit"),
    "pipe.jpg": (None, "a device, a pipe or a folder"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(batches_of, tmp_path, name):
    """They are refused at once: no other program runs, no pipe is waited for, no memory is filled."""
    content, reason = HOSTILE[name]
    path = tmp_path / "train" / "cat" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=escape(f"{path}: {reason}")):
        list(make(batches_of, tmp_path, size=1).epoch(0))


@pytest.mark.parametrize("split", FRAMINGS)
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_thin_images(batches_of, tmp_path, split, size):
    """The whole image would have billions of pixels after resizing."""
    for name in FRAMINGS:
        (tmp_path / name / "cat").mkdir(parents=True)
        (tmp_path / name / "cat" / "thin.png").write_bytes(bombs.png(*size))
    ((images, _),) = list(make(batches_of, tmp_path, split, size=1).epoch(0))
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
