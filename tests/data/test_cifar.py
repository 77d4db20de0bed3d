import numpy as np
import pytest

from maam.data import cifar10, cifar100
from maam.errors import DataError

both_layouts = pytest.mark.parametrize("write", ["binary", "python"], indirect=True)
TRAIN_FILES = [f"data_batch_{number}" for number in range(1, 6)]


def images_of(content, files):
    """The images by the published rule: 1,024 red, then green, then blue pixels, row by row."""
    return np.concatenate([content.pixels[file].reshape(-1, 3, 32, 32) for file in files])


def message(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@both_layouts
@pytest.mark.parametrize(("split", "files"), [("train", TRAIN_FILES), ("test", ["test_batch"])])
def test_cifar10_is_read_as_written(write, tmp_path, split, files):
    content = write("cifar10", tmp_path)
    result = cifar10(tmp_path, split)
    np.testing.assert_array_equal(result.images, images_of(content, files))
    np.testing.assert_array_equal(result.labels, np.concatenate([content.labels[f]["class"] for f in files]))
    assert result.images.dtype == np.uint8
    assert result.labels.dtype == np.int32
    assert result.images.flags.c_contiguous
    assert result.class_names[:2] == ("airplane", "automobile")


@both_layouts
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("mode", ["fine", "coarse"])
def test_cifar100_is_read_as_written(write, tmp_path, split, mode):
    content = write("cifar100", tmp_path)
    result = cifar100(tmp_path, split, label_mode=mode)
    np.testing.assert_array_equal(result.images, images_of(content, [split]))
    np.testing.assert_array_equal(result.labels, content.labels[split][mode])
    assert result.class_names[1] == f"{mode} 1"
    assert len(result.class_names) == {"fine": 100, "coarse": 20}[mode]


def test_cifar100_gives_fine_training_labels_by_default(write_binary, tmp_path):
    content = write_binary("cifar100", tmp_path)
    np.testing.assert_array_equal(cifar100(tmp_path).labels, content.labels["train"]["fine"])


@both_layouts
def test_root_may_be_the_official_folder_under_any_name(write, tmp_path):
    content = write("cifar10", tmp_path)
    assert len(cifar10(content.folder)) == 60
    renamed = content.folder.rename(tmp_path / "mine")
    assert len(cifar10(str(renamed), "test")) == 10


def test_the_binary_folder_is_preferred(write_binary, write_python, tmp_path):
    write_python("cifar10", tmp_path)
    (write_binary("cifar10", tmp_path).folder / "test_batch.bin").unlink()
    assert "test_batch.bin" in message(cifar10, tmp_path, "test")


@pytest.mark.parametrize("suffix", ["", "/cifar-10-batches-bin"])
def test_a_missing_folder_is_named_with_the_command_that_helps(tmp_path, suffix):
    root = f"{tmp_path}/none{suffix}"
    assert message(cifar10, root) == (
        f"{root}: found neither cifar-10-batches-bin nor cifar-10-batches-py; expected one of them here; "
        f"run: maam data cifar10 {root}"
    )


@pytest.mark.parametrize("name", ["cifar-10-batches-bin", "cifar-10-batches-py"])
def test_an_empty_official_folder_lacks_its_files(tmp_path, name):
    (tmp_path / name).mkdir()
    assert "the file is missing" in message(cifar10, tmp_path / name)


@both_layouts
@pytest.mark.parametrize("names", [True, False])
def test_a_missing_file_is_named(write, tmp_path, names):
    folder = write("cifar10", tmp_path).folder
    file = next(folder.glob("batches.meta*" if names else "data_batch_3*"))
    file.unlink()
    text = message(cifar10, tmp_path)
    assert text.startswith(f"{file}: the file is missing")
    assert text.endswith(f"run: maam data cifar10 {tmp_path}")


@pytest.mark.parametrize("size", [0, 1, 12 * 3073 - 1, 12 * 3073 + 1, 13 * 3073])
def test_a_binary_file_of_another_size_is_refused(write_binary, tmp_path, size):
    file = write_binary("cifar10", tmp_path).folder / "data_batch_2.bin"
    file.write_bytes((file.read_bytes() + bytes(3073))[:size])
    assert message(cifar10, tmp_path) == (
        f"{file}: {size} bytes; expected 36876 bytes (12 records of 3073); run: maam data cifar10 {tmp_path}"
    )


@pytest.mark.parametrize(("column", "label", "kind"), [(0, 20, "coarse"), (1, 100, "fine")])
@pytest.mark.parametrize("mode", ["fine", "coarse"])
def test_a_binary_label_out_of_range_is_refused(write_binary, tmp_path, column, label, kind, mode):
    file = write_binary("cifar100", tmp_path).folder / "test.bin"
    content = bytearray(file.read_bytes())
    content[7 * 3074 + column] = label
    file.write_bytes(content)
    text = message(cifar100, tmp_path, "test", label_mode=mode)
    assert f"{file}: record 7 has {kind} label {label}; expected a label in 0..{label - 1}" in text


@pytest.mark.parametrize("content", [b"", b"airplane\n" * 9, b"airplane\n" * 11, b"\xff\xfe\x00"])
def test_wrong_binary_class_names_are_refused(write_binary, tmp_path, content):
    file = write_binary("cifar10", tmp_path).folder / "batches.meta.txt"
    file.write_bytes(content)
    assert message(cifar10, tmp_path).startswith(f"{file}: ")


def test_a_wrong_choice_is_named(tmp_path):
    assert message(cifar10, tmp_path, "val") == "split is 'val'; expected 'train' or 'test'"
    assert message(cifar100, tmp_path, label_mode="x") == "label_mode is 'x'; expected 'coarse' or 'fine'"


@both_layouts
def test_a_file_that_cannot_be_opened_is_a_data_error(write, tmp_path, monkeypatch):
    write("cifar10", tmp_path)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert "cannot be read ([Errno 13] Permission denied)" in message(cifar10, tmp_path)


def test_the_official_sizes(official_records):
    assert official_records == {
        "cifar10": {"train": 10_000, "test": 10_000},
        "cifar100": {"train": 50_000, "test": 10_000},
    }
