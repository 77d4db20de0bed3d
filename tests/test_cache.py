"""The user's cache folder: where it is, what it keeps, and that nothing depends on it."""

from pathlib import Path

import pytest

from maam._cache import cache_folder, read_cached, write_cached

KEY = {"model": "a", "example": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MAAM_CACHE": "off"}, None),
        ({"MAAM_CACHE": "OFF", "XDG_CACHE_HOME": "/x"}, None),
        ({"MAAM_CACHE": "/some/folder", "XDG_CACHE_HOME": "/x"}, Path("/some/folder")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/maam")),
        ({"XDG_CACHE_HOME": "relative"}, Path("/home/me/.cache/maam")),
        ({}, Path("/home/me/.cache/maam")),
    ],
)
def test_folder(settings, expected, monkeypatch):
    for name in ("MAAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **settings}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


def test_results_are_kept_by_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MAAM_CACHE", str(tmp_path / "cache"))
    assert read_cached("engines", KEY) == {}
    write_cached("engines", KEY, {"engine": "torch"})
    assert read_cached("engines", KEY) == {"engine": "torch"}
    assert read_cached("engines", {**KEY, "model": "b"}) == read_cached("others", KEY) == {}
    monkeypatch.setenv("MAAM_CACHE", "off")
    assert read_cached("engines", KEY) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": 1, "result": {}}', "\udcff"])
def test_broken_files_and_folders_count_as_empty(text, tmp_path, monkeypatch):
    monkeypatch.setenv("MAAM_CACHE", str(tmp_path / "cache"))
    write_cached("engines", KEY, {"engine": "torch"})
    (path,) = (tmp_path / "cache" / "engines").iterdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_cached("engines", KEY) == {}
    write_cached("engines", KEY, {"engine": "openvino"})
    assert read_cached("engines", KEY) == {"engine": "openvino"}
    monkeypatch.setenv("MAAM_CACHE", str(path))  # a file, not a folder
    write_cached("engines", KEY, {"engine": "torch"})
    assert read_cached("engines", KEY) == {}
