"""Downloads from a server on this machine that succeed."""

import hashlib
import tempfile

import numpy as np
import pytest

from maam.data import cifar10, cifar100, download
from maam.errors import DataError

FOLDER = "cifar-10-batches-bin"


def left_over(root):
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def silent(done, total):
    pass


@pytest.mark.parametrize(("name", "read"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_a_download_is_unpacked_and_can_be_read(published, root, tmp_path, name, read):
    published.publish(name) if name == "cifar100" else None
    folder = download(name, root, progress=silent)
    assert left_over(root) == [folder.name]
    source = next((tmp_path / f"source-{name}").iterdir())
    assert folder == root / source.name
    for split in ("train", "test"):
        np.testing.assert_array_equal(read(root, split).images, read(source, split).images)


def test_whole_data_is_not_downloaded_again(published, root, write_python, tmp_path):
    folder = download("cifar10", root, progress=silent)
    assert download("cifar10", root, progress=silent) == folder
    assert download("cifar10", folder, progress=silent) == folder
    python = write_python("cifar10", tmp_path / "python").folder
    assert download("cifar10", tmp_path / "python", progress=silent) == python
    assert published.requests == 1


def test_damaged_data_is_replaced_and_kept_aside(published, root):
    for name in ("test_batch.bin", "data_batch_5.bin"):
        (download("cifar10", root, progress=silent) / name).write_bytes(b"damaged " + name.encode())
    download("cifar10", root, progress=silent)
    assert len(cifar10(root)) == 60
    assert left_over(root) == [FOLDER, f"{FOLDER}-2.damaged", f"{FOLDER}.damaged"]
    assert (root / f"{FOLDER}.damaged" / "test_batch.bin").read_bytes() == b"damaged test_batch.bin"
    assert (root / f"{FOLDER}-2.damaged" / "data_batch_5.bin").read_bytes() == b"damaged data_batch_5.bin"


def test_another_url_and_checksum_are_used(published, root):
    body, published.body = published.body, b"wrong"
    with pytest.raises(DataError):
        download("cifar10", root, progress=silent)
    published.body = body
    md5 = hashlib.md5(body).hexdigest().upper()
    download.ARCHIVES["cifar10"] = download.Archive("http://127.0.0.1:1/", "0" * 32)
    assert download("cifar10", root, url=published.url, md5=md5, progress=silent) == root / FOLDER


def test_nothing_is_written_outside_the_root(published, root, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    assert download("cifar10", root, progress=silent) == root / FOLDER


@pytest.mark.parametrize("length", [None, "none"])
def test_progress_is_reported_to_the_end(published, root, monkeypatch, length):
    monkeypatch.setattr(download, "_CHUNK_BYTES", 50_000)
    published.length = length
    calls = []
    download("cifar10", root, progress=lambda done, total: calls.append((done, total)))
    size = len(published.body)
    assert [done for done, _ in calls] == [*range(50_000, size, 50_000), size]
    assert {total for _, total in calls} == {size if length is None else None}


def test_lines_are_printed_where_there_is_no_terminal(published, root, capsys):
    download("cifar10", root)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == "cifar10: 100 %"


def test_a_python_that_unpacks_unsafely(root, monkeypatch):
    monkeypatch.delattr("tarfile.data_filter")
    with pytest.raises(DataError, match=r"unpacks download unsafely; update it to 3\.10\.12, 3\.11\.4"):
        download("cifar10", root, url="http://127.0.0.1:9/none")
