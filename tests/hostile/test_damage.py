"""Damage that changes no size: flipped bits in weights and checkpoints, and data that changed under a run."""

import json
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from maam import spec
from maam.data import CenterCrop, ImageDataset, digits, imagefolder
from maam.errors import DataError, MaamError, TrainingError, WeightsError
from maam.training import Observer, default_recipe, train
from maam.training.fingerprint import check_same_data, describe_data
from maam.training.run_dir import RunFolder
from maam.training.sources import Source
from maam.weights import read_weights, write_weights
from maam.weights.file import read_header_and_arrays
from tests.errors import error_of
from tests.image_folders import write_folder

NODE = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8)
ARRAYS = spec.draw(NODE.parameters(), 0)


def flip(path, position, bit=3):
    """Flip a bit of a file."""
    changed = bytearray(path.read_bytes())
    changed[position] ^= 1 << bit
    path.write_bytes(changed)


def test_every_flipped_bit_in_a_weights_file_is_found(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, NODE, ARRAYS)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    rng, damaged = np.random.default_rng(0), 0
    for position in [*rng.integers(0, end, 200), *rng.integers(end, len(whole), 200)]:
        path.write_bytes(whole)
        flip(path, position, int(rng.integers(8)))
        try:
            read_weights(path)
        except WeightsError as error:
            damaged += "the file is damaged" in str(error)
        else:  # the key of the checksum itself
            assert b'"checksum"' not in path.read_bytes()
    assert damaged > 250
    path.write_bytes(whole)
    flip(path, -1, 0)
    assert f"{path}: the file is damaged: " in error_of(WeightsError, read_weights, path)


def test_files_without_a_checksum_or_in_another_order_are_read(tmp_path):
    """Another program may write the same content in another order."""
    header = {"format": "maam", "format_version": "1", "spec": NODE.to_json()}
    path = tmp_path / "old.safetensors"
    save_file(ARRAYS, path, header)
    assert read_weights(path)[0] == NODE
    write_weights(path, NODE, ARRAYS)
    kept = read_header_and_arrays(path)[0]
    assert kept["checksum"].startswith("sha256:")
    save_file(dict(reversed(ARRAYS.items())), path, dict(reversed(kept.items())))
    assert read_weights(path)[0] == NODE


@pytest.fixture
def stopped(tmp_path):
    """A run of 22 steps that was stopped after step 12; its checkpoints are of steps 11 and 12."""
    pytest.importorskip("torch")

    class Stopper(Observer):
        def steps(self, record):
            if record["step"] == 13:
                raise InterruptedError

    recipe = default_recipe("maam_digits").replaced({"epochs": 2, "batch_size": 128})
    again = partial(train, "maam_digits", recipe, out=tmp_path / "run", checkpoint_steps=2, log_steps=1)
    with pytest.raises(InterruptedError):
        again(observer=Stopper())
    return RunFolder(tmp_path / "run"), partial(again, resume=True)


def test_damaged_checkpoints(stopped):
    """The message on a damaged one names the one before it, if that is undamaged."""
    run, resume = stopped
    previous = run.previous.read_bytes()
    for path in (run.last, run.previous):
        flip(path, 2000)
    assert "undamaged" not in error_of(TrainingError, resume)
    run.previous.write_bytes(previous)
    message = error_of(TrainingError, resume)
    assert message.startswith(f"{run.last}: the file is damaged")
    assert f"{run.previous}, the checkpoint of step 11, is undamaged: remove {run.last}, and resume again" in message
    run.last.unlink()
    resume()
    assert run.log.records()[-1]["step"] == 22


def open_data(root):
    """Return an image folder as the data of a run."""
    from maam.torch import ImageFolderBatches

    train_set, test_set = (
        ImageFolderBatches(imagefolder(root, split), 2, framing=CenterCrop(16, 16)) for split in ("train", "val")
    )
    found = dict.fromkeys(Source.__dataclass_fields__, train_set)
    return Source(**{**found, "test": test_set, "class_names": train_set.dataset.class_names})


OTHER = "images have other names, labels or pixels than before"
CHANGES = {
    "the classes differ (missing: airplane; new: zeppelin)": "train/airplane train/zeppelin val/airplane val/zeppelin",
    "8 training images, 9 before": "train/bird/00.jpg removed.jpg",
    f"the test {OTHER}": "val/bird/03.jpg val/bird/x.jpg",
    f"the training {OTHER}": "train/bird/00.jpg train/automobile/99.jpg",
}
"""What is found, and the old and new names of files."""


@pytest.mark.parametrize("found", CHANGES)
def test_data_that_changed_under_a_run(tmp_path, found):
    pytest.importorskip("torch")
    images = write_folder(tmp_path / "images", classes=3, train=3, val=2)
    run, before = RunFolder(tmp_path), open_data(images)
    session = {"class_names": before.class_names, "data": describe_data(before)}
    run.run.write_text(json.dumps({"sessions": [session]}))
    check_same_data(run, open_data(images))
    names = [images / name for name in CHANGES[found].split()]
    for old, new in zip(names[::2], names[1::2], strict=True):
        old.rename(new)
    message = error_of(TrainingError, check_same_data, run, open_data(images))
    assert f"the data is not that of this run: {found}; restore the data" in message


def test_a_resumed_run_compares_its_data(stopped, monkeypatch):
    run, resume = stopped
    found = digits("train")
    other = ImageDataset(found.images ^ np.uint8(1), found.labels, found.class_names)
    monkeypatch.setattr("maam.data.digits", lambda split: other if split == "train" else digits(split))
    last = run.last.read_bytes()
    assert "the training images have other names, labels or pixels" in error_of(TrainingError, resume)
    assert run.last.read_bytes() == last


def test_links_of_folders_to_themselves_and_thin_images(tmp_path):
    folder = tmp_path / "train" / "cat"
    for file in (folder / "1.jpg", tmp_path / "elsewhere" / "2.jpg"):
        file.parent.mkdir(parents=True)
        file.touch()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    assert imagefolder(tmp_path).files == ("cat/1.jpg", "cat/more/2.jpg")
    for name in ("one", "two"):
        (folder / name).symlink_to(tmp_path / "train")
    assert issubclass(DataError, MaamError)
    assert "this link leads to a folder that contains it" in error_of(DataError, imagefolder, tmp_path)
    frame = CenterCrop(224).frame(1, 60_000, np.random.default_rng(0))
    assert (frame.source, frame.size) == ((0, 29_992, 1, 16), (256, 4096))
